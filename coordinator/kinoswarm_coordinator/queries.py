"""What pages and programs ask beyond the overview: lists in pieces, one node, history. Owns their shape; pure.

Lists are asked in pieces by a cursor that stays true while the swarm goes on.
"""

import bisect
from typing import Literal

from msgspec import Struct

from kinoswarm_coordinator.administration import action_sentence
from kinoswarm_coordinator.credit import CreditEntry, Ledger, flops_per_sample
from kinoswarm_coordinator.leaders import name_of
from kinoswarm_coordinator.online_history import OnlineAt
from kinoswarm_coordinator.presence import Presence
from kinoswarm_coordinator.state import Rules, SwarmState
from kinoswarm_coordinator.views import NodeView, VerdictView, node_views, verdict_view
from kinoswarm_coordinator.work_table import HOUR_MS, MINUTE_MS, Sums
from kinoswarm_protocol.ids import PeerId

MAX_PIECE = 200
"""Entries of one answer, at most."""
_MINUTES_UP_TO_MS = 6 * HOUR_MS
_MAX_SPANS = 720


class NodesPiece(Struct, frozen=True, kw_only=True):
    """Volunteers by peer id; `next` goes on, or is None at the end."""

    nodes: list[NodeView]
    next: str | None
    total: int


class VerdictsPiece(Struct, frozen=True, kw_only=True):
    """Verdicts, newest first. Every entry has its number; `next` asks for older ones, or is None at the beginning."""

    verdicts: list[VerdictView]
    next: int | None
    total: int


class NodeStory(Struct, frozen=True, kw_only=True):
    """One volunteer: now, in sum, and its latest verdicts."""

    node: NodeView
    samples: int
    flops: float
    verdicts: list[VerdictView]
    account: str = ""
    """The account that it counts for now; empty while it counts for itself."""
    account_name: str = ""


class ActionView(Struct, frozen=True, kw_only=True):
    """What an operator did, or how the founder amended the charter."""

    at_ms: int
    signer: str
    action: str
    sentence: str


class CreditView(Struct, frozen=True, kw_only=True):
    """A line of the ledger, with the name that its node chose."""

    entry: CreditEntry
    pseudonym: str


class LedgerPiece(Struct, frozen=True, kw_only=True):
    """Lines of the ledger, newest first; `next` asks for older ones, or is None at the beginning."""

    entries: list[CreditView]
    next: int | None
    total: int
    total_flops: float


class Throughput(Struct, frozen=True, kw_only=True):
    """What was decided in one span of time."""

    at_ms: int
    """Its beginning."""
    samples: int
    flops: float
    accepted: int
    rejected: int


class History(Struct, frozen=True, kw_only=True):
    """Decided work over time, in spans of equal length; spans in which nothing was decided are there too."""

    span: Literal["minute", "hour", "day"]
    throughput: list[Throughput]
    nodes: list[OnlineAt]
    """Volunteers on-line since the coordinator's start."""


def nodes_piece(
    state: SwarmState, rules: Rules, presence: Presence, after: str, limit: int, now_ms: int
) -> NodesPiece:
    """Volunteers whose peer id comes after `after`, in the order of peer ids."""
    peers = sorted(peer for peer in state.nodes if peer != rules.operator)
    start = bisect.bisect_right(peers, after)
    chosen = peers[start : start + min(limit, MAX_PIECE)]
    more = start + len(chosen) < len(peers)
    return NodesPiece(
        nodes=node_views(state, presence, chosen, now_ms),
        next=chosen[-1] if more and chosen else None,
        total=len(peers),
    )


def verdicts_piece(state: SwarmState, before: int | None, limit: int) -> VerdictsPiece:
    """Verdicts numbered below `before` (None is the newest), newest first."""
    log = state.work.decisions
    end = len(log) if before is None else max(0, min(before, len(log)))
    start = max(0, end - min(limit, MAX_PIECE))
    return VerdictsPiece(
        verdicts=[verdict_view(state, verdict) for verdict in reversed(log[start:end])],
        next=start if start > 0 else None,
        total=len(log),
    )


