"""The page's own files, read once. Owns their addresses, which hold their hash: a cache may keep them forever."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

_FOLDER = Path(__file__).parent / "static"
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


@dataclass(frozen=True)
class Asset:
    data: bytes
    media_type: str


@dataclass(frozen=True)
class Assets:
    """All files under one digest: a change of any changes the address of all."""

    digest: str
    files: dict[str, Asset]

    def address(self, name: str) -> str:
        """Where `name` is served."""
        assert name in self.files, f"{name} is not in {sorted(self.files)}"
        return f"/static/{self.digest}/{name}"


def load_assets() -> Assets:
    """Every file of the folder; a few tens of kB."""
    files = {
        path.name: Asset(path.read_bytes(), _TYPES[path.suffix])
        for path in sorted(_FOLDER.iterdir())
        if path.suffix in _TYPES
    }
    digest = hashlib.sha256()
    for name, asset in files.items():
        digest.update(f"{name}\0{len(asset.data)}\0".encode() + asset.data)
    return Assets(digest.hexdigest()[:16], files)
