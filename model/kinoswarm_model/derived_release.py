"""What releases that are made from a release share: the work folder that an interrupted call goes on with, prompts from
held-out captions, the text encoder, the rename at the end. Owns these steps.
"""

from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from shutil import copytree, rmtree

from kinoswarm_model.checkpoints import write_atomic
from kinoswarm_model.data.data_manifest import MANIFEST_NAME
from kinoswarm_model.data.shards import read_shard
from kinoswarm_model.jobs import JobProgress
from kinoswarm_model.release_layout import INFO, TEXT_ENCODER, TOKENIZER
from kinoswarm_model.sample_job import most_frequent_caption
from kinoswarm_protocol.errors import LocalError

OnProgress = Callable[[int, int, str], None]
"""(done, of how many, of what)."""
_MOST_PROMPTS = 8


def reports_to(on_progress: OnProgress) -> Callable[[JobProgress], None]:
    """Where the jobs that make such a release report to."""

    def report(progress: JobProgress) -> None:
        on_progress(progress.step, progress.total, progress.what)

    return report


def fingerprint(settings: object, release: Path, data: Sequence[Path]) -> str:
    """Of all that decides the result; half-done work of another call is not used."""
    digest = sha256(repr(settings).encode())
    for path in (release / INFO, *(folder / MANIFEST_NAME for folder in data)):
        digest.update(path.read_bytes() if path.is_file() else b"")
    return digest.hexdigest()


def open_work(out: Path, mark: str) -> Path:
    """The hidden folder beside `out`: empty, or the one that an interrupted run of the same call left.

    Raises LocalError when `out` is there already.
    """
    if out.exists():
        raise LocalError(f"{out} exists already; choose a new folder")
    work = out.with_name(f".{out.name}.part")
    marker = work / "fingerprint"
    if not marker.is_file() or marker.read_text() != mark:
        rmtree(work, ignore_errors=True)
        write_atomic(marker, mark.encode())
    return work


def part_of(work: Path, name: str) -> Path:
    """A folder in it."""
    path = work / name
    path.mkdir(parents=True, exist_ok=True)
    return path


def text_encoder_of(release: Path, work: Path) -> str:
    """The release's own encoder in one folder, as jobs want it."""
    folder = part_of(work, "text")
    for part in (TEXT_ENCODER, TOKENIZER):
        copytree(release / part, folder, dirs_exist_ok=True)
    return str(folder)


def prompts_of(heldout: Sequence[str]) -> list[str]:
    """The most frequent caption of each held-out file, of the last few files."""
    shards = [read_shard(Path(path)) for path in heldout[-_MOST_PROMPTS:]]
    return [shard.captions[most_frequent_caption(shard)] for shard in shards]


def publish(work: Path, out: Path) -> None:
    """The finished release appears under its name at once; what it was made from goes."""
    (work / "release").rename(out)
    rmtree(work)
