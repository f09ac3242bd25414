"""The service's side of the light network process. Owns starting and ending it; imports neither libp2p nor hivemind.

It speaks the network process's frames, over pipes instead of a socket, so that it runs wherever Python does.
"""

import asyncio
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from kinoswarm_network import ipc
from kinoswarm_network.client import network_environment
from kinoswarm_network.durable import disk_errors
from kinoswarm_network.link import Link, OnProgress
from kinoswarm_protocol.errors import LocalError, MalformedBytes, Unreachable
from kinoswarm_protocol.ids import BlobId, PeerId
from kinoswarm_protocol.limits import (
    CONTROL_TIMEOUT_S,
    MAX_IPC_FRAME,
    NETWORK_START_TIMEOUT_S,
    NETWORK_STOP_TIMEOUT_S,
)
from kinoswarm_protocol.messages import ProviderHint

T = TypeVar("T")
_PROGRAM = (sys.executable, "-m", "kinoswarm_network.light")
_NOT_INSTALLED = 3
"""Exit status of the program when py-libp2p is missing."""
_SLACK_S = 5.0
"""How much longer we wait than the process itself does, so that its better worded error comes first."""


class LightClient:
    """One running light process. Start it with `start`, end it with `stop`."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._log = log
        self._link = Link(process.stdout, process.stdin, _take_no_call, "the light process")
        self._serving = asyncio.create_task(self._link.serve())

    @classmethod
    async def start(cls, config: ipc.NetworkConfig) -> "LightClient":
        """Start the process. Raises LocalError when py-libp2p is not installed or its folders can't be used."""
        log = Path(config.log_file) if config.log_file else Path(config.home) / "light.log"
        with disk_errors(log, 4_096):
            log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with log.open("ab") as errors:
                process = await asyncio.create_subprocess_exec(
                    *_PROGRAM,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=errors,
                    env=network_environment(),
                    limit=MAX_IPC_FRAME,
                )
        client = cls(process, log)
        try:
            start = ipc.Start(config=config)
            await client._link.call(start, ipc.Ready, NETWORK_START_TIMEOUT_S)
        except BaseException as error:
            await client.stop()
            if isinstance(error, LocalError) and process.returncode == _NOT_INSTALLED:
                raise LocalError(
                    "--light needs py-libp2p: pip install 'kinoswarm[light]'"
                ) from error
            raise
        return client

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    async def control(
        self,
        peer: PeerId,
        addresses: Sequence[str],
        request: bytes,
        timeout_s: float = CONTROL_TIMEOUT_S,
    ) -> bytes:
        """The peer's answer to a control request. Raises Unreachable or Refused."""
        call = ipc.Control(
            peer=peer, addresses=list(addresses), request=request, timeout_s=timeout_s
        )
        return (await self._call(call, ipc.Reply, timeout_s + _SLACK_S)).data

    async def fetch_blob(
        self, blob: BlobId, providers: Sequence[ProviderHint], on_progress: OnProgress | None = None
    ) -> Path:
        """Bring a blob here, every chunk verified; resumes. Cancelling stops it.

        Raises Unreachable, Refused or HashMismatch; LocalError when the disk is full.
        """
        call = ipc.FetchBlob(blob=blob, providers=list(providers))
        return Path((await self._call(call, ipc.Blob, None, on_progress)).path)

    async def stop(self) -> None:
        """End the process. Harmless when it is gone already."""
        if not self._serving.done():
            with contextlib.suppress(LocalError):  # it ends instead of answering
                await self._link.call(ipc.Stop(), ipc.Done, NETWORK_STOP_TIMEOUT_S)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), NETWORK_STOP_TIMEOUT_S)
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        await self._process.wait()
        await asyncio.gather(self._serving, return_exceptions=True)

    async def _call(
        self,
        body: ipc.Body,
        expected: type[T],
        timeout_s: float | None,
        on_progress: OnProgress | None = None,
    ) -> T:
        try:
            return await self._link.call(body, expected, timeout_s, on_progress)
        except LocalError as error:
            if not self._serving.done():
                raise
            raise Unreachable(
                f"the light process ended, most likely by what a peer did ({self._log} says more); run the same "
                "command again, it goes on where it stopped"
            ) from error


async def _take_no_call(body: ipc.Body, on_progress: OnProgress) -> ipc.Body:
    raise MalformedBytes(f"{type(body).__name__} is not a call to the service")
