"""One leader at a time: the lease by a clock that tests move, the fence by transactions on a real PostgreSQL."""

import threading
from dataclasses import dataclass

import pytest
from coordinator.small_swarm import SmallSwarm
from protocol.samples import NODE
from sqlalchemy import insert

from kinoswarm_coordinator import leadership as ls
from kinoswarm_coordinator.database import engine_of
from kinoswarm_coordinator.event_log import NotLeader, rows_after
from kinoswarm_coordinator.events import Event
from kinoswarm_coordinator.sql_log import _LOCKED_LEADER, _ROWS, SqlLog
from kinoswarm_protocol.errors import LocalError


@dataclass
class Clock:
    now_ms: int = 1_000_000

    def __call__(self) -> int:
        return self.now_ms


def some_events() -> list[Event]:
    swarm = SmallSwarm()
    swarm.hello(NODE)
    return swarm.history


# --- the decision --------------------------------------------------------------------------------


def test_a_free_lease_is_taken_with_a_higher_epoch() -> None:
    claim = ls.claim(ls.Leadership(7, "before", 999, restored=False), "me", 1_000, alone=False)
    assert claim.next == ls.Leadership(8, "me", 1_000 + ls.LEASE_MS, restored=False)


def test_a_lease_that_runs_is_left_alone_and_the_reason_says_for_how_long() -> None:
    claim = ls.claim(ls.Leadership(7, "anna", 6_000, restored=False), "me", 1_000, alone=False)
    assert claim.next is None
    assert claim.reason == "anna leads; its lease ends in 5 s"


def test_whoever_is_alone_does_not_wait_for_the_dead() -> None:
    assert ls.claim(ls.Leadership(7, "dead", 6_000, restored=False), "me", 0, alone=True).next


def test_a_restored_log_is_led_only_after_a_promotion() -> None:
    kept = ls.restored(41)
    assert ls.claim(kept, "me", 10**15, alone=True).next is None
    promoted = ls.promoted(kept)
    assert promoted.epoch == ls.PROMOTION_STEP
    assert ls.claim(promoted, "me", 0, alone=False).next


def test_a_takeover_fits_into_the_minute_that_is_promised() -> None:
    worst_s = ls.LEASE_MS / 1000 + ls.STUCK_TRANSACTION_S + ls.STANDBY_LOOKS_EVERY_S
    assert worst_s < 45, "the rest is for reading the log"
    assert ls.LEASE_MS / 1000 >= 3 * ls.RENEW_EVERY_S


# --- on PostgreSQL -------------------------------------------------------------------------------


def test_a_standby_waits_for_the_lease_to_run_out(postgresql_url: str) -> None:
    clock = Clock()
    leader, standby = SqlLog(postgresql_url, clock), SqlLog(postgresql_url, clock)
    assert leader.lead("leader").next
    assert standby.lead("standby").next is None
    clock.now_ms += ls.LEASE_MS - 1
    leader.renew()
    clock.now_ms += ls.LEASE_MS - 1
    assert standby.lead("standby").next is None, "it was renewed"
    clock.now_ms += 1
    assert standby.lead("standby").next
    leader.close()
    standby.close()


def test_the_databases_own_clock_is_the_usual_one(postgresql_url: str) -> None:
    leader, standby = SqlLog(postgresql_url), SqlLog(postgresql_url)
    assert leader.lead("leader").next
    refused = standby.lead("standby")
    assert refused.next is None
    assert refused.reason.startswith("leader leads; its lease ends in 2")
    leader.close()
    standby.close()


def test_an_orderly_end_frees_the_lease_at_once(postgresql_url: str) -> None:
    leader, standby = SqlLog(postgresql_url), SqlLog(postgresql_url)
    leader.lead("leader")
    leader.close()
    assert standby.lead("standby").next
    assert standby.epoch == 2
    standby.close()


def test_a_leader_that_wakes_up_too_late_writes_nothing(postgresql_url: str) -> None:
    clock, events = Clock(), some_events()
    old, new = SqlLog(postgresql_url, clock), SqlLog(postgresql_url, clock)
    old.lead("old")
    old.append(events[:1])
    clock.now_ms += ls.LEASE_MS
    new.lead("new")
    for write in (
        lambda: old.append(events[1:]),
        lambda: old.add_signed_head(1, b"x"),
        old.renew,
    ):
        with pytest.raises(NotLeader, match="new leads with epoch 2"):
            write()
    new.append(events[1:])
    with pytest.raises(NotLeader, match="start this coordinator again"):
        old.append(events[1:])
    assert list(new.read()) == events
    assert new.signed_heads() == []
    old.close()
    assert new.leadership().holder == "new", "the old one's end does not free the new one's lease"
    new.close()


def test_a_takeover_waits_for_an_append_that_is_under_way_and_sees_it(postgresql_url: str) -> None:
    """The old leader is between its look at the epoch and its commit when the standby takes over."""
    clock, events = Clock(), some_events()
    old, new = SqlLog(postgresql_url, clock), SqlLog(postgresql_url, clock)
    old.lead("old")
    clock.now_ms += ls.LEASE_MS
    with old._fenced() as connection:
        connection.execute(insert(_ROWS), [vars(row) for row in rows_after(old.head(), events)])
        connection.execute(_LOCKED_LEADER)
        waiting = threading.Thread(target=lambda: new.lead("new"))
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive(), "the lease was taken under an open append"
    waiting.join(10)
    assert new.epoch == 2
    assert new.head().seq == len(events)
    assert list(new.read()) == events
    old.close()
    new.close()


def test_two_standbys_never_both_get_the_lease(postgresql_url: str) -> None:
    logs = [SqlLog(postgresql_url, Clock()) for _ in range(6)]
    claims: list[ls.Claim] = []
    threads = [
        threading.Thread(target=lambda log=log, n=n: claims.append(log.lead(f"standby {n}")))
        for n, log in enumerate(logs)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(claims) == 6
    assert sum(claim.next is not None for claim in claims) == 1
    for log in logs:
        log.close()


def test_a_promotion_ends_the_epoch_of_whoever_leads(postgresql_url: str) -> None:
    leader, operator = SqlLog(postgresql_url), SqlLog(postgresql_url)
    leader.lead("leader")
    assert operator.promote().epoch == ls.PROMOTION_STEP
    with pytest.raises(NotLeader, match="promotion leads with epoch 1000"):
        leader.append(some_events())
    with pytest.raises(NotLeader):
        leader.renew()
    leader.close()
    assert operator.lead("operator").next
    assert operator.epoch == ls.PROMOTION_STEP + 1
    operator.close()


def test_a_server_that_goes_away_while_writing_is_said_so_and_nothing_is_kept(
    postgresql_url: str,
) -> None:
    """The server ends the session between the look at the epoch and the commit."""
    events = some_events()
    leader, operator = SqlLog(postgresql_url), engine_of(postgresql_url)
    leader.lead("leader")

    def write() -> None:
        rows = [vars(row) for row in rows_after(leader.head(), events)]
        with leader._fenced() as connection:
            connection.execute(insert(_ROWS), rows)
            pid = connection.exec_driver_sql("select pg_backend_pid()").scalar_one()
            with operator.connect() as other:
                other.exec_driver_sql(f"select pg_terminate_backend({pid})")

    with pytest.raises(LocalError, match="failed while writing"):
        write()
    operator.dispose()
    assert list(leader.read()) == []
    leader.append(events)
    assert list(leader.read()) == events
    leader.close()
