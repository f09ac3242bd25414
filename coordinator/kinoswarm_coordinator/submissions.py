"""What a submitted contribution leads to: receipt, refusal, verdicts, versions, releases. Owns these; pure."""

from collections import Counter
from dataclasses import dataclass

from kinoswarm_coordinator import events as ev
from kinoswarm_coordinator.audit_findings import after_comparison, given_up
from kinoswarm_coordinator.copy_check import copied
from kinoswarm_coordinator.doubts import cluster_score, doubt, own_score
from kinoswarm_coordinator.fold import judged_by
from kinoswarm_coordinator.fold_audits import BLAMELESS
from kinoswarm_coordinator.fold_merging import lineage_of
from kinoswarm_coordinator.norm_band import outside_band, size_of
from kinoswarm_coordinator.state import LeaseState, Rules, SwarmState
from kinoswarm_coordinator.trust import (
    MOST_REFUSED,
    is_proven,
    may_be_audited,
    penalty,
    trust_of,
    wants_audit,
)
from kinoswarm_coordinator.verdicts import is_worse, rejected, too_late, verdict_of
from kinoswarm_coordinator.work_table import WorkState
from kinoswarm_protocol.errors import Code
from kinoswarm_protocol.ids import LeaseId, PeerId
from kinoswarm_protocol.messages import (
    CompareOrder,
    CompareOutcome,
    Contribution,
    DeltaJudgement,
    EvaluateOrder,
    EvaluateOutcome,
    FailedOutcome,
    MergeOrder,
    MergeOutcome,
    Order,
    Outcome,
    ReleaseOrder,
    ReleaseOutcome,
    RouteOrder,
    RouteOutcome,
    TrainOrder,
    TrainOutcome,
    Verdict,
)

_OUTCOME_BY_ORDER: dict[type[Order], type[Outcome]] = {
    TrainOrder: TrainOutcome,
    EvaluateOrder: EvaluateOutcome,
    CompareOrder: CompareOutcome,
    MergeOrder: MergeOutcome,
    RouteOrder: RouteOutcome,
    ReleaseOrder: ReleaseOutcome,
}


@dataclass(frozen=True)
class Denied:
    """The submission is not taken; the code and sentence go back to the node."""

    code: Code
    sentence: str


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """When and as which bytes a contribution came, and the coordinator's chance at that moment."""

    raw: bytes
    now_ms: int
    seed: int


def receive(
    state: SwarmState,
    rules: Rules,
    signer: PeerId,
    contribution: Contribution,
    arrival: Arrival,
) -> list[ev.Event] | Denied:
    """Events of a contribution that just came; an empty list when it was received before. Late work is welcome."""
    now_ms = arrival.now_ms
    lease_id = LeaseId(contribution.lease_id)
    if lease_id in state.work:
        return []
    lease = state.leases.get(lease_id)
    ban = state.ban_of(signer, now_ms)
    if ban is not None:
        return Denied(Code.NOT_PERMITTED, f"this node is banned: {ban.sentence}")
    denied = _denied(state, rules, signer, contribution, lease)
    if denied is not None:
        return denied
    outcome = contribution.outcome
    if isinstance(outcome, FailedOutcome):
        if lease is not None and lease.phase == "failed":
            return []
        return [
            ev.LeaseFailed(
                at_ms=now_ms, lease_id=lease_id, code=outcome.code, sentence=outcome.sentence
            )
        ]
    received = ev.WorkReceived(
        at_ms=now_ms, lease_id=lease_id, node=signer, outcome=outcome, raw=arrival.raw
    )
    assert lease is not None
    if isinstance(outcome, TrainOutcome) and isinstance(lease.order, TrainOrder):
        why = copied(state, lease.order, outcome)
        if why:
            verdict = rejected(lease_id, signer, Code.COPIED, why, now_ms)
            return [received, ev.VerdictGiven(at_ms=now_ms, verdict=verdict)]
    return [received, *_audit_opened(state, rules, lease, arrival)]


