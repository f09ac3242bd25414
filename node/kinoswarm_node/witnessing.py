"""Keeps the signed ends of the coordinator's log that this node was shown, and compares them with other nodes'.

So a coordinator can't show two histories to two groups of nodes: each says in the DHT which end it was shown, and two
signed heads of which no single history can be true are kept here as evidence that anybody can check. Owns what is kept
and what is said; believes nobody but the signatures.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import structlog

from kinoswarm_network.durable import write_atomic
from kinoswarm_node.context import NodeContext
from kinoswarm_protocol.codec import decode
from kinoswarm_protocol.envelope import Opened, open_envelope
from kinoswarm_protocol.errors import MalformedBytes, RemoteError
from kinoswarm_protocol.ids import PeerId, SwarmId
from kinoswarm_protocol.log_head import LOG_HEAD, LOG_KEY, MAX_HEAD_BYTES, LogHead, row_in_doubt
from kinoswarm_protocol.messages import Lookup, Records
from kinoswarm_protocol.records import (
    Authority,
    WitnessRecord,
    open_record,
    seal_record,
    witness_keys,
)

HEADS_NAME, CONFLICTS_NAME = "log-heads.bin", "log-conflicts.bin"
MAX_HEADS = 64
"""Kept, the latest; their marks reach far behind the oldest (log_head.py)."""
MAX_CONFLICTS = 8
_HANDED_OUT = 8
_MOST_TOLD = 512
_MAX_FILE = (MAX_HEADS + 2 * MAX_CONFLICTS) * (MAX_HEAD_BYTES + 16)
_log = structlog.get_logger("witnessing")


@dataclass(frozen=True)
class Conflict:
    """Two signed heads that can't be of one history."""

    first: Opened[LogHead]
    second: Opened[LogHead]
    row: int

    def sentence(self, where: Path) -> str:
        """For people."""
        epochs = self.first.body.epoch, self.second.body.epoch
        if epochs[0] == epochs[1]:
            what = f"the coordinator signed two different histories of its log: they differ at event {self.row}"
        else:
            what = (
                f"the coordinator's log was replaced from event {self.row} or earlier on, between its leaders "
                f"{epochs[0]} and {epochs[1]}: restored from an older backup, or rewritten"
            )
        return f"{what}. Both signatures are kept in {where}; ask the swarm's founder"


async def witness(node: NodeContext) -> None:
    """Ask for the log's end, compare it with what others were shown, keep it, and say it.

    Whoever is away is asked the next time.
    """
    root, authority = node.folder.root, _authority(node)
    known = opened_heads(_read(root / HEADS_NAME), authority)
    shown = opened_heads(await _shown(node), authority)
    told = opened_heads(await _told(node, authority), authority)
    conflicts = _kept_conflicts(root, authority)
    found = conflicting([*known, *shown, *told])
    if found and not conflicts:
        _log.error("two histories", row=found[0].row)
        pairs = [raw for each in found[:MAX_CONFLICTS] for raw in (each.first.raw, each.second.raw)]
        write_atomic(root / CONFLICTS_NAME, msgspec.msgpack.encode(pairs))
    kept = latest([*known, *shown])
    if kept != known:
        write_atomic(root / HEADS_NAME, msgspec.msgpack.encode([head.raw for head in kept]))
    node.board.witnessed(told_in_words(kept, told), in_words(conflicts or found, root))
    if kept:
        await _say(node, kept[-1], authority)


def conflicting(heads: Sequence[Opened[LogHead]]) -> list[Conflict]:
    """Pairs that can't both be of one history; at most MAX_CONFLICTS. One look at every stated row."""
    first_of: dict[tuple[int, str], Opened[LogHead]] = {}
    hash_of: dict[int, str] = {}
    found: list[Conflict] = []
    for head in heads:
        for seq, digest in sorted(head.body.rows().items()):
            stated = hash_of.setdefault(seq, digest)
            first_of.setdefault((seq, digest), head)
            if stated != digest and len(found) < MAX_CONFLICTS:
                found.append(Conflict(first_of[seq, stated], head, seq))
                break
    return found


