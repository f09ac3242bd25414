"""Every reader of foreign bytes against the kept inputs of the fuzzer and against changed good ones."""

from random import Random

import pytest
from fuzz.corpus import FOLDER, kept
from fuzz.mutation import mutated
from fuzz.readers import TARGETS
from fuzz.target import NotTheSame, Target, try_once

CHANGES = 150
every_reader = pytest.mark.parametrize("name", TARGETS)


@every_reader
def test_good_inputs_are_read(name: str) -> None:
    assert any(try_once(TARGETS[name], raw) for raw in TARGETS[name].samples())


@every_reader
def test_what_the_fuzzer_kept_is_read_or_refused_with_our_errors(name: str) -> None:
    for raw in kept(name):
        try_once(TARGETS[name], raw)


@every_reader
def test_changed_inputs_are_read_or_refused_with_our_errors(name: str) -> None:
    target, chance = TARGETS[name], Random(name)
    samples = target.samples()
    for _ in range(CHANGES):
        raw = chance.choice(samples)
        for _ in range(chance.choice((1, 2, 3))):
            raw = mutated(raw, chance, target.max_bytes)
        try_once(target, raw)


def test_every_kept_corpus_belongs_to_a_reader_and_every_reader_has_one() -> None:
    found = {path.name.removesuffix("_seed_corpus.zip") for path in FOLDER.iterdir()}
    assert found == set(TARGETS)


def test_a_reader_that_crashes_or_forgets_is_noticed() -> None:
    with pytest.raises(UnicodeDecodeError):
        try_once(Target(lambda raw: raw.decode(), lambda: []), b"\xff")
    with pytest.raises(NotTheSame):
        try_once(Target(len, lambda: [], again=lambda length: b"x" * (length + 1)), b"xx")
