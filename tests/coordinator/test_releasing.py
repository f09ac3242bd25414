"""When a release is due, what it may be made of, and experts of one cluster that are trained apart."""

from collections import Counter

from coordinator.small_swarm import rules

from kinoswarm_coordinator import events as ev
from kinoswarm_coordinator.fold import apply
from kinoswarm_coordinator.releasing import release_order
from kinoswarm_coordinator.scheduling import Granted, Pull, decide
from kinoswarm_coordinator.state import SwarmState
from kinoswarm_protocol.ids import BlobId, PeerId
from kinoswarm_protocol.messages import ExpertRef, PullLease, TrainOrder
from kinoswarm_protocol.specs import ModeSpec

SEED, ROUTER = BlobId("5e" * 32), BlobId("70" * 32)


def state(clusters: int = 2, lineages: int = 1) -> SwarmState:
    founded = SwarmState()
    apply(
        founded,
        ev.Founded(at_ms=0, num_clusters=clusters, seed_checkpoint=SEED, num_lineages=lineages),
    )
    apply(
        founded,
        ev.RouterTrained(
            at_ms=0, blob=ROUTER, accuracy_by_t=[], calibration_error=0.0, share_by_cluster=[]
        ),
    )
    return founded


def cut(state: SwarmState, cluster: int, lineage: int = 0) -> None:
    version = state.newest((cluster, lineage)).version + 1
    apply(
        state,
        ev.VersionCut(
            at_ms=1,
            cluster=cluster,
            lineage=lineage,
            version=version,
            checkpoint=BlobId(f"{cluster}{lineage}{version:02x}" * 16),
            momentum=None,
            heldout_loss=0.5,
            base_loss=0.6,
            contributions=[],
        ),
    )


def released(state: SwarmState, experts: list[ExpertRef], considered: list[int]) -> None:
    apply(
        state,
        ev.ReleaseBuilt(
            at_ms=2,
            version=len(state.releases) + 1,
            expert_versions=[expert.version for expert in experts],
            expert_lineages=[expert.lineage for expert in experts],
            considered=considered,
            files=[],
            share_by_expert=[],
        ),
    )


def keys(experts: list[ExpertRef]) -> list[tuple[int, int, int]]:
    return [(expert.cluster, expert.lineage, expert.version) for expert in experts]


def test_the_last_releases_experts_stand_beside_the_newest() -> None:
    swarm = state()
    cut(swarm, 0), cut(swarm, 1)
    first = release_order(swarm, rules(), 1)
    assert first is not None
    assert (keys(first.experts), first.standing) == ([(0, 0, 1), (1, 0, 1)], [])
    released(swarm, first.experts, [1, 1])
    assert release_order(swarm, rules(), 1) is None
    cut(swarm, 0), cut(swarm, 1)
    second = release_order(swarm, rules(), 1)
    assert second is not None
    assert keys(second.experts) == [(0, 0, 2), (1, 0, 2)]
    assert keys(second.standing) == [(0, 0, 1), (1, 0, 1)]
    assert second.pairs == 4 * rules().charter.policy.heldout_pairs


def test_a_version_that_was_held_back_is_not_tried_again() -> None:
    swarm = state()
    for _ in range(2):
        cut(swarm, 0), cut(swarm, 1)
    held = [
        ExpertRef(cluster=0, lineage=0, version=1, checkpoint=SEED),
        ExpertRef(cluster=1, lineage=0, version=2, checkpoint=SEED),
    ]
    released(swarm, held, [2, 2])
    assert release_order(swarm, rules(target_version=2), 1) is None
    cut(swarm, 0)
    assert release_order(swarm, rules(target_version=0), 1) is None
    cut(swarm, 1)
    assert release_order(swarm, rules(target_version=0), 1) is not None


def test_a_withdrawn_version_stands_no_more() -> None:
    swarm = state()
    cut(swarm, 0), cut(swarm, 1)
    order = release_order(swarm, rules(), 1)
    assert order is not None
    released(swarm, order.experts, [1, 1])
    apply(
        swarm,
        ev.VersionRolledBack(
            at_ms=3,
            cluster=0,
            lineage=0,
            version=2,
            to_version=0,
            withdrawn=[1],
            contributions=[],
            sentence="poisoned",
        ),
    )
    swarm.release_wanted = True
    again = release_order(swarm, rules(), 1)
    assert again is not None
    assert keys(again.standing) == [(1, 0, 1)]


def test_every_trained_lineage_may_enter_and_the_furthest_says_when() -> None:
    swarm = state(lineages=2)
    cut(swarm, 0, lineage=1), cut(swarm, 1), cut(swarm, 1, lineage=1)
    order = release_order(swarm, rules(), 1)
    assert order is not None
    assert keys(order.experts) == [(0, 1, 1), (1, 0, 1), (1, 1, 1)]


def pull_of(number: int) -> Pull:
    return Pull(
        peer=PeerId(f"volunteer-{number}"),
        request_id=f"{number:032x}",
        body=PullLease(modes=[ModeSpec(name="full")], seconds_per_step=0.1, clusters_on_disk=[]),
        now_ms=10,
        seed=number,
    )


def test_accounts_train_one_lineage_each_and_both_get_their_share() -> None:
    swarm, law = state(lineages=2), rules(lineages=2, work_ahead=100.0, quorum_samples=10**6)
    found: Counter[int] = Counter()
    for number in range(200):
        orders = set()
        for _ in range(2):
            granted = decide(swarm, law, pull_of(number))
            assert isinstance(granted, Granted)
            order = granted.lease.order
            assert isinstance(order, TrainOrder)
            orders.add(order.lineage)
        assert len(orders) == 1
        found.update(orders)
    assert min(found.values()) > 70
