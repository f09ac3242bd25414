"""Decides which chunk is asked of which peer next. Owns the order, the scores and the back-off; does no IO.

Rarest chunks first (Cohen 2003, "Incentives build robustness in BitTorrent", section 2.4), equally rare ones in a
random order, so that many nodes that fetch one blob soon have different chunks to swap. A chunk that is overdue, and
every chunk once all are asked for (end-game), may be asked of a second peer. A peer that fails rests for a while that
doubles and is asked again; one that sends wrong bytes is not. Time and chance are arguments. Chunk maps are integers,
bit i for chunk i.
"""

import random
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from enum import Enum

from kinoswarm_protocol.limits import CHUNKS_IN_FLIGHT

_RARITIES = 8
"""Chunks that so many peers hold, or more, are equally common."""

_ASKED_OF = 2
_GOOD_PER_FAULT = 16
"""So many good chunks earn a peer one more fault."""

_FAULTS = 3
_REST_MS = 250
_IDLE_REST_MS = 5_000
_LONGEST_REST_MS = 30_000
_LATE_MS = 2_000
_LATE_TIMES = 4
_SLOW_MS = 500
_SLOW_IN_FLIGHT = 2
_SMOOTHING = 0.25
_NOT_SENT = -1


class Fault(Enum):
    """What a peer did: it failed in a way that may pass, or it broke the rules."""

    PASSING = "passing"
    HOSTILE = "hostile"


@dataclass(frozen=True)
class Pick:
    """Ask for chunk `index`; `reason` is for people."""

    index: int
    reason: str


@dataclass
class _Peer:
    have: int = 0
    owed: dict[int, int] = field(default_factory=dict)
    """When each chunk was asked for, in ms, in the order of asking; _NOT_SENT while the ask waits for our rate cap."""
    last_ms: int = 0
    """When it last delivered, or was asked while it owed nothing."""
    chunk_ms: float = 0.0
    """Smoothed time between two chunks; 0 is unknown."""
    delivered: int = 0
    faults: int = 0
    in_row: int = 0
    rests_until_ms: int = 0
    is_banned: bool = False

    @property
    def may_owe(self) -> int:
        """Few from a slow peer: what waits in its queue is bound to it, and its next map waits behind that."""
        return CHUNKS_IN_FLIGHT if 0 < self.chunk_ms < _SLOW_MS else _SLOW_IN_FLIGHT

    @property
    def is_tried_out(self) -> bool:
        """Whether there is little hope in it: it never gave anything, or failed too often for what it gave."""
        allowed = _FAULTS + self.delivered // _GOOD_PER_FAULT if self.delivered else 1
        return self.is_banned or self.faults >= allowed


