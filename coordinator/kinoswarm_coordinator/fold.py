"""apply(state, event): the only place where state changes. Owns how events change the entities; decides nothing."""

from collections import deque
from collections.abc import Callable, Iterable
from itertools import product
from typing import Any

from msgspec import structs

from kinoswarm_coordinator import doubts, fold_audits, fold_merging, fold_versions
from kinoswarm_coordinator import events as ev
from kinoswarm_coordinator.fold_counts import count_samples, note_need, set_phase
from kinoswarm_coordinator.fold_merging import lineage_of
from kinoswarm_coordinator.norm_band import KEPT, size_of
from kinoswarm_coordinator.state import (
    AccountName,
    AdminEntry,
    AmendmentEntry,
    Ban,
    DelegationState,
    JudgedTogether,
    LeasePhase,
    LeaseState,
    LineageKey,
    NodeState,
    ReleaseState,
    RouterState,
    SwarmState,
    VersionState,
)
from kinoswarm_coordinator.work_table import WorkState
from kinoswarm_protocol.admin import (
    BanNode,
    MakeRelease,
    PauseSwarm,
    ResumeSwarm,
    RollBack,
    UnbanNode,
)
from kinoswarm_protocol.errors import Code
from kinoswarm_protocol.ids import BlobId, LeaseId, PeerId
from kinoswarm_protocol.messages import EvaluateOrder, Outcome, TrainOrder, TrainOutcome, Verdict
from kinoswarm_protocol.outcome_blobs import blobs_of


def fold(state: SwarmState, events: Iterable[ev.Event]) -> SwarmState:
    """Apply events in order; returns the same container."""
    for event in events:
        apply(state, event)
    return state


def apply(state: SwarmState, event: ev.Event) -> None:
    """Apply one event."""
    _APPLY[type(event)](state, event)
    for key in tuple(state.ahead):
        fold_merging.sort_out_ahead(state, key)


def _founded(state: SwarmState, event: ev.Founded) -> None:
    state.checkpoints.add(event.seed_checkpoint)
    state.num_lineages = event.num_lineages
    for key in product(range(event.num_clusters), range(event.num_lineages)):
        state.versions[key] = [
            VersionState(
                version=0,
                checkpoint=event.seed_checkpoint,
                momentum=None,
                heldout_loss=None,
                created_at_ms=event.at_ms,
                contributions=[],
            )
        ]
        state.unmerged[key], state.mergeable[key] = {}, {}
        note_need(state, key)


def _node_joined(state: SwarmState, event: ev.NodeJoined) -> None:
    before = state.nodes.get(event.peer)
    state.nodes[event.peer] = NodeState(
        peer=event.peer,
        pseudonym=event.pseudonym,
        device=event.device,
        program_version=event.program_version,
        addresses=event.addresses,
        seconds_per_step=event.seconds_per_step,
        joined_at_ms=before.joined_at_ms if before else event.at_ms,
        accepted=before.accepted if before else 0,
        rejected=before.rejected if before else 0,
        failed=before.failed if before else 0,
    )


def _machine_delegated(state: SwarmState, event: ev.MachineDelegated) -> None:
    state.delegations[event.peer] = DelegationState(
        account=event.account, serial=event.serial, expires_at_ms=event.expires_at_ms
    )
    fold_audits.machine_delegated(state, event.peer, event.account)
    known = state.account_names.get(event.account)
    if known is None or known.serial < event.serial:
        state.account_names[event.account] = AccountName(name=event.name, serial=event.serial)


def _machine_released(state: SwarmState, event: ev.MachineReleased) -> None:
    key = event.account, event.peer
    state.revoked[key] = max(event.serial, state.revoked.get(key, 0))
    held = state.delegations.get(event.peer)
    if held is not None and held.account == event.account and held.serial <= event.serial:
        del state.delegations[event.peer]