def node_story(
    state: SwarmState, presence: Presence, ledger: Ledger, peer: str, now_ms: int
) -> NodeStory | None:
    """One volunteer's page; None for a peer that never joined."""
    found = node_views(state, presence, [PeerId(peer)], now_ms)
    if not found:
        return None
    account = state.account_of(PeerId(peer))
    sums = state.work.sums_by_node.get(PeerId(peer), Sums())
    mine = state.work.by_node.get(PeerId(peer), [])[-MAX_PIECE:]
    verdicts = [state.work[lease_id].verdict for lease_id in reversed(mine)]
    return NodeStory(
        node=found[0],
        samples=sums.samples,
        flops=ledger.by_peer.get(PeerId(peer), 0.0),
        verdicts=[verdict_view(state, verdict) for verdict in verdicts if verdict is not None],
        account=account if account != peer else "",
        account_name=name_of(state, account) if account != peer else "",
    )


def ledger_piece(state: SwarmState, ledger: Ledger, before: int | None, limit: int) -> LedgerPiece:
    """Lines numbered below `before` (None is the newest), newest first."""
    lines = ledger.entries
    end = len(lines) if before is None else max(0, min(before, len(lines)))
    start = max(0, end - min(limit, MAX_PIECE))
    return LedgerPiece(
        entries=[
            CreditView(entry=line, pseudonym=name_of(state, PeerId(line.peer)))
            for line in reversed(lines[start:end])
        ],
        next=start if start > 0 else None,
        total=len(lines),
        total_flops=ledger.total_flops(),
    )


def actions(state: SwarmState) -> list[ActionView]:
    """What operators and the founder did, newest first."""
    done = [
        ActionView(
            at_ms=entry.at_ms,
            signer=entry.signer,
            action=str(entry.action.__struct_config__.tag),
            sentence=action_sentence(entry.action),
        )
        for entry in reversed(state.admin_log[-MAX_PIECE:])
    ]
    changed = [
        ActionView(
            at_ms=entry.at_ms,
            signer=entry.founder,
            action="amendment",
            sentence=f"the founder signed {entry.sentence}",
        )
        for entry in reversed(state.amendments[-MAX_PIECE:])
    ]
    return sorted(done + changed, key=lambda action: -action.at_ms)[:MAX_PIECE]


def history(state: SwarmState, rules: Rules, online: list[OnlineAt], now_ms: int) -> History:
    """Decided work since the first decision: by the minute while the swarm is young, later by the hour or the day."""
    hours, sample_flops = state.work.by_hour, flops_per_sample(rules.charter)
    if not hours:
        return History(span="minute", throughput=[], nodes=online)
    if now_ms - min(hours) * HOUR_MS <= _MINUTES_UP_TO_MS:
        minutes = _spans(state.work.by_minute, MINUTE_MS, sample_flops, now_ms)
        return History(span="minute", throughput=minutes, nodes=online)
    if now_ms - min(hours) * HOUR_MS <= _MAX_SPANS * HOUR_MS:
        return History(
            span="hour", throughput=_spans(hours, HOUR_MS, sample_flops, now_ms), nodes=online
        )
    days: dict[int, Sums] = {}
    for hour, sums in hours.items():
        into = days.setdefault(hour // 24, Sums())
        into.accepted += sums.accepted
        into.rejected += sums.rejected
        into.samples += sums.samples
    return History(
        span="day", throughput=_spans(days, 24 * HOUR_MS, sample_flops, now_ms), nodes=online
    )


def _spans(
    by_span: dict[int, Sums], length_ms: int, sample_flops: float, now_ms: int
) -> list[Throughput]:
    last = max(*by_span, now_ms // length_ms)
    first = max(min(by_span), last - _MAX_SPANS + 1)
    nothing = Sums()
    return [
        Throughput(
            at_ms=span * length_ms,
            samples=sums.samples,
            flops=sums.samples * sample_flops,
            accepted=sums.accepted,
            rejected=sums.rejected,
        )
        for span in range(first, last + 1)
        for sums in (by_span.get(span, nothing),)
    ]
