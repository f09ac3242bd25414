"""A charter with its amendments: only the founder lengthens it, and nothing can be left out, swapped or altered."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs
from protocol.samples import COORDINATOR, FOUNDER, NODE, charter, policy

from kinoswarm_protocol.charter import AMENDMENT, CHARTER, Amendment, in_words
from kinoswarm_protocol.charter_chain import (
    CharterChain,
    OpenedChain,
    chain_of,
    lengthen,
    open_chain,
)
from kinoswarm_protocol.codec import decode
from kinoswarm_protocol.envelope import seal
from kinoswarm_protocol.errors import BadSignature, HashMismatch, LocalError, RemoteError
from kinoswarm_protocol.limits import MAX_CHAIN_BYTES


def founded() -> OpenedChain:
    return open_chain(chain_of(seal(FOUNDER, CHARTER, "", charter())))


def change(**fields: object) -> Amendment:
    return Amendment(number=1, previous_sha256="0" * 64, created_at_ms=5, **fields)  # type: ignore[arg-type]


def twice() -> OpenedChain:
    chain = lengthen(FOUNDER, founded(), change(notice="we moved", addresses=["http://new:1"]))
    faster = structs.replace(policy(), segment_s=60.0)
    return lengthen(FOUNDER, chain, change(policy=faster, coordinators=[NODE.peer_id]))


def parts(chain: OpenedChain) -> CharterChain:
    return decode(chain.raw, CharterChain, MAX_CHAIN_BYTES)


def test_amendments_change_what_they_name_and_keep_the_rest() -> None:
    chain = twice()
    assert chain.number == 2
    assert [opened.body.number for opened in chain.amendments] == [1, 2]
    assert chain.charter.addresses == ["http://new:1"]
    assert chain.charter.coordinators == [NODE.peer_id], "the old coordinator's key has ended"
    assert chain.charter.policy.segment_s == 60.0
    assert chain.charter.model == charter().model
    assert open_chain(chain.raw, founded().swarm) == chain


def test_nobody_but_the_founder_amends() -> None:
    with pytest.raises(LocalError, match="signed by the founder"):
        lengthen(COORDINATOR, founded(), change(notice="mine now"))
    forged = seal(COORDINATOR, AMENDMENT, founded().swarm, change(notice="mine now"))
    with pytest.raises(BadSignature):
        open_chain(chain_of(parts(founded()).charter, [forged]))


def test_an_amendment_can_be_neither_left_out_nor_swapped() -> None:
    whole = parts(twice())
    with pytest.raises(HashMismatch, match="does not follow"):
        open_chain(chain_of(whole.charter, whole.amendments[1:]))
    with pytest.raises(HashMismatch, match="does not follow"):
        open_chain(chain_of(whole.charter, whole.amendments[::-1]))


def test_a_chain_of_another_swarm_is_refused() -> None:
    other = open_chain(
        chain_of(seal(FOUNDER, CHARTER, "", structs.replace(charter(), name="Other")))
    )
    with pytest.raises(HashMismatch):
        open_chain(other.raw, founded().swarm)
    foreign = parts(lengthen(FOUNDER, other, change(notice="for the other")))
    with pytest.raises(BadSignature):
        open_chain(chain_of(parts(founded()).charter, foreign.amendments))


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.integers(0, 255))
def test_a_changed_byte_is_refused_and_never_crashes(position: int, value: int) -> None:
    raw = bytearray(TWICE.raw)
    position %= len(raw)
    if raw[position] == value:
        return
    raw[position] = value
    with pytest.raises(RemoteError):
        open_chain(bytes(raw), TWICE.swarm)


def test_an_amendment_tells_in_words_what_it_changes_and_says() -> None:
    told = change(
        policy=policy(),
        addresses=["http://a"],
        min_version="0.2.0",
        new_version="0.3.0",
        version_notes="faster",
        notice="hello",
    )
    assert in_words(told) == (
        "amendment 1 changes the policy and the addresses; asks for version 0.2.0 or newer; "
        "recommends version 0.3.0: faster; says: hello"
    )
    assert in_words(change()) == "amendment 1 changes nothing"


TWICE = twice()
