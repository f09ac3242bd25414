"""What a node tells about itself in HOME/status.json, for `kinoswarm status` and other programs of this machine."""

from pathlib import Path

import msgspec
from msgspec import Struct

from kinoswarm_network.durable import write_atomic
from kinoswarm_protocol.codec import decode_json
from kinoswarm_protocol.errors import LocalError, MalformedBytes

MAX_STATUS_BYTES = 64 * 1024


class SegmentStatus(Struct, frozen=True, kw_only=True):
    """The segment in work."""

    lease_id: str
    cluster: int
    label: str
    base_version: int
    step: int
    total: int
    loss: float | None = None
    steps_per_s: float | None = None
    saved_step: int = 0
    """Step of the newest resume point: this much survives a power cut."""
    save_every_s: float = 0.0
    save_problem: str = ""


class GovernorStatus(Struct, frozen=True, kw_only=True):
    """What the governor allows now, and what it sees."""

    allowance: str
    """run, throttle or pause."""
    share: float
    reason: str
    rule: str = ""
    """The setting behind a pause; empty otherwise."""
    sees: dict[str, str] = {}
    """What each sense says, in words; senses that this machine lacks are left out."""
    blind: list[str] = []
    """Senses that this machine lacks."""


class NodeStatus(Struct, frozen=True, kw_only=True):
    """One snapshot. Times are milliseconds since 1970 on this machine's clock."""

    pid: int
    peer_id: str
    pseudonym: str
    swarm: str
    swarm_name: str
    state: str
    since_ms: int
    updated_at_ms: int
    reason: str
    segment: SegmentStatus | None = None
    accepted: int = 0
    """Of all time, as the history on this disk has it."""
    rejected: int = 0
    unsent: int = 0
    awaiting_verdict: int = 0
    last_verdict: str = ""
    governor: GovernorStatus | None = None
    confined: list[str] = []
    """What the worker may not do."""
    addresses: list[str] = []
    reach: str = ""
    """Whether strangers can dial this node, in words; empty while nobody has tried."""
    """Where others may dial this node; kept on this machine."""
    account: str = ""
    """The account that this machine's work counts for, as the coordinator says; empty while it counts for itself."""
    account_name: str = ""
    fit: str = ""
    """Which of the charter's modes this machine trains in, and which would not fit; empty before the self-test."""
    keeps: str = ""
    """What this node keeps and serves for others; empty while that is nothing."""
    notices: list[str] = []
    """The founder's newest amendments in words, newest first."""
    update: str = ""
    """That a newer program is out, and what is new in it; empty when this one is as new."""
    log_seen: str = ""
    """How much of the coordinator's log this node was shown, in a sentence; empty before it was asked."""
    log_conflict: str = ""
    """That two signed histories were shown, and where the evidence lies; empty while there is one."""


def write_status(path: Path, status: NodeStatus) -> None:
    """Replace the snapshot; readers see the old one or the new one."""
    write_atomic(path, msgspec.json.format(msgspec.json.encode(status), indent=2))


def read_status(path: Path) -> NodeStatus:
    """The newest snapshot; raises LocalError when there is none or it is damaged."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_STATUS_BYTES + 1)
    except FileNotFoundError as error:
        raise LocalError(
            f"no node has run in {path.parent}; start one with `kinoswarm join INVITE --home {path.parent}`"
        ) from error
    except OSError as error:
        raise LocalError(f"{path} can't be read: {error.strerror}") from error
    try:
        return decode_json(raw[:MAX_STATUS_BYTES], NodeStatus)
    except MalformedBytes as error:
        raise LocalError(f"{path} is damaged ({error}); the next start writes it anew") from error
