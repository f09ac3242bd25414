"""The kept inputs of every reader: one zip a reader, equal inputs giving equal bytes."""

import hashlib
import zipfile
from collections.abc import Iterable
from pathlib import Path

FOLDER = Path(__file__).parent / "corpus"
_MOST_BYTES = 24 * 1024
_DATE = (2026, 1, 1, 0, 0, 0)


def kept(name: str) -> list[bytes]:
    """The inputs of a reader, smallest first; none before it was fuzzed."""
    path = FOLDER / f"{name}_seed_corpus.zip"
    if not path.exists():
        return []
    with zipfile.ZipFile(path) as archive:
        return sorted((archive.read(entry) for entry in archive.infolist()), key=len)


def keep(name: str, inputs: Iterable[bytes]) -> None:
    """Keep the smallest of the inputs, as many as a small file holds."""
    FOLDER.mkdir(exist_ok=True)
    path, used = FOLDER / f"{name}_seed_corpus.zip", 0
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for raw in sorted({*inputs}, key=lambda raw: (len(raw), raw)):
            used += len(raw)
            if used > _MOST_BYTES:
                break
            entry = zipfile.ZipInfo(hashlib.sha1(raw, usedforsecurity=False).hexdigest(), _DATE)
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, raw)
