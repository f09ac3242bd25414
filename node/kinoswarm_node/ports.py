"""What the daemon needs from the network and from the worker, as interfaces. Owns no behaviour.

The real ones are kinoswarm_network's client and kinoswarm_model's supervisor (see wiring.py); tests script their own.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from kinoswarm_model.jobs import Done, Job, JobProgress
from kinoswarm_protocol.ids import BlobId
from kinoswarm_protocol.messages import ProviderHint

OnBytes = Callable[[int, int], None]
"""(bytes here, bytes in all)."""


class Network(Protocol):
    """Blobs in and out, and what others may know of this node."""

    async def start(self, addresses: Sequence[str]) -> None:
        """Start and try `addresses`; a second call only connects. Raises LocalError when it can't start."""

    async def add_blob(self, path: Path) -> BlobId:
        """Put a file into the store, pinned and served to others."""

    async def unpin(self, blob: BlobId) -> None:
        """The blob may go when space is needed."""

    async def blob_path(self, blob: BlobId) -> Path | None:
        """Where a whole, verified blob lies; None when it is not here."""

    async def fetch_blob(
        self, blob: BlobId, providers: Sequence[ProviderHint], on_bytes: OnBytes
    ) -> Path:
        """Bring a blob here, every chunk verified; resumes. Raises Unreachable."""

    async def announce(self, state: str, cluster: int | None, blobs: Sequence[BlobId]) -> None:
        """Tell the DHT what this node does and serves; never an address of its owner."""

    def addresses(self) -> list[str]:
        """Where others may dial this node; empty when nobody can."""

    async def stop(self) -> None:
        """End the network process; nothing of it is left."""


class WorkerDeath(Exception):
    """The worker process ended in the middle of a job."""


class JobRefused(Exception):
    """The worker says that the job can't be done: its code, its sentence, and whether memory was short."""

    def __init__(self, code: str, sentence: str, out_of_memory: bool) -> None:
        super().__init__(sentence)
        self.code = code
        self.out_of_memory = out_of_memory


class Trainer(Protocol):
    """Runs jobs in a worker process, one at a time."""

    async def run(self, job: Job, on_progress: Callable[[JobProgress], None]) -> Done:
        """The result. Raises WorkerDeath or JobRefused; cancelling ends the worker at once."""

    async def stop(self) -> None:
        """End the worker; memory is given back."""
