"""Delegations and revocations: both sides must want them, nobody else can make or change one."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from protocol.samples import ACCOUNT, FOUNDER, NODE

from kinoswarm_protocol.accounts import (
    DELEGATION,
    MAX_DELEGATION_MS,
    Delegation,
    delegate,
    open_delegation,
    open_revocation,
    revoke,
    why_not_at,
)
from kinoswarm_protocol.envelope import seal
from kinoswarm_protocol.errors import BadSignature, LimitExceeded, MalformedBytes, RemoteError

NOW_MS = 1_700_000_000_000
DAY_MS = 86_400_000


def body(**changes: object) -> Delegation:
    fields = {
        "account": ACCOUNT.peer_id,
        "machine": NODE.peer_id,
        "serial": NOW_MS,
        "name": "otters",
        "not_before_ms": NOW_MS,
        "expires_at_ms": NOW_MS + DAY_MS,
    }
    return Delegation(**{**fields, **changes})


def test_a_delegation_holds_for_its_machine_and_for_its_time() -> None:
    opened = open_delegation(
        delegate(ACCOUNT, NODE.peer_id, "otters", NOW_MS, DAY_MS), NODE.peer_id
    )
    assert opened.signer == ACCOUNT.peer_id
    assert opened.body == body()
    assert why_not_at(opened.body, NOW_MS) == ""
    assert why_not_at(opened.body, NOW_MS - 5_000) == "", "clocks may differ a little"
    assert "future" in why_not_at(opened.body, NOW_MS - 60_000)
    assert "expired" in why_not_at(opened.body, NOW_MS + DAY_MS)


def test_nobody_can_give_a_machine_to_an_account_that_did_not_sign() -> None:
    with pytest.raises(BadSignature, match="who did not sign it"):
        open_delegation(seal(FOUNDER, DELEGATION, "", body()), NODE.peer_id)


def test_a_delegation_is_worth_nothing_to_another_machine() -> None:
    raw = delegate(ACCOUNT, NODE.peer_id, "otters", NOW_MS, DAY_MS)
    with pytest.raises(BadSignature, match="is for machine"):
        open_delegation(raw, FOUNDER.peer_id)


@pytest.mark.parametrize("lasts_ms", [0, -1, MAX_DELEGATION_MS + 1])
def test_a_delegation_is_neither_for_ever_nor_for_no_time(lasts_ms: int) -> None:
    with pytest.raises(MalformedBytes, match="two years"):
        delegate(ACCOUNT, NODE.peer_id, "otters", NOW_MS, lasts_ms)
    raw = seal(ACCOUNT, DELEGATION, "", body(expires_at_ms=max(0, NOW_MS + lasts_ms)))
    with pytest.raises(LimitExceeded, match="two years"):
        open_delegation(raw, NODE.peer_id)


def test_a_machine_is_no_account_of_itself() -> None:
    raw = delegate(NODE, NODE.peer_id, "me", NOW_MS, DAY_MS)
    with pytest.raises(MalformedBytes, match="no account of itself"):
        open_delegation(raw, NODE.peer_id)


@pytest.mark.parametrize("key", [ACCOUNT, NODE])
def test_both_the_account_and_the_machine_may_end_it(key: object) -> None:
    said = open_revocation(revoke(key, ACCOUNT.peer_id, NODE.peer_id, NOW_MS)).body  # type: ignore[arg-type]
    assert (said.account, said.machine, said.serial) == (ACCOUNT.peer_id, NODE.peer_id, NOW_MS)


def test_a_stranger_can_end_nothing() -> None:
    with pytest.raises(BadSignature, match="neither of the two"):
        open_revocation(revoke(FOUNDER, ACCOUNT.peer_id, NODE.peer_id, NOW_MS))


@settings(max_examples=60)
@given(st.integers(0, 400), st.integers(0, 255))
def test_a_changed_byte_is_refused_and_never_crashes(position: int, value: int) -> None:
    raw = bytearray(delegate(ACCOUNT, NODE.peer_id, "otters", NOW_MS, DAY_MS))
    position %= len(raw)
    if raw[position] == value:
        return
    raw[position] = value
    with pytest.raises(RemoteError):
        open_delegation(bytes(raw), NODE.peer_id)