def latest(heads: Iterable[Opened[LogHead]]) -> list[Opened[LogHead]]:
    """One of each end, by their numbers, the last MAX_HEADS."""
    by_end = {(head.body.seq, head.body.hash): head for head in heads}
    return [by_end[end] for end in sorted(by_end)][-MAX_HEADS:]


def opened_heads(raws: Iterable[bytes], authority: Authority) -> list[Opened[LogHead]]:
    """Those that a coordinator of this swarm signed; the rest is nobody's word."""
    found = []
    for raw in raws:
        try:
            opened = open_envelope(raw, LOG_HEAD, authority.swarm)
        except RemoteError:
            continue
        if opened.signer in authority.coordinators:
            found.append(opened)
    return found


def told_in_words(kept: Sequence[Opened[LogHead]], told: Sequence[Opened[LogHead]]) -> str:
    """How far this node has seen the log, and who else told."""
    if not kept:
        return ""
    end = kept[-1].body.seq
    return (
        f"The log was shown up to event {end}; {len(told)} other nodes told what they were shown."
    )


def in_words(conflicts: Sequence[Conflict], root: Path) -> str:
    """The first conflict; empty when there is none."""
    return conflicts[0].sentence(root / CONFLICTS_NAME) if conflicts else ""


def kept_heads(root: Path) -> list[bytes]:
    """What a swarm's folder holds, for whoever asks: the latest, and both sides of every conflict."""
    conflicts = _read(root / CONFLICTS_NAME)[: 2 * MAX_CONFLICTS]
    return [*conflicts, *_read(root / HEADS_NAME)[-_HANDED_OUT:]]


def _authority(node: NodeContext) -> Authority:
    """Keys of the invite count too: an ended key's signatures stay what they were."""
    charter = node.the_charter()
    signers: set[PeerId] = {*charter.coordinators, *node.invite.coordinators}
    return Authority(SwarmId(node.invite.swarm), charter.founder, frozenset(signers))


async def _shown(node: NodeContext) -> Sequence[bytes]:
    try:
        return (await node.client.ask(Lookup(key=LOG_KEY), Records)).records
    except RemoteError:
        return []  # the coordinator is away; what others were shown can be compared all the same


async def _told(node: NodeContext, authority: Authority) -> list[bytes]:
    """By the nodes of one bucket, another one every minute: who reads all would read megabytes."""
    keys = witness_keys()
    try:
        raws = await node.network.look_up(keys[node.now_ms() // 60_000 % len(keys)])
    except RemoteError:
        return []  # it can't be read now
    heads = []
    for raw in raws[:_MOST_TOLD]:
        try:
            opened = open_record(raw, authority)
        except RemoteError:
            continue
        if isinstance(opened.body, WitnessRecord) and opened.signer != node.key.peer_id:
            heads.append(opened.body.head)
    return heads


async def _say(node: NodeContext, head: Opened[LogHead], authority: Authority) -> None:
    sealed = seal_record(node.key, authority.swarm, WitnessRecord(head=head.raw), node.now_ms())
    try:
        await node.network.announce_again(open_record(sealed.value, authority))
    except RemoteError as error:
        _log.info("not said what was shown", why=str(error))


def _kept_conflicts(root: Path, authority: Authority) -> list[Conflict]:
    heads = opened_heads(_read(root / CONFLICTS_NAME), authority)
    pairs = zip(heads[::2], heads[1::2], strict=False)
    found = [(one, other, row_in_doubt(one.body, other.body)) for one, other in pairs]
    return [Conflict(one, other, row) for one, other, row in found if row is not None]


def _read(path: Path) -> list[bytes]:
    """What was kept; a damaged file is an empty one."""
    try:
        with path.open("rb") as file:
            return decode(file.read(_MAX_FILE), list[bytes], _MAX_FILE)
    except (OSError, MalformedBytes):
        return []
