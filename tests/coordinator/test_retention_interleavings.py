"""Rounds of tidying between any other events: whatever is decided next finds its blobs, and the log tells it all."""

import re
from collections.abc import Iterator

import msgspec
from coordinator.audited_swarm import account, audited_rules
from coordinator.test_interleavings import ACTIONS, counted_anew
from coordinator.tidied_swarm import CHARTER_BLOBS, TidiedSwarm
from hypothesis import given, settings
from hypothesis import strategies as st
from protocol.samples import COORDINATOR

from kinoswarm_coordinator import events as ev
from kinoswarm_coordinator.administration import administer
from kinoswarm_coordinator.audits import comparison_order
from kinoswarm_coordinator.fold import fold
from kinoswarm_coordinator.referee import next_dispute
from kinoswarm_coordinator.releasing import release_order
from kinoswarm_coordinator.retention import Keep, orders_under_way
from kinoswarm_coordinator.rolling_back import Rollback, rolled_back
from kinoswarm_coordinator.scheduling import samples_under_way
from kinoswarm_coordinator.state import LineageKey, SwarmState
from kinoswarm_coordinator.trusted_work import merge_order, next_trusted_work
from kinoswarm_protocol.admin import AdminRequest, RollBack
from kinoswarm_protocol.ids import BlobId, LeaseId
from kinoswarm_protocol.messages import Lease, TrainOrder

NODES = [account(number) for number in range(1, 5)]
LIAR = 0
TIDYING = st.one_of(
    ACTIONS,
    st.tuples(st.just("tidy"), st.just(0)),
    st.tuples(st.just("work"), st.integers(0, 3)),
    st.tuples(st.just("roll back"), st.integers(0, 3)),
)


def blobs_in(thing: object) -> set[BlobId]:
    """Every blob that a message names, whatever its fields are called: ids of leases are shorter."""
    return {
        BlobId(found) for found in re.findall(r"\b[0-9a-f]{64}\b", str(msgspec.to_builtins(thing)))
    }


def perform(swarm: TidiedSwarm, held: dict[int, Lease], action: str, number: int) -> None:
    match action:
        case "wait":
            swarm.now_ms += number * 1000
            swarm.expire()
        case "tidy":
            swarm.tidy()
        case "operate":
            operate_once(swarm, worse=bool(number))
        case "roll back":
            roll_back(swarm, number)
        case "pull":
            pull(swarm, held, number)
        case "work":
            pull(swarm, held, number)
            if number in held:
                submit(swarm, held[number], number)
                arrive(swarm, held[number])
            for _ in range(4):
                operate_once(swarm, worse=False)
        case "submit" | "resubmit" if number in held:
            submit(swarm, held[number], number)
        case "arrive" if number in held:
            arrive(swarm, held[number])


def pull(swarm: TidiedSwarm, held: dict[int, Lease], number: int) -> None:
    lease = swarm.pull(NODES[number])
    if isinstance(lease, Lease):
        held[number] = lease


def submit(swarm: TidiedSwarm, lease: Lease, number: int) -> None:
    camp = "lie" if number == LIAR else "honest"
    swarm.submit(NODES[number], lease, swarm.run(NODES[number], lease, camp=camp))


def arrive(swarm: TidiedSwarm, lease: Lease) -> None:
    if LeaseId(lease.lease_id) in swarm.state.unsettled:
        swarm.blobs_arrive(lease)


def operate_once(swarm: TidiedSwarm, worse: bool) -> None:
    lease = swarm.pull(COORDINATOR)
    if isinstance(lease, Lease):
        swarm.submit(COORDINATOR, lease, swarm.trusted_outcome(lease, worse))
        arrive(swarm, lease)


def roll_back(swarm: TidiedSwarm, back: int) -> None:
    """So many versions back, whether they are kept or not."""
    newest = swarm.state.newest((0, 0)).version
    action = RollBack(cluster=0, lineage=0, to_version=max(0, newest - 1 - back), sentence="why")
    asked = AdminRequest(request_id=f"{len(swarm.history):032x}", at_ms=swarm.now_ms, action=action)
    admins = frozenset({COORDINATOR.peer_id})
    result = administer(swarm.state, swarm.rules, admins, COORDINATOR.peer_id, asked, swarm.now_ms)
    swarm.record(result.events)


