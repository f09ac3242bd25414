"""Whatever the order of pulls, hand-ins, losses and merges: the invariants hold."""

from collections import Counter

from coordinator.small_swarm import SmallSwarm, rules, trained, trusted_outcome
from hypothesis import given, settings
from hypothesis import strategies as st
from protocol.samples import COORDINATOR

from kinoswarm_coordinator import events as ev
from kinoswarm_coordinator.fold import fold
from kinoswarm_coordinator.scheduling import samples_under_way
from kinoswarm_coordinator.state import SwarmState
from kinoswarm_protocol.ids import LeaseId
from kinoswarm_protocol.keys import KeyPair
from kinoswarm_protocol.messages import Lease, TrainOrder

NODES = [KeyPair(bytes([n]) * 32) for n in range(1, 5)]

ACTIONS = st.one_of(
    st.tuples(st.just("pull"), st.integers(0, 3)),
    st.tuples(st.just("submit"), st.integers(0, 3)),
    st.tuples(st.just("resubmit"), st.integers(0, 3)),
    st.tuples(st.just("arrive"), st.integers(0, 3)),
    st.tuples(st.just("operate"), st.integers(0, 1)),
    st.tuples(st.just("wait"), st.integers(1, 300)),
)


def perform(swarm: SmallSwarm, held: dict[int, Lease], action: str, number: int) -> None:
    if action == "wait":
        swarm.now_ms += number * 1000
        swarm.expire()
        return
    if action == "operate":
        lease = swarm.pull(COORDINATOR)
        if isinstance(lease, Lease):
            swarm.submit(COORDINATOR, lease, trusted_outcome(lease, worse=bool(number)))
            if LeaseId(lease.lease_id) in swarm.state.unsettled:
                swarm.blobs_arrive(lease)
        return
    key = NODES[number]
    if action == "pull":
        lease = swarm.pull(key)
        if isinstance(lease, Lease):
            held[number] = lease
    elif number in held and action in ("submit", "resubmit"):
        swarm.submit(key, held[number], trained(held[number]))
    elif number in held and LeaseId(held[number].lease_id) in swarm.state.unsettled:
        swarm.blobs_arrive(held[number])


@settings(max_examples=200, deadline=None)
@given(st.lists(ACTIONS, max_size=80))
def test_invariants_hold_in_every_order_of_events(actions: list[tuple[str, int]]) -> None:
    swarm = SmallSwarm(rules(2, target_version=0, quorum_samples=200))
    for key in NODES:
        swarm.hello(key)
    held: dict[int, Lease] = {}
    for action, number in actions:
        perform(swarm, held, action, number)
        check(swarm)
    assert fold(SwarmState(), swarm.history) == swarm.state


def counted_anew(state: SwarmState, key: tuple[int, int]) -> int:
    """Samples of open, undecided and unmerged train leases of a lineage."""
    under_way = state.open_leases | state.undecided | state.unmerged[key].keys()
    leases = [state.leases[lease_id] for lease_id in under_way]
    return sum(
        lease.samples
        for lease in leases
        if lease.purpose == "train" and (lease.order.cluster, lease.order.lineage) == key
    )


def check(swarm: SmallSwarm) -> None:
    state = swarm.state
    issued = Counter(e.lease.lease_id for e in swarm.history if isinstance(e, ev.LeaseIssued))
    assert all(count == 1 for count in issued.values()), "a lease was granted twice"
    received = Counter(e.lease_id for e in swarm.history if isinstance(e, ev.WorkReceived))
    assert all(count == 1 for count in received.values()), "a contribution was counted twice"
    verdicts = Counter(e.verdict.lease_id for e in swarm.history if isinstance(e, ev.VerdictGiven))
    assert all(count == 1 for count in verdicts.values()), "two verdicts on one contribution"
    merged = Counter(
        lease_id
        for e in swarm.history
        if isinstance(e, ev.VersionCut)
        for lease_id in e.contributions
    )
    assert all(count == 1 for count in merged.values()), "a contribution was merged twice"
    for line in state.versions.values():
        assert [version.version for version in line] == list(range(len(line)))
    for node in NODES:
        open_now = [i for i in state.open_leases if state.leases[i].lease.node == node.peer_id]
        unexpired = [i for i in open_now if state.leases[i].lease.deadline_ms > swarm.now_ms]
        assert len(unexpired) <= 1, "a node holds two leases"
    for key in state.versions:
        assert samples_under_way(state, key) == counted_anew(state, key)
    open_by_node = {lease_id for held in state.open_by_node.values() for lease_id in held}
    assert open_by_node == state.open_leases
    for lease_id in state.undecided:
        assert isinstance(state.leases[lease_id].order, TrainOrder)
        assert state.work[lease_id].verdict is None
