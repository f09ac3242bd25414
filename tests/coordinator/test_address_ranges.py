"""Ranges of addresses: which machines count as neighbours, how many newcomers among them work, who audits whom."""

from collections.abc import Set

import pytest
from coordinator.audited_swarm import AuditedSwarm
from coordinator.small_swarm import SmallSwarm, rules
from hypothesis import given
from hypothesis import strategies as st

from kinoswarm_coordinator.audits import Auditor, audit_for
from kinoswarm_coordinator.presence import Presence
from kinoswarm_coordinator.scheduling import Granted, Nothing, Pull, decide
from kinoswarm_protocol.address_ranges import range_of
from kinoswarm_protocol.ids import LeaseId, PeerId
from kinoswarm_protocol.messages import PullLease
from kinoswarm_protocol.specs import ModeSpec


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("198.51.101.7", "198.51.101.0/24"),
        ("::ffff:198.51.101.7", "198.51.101.0/24"),
        ("2a02:8100:1:2::3", "2a02:8100:1::/48"),
        ("192.168.1.4", ""),
        ("127.0.0.1", ""),
        ("fe80::1", ""),
        ("", ""),
        ("example.org", ""),
    ],
)
def test_public_addresses_have_a_range_and_no_others(host: str, expected: str) -> None:
    assert range_of(host) == expected


@given(st.text(max_size=60))
def test_any_text_has_a_range_or_none(host: str) -> None:
    assert range_of(host) == "" or "/" in range_of(host)


def test_neighbours_were_last_heard_from_one_range() -> None:
    presence = Presence()
    here, there, moved = (PeerId(name) for name in ("here", "there", "moved"))
    presence.seen(here, 1, "198.51.101.0/24")
    presence.seen(there, 1, "203.0.112.0/24")
    presence.seen(moved, 1, "203.0.112.0/24")
    assert presence.neighbours(moved) == {there}
    presence.seen(moved, 2, "198.51.101.0/24")
    assert presence.neighbours(moved) == {here}
    assert presence.neighbours(there) == set()
    presence.seen(moved, 3)
    assert presence.neighbours(here) == {moved}
    assert presence.neighbours(PeerId("silent")) == set()


def pull(name: str, neighbours: Set[PeerId], now_ms: int = 10, seed: int = 0) -> Pull:
    return Pull(
        peer=PeerId(name),
        request_id=name.encode().hex().ljust(32, "0")[:32],
        body=PullLease(modes=[ModeSpec(name="full")], seconds_per_step=0.1, clusters_on_disk=[]),
        now_ms=now_ms,
        seed=seed or hash(name) & 0xFFFF,
        neighbours=neighbours,
    )


def test_newcomers_of_one_range_wait_for_each_other() -> None:
    law = rules(range_newcomers=2, work_ahead=100.0, quorum_samples=10**6)
    swarm = SmallSwarm(law)
    street = frozenset(PeerId(f"house-{number}") for number in range(4))
    for number in range(2):
        granted = decide(swarm.state, law, pull(f"house-{number}", street, seed=number + 1))
        assert isinstance(granted, Granted)
        assert granted.event is not None
        swarm.record([granted.event])
    refused = decide(swarm.state, law, pull("house-2", street, seed=9))
    assert isinstance(refused, Nothing)
    assert "2 newcomers of your range of addresses are at work" in refused.reason
    elsewhere = decide(swarm.state, law, pull("far-away", frozenset(), seed=10))
    assert isinstance(elsewhere, Granted)


def test_a_range_without_a_limit_has_none() -> None:
    law = rules(work_ahead=100.0, quorum_samples=10**6)
    street = frozenset(PeerId(f"house-{number}") for number in range(4))
    swarm = SmallSwarm(law)
    for number in range(4):
        granted = decide(swarm.state, law, pull(f"house-{number}", street, seed=number + 1))
        assert isinstance(granted, Granted)
        assert granted.event is not None
        swarm.record([granted.event])


def test_a_run_is_audited_from_another_range_unless_nobody_else_is_found_for_long() -> None:
    swarm = AuditedSwarm()
    alice, bob = swarm.joined(1, 2)
    first = swarm.work(alice)
    opened_ms = swarm.case(first).opened_at_ms
    half_ms = round(500 * swarm.rules.charter.policy.audit_wait_s)

    def auditor(now_ms: int, neighbours: Set[PeerId]) -> Auditor:
        body = PullLease(modes=[ModeSpec(name="full")], seconds_per_step=0.1, clusters_on_disk=[])
        return Auditor(
            peer=bob.peer_id,
            body=body,
            now_ms=now_ms,
            most_steps=10**6,
            neighbours=neighbours,
        )

    def found(now_ms: int, neighbours: Set[PeerId]) -> LeaseId | None:
        work = audit_for(swarm.state, swarm.rules, auditor(now_ms, neighbours))
        return work[0] if work else None

    assert found(opened_ms, frozenset()) == first
    assert found(opened_ms, {alice.peer_id}) is None
    assert found(opened_ms + half_ms, {alice.peer_id}) == first
