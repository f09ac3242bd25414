"""Signed envelopes: nothing unverified is ever decoded."""

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from protocol.samples import COORDINATOR, NODE, SWARM

from kinoswarm_protocol.codec import decode, encode, frame, frame_length
from kinoswarm_protocol.envelope import Envelope, Kind, open_envelope, seal
from kinoswarm_protocol.errors import (
    BadSignature,
    LimitExceeded,
    MalformedBytes,
    RemoteError,
    VersionMismatch,
)
from kinoswarm_protocol.limits import MAX_CONTROL_FRAME
from kinoswarm_protocol.messages import LEASE, REQUEST, AskStatus, Lookup, Request

REQUEST_BODY = Request(request_id="0" * 32, body=AskStatus())


def sealed() -> bytes:
    return seal(NODE, REQUEST, SWARM, REQUEST_BODY)


def changed(**changes: object) -> bytes:
    envelope = decode(sealed(), Envelope, MAX_CONTROL_FRAME)
    return encode(msgspec.structs.replace(envelope, **changes))


def test_an_envelope_opens_to_what_was_sealed() -> None:
    opened = open_envelope(sealed(), REQUEST, SWARM)
    assert opened.body == REQUEST_BODY
    assert opened.signer == NODE.peer_id


def test_plain_msgpack_reads_an_envelope_and_its_payload() -> None:
    version, kind, swarm, signer, payload, signature = msgpack.unpackb(sealed())
    assert (version, kind, swarm, signer) == (1, "request", SWARM, NODE.peer_id)
    assert len(signature) == 64
    assert msgpack.unpackb(payload) == ["0" * 32, ["status"]]


def test_a_changed_payload_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(BadSignature):
        open_envelope(changed(payload=b"\xc1 not even MessagePack"), REQUEST, SWARM)


def test_an_envelope_of_another_swarm_is_refused() -> None:
    with pytest.raises(BadSignature, match="belongs to swarm"):
        open_envelope(sealed(), REQUEST, "cd" * 32)


def test_moving_an_envelope_to_another_swarm_breaks_its_signature() -> None:
    with pytest.raises(BadSignature):
        open_envelope(changed(swarm="cd" * 32), REQUEST, "cd" * 32)


def test_an_envelope_of_another_kind_is_refused() -> None:
    with pytest.raises(MalformedBytes, match="expected an envelope of kind lease"):
        open_envelope(sealed(), LEASE, SWARM)


def test_a_wrong_signer_is_refused() -> None:
    with pytest.raises(BadSignature, match=f"expected {COORDINATOR.peer_id}"):
        open_envelope(sealed(), REQUEST, SWARM, COORDINATOR.peer_id)


def test_another_protocol_version_is_told_to_update() -> None:
    with pytest.raises(VersionMismatch, match="protocol version 2, this program speaks 1"):
        open_envelope(changed(version=2), REQUEST, SWARM)


def test_an_oversize_envelope_is_refused_unread() -> None:
    with pytest.raises(LimitExceeded, match="at most"):
        open_envelope(b"\x00" * (MAX_CONTROL_FRAME + 10_000), REQUEST, SWARM)


def test_a_body_beyond_its_type_is_never_signed() -> None:
    body = Request(request_id="0" * 32, body=Lookup(key="k" * 10_000))
    with pytest.raises(MalformedBytes, match="length <= 256"):
        seal(NODE, REQUEST, SWARM, body)


def test_a_body_beyond_its_type_is_refused_though_its_signature_holds() -> None:
    """A peer may sign what we never would."""

    class Careless(msgspec.Struct, array_like=True):
        request_id: str
        body: list[str]

    careless = Kind("request", Careless, MAX_CONTROL_FRAME)
    raw = seal(NODE, careless, SWARM, Careless("0" * 32, ["lookup", "k" * 10_000]))
    with pytest.raises(MalformedBytes, match="length <= 256"):
        open_envelope(raw, REQUEST, SWARM)


@given(st.binary(max_size=2_000))
def test_no_bytes_crash_the_opener(raw: bytes) -> None:
    with pytest.raises(RemoteError):
        open_envelope(raw, REQUEST, SWARM)


@given(st.data())
def test_no_flipped_byte_is_ever_accepted_as_something_else(data: st.DataObject) -> None:
    raw = bytearray(sealed())
    position = data.draw(st.integers(0, len(raw) - 1))
    raw[position] ^= data.draw(st.integers(1, 255))
    try:
        opened = open_envelope(bytes(raw), REQUEST, SWARM)
    except RemoteError:
        return
    assert opened.body == REQUEST_BODY


def test_a_nesting_bomb_is_malformed_not_a_crash() -> None:
    with pytest.raises(MalformedBytes):
        decode(b"\x91" * 100_000, Envelope, MAX_CONTROL_FRAME)


@given(st.binary(max_size=1_000))
def test_a_frame_announces_exactly_its_payload(payload: bytes) -> None:
    framed = frame(payload)
    assert frame_length(framed[:4], 1_000) == len(payload)
    assert framed[4:] == payload


def test_a_frame_that_announces_too_much_is_refused_by_its_prefix() -> None:
    with pytest.raises(LimitExceeded, match="frame of 4294967295 bytes announced"):
        frame_length(b"\xff\xff\xff\xff", MAX_CONTROL_FRAME)
    with pytest.raises(MalformedBytes, match="expected 4 bytes, got 2"):
        frame_length(b"\x00\x00", MAX_CONTROL_FRAME)
