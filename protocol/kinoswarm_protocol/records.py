"""DHT records: what may lie under which key, who signs it and for how long. Owns every byte of a record and its rules.

A record carries its plain key, because a DHT validator is shown only the key's hash. Every kind is a dictionary whose
subkey is a version or a PeerId: the DHT keeps whatever expires later, so consumers take the highest valid version.
The signed validity is longer than the DHT's own lifetime, so any node may announce a record again. The DHT is a hint,
never an authority.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Literal, TypeVar

from msgspec import Meta, Struct, structs

from kinoswarm_protocol.charter import Address, Addresses
from kinoswarm_protocol.codec import decode, encode
from kinoswarm_protocol.envelope import Envelope, Kind, Opened, open_envelope, seal
from kinoswarm_protocol.errors import BadSignature, HashMismatch, LimitExceeded, MalformedBytes
from kinoswarm_protocol.field_types import ClusterIndex, Lineage, Version
from kinoswarm_protocol.ids import BlobId, BlobIdField, PeerId, SwarmId
from kinoswarm_protocol.keys import KeyPair
from kinoswarm_protocol.limits import (
    MAX_NODE_RECORD_BYTES,
    MAX_PROVIDER_ADDRESSES,
    MAX_PROVIDER_RECORD_BYTES,
    MAX_RECORD_BYTES,
    NODE_BUCKETS,
    PROVIDER_BUCKETS,
    RECORD_CLOCK_TOLERANCE_MS,
    WITNESS_BUCKETS,
)
from kinoswarm_protocol.log_head import MAX_HEAD_BYTES
from kinoswarm_protocol.specs import Count, Name

PlainKey = Annotated[str, Meta(max_length=128)]
Subkey = int | str

_SECOND = 1_000
_HOUR = 3_600 * _SECOND
_DAY = 24 * _HOUR


class _Record(Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """What every record starts with; `seal_record` fills it in."""

    key: PlainKey = ""
    created_at_ms: Count = 0
    valid_until_ms: Count = 0


class CharterRecord(_Record, frozen=True, kw_only=True):
    """Where the charter and its amendments up to `number` lie, as one blob."""

    number: Version
    blob: BlobIdField


class CoordinatorRecord(_Record, frozen=True, kw_only=True):
    """Where a coordinator is reachable now."""

    addresses: Addresses
    epoch: Version


class NodeRecord(_Record, frozen=True, kw_only=True):
    """What a node is and does now; never an address, because pages show it."""

    pseudonym: Name
    device: Name
    state: Name
    """idle, training, paused …"""
    cluster: ClusterIndex | None
    program_version: Name


class ProviderRecord(_Record, frozen=True, kw_only=True):
    """ "I serve this blob", and where; for programs that fetch, never for a page."""

    blob: BlobIdField
    addresses: Annotated[list[Address], Meta(max_length=MAX_PROVIDER_ADDRESSES)]


class ExpertRecord(_Record, frozen=True, kw_only=True):
    """The checkpoint of one version of an expert."""

    cluster: ClusterIndex
    lineage: Lineage
    version: Version
    checkpoint: BlobIdField


class ReleaseRecord(_Record, frozen=True, kw_only=True):
    """The signed table of contents of one release, as a blob."""

    version: Version
    blob: BlobIdField


class WitnessRecord(_Record, frozen=True, kw_only=True):
    """ "The coordinator showed me this end of its log": so that it can't show two histories to two groups of nodes."""

    head: Annotated[bytes, Meta(max_length=MAX_HEAD_BYTES)]
    """An envelope of kind "log_head", signed by a coordinator."""


Record = (
    CharterRecord
    | CoordinatorRecord
    | NodeRecord
    | ProviderRecord
    | ExpertRecord
    | ReleaseRecord
    | WitnessRecord
)
R = TypeVar("R", bound=Record)

CHARTER_KEY = "charter"
COORDINATOR_KEY = "coordinator"
RELEASE_KEY = "release"


def bucket_of(peer: PeerId, num_buckets: int) -> int:
    """The bucket in which `peer` announces itself; fixed by its id, so nobody can choose."""
    return int.from_bytes(hashlib.sha256(peer.encode()).digest()[:8], "big") % num_buckets


def node_key(peer: PeerId) -> str:
    """The key under which `peer` says what it does."""
    return f"nodes/{bucket_of(peer, NODE_BUCKETS)}"


def node_keys() -> list[str]:
    """All keys that together list the swarm's nodes."""
    return [f"nodes/{bucket}" for bucket in range(NODE_BUCKETS)]


def witness_key(peer: PeerId) -> str:
    """The key under which `peer` says which end of the log it was shown."""
    return f"witness/{bucket_of(peer, WITNESS_BUCKETS)}"


def witness_keys() -> list[str]:
    """All keys that together list what nodes were shown."""
    return [f"witness/{bucket}" for bucket in range(WITNESS_BUCKETS)]