def map_of(indexes: Iterable[int], num_chunks: int) -> int:
    """The chunk map with these bits set."""
    octets = bytearray(-(-num_chunks // 8))
    for index in indexes:
        octets[index // 8] |= 1 << index % 8
    return int.from_bytes(octets, "little")


class PiecePicker:
    """The state of one download. `peer` is any name; the same calls always give the same picks."""

    def __init__(self, seed: int) -> None:
        self._num_chunks = 0
        self._missing = 0
        self._asked: dict[int, set[str]] = {}
        """Who owes each chunk that is asked for."""
        self._asked_map = 0
        self._peers: dict[str, _Peer] = {}
        self._by_rarity: list[int] = []
        self._random = random.Random(seed)  # noqa: S311 - an order of chunks, not a secret

    def begin(self, num_chunks: int, missing: Iterable[int]) -> None:
        """The manifest is known: what the blob consists of and what of it is wanted. Peers may be known before."""
        self._num_chunks = num_chunks
        self._missing = map_of(missing, num_chunks)

    def is_missing(self, index: int) -> bool:
        """Whether chunk `index` did not arrive yet."""
        return bool(self._missing >> index & 1)

    @property
    def num_missing(self) -> int:
        """Chunks that did not arrive yet."""
        return self._missing.bit_count()

    def add_peer(self, peer: str) -> None:
        """From now on `peer` may be asked; a known one stays as it is."""
        self._peers.setdefault(peer, _Peer())

    def ready(self, now_ms: int) -> list[str]:
        """Peers that may be connected to, the most promising first."""
        rested = [
            name
            for name, peer in self._peers.items()
            if not peer.is_banned and peer.rests_until_ms <= now_ms
        ]
        return sorted(rested, key=lambda name: self._peers[name].in_row)

    def others_are_tried_out(self, peers: Collection[str]) -> bool:
        """Whether no peer but `peers` is likely to give anything."""
        return all(peer.is_tried_out for name, peer in self._peers.items() if name not in peers)

    def next_ready_ms(self) -> int | None:
        """When the first of the peers that rest may be asked again; None when every peer is banned."""
        rests = [peer.rests_until_ms for peer in self._peers.values() if not peer.is_banned]
        return min(rests, default=None)

    def has(self, peer: str, have: int) -> None:
        """`peer` says which chunks it holds; its earlier map is void."""
        self._peers[peer].have = have & ((1 << self._num_chunks) - 1)
        self._sort_by_rarity()

    def holds_all(self, peer: str) -> bool:
        """Whether `peer` claims every chunk of the blob."""
        return self._peers[peer].have.bit_count() == self._num_chunks

    def owes(self, peer: str) -> int:
        """How many chunks `peer` was asked for and did not send yet."""
        return len(self._peers[peer].owed)

    def pick(self, peer: str, now_ms: int) -> Pick | None:
        """The next chunk to ask `peer` for, noted as owed; None when it owes enough or has nothing useful."""
        state = self._peers[peer]
        if state.is_banned or len(state.owed) >= state.may_owe:
            return None
        useful = state.have & self._missing
        if fresh := useful & ~self._asked_map:
            pick = Pick(self._rarest(fresh), "rarest of the chunks that nobody was asked for")
        elif (again := self._worth_asking_again(peer, useful, now_ms)) is not None:
            pick = again
        else:
            return None
        state.owed[pick.index] = _NOT_SENT
        self._asked.setdefault(pick.index, set()).add(peer)
        self._asked_map |= 1 << pick.index
        return pick

    def sent(self, peer: str, index: int, now_ms: int) -> None:
        """The ask for a picked chunk is on its way: its time runs from now."""
        state = self._peers[peer]
        if len(state.owed) == 1:
            state.last_ms = now_ms
        if index in state.owed:
            state.owed[index] = now_ms

    def arrived(self, peer: str, index: int, now_ms: int) -> bool:
        """A verified chunk came from `peer`. False when another peer was faster: it need not be kept."""
        state = self._peers[peer]
        took_ms = float(max(1, now_ms - state.last_ms))
        state.chunk_ms += (took_ms - state.chunk_ms) * (_SMOOTHING if state.chunk_ms else 1.0)
        state.last_ms = now_ms
        state.delivered += 1
        state.in_row = 0
        self._no_longer_owed(peer, index)
        was_missing = self.is_missing(index)
        self._missing &= ~(1 << index)
        return was_missing

    def failed(self, peer: str, fault: Fault, now_ms: int) -> str:
        """`peer` broke off, stalled or lied: all it owes is wanted again. Returns what follows for it, for people."""
        state = self._peers[peer]
        self.left(peer)
        state.faults += 1
        state.in_row += 1
        if fault is Fault.HOSTILE:
            state.is_banned = True
            return "it broke the rules and is not asked for this blob again"
        rest_ms = min(_LONGEST_REST_MS, _REST_MS << min(state.in_row - 1, 10))
        state.rests_until_ms = now_ms + rest_ms
        return f"it rests for {rest_ms} ms"

    def rest(self, peer: str, now_ms: int) -> None:
        """`peer` has nothing useful just now: others get their turn first."""
        self.left(peer)
        self._peers[peer].rests_until_ms = now_ms + _IDLE_REST_MS

    def left(self, peer: str) -> None:
        """The conversation with `peer` is over: nothing is owed any more and its map is void."""
        state = self._peers[peer]
        for index in list(state.owed):
            self._no_longer_owed(peer, index)
        state.have = 0
        self._sort_by_rarity()

    def _worth_asking_again(self, peer: str, useful: int, now_ms: int) -> Pick | None:
        """A chunk that another peer owes for too long; in the end-game every chunk that is slower than usual."""
        is_end = not self._missing & ~self._asked_map
        for index, owing in self._asked.items():
            may_ask = useful >> index & 1 and peer not in owing and len(owing) < _ASKED_OF
            if may_ask and all(self._is_late(other, index, is_end, now_ms) for other in owing):
                return Pick(index, "end-game" if is_end else "overdue elsewhere")
        return None

    def _is_late(self, peer: str, index: int, is_end: bool, now_ms: int) -> bool:
        state = self._peers[peer]
        if state.owed[index] == _NOT_SENT:
            return False
        ahead = 1 + list(state.owed).index(index)
        usual_ms = state.chunk_ms * ahead
        waited_ms = now_ms - max(state.last_ms, state.owed[index])
        if is_end:
            return waited_ms > (usual_ms or _LATE_MS / _LATE_TIMES)
        return waited_ms > _LATE_MS + _LATE_TIMES * usual_ms

    def _no_longer_owed(self, peer: str, index: int) -> None:
        self._peers[peer].owed.pop(index, None)
        owing = self._asked.get(index, set())
        owing.discard(peer)
        if not owing:
            self._asked.pop(index, None)
            self._asked_map &= ~(1 << index)

    def _rarest(self, wanted: int) -> int:
        for level in self._by_rarity:
            if rare := wanted & level:
                return self._any_of(rare)
        return self._any_of(wanted)

    def _any_of(self, chunks: int) -> int:
        start = self._random.randrange(self._num_chunks)
        above = chunks >> start
        if above:
            return start + (above & -above).bit_length() - 1
        return (chunks & -chunks).bit_length() - 1

    def _sort_by_rarity(self) -> None:
        """Maps of the chunks that exactly 1, 2, … peers hold; what more hold is in none."""
        at_least = [0] * (_RARITIES + 1)
        for peer in self._peers.values():
            for count in range(_RARITIES, 0, -1):
                at_least[count] |= peer.have & (at_least[count - 1] if count > 1 else -1)
        self._by_rarity = [at_least[count] & ~at_least[count + 1] for count in range(1, _RARITIES)]
