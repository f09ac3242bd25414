"""What a node keeps on disk for one swarm, so that a kill -9 at any moment loses nothing.

A segment's stage is where its files are; each stage begins with one atomic rename:

    leases/ID.bin                the signed lease was granted            -> open
    work/ID/                     resume points and outputs of the worker
    outbox/ID.bin                the contribution is signed and stored   -> unsent
    sent/ID.bin                  the coordinator gave a receipt          -> pending
    history.jsonl                a verdict came; the files above go

A confined worker writes in work/ and worker/ alone.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

from kinoswarm_network.durable import disk_errors, write_atomic
from kinoswarm_protocol.codec import decode_json
from kinoswarm_protocol.envelope import Opened, open_envelope
from kinoswarm_protocol.errors import LocalError, MalformedBytes, RemoteError
from kinoswarm_protocol.ids import LeaseId, SwarmId
from kinoswarm_protocol.limits import MAX_CHAIN_BYTES
from kinoswarm_protocol.messages import CONTRIBUTION, LEASE, Contribution, Lease
from kinoswarm_protocol.specs import ModeSpec

S = TypeVar("S", bound=Struct)

MAX_SMALL_FILE = MAX_CHAIN_BYTES + 4096  # a charter with its amendments


class HistoryLine(Struct, frozen=True, kw_only=True):
    """What became of one segment."""

    at_ms: int
    lease_id: str
    state: str
    """accepted, rejected, quarantined, failed (here), or dropped (not wanted any more)."""
    code: str
    sentence: str
    cluster: int | None = None
    steps: int = 0
    samples: int = 0
    seconds: float = 0.0
    loss_first: float | None = None
    loss_last: float | None = None


class Consent(Struct, frozen=True, kw_only=True):
    """The volunteer saw these and said yes."""

    at_ms: int
    swarm: str
    name: str
    licences: dict[str, str]
    content_note: str


class SelfTest(Struct, frozen=True, kw_only=True):
    """Remembered result of the self-test on one device."""

    device: str
    threads: int
    device_name: str
    memory_bytes: int
    seconds_per_step: float
    micro_batch: int = 0
    """What fits; 0 when it was not measured."""
    checkpoint_activations: bool = False
    modes: list[ModeSpec] = []
    """Of the charter's, those that fit, best first; empty when it was not measured."""


