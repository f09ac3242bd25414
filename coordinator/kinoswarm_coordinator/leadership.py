"""Who may write a swarm's log: one leader at a time, by a lease in the database. Owns that decision; pure.

The lease says when a standby may take over. It does not protect the log: a leader that was paused believes in its lease
long after it ran out. The *epoch* protects it. Every taking of the lease raises the epoch, and every append compares
its own with the database's inside its transaction, so that a leader of the past writes nothing (the "fencing token" of
M. Kleppmann, Designing Data-Intensive Applications, chapter 8).
"""

from dataclasses import dataclass, replace

LEASE_MS = 25_000
"""Without a renewal for that long, a standby takes over. With STANDBY_LOOKS_EVERY_S and STUCK_TRANSACTION_S it stays
under the minute that is promised."""

RENEW_EVERY_S = 5.0
"""Several renewals fit into a lease: one lost packet is no reason to change the leader."""

STANDBY_LOOKS_EVERY_S = 3.0

STUCK_TRANSACTION_S = 10
"""The database ends a transaction that its client leaves open that long: a paused leader may hold the row's lock."""

PROMOTION_STEP = 1_000
"""A promotion jumps to the next multiple: more than the left-behind leader can reach by being restarted."""


@dataclass(frozen=True)
class Leadership:
    """The one row that says who leads."""

    epoch: int
    """Raised whenever the lease changes hands, also back to the same coordinator; 0 is a swarm that nobody led yet."""
    holder: str
    """Who holds or held the lease, for people."""
    expires_at_ms: int
    """By the database's clock: leader and standby need not agree on theirs."""
    restored: bool
    """The log comes from a backup, and its old leader may still be at work: only a promotion may go on."""


NOBODY = Leadership(epoch=0, holder="", expires_at_ms=0, restored=False)


@dataclass(frozen=True)
class Claim:
    """Whether the lease may be taken. `next` is the row to write; None means no, for `reason`."""

    next: Leadership | None
    reason: str


def claim(now: Leadership, holder: str, now_ms: int, *, alone: bool) -> Claim:
    """Take the lease if it is free. `alone` says that nobody else can be at work, whatever the row says."""
    if now.restored:
        return Claim(None, "this log was restored from a backup and not promoted")
    left_ms = now.expires_at_ms - now_ms
    if not alone and left_ms > 0:
        return Claim(None, f"{now.holder} leads; its lease ends in {left_ms / 1000:.0f} s")
    taken = Leadership(now.epoch + 1, holder, now_ms + LEASE_MS, restored=False)
    return Claim(
        taken, f"epoch {taken.epoch} follows epoch {now.epoch} of {now.holder or 'nobody'}"
    )


def renewed(now: Leadership, now_ms: int) -> Leadership:
    """The same lease for longer."""
    return replace(now, expires_at_ms=now_ms + LEASE_MS)


def given_up(now: Leadership) -> Leadership:
    """The lease is free at once; the epoch stays, so that nobody gets it twice."""
    return replace(now, expires_at_ms=0)


def promoted(now: Leadership) -> Leadership:
    """Whoever led does so no more, and a restored log may be led again."""
    epoch = (now.epoch // PROMOTION_STEP + 1) * PROMOTION_STEP
    return Leadership(epoch, "promotion", expires_at_ms=0, restored=False)


def restored(epoch: int) -> Leadership:
    """What a restored log starts with: nobody leads it before a promotion."""
    return Leadership(epoch, "backup", expires_at_ms=0, restored=True)
