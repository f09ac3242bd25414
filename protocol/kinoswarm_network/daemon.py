"""p2pd, the libp2p daemon, as our child. Owns its arguments, its start, its end and the words for why it would not.

hivemind can start it too, but then it outlives a killed process, keeps a relay open to strangers and puts its sockets
where every user can see them.
"""

import asyncio
import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path

from kinoswarm_network.durable import write_atomic
from kinoswarm_network.ipc import NetworkConfig
from kinoswarm_network.parent_death import die_with_parent
from kinoswarm_protocol.errors import LocalError
from kinoswarm_protocol.limits import NETWORK_START_TIMEOUT_S

_IDLE_TIMEOUT = "60s"
"""The daemon ends by itself when nobody opened its control socket for this long: we died in between."""

_READY = b"Peer ID:"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DaemonFiles:
    """The files that a daemon needs: its program, our identity in libp2p's form, where its control socket goes."""

    program: Path
    identity: Path
    socket: Path

    @property
    def settings(self) -> Path:
        """What no argument can say."""
        return self.socket.with_suffix(".json")


class Daemon:
    """A running p2pd."""

    def __init__(self, process: asyncio.subprocess.Process, socket: Path) -> None:
        self.socket = socket
        self.pid = process.pid
        self._process = process
        self._reading: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, files: DaemonFiles, config: NetworkConfig) -> "Daemon":
        """Start it and wait until it listens. Raises LocalError that names the address and what to do."""
        write_atomic(files.settings, _settings(config))
        try:
            process = await asyncio.create_subprocess_exec(
                files.program,
                *_arguments(files, config),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env={**os.environ, "GOLOG_LOG_LEVEL": "error"},
                preexec_fn=die_with_parent,  # it is ours alone, no other thread runs yet
            )
        except OSError as error:
            raise LocalError(
                f"cannot run the libp2p daemon {files.program}: {error.strerror}; reinstall hivemind for this platform"
            ) from error
        daemon = cls(process, files.socket)
        try:
            await asyncio.wait_for(daemon._until_ready(config), NETWORK_START_TIMEOUT_S)
        except TimeoutError:
            daemon.kill()
            raise LocalError("the libp2p daemon did not start in time; see the log") from None
        daemon._reading = asyncio.create_task(daemon._log_lines())
        return daemon

    async def wait(self) -> int:
        """Its exit status, once it has ended."""
        return await self._process.wait()

    def kill(self) -> None:
        """End it at once; it keeps nothing that matters."""
        if self._process.returncode is None:
            self._process.kill()

    async def _until_ready(self, config: NetworkConfig) -> None:
        assert self._process.stdout is not None
        last = b""
        while line := await self._process.stdout.readline():
            last = line
            if line.startswith(_READY):
                return
        await self._process.wait()
        raise LocalError(_why_not(last.decode(errors="replace").strip(), config))

    async def _log_lines(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            _log.info("p2pd: %s", line.decode(errors="replace").rstrip())


def _arguments(files: DaemonFiles, config: NetworkConfig) -> list[str]:
    given = {
        "listen": f"/unix{files.socket}",
        "id": str(files.identity),
        "idleTimeout": _IDLE_TIMEOUT,
        "connManager": "1",
        "natPortMap": str(int(config.nat_port_map)),
        "f": str(files.settings),
        "relay": str(int(config.relay_for_others)),
        "relayService": "0",  # the bounded service of _settings, not the one of 4 GiB and 30 min for every stranger
        "dhtClient" if config.client_mode else "dhtServer": "1",
    }
    if config.listen:
        given["hostAddrs"] = ",".join(config.listen)
    else:
        given["noListenAddrs"] = "1"
    if config.announce:
        given["announceAddrs"] = ",".join(config.announce)
    return [f"-{name}={value}" for name, value in given.items()]


def _settings(config: NetworkConfig) -> bytes:
    """Whether circuits of others go through this daemon: with 2 min and 128 KiB each, go-libp2p's own bounds.

    `-relay=0` leaves the default of the settings as it is, which is on, and `-relayService=0` stops only a second,
    larger service beside the first (p2pd/main.go of learning-at-home/go-libp2p-daemon).
    """
    return json.dumps({"Relay": {"Enabled": config.relay_for_others}}).encode()


def _why_not(last_line: str, config: NetworkConfig) -> str:
    addresses = ", ".join(config.listen)
    if "address already in use" in last_line:
        return (
            f"cannot listen on {addresses}: the port is taken by another program; stop that program or choose "
            "another port (0 is any free one)"
        )
    if "cannot assign requested address" in last_line:
        return f"cannot listen on {addresses}: this machine does not have that address; use 0.0.0.0 or its own one"
    if "permission denied" in last_line:
        return f"cannot listen on {addresses}: ports below 1024 need special rights; choose a higher one"
    if "parse multiaddr" in last_line:
        return f"cannot listen on {addresses}: not a multiaddress such as /ip4/0.0.0.0/tcp/4001 ({last_line})"
    return f"the libp2p daemon would not start on {addresses}: {last_line or 'it said nothing'}"
