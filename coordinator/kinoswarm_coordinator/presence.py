"""Who was seen when, and how far their segments are. Owns what is never logged: it is worth nothing after a restart."""

from collections.abc import Set
from dataclasses import dataclass, field

from kinoswarm_protocol.ids import LeaseId, PeerId
from kinoswarm_protocol.messages import Progress

ONLINE_FOR_MS = 90_000
"""A node that said nothing for this long counts as gone; nodes report at least every minute."""


@dataclass
class Presence:
    """Last words of nodes. Only who joined the swarm is noted: everybody else may have as many names as they like."""

    last_seen_ms: dict[PeerId, int] = field(default_factory=dict)
    progress: dict[PeerId, Progress] = field(default_factory=dict)
    """The last that each node told of its own segment."""
    bytes_up: int = 0
    """Blobs and control frames that this coordinator sent since it started."""
    bytes_down: int = 0
    http_bytes_up: int = 0
    """Of these, what went over HTTP(S) to nodes."""
    http_bytes_down: int = 0

    _range_of: dict[PeerId, str] = field(default_factory=dict)
    _by_range: dict[str, set[PeerId]] = field(default_factory=dict)

    def seen(self, peer: PeerId, now_ms: int, address_range: str = "") -> None:
        """A peer said something, from an address of that range; empty is not known."""
        self.last_seen_ms[peer] = now_ms
        before = self._range_of.get(peer)
        if not address_range or address_range == before:
            return
        if before is not None:
            self._by_range[before].discard(peer)
        self._range_of[peer] = address_range
        self._by_range.setdefault(address_range, set()).add(peer)

    def neighbours(self, peer: PeerId) -> Set[PeerId]:
        """The others that were last heard from the same range of addresses."""
        return self._by_range.get(self._range_of.get(peer, ""), frozenset()) - {peer}

    def progressed(self, peer: PeerId, progress: Progress) -> None:
        """A node told how far its segment is."""
        self.progress[peer] = progress

    def step_of(self, peer: PeerId, lease_id: LeaseId) -> int | None:
        """How far a node is with a segment; None while it did not say."""
        told = self.progress.get(peer)
        return told.step if told is not None and told.lease_id == lease_id else None

    def is_online(self, peer: PeerId, now_ms: int) -> bool:
        """Whether a peer was heard of lately."""
        return now_ms - self.last_seen_ms.get(peer, -ONLINE_FOR_MS) < ONLINE_FOR_MS
