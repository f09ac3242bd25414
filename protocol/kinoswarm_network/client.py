"""The service's side of the network process. Owns starting and ending it; imports neither hivemind nor torch.

Linux and macOS. Elsewhere, and where nobody wants peer-to-peer, `http_client.HttpSource` takes its place.
"""

import asyncio
import os
import signal
import socket
import sys
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from kinoswarm_network import ipc
from kinoswarm_network.durable import disk_errors
from kinoswarm_network.ipc import AddressReport, ConnectReport, NetworkConfig, ReachReport, Traffic
from kinoswarm_network.link import Link, OnProgress
from kinoswarm_protocol.envelope import Opened
from kinoswarm_protocol.errors import LimitExceeded, LocalError, MalformedBytes, RemoteError
from kinoswarm_protocol.ids import BlobId, PeerId
from kinoswarm_protocol.limits import (
    CONTROL_TIMEOUT_S,
    DHT_TIMEOUT_S,
    DIAL_BACK_TIMEOUT_S,
    MAX_BLOB_BYTES,
    MAX_CONTROL_FRAME,
    NETWORK_START_TIMEOUT_S,
    NETWORK_STOP_TIMEOUT_S,
)
from kinoswarm_protocol.messages import ProviderHint
from kinoswarm_protocol.records import Authority, SealedRecord, open_record

OnControl = Callable[[PeerId, bytes], Awaitable[bytes]]
Provider = ProviderHint
T = TypeVar("T")

_LOCAL_TIMEOUT_S = 10.0
"""Answers that need no peer."""

_HOSTS_KEPT = 20_000
_SLACK_S = 5.0
"""How much longer we wait than the network process itself does, so that its better worded error comes first."""

