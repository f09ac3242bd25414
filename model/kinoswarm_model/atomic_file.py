"""One file written whole or not at all. Owns the temporary name, the fsync and the rename."""

import os
from pathlib import Path


def write_atomically(path: Path, raw: bytes, *, durable: bool = True) -> None:
    """Replace `path` by a file of these bytes; a crash leaves the old file or none.

    Not `durable`: no fsync, for many small files that can be made again. Raises OSError; nothing half-written stays.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            file.write(raw)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
