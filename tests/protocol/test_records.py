"""DHT records: what is not signed, placed, sized and dated by the table's rules is refused."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from protocol.samples import BLOB, COORDINATOR, FOUNDER, NODE, SWARM

from kinoswarm_protocol.envelope import Kind, Opened, seal
from kinoswarm_protocol.errors import (
    BadSignature,
    HashMismatch,
    LimitExceeded,
    MalformedBytes,
    RemoteError,
)
from kinoswarm_protocol.ids import SwarmId
from kinoswarm_protocol.keys import KeyPair
from kinoswarm_protocol.records import (
    Authority,
    CharterRecord,
    CoordinatorRecord,
    ExpertRecord,
    NodeRecord,
    ProviderRecord,
    Record,
    ReleaseRecord,
    SealedRecord,
    announce_again,
    check_record,
    hash_of_key,
    newest,
    node_key,
    node_keys,
    open_record,
    provider_key,
    provider_keys,
    seal_record,
)

NOW = 1_700_000_000_000
AUTHORITY = Authority(SWARM, FOUNDER.peer_id, frozenset([COORDINATOR.peer_id]))
NODE_BODY = NodeRecord(
    pseudonym="heron", device="RTX 3060", state="training", cluster=3, program_version="0.1.0"
)
EXPERT_BODY = ExpertRecord(cluster=3, lineage=0, version=7, checkpoint=BLOB)
ADDRESS = "/ip4/203.0.113.77/tcp/31337"
BODIES: list[tuple[KeyPair, Record]] = [
    (FOUNDER, CharterRecord(number=2, blob=BLOB)),
    (COORDINATOR, CoordinatorRecord(addresses=[ADDRESS], epoch=1)),
    (NODE, NODE_BODY),
    (NODE, ProviderRecord(blob=BLOB, addresses=[ADDRESS] * 4)),
    (COORDINATOR, EXPERT_BODY),
    (COORDINATOR, ReleaseRecord(version=4, blob=BLOB)),
]


def check(sealed: SealedRecord, **changes: Any) -> Opened[Any]:
    given_ = {
        "key_hash": hash_of_key(sealed.key),
        "subkey": sealed.subkey,
        "value": sealed.value,
        "expires_at_ms": sealed.expires_at_ms,
        "now_ms": NOW,
        "authority": AUTHORITY,
    }
    return check_record(**{**given_, **changes})


@pytest.mark.parametrize(("key", "body"), BODIES)
def test_every_kind_of_record_passes_its_own_check(key: KeyPair, body: Record) -> None:
    opened = check(seal_record(key, SWARM, body, NOW))
    assert type(opened.body) is type(body)
    assert opened.signer == key.peer_id


@pytest.mark.parametrize(("key", "body"), BODIES)
def test_every_kind_of_record_is_refused_under_a_foreign_subkey_or_key(
    key: KeyPair, body: Record
) -> None:
    sealed = seal_record(key, SWARM, body, NOW)
    with pytest.raises(MalformedBytes, match="lies under subkey"):
        check(sealed, subkey=FOUNDER.peer_id if sealed.subkey != FOUNDER.peer_id else 1)
    with pytest.raises(MalformedBytes, match="lies under subkey"):
        check(sealed, subkey=None)
    with pytest.raises(HashMismatch, match="lies under another key"):
        check(sealed, key_hash=hash_of_key("nodes/99"))


@pytest.mark.parametrize(("key", "body"), BODIES)
def test_every_kind_of_record_is_refused_when_it_would_live_too_long(
    key: KeyPair, body: Record
) -> None:
    sealed = seal_record(key, SWARM, body, NOW)
    with pytest.raises(LimitExceeded, match="asks to be kept until"):
        check(sealed, expires_at_ms=sealed.expires_at_ms + 20_000)
    with pytest.raises(LimitExceeded, match="in our future"):
        check(sealed, now_ms=NOW - 20_000)


def test_a_dictionary_with_a_stale_entry_stays_readable() -> None:
    sealed = seal_record(NODE, SWARM, NODE_BODY, NOW)
    assert check(sealed, now_ms=NOW + 10**9).body.pseudonym == "heron"


def test_a_version_must_be_a_number_and_not_merely_equal_to_one() -> None:
    sealed = seal_record(
        COORDINATOR, SWARM, ExpertRecord(cluster=0, lineage=0, version=1, checkpoint=BLOB), NOW
    )
    with pytest.raises(MalformedBytes, match="lies under subkey True"):
        check(sealed, subkey=True)


@pytest.mark.parametrize(("key", "body"), [(key, body) for key, body in BODIES if key != NODE])
def test_only_the_founder_and_coordinators_sign_what_is_theirs(key: KeyPair, body: Record) -> None:
    with pytest.raises(BadSignature, match="signed by"):
        check(seal_record(NODE, SWARM, body, NOW))


def test_a_node_cannot_speak_for_another() -> None:
    sealed = seal_record(NODE, SWARM, NODE_BODY, NOW)
    with pytest.raises((MalformedBytes, HashMismatch)):
        check(sealed, subkey=COORDINATOR.peer_id)


def test_a_record_of_another_swarm_is_refused() -> None:
    with pytest.raises(BadSignature, match="belongs to swarm"):
        check(seal_record(NODE, SwarmId("00" * 32), NODE_BODY, NOW))


def test_a_signed_validity_beyond_the_table_is_refused() -> None:
    dated = structs.replace(
        NODE_BODY, key=node_key(NODE.peer_id), created_at_ms=NOW, valid_until_ms=NOW + 10**10
    )
    raw = seal(NODE, Kind("record/node", NodeRecord, 512), SWARM, dated)
    with pytest.raises(LimitExceeded, match="signed for"):
        open_record(raw, AUTHORITY)


def test_a_record_that_names_a_foreign_key_inside_is_refused() -> None:
    dated = structs.replace(
        NODE_BODY, key="expert/0/0", created_at_ms=NOW, valid_until_ms=NOW + 1000
    )
    raw = seal(NODE, Kind("record/node", NodeRecord, 512), SWARM, dated)
    with pytest.raises(MalformedBytes, match="carries key"):
        open_record(raw, AUTHORITY)


def test_unknown_kinds_and_oversize_records_are_refused() -> None:
    raw = seal(NODE, Kind("record/poem", NodeRecord, 512), SWARM, NODE_BODY)
    with pytest.raises(MalformedBytes, match="unknown kind 'record/poem'"):
        open_record(raw, AUTHORITY)
    with pytest.raises(LimitExceeded):
        open_record(b"\x96" + bytes(5000), AUTHORITY)
    fat = ProviderRecord(blob=BLOB, addresses=["/dns4/" + "x" * 200] * 4)
    with pytest.raises(LimitExceeded, match="record/provider"):
        seal_record(NODE, SWARM, fat, NOW)


def test_anybody_may_announce_a_signed_record_again_until_its_validity_ends() -> None:
    first = seal_record(COORDINATOR, SWARM, EXPERT_BODY, NOW)
    opened = check(first)
    day_ms = 24 * 3_600 * 1_000
    later = announce_again(opened, NOW + day_ms)
    assert later.value == first.value
    assert later.expires_at_ms > first.expires_at_ms
    check(later, now_ms=NOW + day_ms)
    assert announce_again(opened, NOW + 40 * day_ms).expires_at_ms == opened.body.valid_until_ms


@given(st.permutations([3, 9, 4, 9, 0]))
def test_the_highest_valid_version_wins_in_any_order(versions: list[int]) -> None:
    sealed = [
        seal_record(COORDINATOR, SWARM, ReleaseRecord(version=v, blob=BLOB), NOW + v)
        for v in versions
    ]
    chosen = newest([check(record) for record in sealed], NOW)
    assert chosen is not None
    assert chosen.body.version == 9


def test_an_expired_version_never_wins() -> None:
    old = check(seal_record(COORDINATOR, SWARM, ReleaseRecord(version=9, blob=BLOB), NOW))
    assert newest([old], NOW + 31 * 24 * 3_600 * 1_000) is None


def test_a_peer_is_listed_in_exactly_one_bucket() -> None:
    assert node_keys().count(node_key(NODE.peer_id)) == 1
    assert provider_keys(BLOB).count(provider_key(BLOB, NODE.peer_id)) == 1


@given(st.binary(max_size=5000), st.binary(max_size=24), st.integers() | st.text() | st.none())
def test_no_bytes_crash_the_record_check(value: bytes, key_hash: bytes, subkey: object) -> None:
    with pytest.raises(RemoteError):
        check_record(key_hash, subkey, value, NOW, NOW, AUTHORITY)


@given(st.integers(0, len(BODIES) - 1), st.integers(0, 10_000), st.integers(1, 255))
def test_a_single_changed_byte_is_always_refused(index: int, position: int, flip: int) -> None:
    key, body = BODIES[index]
    sealed = seal_record(key, SWARM, body, NOW)
    raw = bytearray(sealed.value)
    raw[position % len(raw)] ^= flip
    with pytest.raises(RemoteError):
        check(sealed, value=bytes(raw))
