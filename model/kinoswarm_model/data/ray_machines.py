"""Whether all machines of a Ray cluster see the same files and have the same packages. Owns that check.

A machine that lacks the clips would call every video undecodable, and one with another codec would give other bytes.
"""

import socket
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from kinoswarm_model.data.errors import EngineError

_PACKAGES = ("kinoswarm", "av", "numpy", "pillow", "tokenizers", "torch", "transformers")
"""What bytes depend on."""
_ANSWERS_WITHIN_S = 120.0


@dataclass(frozen=True)
class Machine:
    """One node of a cluster."""

    node_id: str
    name: str
    cpus: int


@dataclass(frozen=True)
class Sight:
    """What a machine sees and has."""

    sizes: dict[str, int | None]
    """Of files in bytes; None: not there."""
    versions: dict[str, str]


def look(files: Iterable[str]) -> Sight:
    """What this process sees of these files, and which packages it has."""
    return Sight(
        {file: _size(Path(file)) for file in files}, {one: _version(one) for one in _PACKAGES}
    )


def difference(machine: str, here: Sight, there: Sight) -> str | None:
    """What keeps a machine from giving the results that this one would, and what to do; None: nothing."""
    for file, size in here.sizes.items():
        if there.sizes.get(file) != size:
            return (
                f"{machine} does not see {file} as this machine does; put clips, result and models on storage that all "
                "machines of the cluster have under the same path"
            )
    for package, wanted in here.versions.items():
        found = there.versions.get(package, "")
        if found != wanted:
            return (
                f"{machine} has {package} {found or 'not installed'}, this machine {wanted or 'none'}; install the "
                "same versions on all machines of the cluster"
            )
    return None


def require_equal_machines(
    machines: Iterable[Machine], files: Iterable[Path], folder: Path
) -> None:
    """Raises EngineError for the first machine that differs. A new file in `folder` shows whether all see it."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix="seen-") as fresh:
        names = [fresh.name, *map(str, files)]
        here = look(names)
        for machine, there in _looks(list(machines), names):
            said = difference(machine.name, here, there)
            if said is not None:
                raise EngineError(said)


def _looks(machines: list[Machine], names: list[str]) -> list[tuple[Machine, Sight]]:
    import ray
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    asked: list[Any] = []
    for machine in machines:
        there = NodeAffinitySchedulingStrategy(machine.node_id, soft=False)
        asked.append(ray.remote(look).options(scheduling_strategy=there).remote(names))
    seen = []
    for machine, answer in zip(machines, asked, strict=True):
        try:
            seen.append((machine, ray.get(answer, timeout=_ANSWERS_WITHIN_S)))
        except RayError as error:
            raise EngineError(
                f"{machine.name} can't run kinoswarm ({str(error).strip().splitlines()[-1][:200]}); install kinoswarm "
                f"with its extras 'demo' and 'ray' there, as on {socket.gethostname()}"
            ) from error
    return seen


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
