"""Audits in every order of events, with one liar among four: the liar frames nobody, and the books stay right."""

from collections import Counter

from coordinator.audited_swarm import AuditedSwarm, account, audited_rules
from coordinator.test_interleavings import ACTIONS, counted_anew
from hypothesis import given, settings
from hypothesis import strategies as st
from protocol.samples import COORDINATOR

from kinoswarm_coordinator.credit import ledger_of
from kinoswarm_coordinator.fold import fold
from kinoswarm_coordinator.scheduling import samples_under_way
from kinoswarm_coordinator.state import LineageKey, SwarmState
from kinoswarm_protocol.ids import LeaseId
from kinoswarm_protocol.messages import Lease, TrainOrder

NODES = [account(number) for number in range(1, 5)]
LIAR = 0


def perform(swarm: AuditedSwarm, held: dict[int, Lease], action: str, number: int) -> None:
    if action == "wait":
        swarm.now_ms += number * 1000
        swarm.expire()
    elif action == "operate":
        lease = swarm.pull(COORDINATOR)
        if isinstance(lease, Lease):
            swarm.finish(COORDINATOR, lease, swarm.trusted_outcome(lease, False))
    elif action == "pull":
        lease = swarm.pull(NODES[number])
        if isinstance(lease, Lease):
            held[number] = lease
    elif number in held and action in ("submit", "resubmit"):
        camp = "lie" if number == LIAR else "honest"
        swarm.submit(NODES[number], held[number], swarm.run(NODES[number], held[number], camp=camp))
    elif number in held and LeaseId(held[number].lease_id) in swarm.state.unsettled:
        swarm.blobs_arrive(held[number])


def forgotten_cases(state: SwarmState) -> set[LeaseId]:
    """Open audits that neither wait for anybody nor have anything under way."""
    coming = state.open_leases | state.undecided | state.unsettled
    under_way = coming | {state.audit_of[lease] for lease in coming if lease in state.audit_of}
    waiting = {*state.audits_wanted, *state.audits_disputed, *state.audits_ready}
    return set(state.audits_open) - waiting - state.comparing - under_way


def mergeable_anew(state: SwarmState, key: LineageKey) -> list[LeaseId]:
    """Accepted work that no audit holds, but for what rests on versions that are still to come back."""
    line = state.versions[key]
    free = {
        lease_id: line[base_of(state, lease_id)].position
        for lease_id in state.unmerged[key]
        if not state.is_held(lease_id)
    }
    reached = max(line[-1].position, min(free.values(), default=0))
    return [lease_id for lease_id, position in free.items() if position <= reached]


def base_of(state: SwarmState, lease_id: LeaseId) -> int:
    order = state.leases[lease_id].order
    assert isinstance(order, TrainOrder)
    return order.base_version


def check(swarm: AuditedSwarm) -> None:
    state = swarm.state
    assert not {key.peer_id for key in NODES[1:]} & set(state.bans), "an honest account was framed"
    for key in state.versions:
        assert samples_under_way(state, key) == counted_anew(state, key)
        free = mergeable_anew(state, key)
        assert sorted(state.mergeable[key]) == sorted(free)
        samples = sum(state.leases[lease_id].samples for lease_id in free)
        assert state.mergeable_samples.get(key, 0) == samples
        standing = Counter(
            lease_id
            for version in state.versions[key]
            if version.version not in state.withdrawn.get(key, set())
            for lease_id in version.contributions
        )
        assert all(count == 1 for count in standing.values()), "merged twice"
    assert not forgotten_cases(state), "nobody will ever look at these again"
    for case in state.audits.values():
        assert len(case.runs) == len(set(case.runs))
        assert case.accounts[0] not in case.accounts[1:], "an account audited itself"
        assert (case.result == "open") == (case.lease_id in state.audits_open)
    assert set(state.audits_disputed) | set(state.audits_wanted) <= set(state.audits_open)
    assert not set(state.audits_disputed) & set(state.audits_wanted)
    assert set(state.audits_ready) <= set(state.audits_open)


def comes_to_rest(swarm: AuditedSwarm) -> None:
    """Whatever happened before: all accepted work is merged or set aside, and there is work for everybody again."""
    for _ in range(12):
        swarm.now_ms += 500_000
        swarm.expire()
        for lease_id in list(swarm.state.unsettled):
            swarm.blobs_arrive(swarm.state.leases[lease_id].lease)
        swarm.operate()
        check(swarm)
    assert not any(swarm.state.unmerged.values()), "accepted work that no version will ever hold"
    assert not swarm.state.ahead
    assert isinstance(swarm.pull(NODES[1]), Lease)


@settings(max_examples=60, deadline=None)
@given(st.lists(ACTIONS, max_size=120), st.booleans())
def test_one_liar_frames_nobody_and_the_books_stay_right(
    actions: list[tuple[str, int]], referee: bool
) -> None:
    swarm = AuditedSwarm(audited_rules(2, referee=referee, audit_one_in=2, audit_wait_s=400.0))
    for key in NODES:
        swarm.hello(key)
    held: dict[int, Lease] = {}
    for action, number in actions:
        perform(swarm, held, action, number)
        check(swarm)
    assert fold(SwarmState(), swarm.history) == swarm.state
    comes_to_rest(swarm)
    ledger = ledger_of(swarm.history, 1.0)
    for owner, machines in ledger.by_account.items():
        assert sum(machines.values()) >= ledger.verified.get(owner, 0.0) >= 0.0
