"""Backups of a coordinator: made while it runs, checked when they are made and when they come back. Owns their folder.

BACKUP/backup.json       what this is and where the log ends; written last and at once, so a half backup is none
BACKUP/log-N.sqlite      the event log up to event N, whatever database it came from
BACKUP/swarm/            invite, charter, keys, held-out files, settings, releases: the founder's folder without blobs
BACKUP/store/            every blob, as in a coordinator's store; a second backup into one folder adds what is new

The log is read before the store, and nothing may go meanwhile (tidy_lock.py): every blob that it still needs is there.
What was forgotten need not be. A backup holds the coordinator's key.
"""

import contextlib
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
from msgspec import Struct

from kinoswarm_coordinator.database import sqlite_url
from kinoswarm_coordinator.event_log import CorruptLog, Head, Row
from kinoswarm_coordinator.home import SwarmFolder
from kinoswarm_coordinator.leadership import Leadership
from kinoswarm_coordinator.log_heads import agreeing_rows, open_head
from kinoswarm_coordinator.serve import Founding, open_log, read_founding
from kinoswarm_coordinator.settings import SETTINGS_FILE, load_settings
from kinoswarm_coordinator.sql_log import SqlLog
from kinoswarm_coordinator.tidy_lock import nothing_goes
from kinoswarm_network.blob_store import BlobStore
from kinoswarm_network.durable import sync_folder, write_atomic
from kinoswarm_protocol.codec import decode_json
from kinoswarm_protocol.errors import HashMismatch, LocalError, MalformedBytes
from kinoswarm_protocol.ids import BlobId

_FORMAT = 1
_MAX_TABLE_BYTES = 64 * 1024
_LEFT_OUT = {"store", "network", "work", "frames", "tried", "copy-0", "copy-1"}
"""Made anew, or kept apart: blobs have their own folder in a backup."""
_LEFT_OUT_FILES = re.compile(r"log\.sqlite.*|.*\.log|admin\.sock|tidy\.lock|founder\.key")
_DATABASE_SETTING = re.compile(r"^\s*database_url\s*=.*$", re.MULTILINE)


class BackupTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """backup.json."""

    format: int
    swarm: str
    made_at_ms: int
    seq: int
    hash: str
    epoch: int


@dataclass(frozen=True)
class Backup:
    """What was backed up or came back."""

    num_events: int
    num_blobs: int
    new_blobs: int
    epoch: int


def back_up(root: Path, out: Path, now_ms: int) -> Backup:
    """Copy the swarm in `root` into `out`, while it runs or not. Raises LocalError, CorruptLog or HashMismatch."""
    folder = SwarmFolder(root.resolve())
    founding = read_founding(folder)
    out.mkdir(parents=True, exist_ok=True, mode=0o700)
    before = _table_in(out) if (out / "backup.json").is_file() else None
    if before is not None and before.swarm != founding.swarm:
        raise LocalError(f"{out} holds a backup of another swarm; name an empty folder")
    with nothing_goes(folder.tidy_lock):
        return _backed_up(folder, founding, out, now_ms)


def _backed_up(folder: SwarmFolder, founding: Founding, out: Path, now_ms: int) -> Backup:
    log = open_log(folder, load_settings(folder.home))
    try:
        leadership = log.leadership()
        head = _copy_log(log, founding, out, leadership.epoch)
    finally:
        log.close()
    _copy_files(folder.root, out / "swarm")
    total, new = _copy_blobs(BlobStore(folder.store), BlobStore(out / "store"))
    table = BackupTable(
        format=_FORMAT,
        swarm=founding.swarm,
        made_at_ms=now_ms,
        seq=head.seq,
        hash=head.hash.hex(),
        epoch=leadership.epoch,
    )
    write_atomic(out / "backup.json", msgspec.json.encode(table))
    for old in out.glob("log-*.sqlite"):
        if old.name != _log_name(head.seq):
            old.unlink()
    return Backup(head.seq, total, new, table.epoch)


def restore(backup: Path, root: Path, database_url: str = "") -> Backup:
    """Check a backup and lay it out as the new folder `root`; its log waits for a promotion.

    Raises LocalError when `root` is there already or `backup` is none, CorruptLog or HashMismatch when it is damaged;
    nothing has the name `root` then.
    """
    table = _table_in(backup)
    target = root.absolute()
    if target.exists() and any(target.iterdir()):
        raise LocalError(f"{root} is there already; name a folder that is not")
    growing = target.with_name(f"{target.name}.restoring")
    shutil.rmtree(growing, ignore_errors=True)
    _copy_files(backup / "swarm", growing)
    folder = SwarmFolder(growing)
    founding = read_founding(folder)
    if founding.swarm != table.swarm:
        raise LocalError(f"{backup} mixes two swarms; restore another backup")
    _set_database(folder, database_url)
    total, new = _copy_blobs(BlobStore(backup / "store"), BlobStore(folder.store))
    with _own_copy(backup / _log_name(table.seq), growing) as source:
        _fill(folder, source, database_url, founding, table)
    if target.exists():
        target.rmdir()
    growing.rename(target)
    sync_folder(target.parent)
    return Backup(table.seq, total, new, table.epoch)