def _lease_issued(state: SwarmState, event: ev.LeaseIssued) -> None:
    lease_id = LeaseId(event.lease.lease_id)
    lease = LeaseState(lease=event.lease, purpose=event.purpose, request_id=event.request_id)
    state.leases[lease_id] = lease
    state.open_leases.add(lease_id)
    state.open_by_node.setdefault(event.lease.node, set()).add(lease_id)
    if lease.purpose == "train":
        count_samples(state, lease_id, 1)
    state.lease_by_request[event.lease.node, event.request_id] = lease_id
    fold_audits.lease_issued(state, event)
    if isinstance(event.lease.order, EvaluateOrder):
        for contribution in judged_by(state, lease):
            state.in_judgement.add(contribution)
            _not_judgeable(state, contribution)


def _lease_expired(state: SwarmState, event: ev.LeaseExpired) -> None:
    _close_lease(state, event.lease_id, "expired")


def _lease_failed(state: SwarmState, event: ev.LeaseFailed) -> None:
    lease = _close_lease(state, event.lease_id, "failed")
    state.unsettled.discard(event.lease_id)
    node = state.nodes.get(lease.lease.node)
    if node is not None:
        state.nodes[node.peer] = structs.replace(node, failed=node.failed + 1)


def _close_lease(state: SwarmState, lease_id: LeaseId, phase: LeasePhase) -> LeaseState:
    before = state.leases[lease_id]
    lease = structs.replace(before, phase=phase)
    state.leases[lease_id] = lease
    state.open_leases.discard(lease_id)
    _no_longer_open(state, lease)
    if lease.purpose == "train":
        # Work whose lease had expired comes back with its contribution.
        count_samples(state, lease_id, (phase == "submitted") - (before.phase == "open"))
    if phase != "submitted":
        _judged_no_more(state, lease)
        fold_audits.lease_lost(state, lease_id)
    return lease


def _no_longer_open(state: SwarmState, lease: LeaseState) -> None:
    held = state.open_by_node.get(lease.lease.node, set())
    held.discard(LeaseId(lease.lease.lease_id))
    if not held:
        state.open_by_node.pop(lease.lease.node, None)


def _await_verdict(state: SwarmState, lease_id: LeaseId, outcome: Outcome) -> None:
    state.undecided.add(lease_id)
    if isinstance(outcome, TrainOutcome):
        state.undecided_by_delta.setdefault(BlobId(outcome.delta), set()).add(lease_id)


def _have_verdict(state: SwarmState, lease_id: LeaseId) -> None:
    state.undecided.discard(lease_id)
    _not_judgeable(state, lease_id)
    outcome = state.work[lease_id].outcome
    if isinstance(outcome, TrainOutcome):
        delta = BlobId(outcome.delta)
        alike = state.undecided_by_delta.get(delta, set())
        alike.discard(lease_id)
        if not alike:
            state.undecided_by_delta.pop(delta, None)


def _note_judgeable(state: SwarmState, lease_id: LeaseId) -> None:
    """A contribution without a verdict may be looked at, once its blobs are here and while nobody does."""
    if lease_id not in state.undecided or lease_id in state.in_judgement:
        return
    if state.work[lease_id].phase == "available":
        state.judgeable.setdefault(_judged_with(state, lease_id), {})[lease_id] = None


def _not_judgeable(state: SwarmState, lease_id: LeaseId) -> None:
    key = _judged_with(state, lease_id)
    group = state.judgeable.get(key, {})
    group.pop(lease_id, None)
    if not group:
        state.judgeable.pop(key, None)


def _judged_no_more(state: SwarmState, lease: LeaseState) -> None:
    """An evaluation ended, with verdicts that follow or without."""
    for contribution in judged_by(state, lease):
        state.in_judgement.discard(contribution)
        _note_judgeable(state, contribution)


def _judged_with(state: SwarmState, lease_id: LeaseId) -> JudgedTogether:
    order = state.leases[lease_id].order
    assert isinstance(order, TrainOrder)
    return order.cluster, order.lineage, order.base


def judged_by(state: SwarmState, lease: LeaseState) -> list[LeaseId]:
    """The contributions whose deltas an evaluate lease names; none for other leases."""
    order = lease.order
    if not isinstance(order, EvaluateOrder):
        return []
    return sorted(
        lease_id
        for delta in set(order.deltas)
        for lease_id in state.undecided_by_delta.get(BlobId(delta), ())
        if lineage_of(state, lease_id)[0] == order.cluster
    )


