"""One thread for torch: on a busy machine small operations wait for a second one far longer than they compute."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)