def _audit_opened(
    state: SwarmState, rules: Rules, lease: LeaseState, arrival: Arrival
) -> list[ev.Event]:
    """Whether this is done again is drawn now, when it is too late to do it better."""
    account = state.account_of(PeerId(lease.lease.node))
    if lease.purpose != "train" or not wants_audit(state, rules, account, arrival.seed):
        return []
    return [
        ev.AuditOpened(
            at_ms=arrival.now_ms,
            lease_id=LeaseId(lease.lease.lease_id),
            holds=not is_proven(state, rules, account),
        )
    ]


def _denied(
    state: SwarmState,
    rules: Rules,
    signer: PeerId,
    contribution: Contribution,
    lease: LeaseState | None,
) -> Denied | None:
    if lease is None:
        return Denied(Code.UNKNOWN_LEASE, "no such lease was given; pull a new one")
    if signer != lease.lease.node or contribution.node != signer:
        return Denied(Code.LEASE_FOREIGN, "this lease was given to another node")
    outcome, order = contribution.outcome, lease.order
    if isinstance(outcome, FailedOutcome):
        return None
    if not isinstance(outcome, _OUTCOME_BY_ORDER[type(order)]):
        return Denied(
            Code.MALFORMED,
            f"a {lease.purpose} lease wants a {_OUTCOME_BY_ORDER[type(order)].__name__}, "
            f"got {type(outcome).__name__}",
        )
    if lease.phase == "failed":
        return Denied(Code.LEASE_USED, "you gave this lease back as failed; pull a new one")
    if isinstance(order, TrainOrder) and isinstance(outcome, TrainOutcome):
        wrong = _other_amount(order, outcome)
        if wrong is not None or lease.purpose == "referee":
            return wrong  # what its run was about may have ended meanwhile: then it is of no use, and no mistake
        return _withdrawn(state, order) or _forgotten(state, order)
    if lease.phase == "expired":
        return Denied(Code.LEASE_EXPIRED, "this lease has expired and was given to another worker")
    return None


def _other_amount(order: TrainOrder, outcome: TrainOutcome) -> Denied | None:
    """Samples weigh in merges and fill quorums, so a node may claim what its lease fixes and nothing else."""
    samples = order.steps * order.batch_size
    if (outcome.steps, outcome.samples) == (order.steps, samples):
        return None
    return Denied(
        Code.MALFORMED,
        f"the lease asks for {order.steps} steps and {samples} samples, this contribution claims {outcome.steps} "
        f"and {outcome.samples}; update the node",
    )


def _withdrawn(state: SwarmState, order: TrainOrder) -> Denied | None:
    if order.base_version not in state.withdrawn.get((order.cluster, order.lineage), set()):
        return None
    return Denied(
        Code.STALE_BASE,
        f"base version {order.base_version} was withdrawn since. Nothing is wrong with your machine",
    )


def _forgotten(state: SwarmState, order: TrainOrder) -> Denied | None:
    """Without its base nobody can judge it. What is open or waits for its verdict keeps its base, so this came late."""
    if not state.is_forgotten((order.cluster, order.lineage), order.base_version):
        return None
    return Denied(
        Code.STALE_BASE,
        f"this came after its lease had expired, and base version {order.base_version} is no longer kept here, so it "
        "can't be judged. Nothing is wrong with your machine: it was slower than the others",
    )


def settle(state: SwarmState, rules: Rules, work: WorkState, now_ms: int) -> list[ev.Event]:
    """Events that follow when all blobs of a contribution are here. Train work waits for its evaluation."""
    arrived = ev.BlobsArrived(at_ms=now_ms, lease_id=work.lease_id)
    lease = state.leases[work.lease_id]
    match work.outcome:
        case EvaluateOutcome():
            return [*_verdicts(state, rules, lease, work.outcome, now_ms), arrived]
        case CompareOutcome():
            return [arrived, *after_comparison(state, rules, lease, work.outcome, now_ms)]
        case MergeOutcome():
            return [arrived, _merged(state, rules, lease, work.outcome, now_ms)]
        case RouteOutcome() as routed:
            return [
                arrived,
                ev.RouterTrained(
                    at_ms=now_ms,
                    blob=routed.router,
                    accuracy_by_t=routed.accuracy_by_t,
                    calibration_error=routed.calibration_error,
                    share_by_cluster=routed.share_by_cluster,
                ),
            ]
        case ReleaseOutcome():
            return [arrived, *_released(state, lease, work.outcome, now_ms)]
        case _:
            return [arrived]


