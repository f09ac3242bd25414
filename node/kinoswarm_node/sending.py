"""Sending results and hearing what became of them. Activities, no decisions."""

import asyncio
from collections.abc import Callable

import structlog

from kinoswarm_node import life_events as ev
from kinoswarm_node.context import NodeContext
from kinoswarm_node.pulling import train_order
from kinoswarm_node.segment_work import served_blobs
from kinoswarm_node.swarm_folder import HistoryLine
from kinoswarm_protocol.envelope import open_envelope
from kinoswarm_protocol.errors import BadSignature, Code, KinoswarmError, MalformedBytes, Refused
from kinoswarm_protocol.ids import LeaseId
from kinoswarm_protocol.messages import (
    VERDICT,
    AskVerdicts,
    Contribution,
    FailedOutcome,
    Receipt,
    Submit,
    TrainOutcome,
    Verdict,
    Verdicts,
)

FIRST_LOOK_S = 2.0
LAST_LOOK_S = 60.0
"""Verdicts are asked for at doubling intervals between these two."""

MAX_ASKED = 64  # AskVerdicts' own bound

Post = Callable[[ev.Event], None]
_log = structlog.get_logger("sending")


async def submit(node: NodeContext, lease_id: LeaseId, post: Post) -> ev.Event:
    """Send a stored contribution and what it names; a second try goes on where the first one ended."""
    raw = node.folder.unsent(lease_id)
    if raw is None and lease_id in node.folder.pending_ids():
        return ev.Receipted()  # the last try was ended just after its receipt
    if raw is None:
        raise Refused(Code.UNKNOWN_LEASE, "the stored result is gone from this disk")
    receipt = await node.client.ask(Submit(contribution=raw), Receipt)
    contribution = node.folder.contribution(lease_id)
    if contribution is not None and isinstance(contribution.outcome, FailedOutcome):
        await close_failed(node, lease_id, contribution.outcome)
        return ev.Receipted(awaits_verdict=False)
    if receipt.verdict is None:
        for blob in served_blobs(node, [lease_id]):
            await node.client.deliver(lease_id, blob)
    node.folder.mark_sent(lease_id)
    if receipt.verdict is not None:
        await take_verdict(node, receipt.verdict, post)
        return ev.Receipted(awaits_verdict=False)
    return ev.Receipted()


async def watch_verdicts(node: NodeContext, post: Post) -> None:
    """Ask for outstanding verdicts, for ever; being refused or unheard, or a full disk, only means a longer pause."""
    pause_s = FIRST_LOOK_S
    while True:
        await asyncio.sleep(pause_s)
        pending = node.folder.pending_ids()[:MAX_ASKED]
        heard = 0
        if pending and node.charter is not None:
            try:
                heard = await _ask_verdicts(node, pending, post)
            except (KinoswarmError, OSError) as error:
                _log.info("no verdicts now", why=str(error))
        idle = not pending or heard
        pause_s = FIRST_LOOK_S if idle else min(LAST_LOOK_S, pause_s * 1.5)


async def _ask_verdicts(node: NodeContext, pending: list[LeaseId], post: Post) -> int:
    answer = await node.client.ask(AskVerdicts(lease_ids=list(pending)), Verdicts)
    for raw in answer.verdicts:
        await take_verdict(node, raw, post)
    return len(answer.verdicts)


async def take_verdict(node: NodeContext, raw: bytes, post: Post) -> None:
    """Check a verdict, write it to the history, let its blob go, tell the life cycle."""
    opened = open_envelope(raw, VERDICT, node.invite.swarm)
    verdict = opened.body
    if opened.signer not in node.client.coordinators:
        raise BadSignature(f"the verdict is signed by {opened.signer}, which is no coordinator")
    if verdict.node != node.key.peer_id:
        raise MalformedBytes(f"the verdict is about {verdict.node}, not about this node")
    lease_id = LeaseId(verdict.lease_id)
    if lease_id not in node.folder.pending_ids():
        return
    await _close(node, lease_id, _verdict_line(node, verdict))
    accepted = verdict.state == "accepted"
    node.board.verdict_came(accepted, verdict.sentence)
    post(ev.VerdictCame(lease_id=lease_id, accepted=accepted, sentence=verdict.sentence))


async def drop(node: NodeContext, lease_id: LeaseId, sentence: str) -> None:
    """Forget a segment that came to nothing, with its reason, and let its blob go."""
    line = HistoryLine(
        at_ms=node.now_ms(),
        lease_id=lease_id,
        state="dropped",
        code=Code.LEASE_EXPIRED.value,
        sentence=sentence,
        cluster=_cluster(node, lease_id),
    )
    await _close(node, lease_id, line)


async def close_failed(node: NodeContext, lease_id: LeaseId, outcome: FailedOutcome) -> None:
    """The swarm knows that this segment failed here; nothing more follows."""
    line = HistoryLine(
        at_ms=node.now_ms(),
        lease_id=lease_id,
        state="failed",
        code=outcome.code,
        sentence=outcome.sentence,
        cluster=_cluster(node, lease_id),
    )
    await _close(node, lease_id, line)


async def _close(node: NodeContext, lease_id: LeaseId, line: HistoryLine) -> None:
    """Note what became of a segment, and let go of all that was kept for it.

    A network process that is away keeps its blobs: that costs disk, and must not keep anybody from hearing the verdict.
    """
    blobs = served_blobs(node, [lease_id])
    node.folder.close(lease_id, line)
    node.hints.pop(lease_id, None)
    node.steps.pop(lease_id, None)
    try:
        for blob in blobs:
            await node.network.unpin(blob)
    except KinoswarmError as error:
        _log.info("a result's blob stays", lease=lease_id, why=str(error))


def _verdict_line(node: NodeContext, verdict: Verdict) -> HistoryLine:
    lease_id = LeaseId(verdict.lease_id)
    trained = _trained(node.folder.contribution(lease_id))
    return HistoryLine(
        at_ms=verdict.decided_at_ms,
        lease_id=lease_id,
        state=verdict.state,
        code=verdict.code,
        sentence=verdict.sentence,
        cluster=_cluster(node, lease_id),
        steps=trained.steps if trained else 0,
        samples=trained.samples if trained else 0,
        seconds=trained.seconds if trained else 0.0,
        loss_first=trained.loss_first if trained else None,
        loss_last=trained.loss_last if trained else None,
    )


def _trained(contribution: Contribution | None) -> TrainOutcome | None:
    outcome = contribution.outcome if contribution else None
    return outcome if isinstance(outcome, TrainOutcome) else None


def _cluster(node: NodeContext, lease_id: LeaseId) -> int | None:
    opened = node.folder.lease(lease_id)
    return train_order(opened.body).cluster if opened else None
