"""Several machines, one name: who may claim what, when it ends, and whose the credit is."""

from pathlib import Path

from coordinator.small_swarm import SmallSwarm
from protocol.samples import ACCOUNT, COORDINATOR, FOUNDER, NODE

from kinoswarm_coordinator.database import sqlite_url
from kinoswarm_coordinator.events import AdminActed
from kinoswarm_coordinator.fold import fold
from kinoswarm_coordinator.requests import Decision, SayWelcome
from kinoswarm_coordinator.sql_log import SqlLog
from kinoswarm_coordinator.state import SwarmState
from kinoswarm_protocol.accounts import delegate, revoke
from kinoswarm_protocol.admin import BanNode
from kinoswarm_protocol.keys import KeyPair
from kinoswarm_protocol.messages import Noted, NoWork, Refusal, RevokeMachine

DAY_MS = 86_400_000
LAPTOP = KeyPair(b"\x07" * 32)
OTHER_ACCOUNT = KeyPair(b"\x08" * 32)


def paper(swarm: SmallSwarm, machine: KeyPair, account: KeyPair = ACCOUNT, days: int = 30) -> bytes:
    return delegate(account, machine.peer_id, "otters", swarm.now_ms, days * DAY_MS)


def notice(decision: Decision) -> str:
    assert isinstance(decision.say, SayWelcome), decision.say
    return decision.say.notice


def refusal(decision: Decision) -> str:
    assert isinstance(decision.say, Refusal), decision.say
    assert not decision.events
    return decision.say.sentence


def test_a_machine_counts_for_itself_until_its_account_says_so() -> None:
    swarm = SmallSwarm()
    swarm.hello(NODE)
    assert swarm.state.account_of(NODE.peer_id) == NODE.peer_id
    said = notice(swarm.hello(NODE, paper(swarm, NODE)))
    assert "counts for otters" in said
    swarm.hello(LAPTOP, paper(swarm, LAPTOP))
    assert swarm.state.account_of(NODE.peer_id) == ACCOUNT.peer_id
    assert swarm.state.account_of(LAPTOP.peer_id) == ACCOUNT.peer_id
    assert swarm.state.account_names[ACCOUNT.peer_id].name == "otters"


def test_the_same_hello_again_is_no_event_and_a_hello_without_the_paper_changes_nothing() -> None:
    swarm = SmallSwarm()
    raw = paper(swarm, NODE)
    swarm.hello(NODE, raw)
    assert not swarm.hello(NODE, raw).events
    assert not swarm.hello(NODE).events
    assert swarm.state.account_of(NODE.peer_id) == ACCOUNT.peer_id


def test_a_machine_can_not_claim_somebody_elses_account() -> None:
    swarm = SmallSwarm()
    assert "is for machine" in refusal(swarm.hello(LAPTOP, paper(swarm, NODE)))
    forged = bytearray(paper(swarm, LAPTOP))
    forged[-1] ^= 1
    assert "signature" in refusal(swarm.hello(LAPTOP, bytes(forged)))
    assert LAPTOP.peer_id not in swarm.state.delegations


def test_an_older_paper_does_not_win_over_a_newer_one() -> None:
    swarm = SmallSwarm()
    old = paper(swarm, NODE)
    swarm.now_ms += 1_000
    swarm.hello(NODE, paper(swarm, NODE, OTHER_ACCOUNT))
    swarm.hello(NODE, old)
    assert swarm.state.account_of(NODE.peer_id) == OTHER_ACCOUNT.peer_id


def test_accounts_form_no_chains() -> None:
    swarm = SmallSwarm()
    swarm.hello(NODE, paper(swarm, NODE))
    assert "another account" in refusal(swarm.hello(ACCOUNT, paper(swarm, ACCOUNT, OTHER_ACCOUNT)))
    assert "another account" in refusal(swarm.hello(LAPTOP, paper(swarm, LAPTOP, NODE)))


