"""How the swarm is, check by check. Owns the limits and the sentences; pure."""

from dataclasses import dataclass
from typing import Literal

from msgspec import Struct

from kinoswarm_coordinator.state import SwarmState

CheckState = Literal["good", "warning", "bad"]
_ORDER: tuple[CheckState, ...] = ("good", "warning", "bad")
_SLOW_VERDICT_MS = 10 * 60_000
_STUCK_VERDICT_MS = 60 * 60_000
_LITTLE_DISK, _NO_DISK = 5 * 10**9, 10**9
_BAD_SHARE, _FEW_VERDICTS = 0.3, 20


class Check(Struct, frozen=True, kw_only=True):
    """One thing that was looked at."""

    name: str
    state: CheckState
    sentence: str


class Health(Struct, frozen=True, kw_only=True):
    """All checks; `state` is the worst of theirs."""

    state: CheckState
    checks: list[Check]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the shell measured."""

    now_ms: int
    online: int
    free_disk_bytes: int
    network_up: bool


def health_of(state: SwarmState, facts: Facts) -> Health:
    """Look at everything that tells whether the swarm goes on."""
    checks = [
        _volunteers(state, facts),
        _backlog(state, facts),
        _verdicts(state),
        _disk(facts),
        _network(facts),
        _release(state),
    ]
    return Health(state=max((c.state for c in checks), key=_ORDER.index), checks=checks)


def _volunteers(state: SwarmState, facts: Facts) -> Check:
    if facts.online:
        return Check(name="volunteers", state="good", sentence=f"{facts.online} on-line")
    sentence = "nobody is on-line" if state.nodes else "nobody has joined yet"
    return Check(name="volunteers", state="warning", sentence=sentence)


def _backlog(state: SwarmState, facts: Facts) -> Check:
    if not state.undecided:
        return Check(name="verdicts due", state="good", sentence="no contribution waits")
    oldest = min(state.work[lease_id].received_at_ms for lease_id in state.undecided)
    waited = max(0, facts.now_ms - oldest)
    level: CheckState = "good"
    if waited > _STUCK_VERDICT_MS:
        level = "bad"
    elif waited > _SLOW_VERDICT_MS:
        level = "warning"
    sentence = f"{len(state.undecided)} wait, the oldest for {waited // 1000} s"
    return Check(name="verdicts due", state=level, sentence=sentence)


def _verdicts(state: SwarmState) -> Check:
    recent = state.work.decisions[-100:]
    if len(recent) < _FEW_VERDICTS:
        return Check(
            name="acceptance", state="good", sentence=f"too few verdicts to tell ({len(recent)})"
        )
    refused = sum(verdict.state != "accepted" for verdict in recent)
    share = refused / len(recent)
    return Check(
        name="acceptance",
        state="warning" if share > _BAD_SHARE else "good",
        sentence=f"{refused} of the last {len(recent)} contributions were not accepted",
    )


def _disk(facts: Facts) -> Check:
    free = facts.free_disk_bytes
    level: CheckState = "good"
    if free < _NO_DISK:
        level = "bad"
    elif free < _LITTLE_DISK:
        level = "warning"
    return Check(name="coordinator's disk", state=level, sentence=f"{free / 10**9:.0f} GB are free")


def _network(facts: Facts) -> Check:
    if facts.network_up:
        return Check(name="peer-to-peer network", state="good", sentence="up")
    return Check(
        name="peer-to-peer network",
        state="bad",
        sentence="down; nodes reach the coordinator over HTTP only",
    )


def _release(state: SwarmState) -> Check:
    published = [release for release in state.releases if release.manifest is not None]
    if not published:
        return Check(name="release", state="good", sentence="none yet")
    behind = [
        cluster
        for cluster, version in enumerate(published[-1].considered)
        if state.newest(state.furthest(cluster)).version > version
    ]
    sentence = f"release {published[-1].version} is out"
    if behind:
        sentence += f"; {len(behind)} experts have newer versions since"
    return Check(name="release", state="good", sentence=sentence)
