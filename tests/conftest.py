"""How every test runs, and what it leaves as it found it. Owns no fixture that a test asks for by name."""

import os
import sys
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# Tests run beside each other and start processes of their own: a second thread of one of them waits far longer than it
# computes. Before anything imports torch, which reads this once.
os.environ["OMP_NUM_THREADS"] = "1"

# A property is wrong or it is not; how long an example takes on a busy machine says nothing about it.
settings.register_profile(
    "no wall clock", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("no wall clock")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long ones first: a file of real processes that begins last is waited for by all other cores."""
    items.sort(key=lambda item: item.get_closest_marker("e2e") is None)


@pytest.fixture(autouse=True)
def _torch_as_it_was() -> Iterator[None]:
    """Workers flush denormal floats to zero in the whole process (hypothesis refuses to run so) and take threads."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)
        sys.modules["torch"].set_num_threads(1)
