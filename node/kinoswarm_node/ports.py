"""What the daemon needs from the network and from the worker, as interfaces. Owns no behaviour.

The real ones are kinoswarm_network's client and kinoswarm_model's supervisor (see wiring.py); tests script their own.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from kinoswarm_model.jobs import Done, Job, JobProgress
from kinoswarm_network.transport import Transport
from kinoswarm_protocol.envelope import Opened
from kinoswarm_protocol.ids import BlobId, PeerId
from kinoswarm_protocol.messages import ProviderHint
from kinoswarm_protocol.records import NodeRecord

OnBytes = Callable[[int, int], None]
"""(bytes here, bytes in all)."""


class Network(Protocol):
    """Blobs in and out, and what others may know of this node."""

    async def start(self) -> None:
        """Start, or start again what ended, and meet known peers. Raises LocalError when it can't start."""

    def transports(self) -> list[Transport]:
        """The ways to the coordinators that are open now."""

    async def believe(
        self, founder: PeerId, coordinators: Sequence[PeerId], addresses: Sequence[str]
    ) -> None:
        """Whose records count and where coordinators are, once the charter is known and whenever it is amended."""

    async def charter_chains(self) -> list[bytes]:
        """Chains of the charter that anybody hands out, unchecked: of web addresses, and of the DHT."""

    async def remember_peers(self, hints: Sequence[ProviderHint]) -> None:
        """Peers worth trying first at the next start."""

    async def add_blob(self, path: Path) -> BlobId:
        """Put a file into the store, pinned and served to others."""

    async def pin(self, blob: BlobId) -> None:
        """Keep the blob whatever the disk's quota says."""

    async def unpin(self, blob: BlobId) -> None:
        """The blob may go when space is needed."""

    async def blob_path(self, blob: BlobId) -> Path | None:
        """Where a whole, verified blob lies; None when it is not here."""

    async def fetch_blob(
        self, blob: BlobId, providers: Sequence[ProviderHint], on_bytes: OnBytes
    ) -> Path:
        """Bring a blob here, every chunk verified; resumes. Raises Unreachable."""

    async def announce(self, record: NodeRecord, blobs: Sequence[BlobId]) -> None:
        """Tell the DHT what this node does, and where some blobs are served."""

    async def announce_again(self, record: Opened[Any]) -> None:
        """Give somebody else's signed record a fresh life in the DHT. Raises a RemoteError when it breaks a rule."""

    async def look_up(self, key: str) -> list[bytes]:
        """The valid records under a plain key that the DHT knows. Raises Unreachable."""

    def addresses(self) -> list[str]:
        """Where others may dial this node; empty when nobody can."""

    def reach(self) -> str:
        """Whether strangers can dial this node, and what would help, in words; empty while nobody has tried."""

    async def stop(self) -> None:
        """End the network process; nothing of it is left."""


class Trainer(Protocol):
    """Runs jobs in a worker process, one at a time; kinoswarm_model.supervisor.WorkerSupervisor is the real one."""

    devices: list[str]
    """What the worker found, best first; empty before it started."""

    confined: list[str]
    """What the worker may not do, in words; empty before it started."""

    async def start(self) -> None:
        """Start the worker unless it runs. Raises WorkerDied."""

    def limit(self, share: float) -> None:
        """Let it compute only this share of the time; 1 is always."""

    async def run(self, job: Job, on_progress: Callable[[JobProgress], None]) -> Done:
        """The result. Raises WorkerDied or WorkerError; cancelling ends the worker at once."""

    async def stop(self) -> None:
        """End the worker; memory is given back."""
