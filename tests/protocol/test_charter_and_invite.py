"""Charters and invites: altered or foreign ones are refused with a sentence that says what to do."""

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from protocol.samples import COORDINATOR, FOUNDER, NODE, charter, invite, policy

from kinoswarm_protocol.charter import (
    CHARTER,
    Amendment,
    Charter,
    amend,
    is_coordinator,
    open_charter,
)
from kinoswarm_protocol.codec import decode, encode
from kinoswarm_protocol.envelope import Envelope, peek_payload, seal
from kinoswarm_protocol.errors import (
    BadSignature,
    HashMismatch,
    LimitExceeded,
    MalformedBytes,
    RemoteError,
)
from kinoswarm_protocol.ids import sha256_hex, swarm_id_of
from kinoswarm_protocol.invite import PREFIX, read_invite, write_invite
from kinoswarm_protocol.limits import MAX_CHARTER_BYTES
from kinoswarm_protocol.specs import ClipSpec


def signed_charter(signer=FOUNDER) -> bytes:
    return seal(signer, CHARTER, "", charter())


def swarm_of(raw: bytes) -> str:
    return swarm_id_of(peek_payload(raw, MAX_CHARTER_BYTES))


def test_a_charter_opens_under_its_own_id() -> None:
    raw = signed_charter()
    opened = open_charter(raw, swarm_of(raw))
    assert opened.body == charter()
    assert is_coordinator(opened.body, COORDINATOR.peer_id)
    assert not is_coordinator(opened.body, NODE.peer_id)


def test_a_tampered_charter_is_named_as_such() -> None:
    raw = signed_charter()
    envelope = decode(raw, Envelope, MAX_CHARTER_BYTES)
    payload = envelope.payload.replace(b"Test swarm", b"Evil swarm")
    tampered = encode(msgspec.structs.replace(envelope, payload=payload))
    with pytest.raises(HashMismatch, match="it was altered or belongs to another swarm"):
        open_charter(tampered, swarm_of(raw))
    with pytest.raises(BadSignature):
        open_charter(tampered, swarm_of(tampered))


def test_a_charter_that_its_founder_did_not_sign_is_refused() -> None:
    raw = signed_charter(NODE)
    with pytest.raises(BadSignature, match=f"names {FOUNDER.peer_id} as founder"):
        open_charter(raw, swarm_of(raw))


def test_an_unknown_expert_class_never_leaves_the_decoder() -> None:
    raw = encode(charter())
    evil = raw.replace(b"WanTransformer3DModel", b"os_system_TransformerX"[:21])
    with pytest.raises(MalformedBytes, match="Invalid enum value"):
        decode(evil, type(charter()), MAX_CHARTER_BYTES)


def test_a_charter_from_before_objectives_trains_velocities() -> None:
    old = msgpack.unpackb(encode(charter()))
    clusters = [field.name for field in structs.fields(Charter)].index("clusters")
    assert old[clusters][0].pop() == "velocity"
    assert decode(msgpack.packb(old), Charter, MAX_CHARTER_BYTES) == charter()


@pytest.mark.parametrize("word", ["score", "", 1, None])
def test_an_unknown_objective_never_leaves_the_decoder(word: object) -> None:
    cluster = structs.replace(charter().clusters[0], objective=word)
    raw = encode(structs.replace(charter(), clusters=[cluster]))
    with pytest.raises(MalformedBytes, match=r"Charter: .*`\$\[6\]\[0\]\[5\]`"):
        decode(raw, Charter, MAX_CHARTER_BYTES)


def test_a_clip_of_absurd_size_is_refused_by_its_type() -> None:
    with pytest.raises(ValueError, match="at most"):
        ClipSpec(codec="pixel", channels=256, frames=4096, height=8192, width=8192, fps=8)


def test_amendments_apply_in_order_and_none_may_be_missing() -> None:
    new_policy = msgspec.structs.replace(policy(), target_version=9)
    first = Amendment(number=1, previous_sha256=sha256_hex(b""), created_at_ms=1, policy=new_policy)
    assert amend(charter(), [first]).policy.target_version == 9
    second = msgspec.structs.replace(first, number=2)
    with pytest.raises(MalformedBytes, match="amendment 2 where number 1 was expected"):
        amend(charter(), [second])


def test_an_invite_survives_line_breaks_and_quoting() -> None:
    text = write_invite(FOUNDER, invite())
    mangled = "> " + text[:70] + "\n>   " + text[70:140] + "\r\n" + text[140:] + "\n"
    assert read_invite(mangled).body == invite()


@pytest.mark.parametrize("position", [20, 100, 200, 300, 400])
def test_a_tampered_invite_says_ask_again(position: int) -> None:
    text = write_invite(FOUNDER, invite())
    other = "A" if text[position] != "A" else "B"
    with pytest.raises((MalformedBytes, BadSignature), match="ask for it again"):
        read_invite(text[:position] + other + text[position + 1 :])


def test_half_an_invite_says_ask_again() -> None:
    with pytest.raises(RemoteError, match=r"ask for it again|copy the whole line again"):
        read_invite(write_invite(FOUNDER, invite())[:120])


def test_an_invite_signed_by_somebody_else_is_refused() -> None:
    with pytest.raises(BadSignature, match="not signed by the founder that it names"):
        read_invite(write_invite(NODE, invite()))


def test_other_text_is_told_what_an_invite_looks_like() -> None:
    with pytest.raises(MalformedBytes, match=f"an invite starts with '{PREFIX}'"):
        read_invite("https://example.org/film")
    with pytest.raises(LimitExceeded, match="an invite has at most"):
        read_invite(PREFIX + "A" * 100_000)


@given(st.text(max_size=300))
def test_no_text_crashes_the_invite_reader(text: str) -> None:
    with pytest.raises(RemoteError):
        read_invite(PREFIX + text)


def test_the_work_of_a_large_seed_fits_into_a_charter() -> None:
    large = msgspec.structs.replace(charter(), seed_flops=3e24)
    raw = seal(FOUNDER, CHARTER, "", large)
    assert open_charter(raw, swarm_of(raw)).body.seed_flops == 3e24
