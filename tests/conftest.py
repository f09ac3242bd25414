"""What every test leaves as it found it. Owns no fixture that a test asks for by name."""

import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _tiny_numbers_stay_numbers() -> Iterator[None]:
    """Workers flush denormal floats to zero, in the whole process; hypothesis refuses to run so."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)
