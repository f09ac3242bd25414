"""One finished cell of the grid: a configuration, a seed, and all that was measured. Owns the JSON files."""

import os
import platform
import subprocess
from pathlib import Path

import msgspec
from benchmarks.quality.measure import Figures, RealFigures
from benchmarks.quality.regime import Regime
from benchmarks.quality.sides import Setup, Spent
from msgspec import Struct

RESULTS = Path(__file__).parent.parent / "results" / "quality"


class Cell(Struct, frozen=True, kw_only=True):
    """Everything about one training and its measurements; the table reads nothing else."""

    name: str
    """Of the configuration."""
    seed: int
    regime: Regime
    setup: Setup
    parameters: int
    """Of one network."""
    spent: Spent
    heldout_loss: float
    router_accuracy_by_t: list[tuple[float, float]]
    guidance_sweep: list[Figures]
    """With few clips, at guidances that are the same for every side: what the guidance was chosen by."""
    figures: list[Figures]
    """Top-1 at the chosen guidance, with the full number of clips unless the cell only selects."""
    alike: list[Figures] = []
    """Top-1 with the full number of clips at guidances that are the same for every side."""
    routings: list[Figures] = []
    """The other ways to mix experts at the chosen guidance, with as many clips as `figures`."""
    real: RealFigures
    aesthetic: str
    """The score, or what is missing to have one."""
    cpu_seconds: float
    """Of training."""
    command: str
    machine: str
    commit: str
    note: str = ""
    """How it was trained, where that was not by the bare loop."""
    trained_at: str = ""
    """Commit of the training where it was another one: weights are kept, and only measured anew."""

    @property
    def label(self) -> str:
        """File name without its ending."""
        return f"{self.name}-seed{self.seed}"


def cell_path(folder: Path, name: str, seed: int) -> Path:
    """Where a cell lies, finished or not."""
    return folder / f"{name}-seed{seed}.json"


def write_cell(folder: Path, cell: Cell) -> Path:
    """Write a finished cell atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    path = cell_path(folder, cell.name, cell.seed)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    temporary.write_bytes(msgspec.json.format(msgspec.json.encode(cell), indent=1) + b"\n")
    os.replace(temporary, path)
    return path


def read_cells(folder: Path) -> list[Cell]:
    """All finished cells, by name and seed."""
    cells = [msgspec.json.decode(path.read_bytes(), type=Cell) for path in folder.glob("*.json")]
    return sorted(cells, key=lambda cell: (cell.name, cell.seed))


def machine_words() -> str:
    """The machine in words: system, cores, Python; no names of hosts or kernels."""
    system, version = platform.system(), platform.python_version()
    return f"{system} {platform.machine()}, {os.cpu_count()} cores, Python {version}"


def commit_here() -> str:
    """The commit of this checkout, with "+" when files differ from it."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no")
    return git("rev-parse", "HEAD") + ("+" if changed else "")