def unavailable(state: SwarmState, work: WorkState, now_ms: int, why: str) -> list[ev.Event]:
    """Events when a contribution's blobs could not be had: a verdict for training, a failed lease otherwise."""
    if isinstance(work.outcome, TrainOutcome) and not work.is_referees:
        sentence = (
            f"your delta could not be fetched ({why}); keep the daemon running until the verdict"
        )
        verdict = rejected(work.lease_id, work.node, Code.BLOB_UNAVAILABLE, sentence, now_ms)
        return [ev.VerdictGiven(at_ms=now_ms, verdict=verdict)]
    return [
        ev.LeaseFailed(
            at_ms=now_ms, lease_id=work.lease_id, code=Code.BLOB_UNAVAILABLE, sentence=why[:500]
        )
    ]


def _verdicts(
    state: SwarmState, rules: Rules, lease: LeaseState, outcome: EvaluateOutcome, now_ms: int
) -> list[ev.Event]:
    """One verdict per judged contribution; what the evaluator left out is judged again later."""
    refused = Counter[PeerId]()
    judgements = {judgement.delta: judgement for judgement in outcome.judgements}
    events: list[ev.Event] = []
    for lease_id in judged_by(state, lease):
        work = state.work[lease_id]
        judgement = judgements.get(getattr(work.outcome, "delta", None))  # type: ignore[arg-type]
        if judgement is not None:
            verdict = _judged(state, rules, lease_id, judgement, now_ms)
            if verdict.state == "accepted":
                events += _doubted(state, rules, lease_id, judgement, now_ms)
            events.append(
                ev.VerdictGiven(
                    at_ms=now_ms,
                    verdict=verdict,
                    norm=judgement.norm,
                    own_score=own_score(judgement),
                    cluster_score=cluster_score(judgement),
                )
            )
            if verdict.state == "rejected" and verdict.code not in BLAMELESS:
                refused[state.answers_for(lease_id)] += 1
    return [*events, *_after_refusals(state, rules, refused, now_ms)]


def _doubted(
    state: SwarmState, rules: Rules, lease_id: LeaseId, judgement: DeltaJudgement, now_ms: int
) -> list[ev.Event]:
    """An audit of what passed every check and still looks unlike honest work; it enters no version before its end."""
    key = lineage_of(state, lease_id)
    own, cluster = state.own_scores.get(key, ()), state.cluster_scores.get(key, ())
    why = doubt(judgement, list(own), list(cluster))
    account = state.answers_for(lease_id)
    if not why or state.is_audited(lease_id) or not may_be_audited(state, rules, account):
        return []
    return [ev.AuditOpened(at_ms=now_ms, lease_id=lease_id, holds=True, sentence=why)]


def _after_refusals(
    state: SwarmState, rules: Rules, refused: Counter[PeerId], now_ms: int
) -> list[ev.Event]:
    """Bans of accounts whose work the checks keep refusing: every refusal costs the operator a test."""
    found: list[ev.Event] = []
    for account, count in sorted(refused.items()):
        if trust_of(state, account).refused + count < MOST_REFUSED:
            continue
        why = f"{MOST_REFUSED} contributions in a row were refused"
        ban = penalty(state, rules, account, now_ms, why)
        found.append(
            ev.AccountPenalised(
                at_ms=now_ms, account=account, until_ms=ban.until_ms, sentence=ban.sentence
            )
        )
    return found


def _judged(
    state: SwarmState, rules: Rules, lease_id: LeaseId, judgement: DeltaJudgement, now_ms: int
) -> Verdict:
    """First the size of the delta, then what it does to the held-out loss."""
    node, order = state.work[lease_id].node, state.leases[lease_id].order
    if judgement.code == Code.ACCEPTED and isinstance(order, TrainOrder):
        recent = state.sizes.get((order.cluster, order.lineage), ())
        why = outside_band(size_of(judgement.norm, order.steps), recent)
        if why:
            return rejected(lease_id, node, Code.NORM_OUT_OF_BAND, why, now_ms)
    verdict = verdict_of(lease_id, node, judgement, rules.charter.policy, now_ms)
    if verdict.state == "accepted" and isinstance(order, TrainOrder):
        behind, allowed = state.staleness(order), rules.charter.policy.max_staleness
        if behind > allowed:
            return too_late(verdict, behind, allowed)
    return verdict


