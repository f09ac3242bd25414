"""What speaks for a second run although nothing speaks for a refusal: a delta that did not learn what it was given.

Two scores of an evaluation, in standard errors and above 0 as they should be: how much more the assigned samples fell
than their controls, and how much more the own cluster's held-out loss fell than another's. Honest segments scatter, so
a score far below what this lineage's accepted contributions show refutes nobody: it opens an audit, before the
contribution enters a version. Where honest scores are no better than chance the limit lies below all of them, and
nothing is doubted. Owns the scores and the limit; pure.
"""

import math
from collections.abc import Sequence
from statistics import median

from kinoswarm_protocol.messages import DeltaJudgement, LossShift

LEAST = 8
"""Accepted contributions of a lineage before any is doubted."""
KEPT = 64
_DEVIATIONS = 3.0
_MAD_TO_SIGMA = 1.4826


def own_score(judgement: DeltaJudgement) -> float | None:
    """Of the samples that its lease assigned; None where nobody looked."""
    return _score(judgement.on_assigned)


def cluster_score(judgement: DeltaJudgement) -> float | None:
    """Of its own cluster against another one; None where nobody looked."""
    foreign = judgement.on_foreign
    if foreign is None:
        return None
    gap = LossShift(
        difference=judgement.difference - foreign.difference,
        standard_error=math.hypot(judgement.standard_error, foreign.standard_error),
    )
    return _score(gap)


def doubt(judgement: DeltaJudgement, own: Sequence[float], cluster: Sequence[float]) -> str:
    """A sentence when a score lies far below `own` or `cluster`, those accepted lately; else empty."""
    score = own_score(judgement)
    if score is not None and _is_far_below(score, own):
        return (
            f"the samples of its lease fell by {score:.1f} standard errors more than others, usual are "
            f"{median(own):.1f}"
        )
    score = cluster_score(judgement)
    if score is not None and _is_far_below(score, cluster):
        return (
            f"its own cluster's loss fell by {score:.1f} standard errors more than another's, usual are "
            f"{median(cluster):.1f}"
        )
    return ""


def _score(shift: LossShift | None) -> float | None:
    if shift is None or shift.standard_error <= 0.0:
        return None
    return -shift.difference / shift.standard_error


def _is_far_below(score: float, recent: Sequence[float]) -> bool:
    if len(recent) < LEAST:
        return False
    middle = median(recent)
    spread = median(abs(value - middle) for value in recent) * _MAD_TO_SIGMA
    return score < middle - _DEVIATIONS * spread
