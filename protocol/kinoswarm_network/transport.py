"""One way to one peer: ask it, and fetch blobs. Owns the interface; libp2p and HTTP are its two implementations."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from kinoswarm_network.link import OnProgress
from kinoswarm_protocol.ids import BlobId, LeaseId, PeerId
from kinoswarm_protocol.limits import CONTROL_TIMEOUT_S
from kinoswarm_protocol.messages import ProviderHint


class Transport(Protocol):
    """A way to one peer, mostly a coordinator. `str()` of it names the way in messages for users."""

    async def ask(self, request: bytes) -> bytes:
        """The peer's answer to a control request. Raises Unreachable, Refused or another RemoteError."""

    async def fetch_blob(
        self,
        blob: BlobId,
        providers: Sequence[ProviderHint] = (),
        on_progress: OnProgress | None = None,
    ) -> Path:
        """A complete, verified blob, from the peer itself and, where the way allows, from `providers`; resumes.

        Raises a RemoteError when nobody gives it, LocalError when the disk is full.
        """

    async def deliver(self, lease_id: LeaseId, blob: BlobId) -> None:
        """See to it that the peer can have a blob of ours, which our contribution under this lease names; resumes.

        Raises a RemoteError when the peer does not take it, LocalError when the blob is not here.
        """


class PeerClient(Protocol):
    """A process of ours that speaks libp2p: NetworkClient, or LightClient with another implementation of it."""

    async def control(
        self, peer: PeerId, addresses: Sequence[str], request: bytes, timeout_s: float
    ) -> bytes:
        """The peer's answer to a control request. Raises Unreachable or Refused."""

    async def fetch_blob(
        self, blob: BlobId, providers: Sequence[ProviderHint], on_progress: OnProgress | None = None
    ) -> Path:
        """Bring a blob here, every chunk verified; resumes. Raises a RemoteError or LocalError."""


class PeerTransport:
    """libp2p streams to a peer, through a network process."""

    def __init__(self, client: PeerClient, peer: PeerId, addresses: Sequence[str]) -> None:
        self._client = client
        self._hint = ProviderHint(peer=peer, addresses=list(addresses))

    def __str__(self) -> str:
        return f"peer {self._hint.peer}"

    async def ask(self, request: bytes) -> bytes:
        """See Transport."""
        return await self._client.control(
            self._hint.peer, self._hint.addresses, request, CONTROL_TIMEOUT_S
        )

    async def fetch_blob(
        self,
        blob: BlobId,
        providers: Sequence[ProviderHint] = (),
        on_progress: OnProgress | None = None,
    ) -> Path:
        """See Transport."""
        return await self._client.fetch_blob(blob, [self._hint, *providers], on_progress)

    async def deliver(self, lease_id: LeaseId, blob: BlobId) -> None:
        """See Transport: the peer fetches it over the connection on which it was asked."""
