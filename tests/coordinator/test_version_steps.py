"""Which steps a lease is given along: an unbroken chain, bounded, and nothing that an auditor should not find."""

from coordinator.small_swarm import SmallSwarm, blob_named, rules, trained, trusted_outcome
from msgspec import structs
from protocol.samples import BLOB, COORDINATOR, FOUNDER, NODE

from kinoswarm_coordinator import events as ev
from kinoswarm_coordinator.version_steps import steps_to
from kinoswarm_protocol.ids import LeaseId
from kinoswarm_protocol.limits import MAX_VERSION_STEPS
from kinoswarm_protocol.messages import Order, TrainOrder
from kinoswarm_protocol.specs import ModeSpec


def swarm_with(versions: int) -> SmallSwarm:
    swarm = SmallSwarm(rules(1, target_version=100))
    for version in range(1, versions + 1):
        cut(swarm, version, step=True)
    return swarm


def cut(
    swarm: SmallSwarm, version: int, *, step: bool, contributions: tuple[str, ...] = ()
) -> None:
    swarm.record(
        [
            ev.VersionCut(
                at_ms=swarm.now_ms,
                cluster=0,
                lineage=0,
                version=version,
                checkpoint=blob_named(f"version {version}"),
                momentum=None,
                heldout_loss=1.0,
                base_loss=1.0,
                contributions=[LeaseId(one) for one in contributions],
                step=blob_named(f"step {version}") if step else None,
                step_bytes=100 + version,
            )
        ]
    )


def order(base_version: int) -> Order:
    return TrainOrder(
        cluster=0,
        lineage=0,
        base_version=base_version,
        base=BLOB,
        mode=ModeSpec(name="full"),
        steps=1,
        batch_size=1,
        seed=0,
    )


def test_the_steps_lead_back_from_the_leases_base_to_the_seed() -> None:
    steps = steps_to(swarm_with(3).state, order(3))
    assert [step.result for step in steps] == [blob_named(f"version {v}") for v in (3, 2, 1)]
    assert [step.base for step in steps] == [blob_named("version 2"), blob_named("version 1"), BLOB]
    assert [step.delta_bytes for step in steps] == [103, 102, 101]


def test_however_many_versions_there_are_the_steps_are_bounded() -> None:
    assert len(steps_to(swarm_with(MAX_VERSION_STEPS + 3).state, order(MAX_VERSION_STEPS + 3))) == (
        MAX_VERSION_STEPS
    )


def test_no_step_leads_over_a_version_from_before_there_were_any() -> None:
    swarm = swarm_with(1)
    cut(swarm, 2, step=False)
    cut(swarm, 3, step=True)
    assert [step.result for step in steps_to(swarm.state, order(3))] == [blob_named("version 3")]
    assert steps_to(swarm.state, order(2)) == []


def test_a_version_that_a_rollback_brought_back_has_no_step_of_its_own() -> None:
    swarm = swarm_with(2)
    swarm.record(
        [
            ev.VersionRolledBack(
                at_ms=swarm.now_ms,
                cluster=0,
                lineage=0,
                version=3,
                to_version=1,
                withdrawn=[2],
                contributions=[],
                reopened=[],
                sentence="version 2 was poisoned",
            )
        ]
    )
    assert steps_to(swarm.state, order(3)) == []


def test_a_contribution_that_is_being_done_again_is_not_handed_out_as_a_step() -> None:
    swarm = swarm_with(1)
    swarm.hello(NODE)
    lease_id = LeaseId(swarm.train(NODE).lease_id)
    cut(swarm, 2, step=True, contributions=(lease_id,))
    assert len(steps_to(swarm.state, order(2))) == 2
    swarm.state.audits_open[lease_id] = None
    assert steps_to(swarm.state, order(2)) == []


def test_a_merged_step_handed_in_as_a_training_is_told_from_one() -> None:
    small = rules(1, quorum_samples=1_000, segment_steps_max=40, segment_s=20.0)
    swarm = SmallSwarm(small)
    swarm.hello(NODE)
    swarm.hello(FOUNDER)
    swarm.train(NODE)
    swarm.train(FOUNDER)
    evaluation = swarm.leased(COORDINATOR)
    swarm.finish(COORDINATOR, evaluation, trusted_outcome(evaluation))
    swarm.now_ms += 60_000
    swarm.operate()
    assert len(swarm.state.newest((0, 0)).contributions) == 2
    lease = swarm.leased(NODE)
    [step] = steps_to(swarm.state, lease.order)
    swarm.submit(NODE, lease, structs.replace(trained(lease), delta=step.delta))
    verdict = swarm.state.work[LeaseId(lease.lease_id)].verdict
    assert verdict is not None
    assert verdict.code == "copied"
