"""A look at a swarm over py-libp2p alone: no hivemind, no Go program, no torch, no web address. Owns whom to ask.

Without a DHT, records come from those whose addresses are known: the coordinators of the invite, then any other peer.
"""

import contextlib
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kinoswarm_network.client import NetworkConfig
from kinoswarm_network.coordinator_client import CoordinatorClient
from kinoswarm_network.identity import load_or_create_key
from kinoswarm_network.light_client import LightClient
from kinoswarm_network.multiaddresses import peer_in
from kinoswarm_network.transport import PeerTransport
from kinoswarm_node.peer_network import hints_of, peer_addresses
from kinoswarm_node.ports import OnBytes
from kinoswarm_protocol.charter_chain import OpenedChain, open_chain
from kinoswarm_protocol.errors import LocalError, RemoteError, Unreachable
from kinoswarm_protocol.ids import BlobId, PeerId
from kinoswarm_protocol.invite import Invite
from kinoswarm_protocol.limits import MAX_CHAIN_BYTES
from kinoswarm_protocol.messages import Lookup, ProviderHint, Records
from kinoswarm_protocol.records import CHARTER_KEY, Authority, CharterRecord, newest, open_record


@dataclass(frozen=True)
class LightVisit:
    """An open way to a swarm's peers."""

    invite: Invite
    light: LightClient
    hints: list[ProviderHint]
    """Everybody whose address is known, coordinators first."""
    desks: list[CoordinatorClient]
    """One for each of `hints`."""

    async def authority(self) -> Authority:
        """Whose signatures count now: by the founder's newest charter that a peer brings, else by the invite."""
        invite = self.invite
        known = Authority(invite.swarm, invite.founder, frozenset(invite.coordinators))
        with contextlib.suppress(RemoteError):
            chain = await self._charter_chain(known)
            if chain is not None:
                return replace(known, coordinators=frozenset(chain.charter.coordinators))
        return known

    async def _charter_chain(self, known: Authority) -> OpenedChain | None:
        records = [open_record(raw, known) for raw in await self.look_up(CHARTER_KEY)]
        record = newest(records, _now_ms())
        if record is None or not isinstance(record.body, CharterRecord):
            return None
        path = await self.fetch(BlobId(record.body.blob), lambda done, total: None)
        with path.open("rb") as file:
            return open_chain(file.read(MAX_CHAIN_BYTES + 1), self.invite.swarm)

    async def look_up(self, key: str) -> list[bytes]:
        """Signed records under a key from the first peer that has some. Raises Unreachable when nobody answers."""
        problems, answered = [], False
        for desk in self.desks:
            try:
                records = (await desk.ask(Lookup(key=key), Records)).records
            except RemoteError as error:
                problems.append(str(error))
                continue
            if records:
                return records
            answered = True
        if answered:
            return []
        raise Unreachable(
            f"no peer of the swarm could be asked ({'; '.join(problems)}). If you know another one, name it with --peer"
        )

    async def fetch(self, blob: BlobId, on_bytes: OnBytes) -> Path:
        """A verified blob from the first peer that has it; resumes. Raises a RemoteError or LocalError."""
        return await self.light.fetch_blob(blob, self.hints, on_bytes)


@contextlib.asynccontextmanager
async def light_visiting(
    invite: Invite, scratch: Path, peers: Sequence[str] = ()
) -> AsyncIterator[LightVisit]:
    """A light process under a key of no meaning; blobs go to `scratch`, which stays.

    Raises LocalError when py-libp2p is not installed, or no peer's address is known.
    """
    hints = _known(invite, peers)
    with tempfile.TemporaryDirectory(prefix="kinoswarm-light-") as folder:
        config = NetworkConfig(
            home=folder,
            swarm=invite.swarm,
            key_file=str(Path(folder) / "visitor.key"),
            founder=invite.founder,
            coordinators=list(invite.coordinators),
            store=str(scratch),
            listen=[],
        )
        key = load_or_create_key(Path(config.key_file))
        light = await LightClient.start(config)
        ways = [PeerTransport(light, hint.peer, hint.addresses) for hint in hints]
        desks = [
            CoordinatorClient(key, invite.swarm, [hint.peer], [way])
            for hint, way in zip(hints, ways, strict=True)
        ]
        try:
            yield LightVisit(invite, light, hints, desks)
        finally:
            await light.stop()


def _known(invite: Invite, peers: Sequence[str]) -> list[ProviderHint]:
    """Coordinators, then the invite's other peers, then `peers`; each once, with all its addresses."""
    addresses = peer_addresses([*invite.addresses, *peers])
    others = [PeerId(found) for address in addresses if (found := peer_in(address))]
    everybody = list(dict.fromkeys([*invite.coordinators, *others]))
    hints = [hint for hint in hints_of(everybody, addresses) if hint.addresses]
    if not hints:
        raise LocalError(
            "--light needs a peer's address (/ip4/…/p2p/…): the invite holds none; name one with --peer, or leave "
            "--light out"
        )
    return hints


def _now_ms() -> int:
    return int(time.time() * 1000)