def promote(root: Path) -> Leadership:
    """Let the coordinator in `root` lead from now on, whoever did before. Raises LocalError or LogInUse."""
    folder = SwarmFolder(root.resolve())
    read_founding(folder)
    log = open_log(folder, load_settings(folder.home))
    try:
        return log.promote()
    finally:
        log.close()


def _copy_log(log: SqlLog, founding: Founding, out: Path, epoch: int) -> Head:
    """The log as a SQLite file of its own, its chain and signed heads checked on the way."""
    path = out / "log.growing"
    for leftover in out.glob("log.growing*"):
        leftover.unlink()
    copy = SqlLog(sqlite_url(path))
    try:
        _import(log, copy, founding)
        copy.mark_restored(epoch)
        head = copy.head()
    finally:
        copy.close()
    path.rename(out / _log_name(head.seq))
    sync_folder(out)
    (out / f"{path.name}.lock").unlink()
    return head


def _import(source: SqlLog, target: SqlLog, founding: Founding) -> None:
    heads = [
        (open_head(raw, founding.swarm, founding.coordinators_ever), raw)
        for raw in source.signed_heads()
    ]
    claim = target.lead("backup")
    if claim.next is None:
        raise LocalError(f"{target.where}: {claim.reason}")
    rows: Iterator[Row] = agreeing_rows(
        source.read_rows(), [head for head, _ in heads], source.where
    )
    target.import_rows(rows, [(head.seq, raw) for head, raw in heads])


@contextlib.contextmanager
def _own_copy(kept: Path, growing: Path) -> Iterator[SqlLog]:
    """A backup's log opened without touching the backup, which may lie on a medium that takes no writes."""
    if not kept.is_file():
        raise LocalError(f"{kept} is missing; restore another backup")
    path = growing / "log.from-backup"
    shutil.copyfile(kept, path)
    log = SqlLog(sqlite_url(path))
    try:
        yield log
    finally:
        log.close()
        for file in growing.glob(f"{path.name}*"):
            file.unlink()


def _fill(
    folder: SwarmFolder, source: SqlLog, database_url: str, founding: Founding, table: BackupTable
) -> None:
    """The backup's log into the database that will be served."""
    expected = Head(table.seq, bytes.fromhex(table.hash))
    if source.head() != expected:
        raise CorruptLog(
            f"the backup's log does not end with event {table.seq} as backup.json says; restore another backup"
        )
    restored = SqlLog(database_url or sqlite_url(folder.log))
    try:
        if restored.head() == expected and restored.leadership().restored:
            return  # an earlier restore was cut short after this step
        _import(source, restored, founding)
        restored.mark_restored(table.epoch)
    finally:
        restored.close()


def _log_name(seq: int) -> str:
    return f"log-{seq}.sqlite"


def _table_in(backup: Path) -> BackupTable:
    path = backup / "backup.json"
    try:
        with path.open("rb") as file:
            table = decode_json(file.read(_MAX_TABLE_BYTES), BackupTable)
    except OSError as error:
        raise LocalError(
            f"{backup} is no backup, or an unfinished one ({error.strerror}: {path})"
        ) from error
    except MalformedBytes as error:
        raise LocalError(f"{path} is damaged ({error}); restore another backup") from error
    if table.format != _FORMAT:
        raise LocalError(
            f"{backup} has format {table.format}, this program reads {_FORMAT}; update it"
        )
    return table


def _copy_files(source: Path, target: Path) -> None:
    """Every file but blobs, logs and what is made anew; modes are kept, a copy appears whole or not at all."""
    for path in sorted(source.rglob("*")):
        inside = path.relative_to(source)
        if _LEFT_OUT & set(inside.parts) or _LEFT_OUT_FILES.fullmatch(path.name):
            continue
        copy = target / inside
        if path.is_dir():
            copy.mkdir(parents=True, exist_ok=True, mode=0o700)
        elif path.is_file():
            copy.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            beside = copy.with_name(f"{copy.name}.copying")
            shutil.copy2(path, beside)
            beside.replace(copy)


def _copy_blobs(source: BlobStore, target: BlobStore) -> tuple[int, int]:
    """Add the blobs that `target` lacks; tells how many there are and how many were new. Raises HashMismatch."""
    stored = source.blobs()
    missing = [entry for entry in stored if target.path_of(entry.blob) is None]
    for entry in missing:
        _copy_blob(source, target, entry.blob)
        if entry.pinned:
            target.pin(entry.blob, True)
    return len(stored), len(missing)


def _copy_blob(source: BlobStore, target: BlobStore, blob: BlobId) -> None:
    path = source.path_of(blob)
    if path is None:
        return  # dropped a moment ago by the running coordinator
    found = target.add_file(path)
    if found != blob:
        target.drop(found)
        raise HashMismatch(
            f"blob {blob} in {source.root} is damaged: its bytes are those of {found[:12]}…"
        )


def _set_database(folder: SwarmFolder, database_url: str) -> None:
    """The old coordinator's database is not this one's."""
    path = folder.home / SETTINGS_FILE
    if not path.is_file() and not database_url:
        return
    kept = _DATABASE_SETTING.sub("", path.read_text()) if path.is_file() else ""
    line = f"database_url = {msgspec.json.encode(database_url).decode()}\n" if database_url else ""
    write_atomic(path, (line + kept).encode())