class SwarmFolder:
    """The files of one swarm; all writes are atomic."""

    def __init__(self, root: Path, swarm: SwarmId) -> None:
        self.root = root
        self.swarm = swarm
        for name in ("leases", "work", "outbox", "sent", "worker"):
            (root / name).mkdir(parents=True, exist_ok=True)

    @property
    def worker_dir(self) -> Path:
        """What the worker writes beside its segments: self-test, clips, caches. Nothing there is missed."""
        return self.root / "worker"

    # --- stages of a segment

    def keep_lease(self, lease_id: LeaseId, raw: bytes) -> None:
        write_atomic(self._lease(lease_id), raw)

    def lease(self, lease_id: LeaseId) -> Opened[Lease] | None:
        """A kept lease; None when it is gone or damaged (a damaged one is no work order)."""
        raw = _read_small(self._lease(lease_id))
        try:
            return None if raw is None else open_envelope(raw, LEASE, self.swarm)
        except RemoteError:
            return None

    def work_dir(self, lease_id: LeaseId) -> Path:
        """The worker's folder for one lease."""
        path = self.root / "work" / lease_id
        path.mkdir(parents=True, exist_ok=True)
        return path

    def keep_contribution(self, lease_id: LeaseId, raw: bytes) -> None:
        """The result is signed: it goes to the outbox, and the worker's files are no longer needed."""
        write_atomic(self.root / "outbox" / f"{lease_id}.bin", raw)
        shutil.rmtree(self.root / "work" / lease_id, ignore_errors=True)

    def unsent(self, lease_id: LeaseId) -> bytes | None:
        return _read_small(self.root / "outbox" / f"{lease_id}.bin")

    def contribution(self, lease_id: LeaseId) -> Contribution | None:
        """The stored contribution, sent or not; None when there is none."""
        raw = self.unsent(lease_id) or _read_small(self.root / "sent" / f"{lease_id}.bin")
        try:
            return None if raw is None else open_envelope(raw, CONTRIBUTION, self.swarm).body
        except RemoteError:
            return None

    def mark_sent(self, lease_id: LeaseId) -> None:
        source = self.root / "outbox" / f"{lease_id}.bin"
        if source.exists():
            source.replace(self.root / "sent" / f"{lease_id}.bin")

    def close(self, lease_id: LeaseId, line: HistoryLine) -> None:
        """Write what became of a segment, then forget its files."""
        self._append(line)
        for folder in ("outbox", "sent", "leases"):
            (self.root / folder / f"{lease_id}.bin").unlink(missing_ok=True)
        shutil.rmtree(self.root / "work" / lease_id, ignore_errors=True)

    def unsent_ids(self) -> list[LeaseId]:
        return _ids(self.root / "outbox")

    def pending_ids(self) -> list[LeaseId]:
        return _ids(self.root / "sent")

    def open_leases(self) -> list[Opened[Lease]]:
        """Leases whose segment is not finished; damaged files are removed."""
        done = {*self.unsent_ids(), *self.pending_ids()}
        found = []
        for lease_id in _ids(self.root / "leases"):
            if lease_id in done:
                continue
            opened = self.lease(lease_id)
            if opened is None:
                self._lease(lease_id).unlink(missing_ok=True)
            else:
                found.append(opened)
        return found

    # --- history

    def history(self) -> Iterator[HistoryLine]:
        """Every segment once, in order; a line that a power cut tore is skipped."""
        return read_history(self.root)

    def _append(self, line: HistoryLine) -> None:
        path, raw = self.root / "history.jsonl", msgspec.json.encode(line) + b"\n"
        with disk_errors(path, len(raw)), path.open("ab") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())

    # --- small documents

    def keep_text(self, name: str, raw: bytes) -> None:
        """Store a small document (consent.json, chain.bin, pull.id) atomically."""
        write_atomic(self.root / name, raw)

    def text(self, name: str) -> bytes | None:
        return _read_small(self.root / name)

    def consent(self) -> Consent | None:
        return _decode_json(self.text("consent.json"), Consent)

    def keep_consent(self, consent: Consent) -> None:
        self.keep_text("consent.json", msgspec.json.encode(consent))

    def self_test(self, device: str, threads: int) -> SelfTest | None:
        """The remembered self-test, when it was made with the same device and threads."""
        found = _decode_json(self.text("self_test.json"), SelfTest)
        return found if found and (found.device, found.threads) == (device, threads) else None

    def keep_self_test(self, result: SelfTest) -> None:
        self.keep_text("self_test.json", msgspec.json.encode(result))

    def _lease(self, lease_id: LeaseId) -> Path:
        return self.root / "leases" / f"{lease_id}.bin"


def read_history(root: Path) -> Iterator[HistoryLine]:
    """The history in a swarm's folder, without touching the folder; empty when there is none."""
    path, seen = root / "history.jsonl", set()
    if not path.exists():
        return
    with path.open("rb") as lines:
        for raw in lines:
            line = _decode_line(raw)
            if line is not None and line.lease_id not in seen:
                seen.add(line.lease_id)
                yield line


def open_swarm_folder(root: Path, swarm: SwarmId) -> SwarmFolder:
    """The folder of `swarm`; raises LocalError when it can't be made."""
    try:
        return SwarmFolder(root, swarm)
    except OSError as error:
        raise LocalError(
            f"{root} can't be written ({error.strerror}); choose another --home"
        ) from error


def _ids(folder: Path) -> list[LeaseId]:
    return sorted(LeaseId(path.stem) for path in folder.glob("*.bin"))


def _read_small(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return file.read(MAX_SMALL_FILE)
    except FileNotFoundError:
        return None


def _decode_line(raw: bytes) -> HistoryLine | None:
    try:
        return decode_json(raw, HistoryLine)
    except MalformedBytes:
        return None


def _decode_json(raw: bytes | None, kind: type[S]) -> S | None:
    try:
        return None if raw is None else decode_json(raw, kind)
    except MalformedBytes:
        return None