def _merged(
    state: SwarmState, rules: Rules, lease: LeaseState, outcome: MergeOutcome, now_ms: int
) -> ev.Event:
    """The new version, or its quarantine: the paired test decides, the old version stays in doubt.

    A merge that was overtaken comes to nothing, and what of it may still be merged is merged anew.
    """
    order = lease.order
    assert isinstance(order, MergeOrder)
    contributions = [LeaseId(delta.contribution) for delta in order.deltas]
    overtaken = _overtaken(state, order, contributions)
    if overtaken:
        return ev.MergeQuarantined(
            at_ms=now_ms,
            cluster=order.cluster,
            lineage=order.lineage,
            base_version=order.base_version,
            contributions=[],
            sentence=overtaken,
        )
    if is_worse(outcome, rules.charter.policy):
        return ev.MergeQuarantined(
            at_ms=now_ms,
            cluster=order.cluster,
            lineage=order.lineage,
            base_version=order.base_version,
            contributions=contributions,
            sentence=f"the merged version was worse by {outcome.difference:.4f} than version "
            f"{order.base_version} ({outcome.base_loss:.4f}); the old version stays",
        )
    return ev.VersionCut(
        at_ms=now_ms,
        cluster=order.cluster,
        lineage=order.lineage,
        version=order.base_version + 1,
        checkpoint=outcome.checkpoint,
        momentum=outcome.momentum,
        heldout_loss=outcome.base_loss + outcome.difference,
        base_loss=outcome.base_loss,
        contributions=contributions,
        step=outcome.step,
        step_bytes=outcome.step_bytes,
        restarted=outcome.restarted,
    )


def _overtaken(state: SwarmState, order: MergeOrder, contributions: list[LeaseId]) -> str:
    """Why a merge no longer holds; empty when it does."""
    key = order.cluster, order.lineage
    newest = state.newest(key).version
    if newest != order.base_version:
        return (
            f"version {newest} was cut meanwhile, from elsewhere than version {order.base_version}"
        )
    gone = [lease_id for lease_id in contributions if lease_id not in state.mergeable[key]]
    if gone:
        return f"{len(gone)} of its {len(contributions)} contributions may not be merged any more"
    return ""


def _released(
    state: SwarmState, lease: LeaseState, outcome: ReleaseOutcome, now_ms: int
) -> list[ev.Event]:
    """Nothing where one of its experts was withdrawn meanwhile: the rollback asked for another release."""
    order = lease.order
    assert isinstance(order, ReleaseOrder)
    if any(
        expert.version in state.withdrawn.get((expert.cluster, expert.lineage), set())
        for expert in outcome.experts
    ):
        return []
    built = ev.ReleaseBuilt(
        at_ms=now_ms,
        version=order.version,
        expert_versions=[expert.version for expert in outcome.experts],
        files=outcome.files,
        share_by_expert=outcome.share_by_expert,
        expert_lineages=[expert.lineage for expert in outcome.experts],
        considered=_newest_considered(order),
        held_back=outcome.held_back,
    )
    return [built]


def _newest_considered(order: ReleaseOrder) -> list[int]:
    newest: dict[int, int] = {}
    for expert in order.experts:
        newest[expert.cluster] = max(expert.version, newest.get(expert.cluster, 0))
    return [newest[cluster] for cluster in sorted(newest)]


def expired(state: SwarmState, rules: Rules, now_ms: int) -> list[ev.Event]:
    """Leases whose deadline has passed, and audits that took too long: their work is free again.

    The operator's own never expire: nobody else could do the work, and its worker does one after another.
    """
    late = [
        lease_id
        for lease_id in state.open_leases
        if (lease := state.leases[lease_id].lease).deadline_ms <= now_ms
        and lease.node != rules.operator
    ]
    return given_up(state, rules, now_ms) + [
        ev.LeaseExpired(at_ms=now_ms, lease_id=lease_id) for lease_id in sorted(late)
    ]
