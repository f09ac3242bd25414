"""The fuzzing process of one reader: our modules are instrumented as they are imported, then libFuzzer takes over."""

import sys
from random import Random

import atheris

with atheris.instrument_imports(
    include=["kinoswarm_protocol", "kinoswarm_network", "kinoswarm_model", "kinoswarm_node"]
):
    from fuzz.readers import TARGETS

from fuzz.mutation import mutated
from fuzz.target import try_once


def main() -> None:
    name, *options = sys.argv[1:]
    target = TARGETS[name]

    def one(raw: bytes) -> None:
        try_once(target, raw)

    def mutator(raw: bytes, max_bytes: int, seed: int) -> bytes:
        chance = Random(seed)
        if chance.random() < 0.5:
            return bytes(atheris.Mutate(raw, max_bytes))
        return mutated(raw, chance, max_bytes)

    atheris.Setup([sys.argv[0], *options], one, custom_mutator=mutator)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
