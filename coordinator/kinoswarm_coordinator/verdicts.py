"""From an evaluator's judgement to a verdict. Owns the sentences; pure."""

from msgspec import structs

from kinoswarm_model.margins import is_beyond
from kinoswarm_protocol.charter import Policy
from kinoswarm_protocol.errors import Code
from kinoswarm_protocol.ids import LeaseId, PeerId
from kinoswarm_protocol.limits import MAX_SENTENCE
from kinoswarm_protocol.messages import DeltaJudgement, MergeOutcome, Verdict


def verdict_of(
    lease_id: LeaseId, node: PeerId, judgement: DeltaJudgement, policy: Policy, now_ms: int
) -> Verdict:
    """What becomes of a contribution, given how its delta did on held-out clips."""
    if judgement.code != Code.ACCEPTED:
        sentence = f"the delta could not be used: {judgement.problem}"
        return _verdict(lease_id, node, judgement.code, sentence, now_ms)
    if is_worse(judgement, policy):
        sentence = (
            f"held-out loss got worse by {_percent(judgement.difference, judgement.base_loss)} "
            f"(from {judgement.base_loss:.4f}), more than chance and the margin of "
            f"{policy.heldout_margin:.1%} explain; either this machine computes wrongly "
            "or the cluster has too little data"
        )
        return _verdict(lease_id, node, Code.WORSE_ON_HELDOUT, sentence, now_ms)
    change = _percent(abs(judgement.difference), judgement.base_loss)
    direction = "fell" if judgement.difference <= 0 else "rose (within noise)"
    sentence = f"held-out loss {direction} by {change}, from {judgement.base_loss:.4f}"
    return _verdict(lease_id, node, Code.ACCEPTED, sentence, now_ms)


def is_worse(result: DeltaJudgement | MergeOutcome, policy: Policy) -> bool:
    """Whether a paired difference is beyond noise and margin."""
    return is_beyond(
        result.difference, result.standard_error, result.base_loss, policy.heldout_margin
    )


def too_late(verdict: Verdict, behind: int, allowed: int) -> Verdict:
    """Good work whose base is too far behind: worth its credit, of no use to the expert."""
    sentence = (
        f"{verdict.sentence}; credited, but {behind} versions behind, where at most {allowed} can be merged. "
        "Nothing is wrong with your machine: it was slower than the others"
    )
    return structs.replace(verdict, code=str(Code.STALE_BASE), sentence=sentence[:MAX_SENTENCE])


def set_aside(lease_id: LeaseId, node: PeerId, why: str, now_ms: int) -> Verdict:
    """A contribution whose base version was withdrawn under it: honest work that can't be used."""
    return Verdict(
        lease_id=lease_id,
        node=node,
        state="quarantined",
        code=str(Code.STALE_BASE),
        sentence=f"its base version was withdrawn ({why}); nothing is wrong with your machine"[
            :MAX_SENTENCE
        ],
        decided_at_ms=now_ms,
    )


def unaudited(lease_id: LeaseId, node: PeerId, now_ms: int) -> Verdict:
    """Work of an account that was refuted elsewhere, which no audit stands for."""
    return Verdict(
        lease_id=lease_id,
        node=node,
        state="quarantined",
        code=str(Code.SET_ASIDE),
        sentence="set aside: another segment of this account was refuted by an audit, and this one was not audited",
        decided_at_ms=now_ms,
    )


def rejected(lease_id: LeaseId, node: PeerId, code: str, sentence: str, now_ms: int) -> Verdict:
    """A rejection before any evaluation."""
    return _verdict(lease_id, node, code, sentence, now_ms)


def _verdict(lease_id: LeaseId, node: PeerId, code: str, sentence: str, now_ms: int) -> Verdict:
    return Verdict(
        lease_id=lease_id,
        node=node,
        state="accepted" if code == Code.ACCEPTED else "rejected",
        code=str(code),
        sentence=sentence[:MAX_SENTENCE],
        decided_at_ms=now_ms,
    )


def _percent(part: float, whole: float) -> str:
    return f"{part / whole:.2%}" if whole else f"{part:.4f}"