def _work_received(state: SwarmState, event: ev.WorkReceived) -> None:
    lease = _close_lease(state, event.lease_id, "submitted")
    delegation = state.delegations.get(event.node)
    state.work[event.lease_id] = WorkState(
        lease_id=event.lease_id,
        node=event.node,
        account=delegation.account if delegation else PeerId(""),
        outcome=event.outcome,
        received_at_ms=event.at_ms,
        is_referees=lease.purpose == "referee",
    )
    state.unsettled.add(event.lease_id)
    if isinstance(event.outcome, TrainOutcome):
        state.lease_by_delta.setdefault(BlobId(event.outcome.delta), event.lease_id)
    else:
        state.named.update(blobs_of(event.outcome))
    if lease.purpose == "referee" and isinstance(event.outcome, TrainOutcome):
        state.referee_seconds_per_step = event.outcome.seconds / max(1, event.outcome.steps)
    elif isinstance(lease.order, TrainOrder):
        _await_verdict(state, event.lease_id, event.outcome)


def _blobs_arrived(state: SwarmState, event: ev.BlobsArrived) -> None:
    set_phase(state, event.lease_id, "available")
    state.unsettled.discard(event.lease_id)
    lease = state.leases[event.lease_id]
    _note_judgeable(state, event.lease_id)
    if lease.purpose == "evaluate":
        _judged_no_more(state, lease)
    if lease.purpose == "compare":
        state.comparing.discard(state.audit_of[event.lease_id])
    if lease.purpose == "referee":
        fold_audits.referee_arrived(state, event.lease_id)


def _verdict_given(state: SwarmState, event: ev.VerdictGiven) -> None:
    verdict = event.verdict
    lease_id = LeaseId(verdict.lease_id)
    before = state.work[lease_id]
    accepted = verdict.state == "accepted"
    merges = accepted and _may_merge(state, lease_id, verdict)
    state.work[lease_id] = structs.replace(
        before,
        phase="credited" if accepted and not merges else verdict.state,
        verdict=verdict,
        decided_at_ms=event.at_ms,
    )
    _enter_or_leave_merging(state, lease_id, merges)
    state.unsettled.discard(lease_id)
    state.in_judgement.discard(lease_id)
    if accepted:
        _note_measures(state, lineage_of(state, lease_id), event)
    _count_verdict(state, verdict, before.verdict)
    fold_audits.verdict_given(state, verdict, before.phase)


def _may_merge(state: SwarmState, lease_id: LeaseId, verdict: Verdict) -> bool:
    """Audits and work that came too late are credited, and enter no version."""
    return state.leases[lease_id].purpose == "train" and verdict.code != Code.STALE_BASE


def _enter_or_leave_merging(state: SwarmState, lease_id: LeaseId, merges: bool) -> None:
    key = lineage_of(state, lease_id)
    counted = lease_id in state.undecided or lease_id in state.unmerged[key]
    _have_verdict(state, lease_id)
    if merges:
        fold_merging.enter(state, lease_id)
    else:
        fold_merging.leave(state, lease_id)
    if state.leases[lease_id].purpose == "train":
        count_samples(state, lease_id, merges - counted)


def _count_verdict(state: SwarmState, verdict: Verdict, before: Verdict | None) -> None:
    """A second verdict takes back what the first one counted."""
    node = state.nodes.get(PeerId(verdict.node))
    if node is None:
        return
    good, was_good = verdict.state == "accepted", before is not None and before.state == "accepted"
    bad, was_bad = not good, before is not None and not was_good
    state.nodes[node.peer] = structs.replace(
        node,
        accepted=node.accepted + good - was_good,
        rejected=node.rejected + bad - was_bad,
    )