_PROGRAM = (sys.executable, "-m", "kinoswarm_network")
_ENVIRONMENT = {
    "HIVEMIND_LOGLEVEL": "WARNING",
    "HIVEMIND_COLORS": "false",
    "MKL_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


class NetworkClient:
    """One running network process. Start it from the thread that lives as long as the service: Linux kills the
    process when that thread ends."""

    def __init__(self, config: NetworkConfig, on_control: OnControl) -> None:
        self.config = config
        self.peer_id = PeerId("")
        self.addresses: list[str] = []
        """Multiaddresses ending in /p2p/<id> where this node listens; see `refresh_addresses`."""
        self.bootstrap_report = ConnectReport(reports=[])
        """What became of `config.bootstrap` at the start."""
        self._on_control = on_control
        self._hosts: OrderedDict[PeerId, str] = OrderedDict()
        self._authority = Authority(config.swarm, config.founder, frozenset(config.coordinators))
        self._process: asyncio.subprocess.Process | None = None
        self._serving: asyncio.Task[None] | None = None
        self._link: Link | None = None

    @classmethod
    async def start(
        cls, config: NetworkConfig, on_control: OnControl, program: Sequence[str] = _PROGRAM
    ) -> "NetworkClient":
        """Start the process, wait until it listens, try `config.bootstrap`.

        Raises LocalError when it cannot listen or run (the text says what to do). Unreachable bootstrap peers are no
        error: somebody has to be the first; see `bootstrap_report`.
        """
        if sys.platform == "win32":
            raise LocalError(
                "the peer-to-peer network needs Linux or macOS; here join with --https-only, and download with --light"
            )
        client = cls(config, on_control)
        try:
            await client._spawn(program)
            start = ipc.Start(config=config)
            ready = await client._ask(start, ipc.Ready, NETWORK_START_TIMEOUT_S)
            client.peer_id, client.addresses = ready.peer, ready.addresses
            if config.bootstrap:
                client.bootstrap_report = await client.connect(config.bootstrap)
        except BaseException:
            await client.stop()
            raise
        return client

    @property
    def pid(self) -> int | None:
        """The network process's id; None when it was stopped."""
        return self._process.pid if self._process is not None else None

    async def connect(self, addresses: Sequence[str]) -> ConnectReport:
        """Connect to peers and join their DHT; the report says per address what is wrong, in words for the user."""
        wait_s = self.config.connect_timeout_s + 2 * DHT_TIMEOUT_S + _SLACK_S
        return await self._ask(ipc.Connect(addresses=list(addresses)), ConnectReport, wait_s)

    async def refresh_addresses(self) -> list[str]:
        """The addresses as of now: a forwarded port or a new network shows only later."""
        ready = await self._ask(ipc.AskAddresses(), ipc.Ready, _LOCAL_TIMEOUT_S)
        self.addresses = ready.addresses
        return self.addresses

    async def reach(self) -> ReachReport:
        """Have connected peers dial this node back."""
        wait_s = DIAL_BACK_TIMEOUT_S + 2 * CONTROL_TIMEOUT_S + _SLACK_S
        return await self._ask(ipc.AskReach(), ReachReport, wait_s)

    async def control(
        self,
        peer: PeerId,
        addresses: Sequence[str],
        request: bytes,
        timeout_s: float = CONTROL_TIMEOUT_S,
    ) -> bytes:
        """The peer's answer to a control request. Raises Unreachable, Refused, or LimitExceeded for a long request."""
        if len(request) > MAX_CONTROL_FRAME:
            raise LimitExceeded(f"request of {len(request)} bytes, at most {MAX_CONTROL_FRAME}")
        call = ipc.Control(
            peer=peer, addresses=list(addresses), request=request, timeout_s=timeout_s
        )
        return (await self._ask(call, ipc.Reply, timeout_s + _SLACK_S)).data

    async def announce(self, record: SealedRecord) -> bool:
        """Put a record into the DHT. False: somebody holds it for longer already, or no peer took it.

        Raises a RemoteError when it breaks the rules of records.py, Unreachable when the DHT takes too long.
        """
        call = ipc.Announce(record=record)
        return (await self._ask(call, ipc.Stored, DHT_TIMEOUT_S + _SLACK_S)).ok

    async def look_up(self, key: str) -> list[Opened[Any]]:
        """The valid records under a plain key that the DHT knows; see `records.newest`. Raises Unreachable."""
        found = await self._ask(ipc.LookUp(key=key), ipc.Found, DHT_TIMEOUT_S + _SLACK_S)
        return [opened for raw in found.values if (opened := self._opened(raw, key)) is not None]

    async def set_authority(self, founder: PeerId, coordinators: Sequence[PeerId]) -> None:
        """Whose records count from now on; after the charter or an amendment became known."""
        call = ipc.SetAuthority(founder=founder, coordinators=list(coordinators))
        await self._ask(call, ipc.Done, _LOCAL_TIMEOUT_S)
        self._authority = Authority(self.config.swarm, founder, frozenset(coordinators))

    async def add_blob(self, path: Path) -> BlobId:
        """Copy a file into the store and serve it; the same file again costs only reading it. Raises LocalError."""
        return (await self._ask(ipc.AddBlob(path=str(path.resolve())), ipc.Blob, None)).blob

    async def blob_path(self, blob: BlobId) -> Path | None:
        """Where a whole, verified blob lies, brought from the shelf when that has it; else None. Never write to it."""
        found = await self._ask(ipc.FindBlob(blob=blob), ipc.Blob, None)
        return Path(found.path) if found.path else None

    async def drop_blob(self, blob: BlobId) -> None:
        """Delete a blob and what an interrupted download of it left."""
        await self._ask(ipc.DropBlob(blob=blob), ipc.Done, _LOCAL_TIMEOUT_S)

    async def pin(self, blob: BlobId) -> None:
        """Keep a blob whatever the quota says; may come before the blob does."""
        await self._ask(ipc.PinBlob(blob=blob, pinned=True), ipc.Done, _LOCAL_TIMEOUT_S)

    async def unpin(self, blob: BlobId) -> None:
        """The blob may go when space is needed."""
        await self._ask(ipc.PinBlob(blob=blob, pinned=False), ipc.Done, _LOCAL_TIMEOUT_S)

    async def fetch_blob(
        self,
        blob: BlobId,
        providers: Sequence[Provider],
        on_progress: OnProgress | None = None,
        *,
        max_bytes: int = MAX_BLOB_BYTES,
    ) -> Path:
        """Bring a blob here from several providers at once, every chunk verified; resumes. Cancelling stops it.

        Raises Unreachable, Refused or HashMismatch with every provider's reason; LimitExceeded when it has more than
        `max_bytes`; LocalError when the disk is full.
        """
        call = ipc.FetchBlob(blob=blob, providers=list(providers), max_bytes=max_bytes)
        return Path((await self._ask(call, ipc.Blob, None, on_progress)).path)

    async def traffic(self) -> Traffic:
        """What was moved since the start."""
        return await self._ask(ipc.AskTraffic(), Traffic, _LOCAL_TIMEOUT_S)

    async def wait_ended(self) -> None:
        """Return when the process is gone, whyever: the service may start a new one with the same home."""
        if self._process is not None:
            await self._process.wait()

    async def stop(self) -> None:
        """End the process and its p2pd; nothing of them is left. Harmless when they are gone already."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None and self._link is not None:
            await self._end_gently(process)
        _kill_group(process.pid)
        await process.wait()
        if self._serving is not None:
            await asyncio.gather(self._serving, return_exceptions=True)

    async def _end_gently(self, process: asyncio.subprocess.Process) -> None:
        try:
            await self._ask(ipc.Stop(), ipc.Done, NETWORK_STOP_TIMEOUT_S)
            await asyncio.wait_for(process.wait(), NETWORK_STOP_TIMEOUT_S)
        except (LocalError, TimeoutError):
            return  # it is killed next

    async def _spawn(self, program: Sequence[str]) -> None:
        ours, theirs = socket.socketpair()
        with theirs, self._open_log() as log:
            self._process = await asyncio.create_subprocess_exec(
                *program,
                str(theirs.fileno()),
                str(os.getpid()),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[theirs.fileno()],
                env=network_environment(),
                start_new_session=True,  # Ctrl-C is the service's to handle; and one group to kill
            )
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        self._link = Link(reader, writer, self._handle, "the network process")
        self._serving = asyncio.create_task(self._link.serve())

    def _open_log(self) -> BinaryIO:
        path = self._log_path()
        with disk_errors(path, 4_096):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            return path.open("ab")

    def _log_path(self) -> Path:
        config = self.config
        return Path(config.log_file) if config.log_file else Path(config.home) / "network.log"

    async def _handle(self, body: ipc.Body, _: OnProgress) -> ipc.Body:
        if not isinstance(body, ipc.InboundControl):
            raise MalformedBytes(f"{type(body).__name__} is not a call to the service")
        self._note_host(body.peer, body.seen_at)
        return ipc.Reply(data=await self._on_control(body.peer, body.request))

    def host_of(self, peer: PeerId) -> str:
        """The IP address from which `peer` asked last over libp2p; empty when that is not known."""
        return self._hosts.get(peer, "")

    def _note_host(self, peer: PeerId, host: str) -> None:
        self._hosts.pop(peer, None)
        self._hosts[peer] = host
        if len(self._hosts) > _HOSTS_KEPT:
            self._hosts.popitem(last=False)

    async def _ask(
        self,
        body: ipc.Body,
        expected: type[T],
        timeout_s: float | None,
        on_progress: OnProgress | None = None,
    ) -> T:
        if self._link is None:
            raise LocalError("the network process is not running")
        return await self._link.call(body, expected, timeout_s, on_progress)

    def _opened(self, raw: bytes, key: str) -> Opened[Any] | None:
        try:
            opened = open_record(raw, self._authority)
        except RemoteError:
            return None  # the DHT is a hint; what is not signed by whom it should be is no record
        return opened if opened.body.key == key else None


def network_environment() -> dict[str, str]:
    """Ours, without needless threads, and able to import this package wherever it lies."""
    package_root = str(Path(__file__).resolve().parent.parent)
    search = os.pathsep.join(filter(None, [package_root, os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, **_ENVIRONMENT, "PYTHONPATH": search}


def _kill_group(leader: int) -> None:
    """Kill the process and its p2pd, which form a group of their own."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return


__all__ = [
    "AddressReport",
    "ConnectReport",
    "NetworkClient",
    "NetworkConfig",
    "Provider",
    "ReachReport",
    "Traffic",
]
