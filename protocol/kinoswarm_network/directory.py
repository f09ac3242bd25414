"""Our part of the swarm's DHT: joining it, announcing records, looking them up. Owns the DHT node and its validator."""

import asyncio
import logging
import math
import random
import time
from contextlib import suppress
from typing import Any

from kinoswarm_network.hivemind_parts import HivemindParts
from kinoswarm_network.host import Host
from kinoswarm_protocol.codec import decode
from kinoswarm_protocol.errors import (
    LimitExceeded,
    RemoteError,
    Unreachable,
)
from kinoswarm_protocol.ids import BlobId, PeerId
from kinoswarm_protocol.limits import (
    DHT_TIMEOUT_S,
    MAX_CLOCK_SKEW_MS,
    MAX_KEYS_STORED,
    MAX_RECORD_BYTES,
    MAX_RECORDS_PER_KEY,
    PING_TIMEOUT_S,
)
from kinoswarm_protocol.messages import ProviderHint
from kinoswarm_protocol.records import (
    Authority,
    ProviderRecord,
    SealedRecord,
    check_record,
    hash_of_key,
    open_record,
    provider_keys,
)

_OVERHEAD = 16  # MessagePack's own bytes around a value
_log = logging.getLogger(__name__)


class Directory:
    """A DHT node on our own event loop (hivemind.DHT would talk to a forked process and can wedge)."""

    def __init__(self, host: Host, node: Any, validator: Any) -> None:
        self._host = host
        self._node = node
        self._validator = validator

    @classmethod
    async def start(cls, host: Host, authority: Authority, client_mode: bool) -> "Directory":
        """A DHT of one; `join` makes it larger."""
        validator = _validator(host.parts, authority)
        node = await host.parts.DHTNode.create(
            p2p=host.p2p,
            record_validator=validator,
            client_mode=client_mode,
            cache_locally=False,  # a cached dictionary would hide newer subkeys
            cache_on_store=False,
            cache_nearest=0,
            reuse_get_requests=False,  # it keeps 2 kB of every key that was ever looked up
        )
        node.protocol.storage.maxsize = MAX_KEYS_STORED
        node.protocol.cache.maxsize = MAX_KEYS_STORED
        node.protocol._validate_dictionary = validator.keep_valid_entries
        validator.storage = node.protocol.storage
        return cls(host, node, validator)

    @property
    def is_alone(self) -> bool:
        """Whether no other node of the DHT is known (any more)."""
        return not self._node.protocol.routing_table.uid_to_peer_id

    def set_authority(self, authority: Authority) -> None:
        """Whose signatures count from now on."""
        self._validator.authority = authority

    async def join(self, peer: PeerId) -> int | None:
        """Make ourselves known to a connected peer's DHT; returns its clock minus ours in ms, None when it hides it.

        Raises Unreachable with a sentence for the user: another swarm, a clock that is off, or nobody can dial us.
        """
        sent_ms = _now_ms()
        reply = await self._ping(peer)
        ahead_ms = (
            clock_ahead(sent_ms, _now_ms(), round(reply.dht_time * 1000))
            if reply.dht_time
            else None
        )
        if ahead_ms is not None and abs(ahead_ms) > MAX_CLOCK_SKEW_MS:
            raise ClockOff(ahead_ms)
        if not reply.available and not self._node.protocol.client_mode:
            raise Unreachable(
                "it answers, but cannot dial this machine back: forward a port to it, or use client mode"
            )
        await self._node.protocol.call_ping(self._host.parts.PeerID.from_base58(peer))
        return ahead_ms

    async def meet_neighbours(self) -> None:
        """Fill the routing table from the peers that we joined."""
        try:
            async with asyncio.timeout(DHT_TIMEOUT_S):
                await self._node.find_nearest_nodes([self._node.node_id])
        except TimeoutError:
            _log.info("looking for neighbours took longer than %s s", DHT_TIMEOUT_S)

    async def announce(self, record: SealedRecord) -> bool:
        """Store a record near its key; False when somebody holds the same one for longer, or nobody took it.

        Raises the errors of `check_record` when it breaks the rules, Unreachable when the DHT takes too long.
        """
        authority = self._validator.authority
        key_hash = hash_of_key(record.key)
        check_record(
            key_hash, record.subkey, record.value, record.expires_at_ms, _now_ms(), authority
        )
        try:
            async with asyncio.timeout(DHT_TIMEOUT_S):
                stored: bool = await self._node.store(
                    record.key, record.value, record.expires_at_ms / 1000, subkey=record.subkey
                )
        except TimeoutError:
            raise Unreachable(
                f"the DHT did not take {record.key!r} within {DHT_TIMEOUT_S:g} s"
            ) from None
        return stored

    async def look_up(self, key: str) -> list[bytes]:
        """The valid records under a plain key, as far as the DHT answers. Raises Unreachable when it takes too long."""
        try:
            async with asyncio.timeout(DHT_TIMEOUT_S):
                found = await self._node.get(key, latest=True)
        except TimeoutError:
            raise Unreachable(
                f"the DHT did not answer for {key!r} within {DHT_TIMEOUT_S:g} s"
            ) from None
        if found is None or not isinstance(found.value, dict):
            return []
        return [value for value, expires in found.value.values() if expires > time.time()][
            :MAX_RECORDS_PER_KEY
        ]

    async def providers_of(self, blob: BlobId, enough: int) -> list[ProviderHint]:
        """Who says that it serves `blob`, as far as the DHT answers; a hint, never a promise.

        The list is spread over several keys, which are asked in a random order until `enough` are found: a popular
        blob's would be megabytes. Raises Unreachable when the DHT takes too long.
        """
        found: dict[PeerId, ProviderHint] = {}
        keys = provider_keys(blob)
        for key in random.sample(keys, len(keys)):
            if len(found) >= enough:
                break
            for raw in await self.look_up(key):
                with suppress(
                    RemoteError
                ):  # the validator saw it; an amendment may have come since
                    opened = open_record(raw, self._validator.authority)
                    if isinstance(opened.body, ProviderRecord) and opened.body.key == key:
                        hint = ProviderHint(peer=opened.signer, addresses=opened.body.addresses)
                        found[opened.signer] = hint
        hints = list(found.values())
        return random.sample(hints, min(len(hints), enough))

    async def stop(self) -> None:
        """Leave the DHT."""
        await self._node.shutdown()

    async def _ping(self, peer: PeerId) -> Any:
        protocol = self._node.protocol
        request = self._host.parts.PingRequest(peer=protocol.node_info, validate=True)
        stub = protocol.get_stub(self._host.parts.PeerID.from_base58(peer))
        try:
            return await stub.rpc_ping(request, timeout=PING_TIMEOUT_S)
        except TimeoutError:
            raise Unreachable(
                f"it is connected, but did not answer within {PING_TIMEOUT_S:g} s"
            ) from None
        except (self._host.parts.P2PDaemonError, self._host.parts.P2PHandlerError) as error:
            if "not supported" in str(error):
                raise Unreachable(
                    "it is reached, but takes no part in this swarm's DHT: another swarm, a node in client mode, "
                    "or an incompatible version"
                ) from error
            raise Unreachable(f"it is connected, but its DHT failed: {str(error)[:300]}") from error