def _note_measures(state: SwarmState, key: LineageKey, event: ev.VerdictGiven) -> None:
    order = state.leases[LeaseId(event.verdict.lease_id)].order
    if event.norm > 0 and isinstance(order, TrainOrder):
        state.sizes.setdefault(key, deque(maxlen=KEPT)).append(size_of(event.norm, order.steps))
    if event.own_score is not None:
        state.own_scores.setdefault(key, deque(maxlen=doubts.KEPT)).append(event.own_score)
    if event.cluster_score is not None:
        state.cluster_scores.setdefault(key, deque(maxlen=doubts.KEPT)).append(event.cluster_score)


def _router_trained(state: SwarmState, event: ev.RouterTrained) -> None:
    state.router = RouterState(
        blob=event.blob,
        accuracy_by_t=event.accuracy_by_t,
        calibration_error=event.calibration_error,
        share_by_cluster=event.share_by_cluster,
        created_at_ms=event.at_ms,
    )


def _release_built(state: SwarmState, event: ev.ReleaseBuilt) -> None:
    state.release_wanted = False
    state.releases.append(
        ReleaseState(
            version=event.version,
            expert_versions=event.expert_versions,
            expert_lineages=event.expert_lineages or [0] * len(event.expert_versions),
            considered=event.considered or event.expert_versions,
            held_back=event.held_back,
            files=event.files,
            share_by_expert=event.share_by_expert,
            created_at_ms=event.at_ms,
        )
    )


def _admin_acted(state: SwarmState, event: ev.AdminActed) -> None:
    state.admin_requests.add(event.request_id)
    state.admin_log.append(AdminEntry(at_ms=event.at_ms, signer=event.signer, action=event.action))
    match event.action:
        case PauseSwarm(sentence=sentence):
            state.paused = sentence
        case ResumeSwarm():
            state.paused = ""
        case BanNode(peer=peer, until_ms=until_ms, sentence=sentence):
            state.bans[PeerId(peer)] = Ban(until_ms=until_ms, sentence=sentence)
        case UnbanNode(peer=peer):
            state.bans.pop(PeerId(peer), None)
        case MakeRelease():
            state.release_wanted = True
        case RollBack():
            pass  # the version that it cuts is an event of its own


def _amended(state: SwarmState, event: ev.Amended) -> None:
    entry = AmendmentEntry(at_ms=event.at_ms, founder=event.founder, sentence=event.sentence)
    state.amendments.append(entry)


def _release_published(state: SwarmState, event: ev.ReleasePublished) -> None:
    state.named.add(event.manifest)
    for index, release in enumerate(state.releases):
        if release.version == event.version:
            state.releases[index] = structs.replace(release, manifest=event.manifest)


def _releases_forgotten(state: SwarmState, event: ev.ReleasesForgotten) -> None:
    state.forgotten_releases.update(event.versions)


_APPLY: dict[type[Any], Callable[[SwarmState, Any], None]] = {
    ev.Founded: _founded,
    ev.NodeJoined: _node_joined,
    ev.MachineDelegated: _machine_delegated,
    ev.MachineReleased: _machine_released,
    ev.LeaseIssued: _lease_issued,
    ev.LeaseExpired: _lease_expired,
    ev.LeaseFailed: _lease_failed,
    ev.WorkReceived: _work_received,
    ev.BlobsArrived: _blobs_arrived,
    ev.VerdictGiven: _verdict_given,
    ev.AuditOpened: fold_audits.audit_opened,
    ev.RunsCompared: fold_audits.runs_compared,
    ev.AuditGivenUp: fold_audits.audit_given_up,
    ev.AccountPenalised: fold_audits.account_penalised,
    ev.VersionCut: fold_versions.version_cut,
    ev.MergeQuarantined: fold_versions.merge_quarantined,
    ev.RouterTrained: _router_trained,
    ev.ReleaseBuilt: _release_built,
    ev.ReleasePublished: _release_published,
    ev.AdminActed: _admin_acted,
    ev.Amended: _amended,
    ev.VersionRolledBack: fold_versions.version_rolled_back,
    ev.VersionsForgotten: fold_versions.versions_forgotten,
    ev.ReleasesForgotten: _releases_forgotten,
}