def named_next(swarm: TidiedSwarm) -> Iterator[set[BlobId]]:
    """What may be asked for now, and what any next decision names."""
    state, rules, now_ms = swarm.state, swarm.rules, swarm.now_ms
    yield set(CHARTER_BLOBS)
    for lease_id in state.open_leases:
        yield blobs_in(state.leases[lease_id].order)
        yield swarm.offered[lease_id]
    for seed in range(2):
        if (work := next_trusted_work(state, rules, now_ms, seed)) is not None:
            yield blobs_in(work.order)
    for found in (comparison_order(state), next_dispute(state, rules, now_ms)):
        yield blobs_in(found[1]) if found is not None else set()
    for key in state.versions:
        yield {state.newest(key).checkpoint}
        if state.mergeable[key]:
            yield blobs_in(merge_order(state, rules, key, seed=0))
        yield from rolled_back_to(swarm, key)
    for primary in state.audits_wanted:
        yield blobs_in(state.leases[primary].order)
    release = release_order(state, rules, seed=0)
    yield blobs_in(release) if release is not None else set()
    yield newest_release(state)


def rolled_back_to(swarm: TidiedSwarm, key: LineageKey) -> Iterator[set[BlobId]]:
    """Every way back that an audit or an operator may take: its content, and what may be merged anew."""
    state = swarm.state
    withdrawn = state.withdrawn.get(key, set())
    for version in state.versions[key][:-1]:
        if version.version in withdrawn or state.is_forgotten(key, version.version):
            continue
        wanted = Rollback(
            key=key,
            to_version=version.version,
            sentence="",
            refused=frozenset(),
            keeps_resting=True,
        )
        *_, rolled = rolled_back(state, swarm.rules, wanted, swarm.now_ms)
        assert isinstance(rolled, ev.VersionRolledBack)
        yield {version.checkpoint, *(state.delta_of(lease_id) for lease_id in rolled.reopened)}
        yield {rolled.momentum} if rolled.momentum is not None else set()


def newest_release(state: SwarmState) -> set[BlobId]:
    published = [release for release in state.releases if release.manifest is not None]
    if not published:
        return set()
    release = published[-1]
    experts = [state.versions[key][version] for key, version in release.experts_by_key()]
    return blobs_in(release) | {expert.checkpoint for expert in experts}


def check(swarm: TidiedSwarm) -> None:
    needed = swarm.needed()
    for blobs in named_next(swarm):
        assert blobs <= swarm.store, "a blob that may be asked for is gone"
        assert blobs <= needed, "a blob that may be asked for would go in the next round"
    for key, line in swarm.state.versions.items():
        assert samples_under_way(swarm.state, key) == counted_anew(swarm.state, key)
        assert not swarm.state.is_forgotten(key, 0)
        assert not swarm.state.is_forgotten(key, line[-1].version)
    for order in orders_under_way(swarm.state):
        if isinstance(order, TrainOrder):
            key = order.cluster, order.lineage
            assert not swarm.state.is_forgotten(key, order.base_version), "its work would be late"


@settings(max_examples=100, deadline=None)
@given(st.lists(TIDYING, max_size=80), st.booleans(), st.integers(0, 1))
def test_whatever_is_decided_next_finds_its_blobs_in_every_order_of_events(
    actions: list[tuple[str, int]], alike: bool, staleness: int
) -> None:
    rules = audited_rules(
        2, referee=True, audit_one_in=2, audit_wait_s=400.0, max_staleness=staleness
    )
    swarm = TidiedSwarm(rules, keep=Keep(versions=1, releases=1), alike=alike)
    for key in NODES:
        swarm.hello(key)
    held: dict[int, Lease] = {}
    for action, number in actions:
        perform(swarm, held, action, number)
        check(swarm)
    swarm.tidy()
    check(swarm)
    assert fold(SwarmState(), swarm.history) == swarm.state