class ClockOff(Unreachable):
    """The peer's clock and ours are too far apart for the DHT."""

    def __init__(self, ahead_ms: int) -> None:
        direction = "behind" if ahead_ms > 0 else "ahead of"
        super().__init__(
            f"this machine's clock is {abs(ahead_ms) / 1000:.1f} s {direction} the peer's, and the DHT allows "
            f"{MAX_CLOCK_SKEW_MS / 1000:.0f} s: switch on automatic time (NTP); until then HTTPS is used"
        )
        self.ahead_ms = ahead_ms


def clock_ahead(sent_ms: int, received_ms: int, theirs_ms: int) -> int:
    """The peer's clock minus ours, as far as a reply that took from `sent_ms` to `received_ms` can prove it."""
    if theirs_ms < sent_ms:
        return theirs_ms - sent_ms
    return max(0, theirs_ms - received_ms)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _validator(parts: HivemindParts, authority: Authority) -> Any:
    """hivemind asks this about every record that it stores for others or is told by them."""

    class Validator(parts.RecordValidatorBase):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.authority = authority
            self.storage: Any = None

        def validate(self, record: Any) -> bool:
            try:
                _check(record, self.authority)
            except RemoteError as error:
                _log.info("refused a DHT record: %s", error)
                return False
            return not self._is_full(record)

        def keep_valid_entries(self, key: bytes, dictionary: Any) -> bool:
            """One entry that we refuse (a coordinator that an amendment removed) must not hide the others."""
            with dictionary.freeze():
                entries = list(dictionary.items())
            for subkey, (value, expires) in entries[:MAX_RECORDS_PER_KEY]:
                raw = parts.MSGPackSerializer.dumps(subkey)
                if not self.validate(parts.DHTRecord(key, raw, value, expires)):
                    del dictionary[subkey]
            for subkey, _ in entries[MAX_RECORDS_PER_KEY:]:
                del dictionary[subkey]
            return bool(dictionary)

        def _is_full(self, record: Any) -> bool:
            held = self.storage and self.storage.data.get(int.from_bytes(record.key, "big"))
            if not held or not isinstance(held.value, parts.DictionaryDHTValue):
                return False
            subkey = parts.MSGPackSerializer.loads(record.subkey)
            return len(held.value.data) >= MAX_RECORDS_PER_KEY and subkey not in held.value.data

    return Validator()


def _check(record: Any, authority: Authority) -> None:
    if not math.isfinite(record.expiration_time) or abs(record.expiration_time) > 2**43:
        raise LimitExceeded(f"expires at {record.expiration_time}")
    subkey = decode(record.subkey, int | str | None, 256)  # type: ignore[arg-type]
    value = decode(record.value, bytes, MAX_RECORD_BYTES + _OVERHEAD)
    expires_at_ms = round(record.expiration_time * 1000)
    check_record(record.key, subkey, value, expires_at_ms, _now_ms(), authority)