def test_the_account_revokes_a_machine_and_its_old_paper_is_void() -> None:
    swarm = SmallSwarm()
    raw = paper(swarm, NODE)
    swarm.hello(NODE, raw)
    swarm.now_ms += 1_000
    order = RevokeMachine(revocation=revoke(ACCOUNT, ACCOUNT.peer_id, NODE.peer_id, swarm.now_ms))
    said = swarm.ask(LAPTOP, order)
    assert isinstance(said.say, Noted)
    assert "no longer counts" in said.say.sentence
    assert swarm.state.account_of(NODE.peer_id) == NODE.peer_id
    assert not swarm.ask(LAPTOP, order).events, "a replay changes nothing"
    assert "revoked" in notice(swarm.hello(NODE, raw))
    swarm.now_ms += 1_000
    swarm.hello(NODE, paper(swarm, NODE))
    assert swarm.state.account_of(NODE.peer_id) == ACCOUNT.peer_id, "a new paper counts again"


def test_a_machine_may_leave_its_account_and_a_stranger_may_not_put_it_out() -> None:
    swarm = SmallSwarm()
    swarm.hello(NODE, paper(swarm, NODE))
    by_stranger = revoke(FOUNDER, ACCOUNT.peer_id, NODE.peer_id, swarm.now_ms)
    refusal(swarm.ask(FOUNDER, RevokeMachine(revocation=by_stranger)))
    by_itself = revoke(NODE, ACCOUNT.peer_id, NODE.peer_id, swarm.now_ms)
    swarm.ask(NODE, RevokeMachine(revocation=by_itself))
    assert swarm.state.account_of(NODE.peer_id) == NODE.peer_id


def test_a_revocation_for_a_machine_that_never_joined_fills_no_memory() -> None:
    swarm = SmallSwarm()
    raw = revoke(ACCOUNT, ACCOUNT.peer_id, LAPTOP.peer_id, swarm.now_ms)
    assert "ever joined" in refusal(swarm.ask(NODE, RevokeMachine(revocation=raw)))


def test_an_expired_paper_bars_nobody_from_training_and_is_said() -> None:
    swarm = SmallSwarm()
    raw = paper(swarm, NODE, days=1)
    swarm.hello(NODE, raw)
    swarm.now_ms += DAY_MS
    swarm.expire()
    assert swarm.state.account_of(NODE.peer_id) == NODE.peer_id
    assert "expired" in notice(swarm.hello(NODE, raw))
    assert not isinstance(swarm.pull(NODE), NoWork)


def test_a_ban_of_an_account_holds_for_its_machines() -> None:
    swarm = SmallSwarm()
    swarm.hello(NODE, paper(swarm, NODE))
    ban = BanNode(peer=ACCOUNT.peer_id, until_ms=swarm.now_ms + DAY_MS, sentence="copies")
    acted = AdminActed(
        at_ms=swarm.now_ms, signer=COORDINATOR.peer_id, request_id="0" * 32, action=ban
    )
    swarm.record([acted])
    answer = swarm.pull(NODE)
    assert isinstance(answer, NoWork)
    assert "copies" in answer.sentence


def test_accounts_survive_a_restart_of_the_coordinator(tmp_path: Path) -> None:
    swarm = SmallSwarm()
    swarm.hello(NODE, paper(swarm, NODE))
    swarm.hello(LAPTOP, paper(swarm, LAPTOP))
    swarm.now_ms += 1
    raw = revoke(ACCOUNT, ACCOUNT.peer_id, LAPTOP.peer_id, swarm.now_ms)
    swarm.ask(NODE, RevokeMachine(revocation=raw))
    log = SqlLog(sqlite_url(tmp_path / "log.sqlite"))
    log.lead("test")
    log.append(swarm.history)
    again = fold(SwarmState(), log.read())
    log.close()
    assert again.delegations == swarm.state.delegations
    assert again.revoked == swarm.state.revoked
    assert again.account_names == swarm.state.account_names