def provider_key(blob: BlobId, peer: PeerId) -> str:
    """The key under which `peer` says that it serves `blob`."""
    return f"providers/{blob}/{bucket_of(peer, PROVIDER_BUCKETS)}"


def provider_keys(blob: BlobId) -> list[str]:
    """All keys that together list the providers of `blob`."""
    return [f"providers/{blob}/{bucket}" for bucket in range(PROVIDER_BUCKETS)]


def expert_key(cluster: int, lineage: int) -> str:
    """The key under which the versions of one lineage of an expert are announced."""
    return f"expert/{cluster}/{lineage}"


@dataclass(frozen=True)
class _Rule:
    """One row of the table of record kinds."""

    kind: Kind[Any]
    signer: Literal["founder", "coordinator", "node"]
    signed_for_ms: int
    stored_for_ms: int
    """Longest lifetime in the DHT; whoever holds a record announces it again before that."""
    key_of: Callable[[Any, PeerId], str]
    subkey_of: Callable[[Any, PeerId], Subkey]
    version_of: Callable[[Any], int]


def _kind(name: str, body: type[R], max_bytes: int = MAX_RECORD_BYTES // 2) -> Kind[R]:
    return Kind(f"record/{name}", body, max_bytes)


_RULES: dict[type[Struct], _Rule] = {
    CharterRecord: _Rule(
        kind=_kind("charter", CharterRecord),
        signer="founder",
        signed_for_ms=366 * _DAY,
        stored_for_ms=_HOUR,
        key_of=lambda body, signer: CHARTER_KEY,
        subkey_of=lambda body, signer: body.number,
        version_of=lambda body: body.number,
    ),
    CoordinatorRecord: _Rule(
        kind=_kind("coordinator", CoordinatorRecord),
        signer="coordinator",
        signed_for_ms=_DAY,
        stored_for_ms=_HOUR,
        key_of=lambda body, signer: COORDINATOR_KEY,
        subkey_of=lambda body, signer: signer,
        version_of=lambda body: body.epoch,
    ),
    NodeRecord: _Rule(
        kind=_kind("node", NodeRecord, MAX_NODE_RECORD_BYTES),
        signer="node",
        signed_for_ms=90 * _SECOND,
        stored_for_ms=90 * _SECOND,
        key_of=lambda body, signer: node_key(signer),
        subkey_of=lambda body, signer: signer,
        version_of=lambda body: 0,
    ),
    ProviderRecord: _Rule(
        kind=_kind("provider", ProviderRecord, MAX_PROVIDER_RECORD_BYTES),
        signer="node",
        signed_for_ms=600 * _SECOND,
        stored_for_ms=600 * _SECOND,
        key_of=lambda body, signer: provider_key(body.blob, signer),
        subkey_of=lambda body, signer: signer,
        version_of=lambda body: 0,
    ),
    ExpertRecord: _Rule(
        kind=_kind("expert", ExpertRecord),
        signer="coordinator",
        signed_for_ms=30 * _DAY,
        stored_for_ms=_HOUR,
        key_of=lambda body, signer: expert_key(body.cluster, body.lineage),
        subkey_of=lambda body, signer: body.version,
        version_of=lambda body: body.version,
    ),
    ReleaseRecord: _Rule(
        kind=_kind("release", ReleaseRecord),
        signer="coordinator",
        signed_for_ms=30 * _DAY,
        stored_for_ms=_HOUR,
        key_of=lambda body, signer: RELEASE_KEY,
        subkey_of=lambda body, signer: body.version,
        version_of=lambda body: body.version,
    ),
    WitnessRecord: _Rule(
        kind=_kind("witness", WitnessRecord),
        signer="node",
        signed_for_ms=_DAY,
        stored_for_ms=_HOUR,
        key_of=lambda body, signer: witness_key(signer),
        subkey_of=lambda body, signer: signer,
        version_of=lambda body: 0,
    ),
}
_RULE_BY_KIND = {rule.kind.name: rule for rule in _RULES.values()}


@dataclass(frozen=True)
class Authority:
    """Whose signatures count in a swarm: from the invite first, from the charter as amended later."""

    swarm: SwarmId
    founder: PeerId
    coordinators: frozenset[PeerId]


@dataclass(frozen=True)
class SealedRecord:
    """A record as it goes into the DHT."""

    key: str
    subkey: Subkey
    value: bytes
    expires_at_ms: int
    """When the DHT forgets it unless somebody announces it again."""


def seal_record(key: KeyPair, swarm: SwarmId, body: Record, now_ms: int) -> SealedRecord:
    """Fill in key and dates, sign, and say how long the DHT may keep it. Raises LimitExceeded when it is too large."""
    rule = _RULES[type(body)]
    dated = structs.replace(
        body,
        key=rule.key_of(body, key.peer_id),
        created_at_ms=now_ms,
        valid_until_ms=now_ms + rule.signed_for_ms,
    )
    value = seal(key, rule.kind, swarm, dated)
    return announce_again(Opened(dated, key.peer_id, value), now_ms)


def announce_again(record: Opened[R], now_ms: int) -> SealedRecord:
    """The same signed record with a fresh DHT lifetime; what anybody may do who holds it."""
    rule = _RULES[type(record.body)]
    expires_at_ms = min(record.body.valid_until_ms, now_ms + rule.stored_for_ms)
    subkey = rule.subkey_of(record.body, record.signer)
    return SealedRecord(record.body.key, subkey, record.raw, expires_at_ms)


def hash_of_key(key: str) -> bytes:
    """The 20 bytes by which hivemind's DHT knows a plain key (SHA-1 of its MessagePack form)."""
    return hashlib.sha1(encode(key), usedforsecurity=False).digest()


@lru_cache(maxsize=1_024)
def open_record(value: bytes, authority: Authority) -> Opened[Any]:
    """Check a record's size, kind, signature, signer, own key and own dates, wherever it came from.

    Replicas hand on the same bytes within moments, and a signature costs 0.1 ms; each entry holds 3 kB, also of records
    that have expired.

    Raises LimitExceeded, MalformedBytes, BadSignature or VersionMismatch.
    """
    kind = decode(value, Envelope, MAX_RECORD_BYTES).kind
    rule = _RULE_BY_KIND.get(kind)
    if rule is None:
        raise MalformedBytes(f"record of unknown kind {kind!r}; known: {sorted(_RULE_BY_KIND)}")
    opened = open_envelope(value, rule.kind, authority.swarm)
    _check_signer(rule, opened.signer, authority)
    expected = rule.key_of(opened.body, opened.signer)
    if opened.body.key != expected:
        raise MalformedBytes(f"{kind}: carries key {opened.body.key!r}, belongs under {expected!r}")
    lifetime_ms = opened.body.valid_until_ms - opened.body.created_at_ms
    if not 0 < lifetime_ms <= rule.signed_for_ms:
        raise LimitExceeded(f"{kind}: signed for {lifetime_ms} ms, at most {rule.signed_for_ms}")
    return opened


def plain_key_of(value: bytes) -> str:
    """The key that a record carries, for one that was opened before: nothing is verified here.

    Raises MalformedBytes or LimitExceeded.
    """
    envelope = decode(value, Envelope, MAX_RECORD_BYTES)
    rule = _RULE_BY_KIND.get(envelope.kind)
    if rule is None:
        raise MalformedBytes(f"record of unknown kind {envelope.kind!r}")
    return str(decode(envelope.payload, rule.kind.type, rule.kind.max_bytes).key)


def check_record(
    key_hash: bytes,
    subkey: object,
    value: bytes,
    expires_at_ms: int,
    now_ms: int,
    authority: Authority,
) -> Opened[Any]:
    """What a DHT node checks before it keeps or believes a record; returns the opened record.

    A record that has expired is not refused here: the DHT drops it by itself, and one stale entry must not make a
    whole dictionary unreadable. Raises the errors of `open_record`, and HashMismatch for a foreign key.
    """
    opened = open_record(value, authority)
    rule = _RULES[type(opened.body)]
    name = rule.kind.name
    if hash_of_key(opened.body.key) != key_hash:
        raise HashMismatch(f"{name}: lies under another key than {opened.body.key!r}")
    expected = rule.subkey_of(opened.body, opened.signer)
    if type(subkey) is not type(expected) or subkey != expected:
        raise MalformedBytes(f"{name}: lies under subkey {subkey!r}, belongs under {expected!r}")
    if opened.body.created_at_ms > now_ms + RECORD_CLOCK_TOLERANCE_MS:
        raise LimitExceeded(f"{name}: dated {opened.body.created_at_ms - now_ms} ms in our future")
    latest = min(
        opened.body.valid_until_ms, now_ms + rule.stored_for_ms + RECORD_CLOCK_TOLERANCE_MS
    )
    if expires_at_ms > latest:
        raise LimitExceeded(
            f"{name}: asks to be kept until {expires_at_ms}, at most {latest} is allowed"
        )
    return opened


def newest(records: Iterable[Opened[R]], now_ms: int) -> Opened[R] | None:
    """The highest version that is still validly signed; among equals the later date, then the smaller bytes."""
    valid = [record for record in records if record.body.valid_until_ms > now_ms]
    return min(valid, key=_preference, default=None)


def _preference(record: Opened[Any]) -> tuple[int, int, bytes]:
    version = _RULES[type(record.body)].version_of(record.body)
    return -version, -record.body.created_at_ms, record.raw


def _check_signer(rule: _Rule, signer: PeerId, authority: Authority) -> None:
    if rule.signer == "founder" and signer != authority.founder:
        raise BadSignature(f"{rule.kind.name}: signed by {signer}, not by the swarm's founder")
    if rule.signer == "coordinator" and signer not in authority.coordinators:
        raise BadSignature(f"{rule.kind.name}: signed by {signer}, who is no coordinator")
