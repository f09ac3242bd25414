"""Which blobs an outcome names. Owns nothing else; pure."""

from kinoswarm_protocol.ids import BlobId
from kinoswarm_protocol.messages import (
    CompareOutcome,
    EvaluateOutcome,
    FailedOutcome,
    MergeOutcome,
    Outcome,
    ReleaseOutcome,
    RouteOutcome,
    TrainOutcome,
)


def blobs_of(outcome: Outcome) -> list[BlobId]:
    """Every blob that an outcome names; the coordinator fetches them before it decides."""
    match outcome:
        case TrainOutcome():
            return [outcome.delta]
        case MergeOutcome():
            return [b for b in (outcome.checkpoint, outcome.momentum, outcome.step) if b]
        case RouteOutcome():
            return [outcome.router]
        case ReleaseOutcome():
            return [file.blob for file in outcome.files]
        case EvaluateOutcome() | CompareOutcome() | FailedOutcome():
            return []
