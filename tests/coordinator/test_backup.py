"""Backup, restore and promotion: what comes back is what was there, and nobody leads it before the old one is off."""

import asyncio
import json
import os
from pathlib import Path

import pytest
from coordinator.founded_folder import founded_folder
from coordinator.small_swarm import SmallSwarm
from protocol.samples import COORDINATOR, NODE
from typer.testing import CliRunner

from kinoswarm_cli import ledger_commands, swarm_commands
from kinoswarm_coordinator import backup
from kinoswarm_coordinator import leadership as ls
from kinoswarm_coordinator.backup import back_up, promote, restore
from kinoswarm_coordinator.database import engine_of, sqlite_url
from kinoswarm_coordinator.event_log import CorruptLog, LogInUse, NotLeader
from kinoswarm_coordinator.events import Event, VersionsForgotten
from kinoswarm_coordinator.home import SwarmFolder
from kinoswarm_coordinator.leading import wait_to_lead
from kinoswarm_coordinator.log_heads import HeadSigner
from kinoswarm_coordinator.offline import checked_ledger
from kinoswarm_coordinator.serve import read_founding
from kinoswarm_coordinator.settings import load_settings
from kinoswarm_coordinator.sql_log import SqlLog
from kinoswarm_coordinator.tidy_lock import may_tidy
from kinoswarm_network.blob_store import BlobStore
from kinoswarm_protocol.errors import HashMismatch, LocalError
from kinoswarm_protocol.ids import BlobId

NOW_MS = 1_700_000_100_000


def some_events() -> list[Event]:
    swarm = SmallSwarm()
    swarm.hello(NODE)
    swarm.train(NODE)
    swarm.operate()
    return swarm.history


@pytest.fixture
def folder(tmp_path: Path) -> SwarmFolder:
    return founded_folder(tmp_path / "swarm")


def running_log(folder: SwarmFolder, url: str = "") -> SqlLog:
    """The log as a coordinator that runs holds it, with events and a signed head."""
    log = SqlLog(url or sqlite_url(folder.log))
    assert log.lead("running").next
    log.append(some_events())
    swarm = read_founding(folder).swarm
    HeadSigner(log=log, key=COORDINATOR, swarm=swarm, now_ms=lambda: NOW_MS).sign()
    return log


def add_blob(folder: SwarmFolder, text: str) -> BlobId:
    path = folder.root / "made"
    path.write_text(text)
    blob = BlobStore(folder.store).add_file(path)
    path.unlink()
    return blob


def lead(folder: SwarmFolder) -> int:
    log = SqlLog(load_settings(folder.home).database_url or sqlite_url(folder.log))
    try:
        asyncio.run(wait_to_lead(log, "test", lambda reason: None))
        return log.epoch
    finally:
        log.close()


def test_what_was_backed_up_while_it_ran_comes_back(folder: SwarmFolder, tmp_path: Path) -> None:
    log = running_log(folder)
    blob = add_blob(folder, "a checkpoint")
    BlobStore(folder.store).pin(blob, True)
    folder.heldout(0).parent.mkdir()
    folder.heldout(0).write_bytes(b"private")
    made = back_up(folder.root, tmp_path / "backup", NOW_MS)
    log.append(some_events()[1:2])
    log.close()
    assert (made.num_events, made.num_blobs, made.new_blobs) == (len(some_events()), 1, 1)

    back = SwarmFolder(tmp_path / "back")
    restored = restore(tmp_path / "backup", back.root)
    assert restored.num_events == made.num_events
    assert read_founding(back).invite == read_founding(folder).invite
    assert back.heldout(0).read_bytes() == b"private"
    assert back.key.stat().st_mode & 0o777 == folder.key.stat().st_mode & 0o777
    assert not back.founder_key.exists(), "the founder's key is never in a backup"
    stored = BlobStore(back.store).blobs()
    assert [(entry.blob, entry.pinned) for entry in stored] == [(blob, True)]
    checked = checked_ledger(back.root)
    assert (checked.num_events, checked.num_heads) == (made.num_events, 1)
    assert sum(checked.ledger.by_peer.values()) > 0


def test_a_backup_without_what_was_forgotten_comes_back(
    folder: SwarmFolder, tmp_path: Path
) -> None:
    """The log names blobs that went since; neither the backup nor the restore misses them."""
    log = running_log(folder)
    forgotten = VersionsForgotten(at_ms=NOW_MS, cluster=0, lineage=0, versions=[1])
    log.append([forgotten])
    log.close()
    kept = add_blob(folder, "a checkpoint")
    made = back_up(folder.root, tmp_path / "backup", NOW_MS)
    back = SwarmFolder(tmp_path / "back")
    assert restore(tmp_path / "backup", back.root).num_events == made.num_events
    assert [entry.blob for entry in BlobStore(back.store).blobs()] == [kept]
    log = SqlLog(sqlite_url(back.log))
    assert list(log.read())[-1] == forgotten
    log.close()


def test_nothing_may_go_between_the_log_and_the_blobs_of_a_backup(
    folder: SwarmFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running_log(folder).close()
    allowed: list[bool] = []

    def copy(source: BlobStore, target: BlobStore) -> tuple[int, int]:
        with may_tidy(folder.tidy_lock) as may:
            allowed.append(may)
        return 0, 0

    monkeypatch.setattr(backup, "_copy_blobs", copy)
    back_up(folder.root, tmp_path / "backup", NOW_MS)
    with may_tidy(folder.tidy_lock) as may:
        assert (allowed, may) == ([False], True)


def test_a_restored_log_is_led_only_after_its_promotion(
    folder: SwarmFolder, tmp_path: Path
) -> None:
    running_log(folder).close()
    back_up(folder.root, tmp_path / "backup", NOW_MS)
    back = SwarmFolder(tmp_path / "back")
    restore(tmp_path / "backup", back.root)
    with pytest.raises(LocalError, match="kinoswarm swarm promote"):
        lead(back)
    assert promote(back.root).epoch == ls.PROMOTION_STEP
    assert lead(back) == ls.PROMOTION_STEP + 1
    assert lead(folder) < ls.PROMOTION_STEP, "however often the old one is started"


def test_a_log_goes_from_postgresql_into_a_backup_and_back(
    folder: SwarmFolder, tmp_path: Path, postgresql_server
) -> None:
    url, other = postgresql_server.new_database(), postgresql_server.new_database()
    settings = folder.home / "settings.toml"
    settings.write_text(f'http_port = 0\ndatabase_url = "{url}"\ntick_s = 2.0\n')
    log = running_log(folder, url)
    back_up(folder.root, tmp_path / "backup", NOW_MS)
    log.close()
    plain, moved = SwarmFolder(tmp_path / "plain"), SwarmFolder(tmp_path / "moved")
    restore(tmp_path / "backup", plain.root)
    assert load_settings(plain.home).database_url == "", (
        "the old coordinator's database stays its own"
    )
    restore(tmp_path / "backup", moved.root, other)
    assert load_settings(moved.home).database_url == other
    assert load_settings(moved.home).tick_s == 2.0
    for back in (plain, moved):
        assert checked_ledger(back.root).num_events == len(some_events())
        promote(back.root)
        assert lead(back) == ls.PROMOTION_STEP + 1


def test_a_promotion_on_a_shared_database_stops_the_leader(
    folder: SwarmFolder, postgresql_url: str
) -> None:
    (folder.home / "settings.toml").write_text(f'database_url = "{postgresql_url}"\n')
    log = running_log(folder, postgresql_url)
    promote(folder.root)
    with pytest.raises(NotLeader):
        log.append(some_events()[:1])
    log.close()


def test_nothing_is_promoted_under_a_coordinator_that_runs_here(folder: SwarmFolder) -> None:
    log = running_log(folder)
    with pytest.raises(LogInUse, match="end it first"):
        promote(folder.root)
    log.close()


def test_a_second_backup_adds_what_is_new(folder: SwarmFolder, tmp_path: Path) -> None:
    log = running_log(folder)
    add_blob(folder, "one")
    back_up(folder.root, tmp_path / "backup", NOW_MS)
    add_blob(folder, "two")
    log.append(some_events()[1:2])
    again = back_up(folder.root, tmp_path / "backup", NOW_MS)
    log.close()
    assert (again.num_events, again.num_blobs, again.new_blobs) == (len(some_events()) + 1, 2, 1)
    assert [path.name for path in (tmp_path / "backup").glob("log-*")] == [
        f"log-{again.num_events}.sqlite"
    ]
    restored = restore(tmp_path / "backup", tmp_path / "back")
    assert restored.num_events == again.num_events


@pytest.mark.parametrize("at", ["copy_log", "copy_files", "copy_blobs", "write_atomic"])
def test_a_backup_that_is_killed_leaves_the_one_before_it(
    folder: SwarmFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    """Killed before each of its steps; the last is the rename of backup.json."""
    log = running_log(folder)
    first = back_up(folder.root, tmp_path / "backup", NOW_MS)
    log.append(some_events()[1:2])
    log.close()

    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    name = at if at == "write_atomic" else f"_{at}"
    monkeypatch.setattr(f"kinoswarm_coordinator.backup.{name}", killed)
    with pytest.raises(KeyboardInterrupt):
        back_up(folder.root, tmp_path / "backup", NOW_MS)
    monkeypatch.undo()
    assert restore(tmp_path / "backup", tmp_path / "back").num_events == first.num_events
    again = back_up(folder.root, tmp_path / "backup", NOW_MS)
    assert again.num_events == first.num_events + 1


def test_a_restore_that_is_killed_leaves_nothing_under_the_name(
    folder: SwarmFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgresql_url: str
) -> None:
    """Killed after the database was filled, before the folder got its name; the same command goes on."""
    running_log(folder).close()
    back_up(folder.root, tmp_path / "backup", NOW_MS)

    def killed(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        restore(tmp_path / "backup", tmp_path / "back", postgresql_url)
    monkeypatch.undo()
    assert not (tmp_path / "back").exists()
    restore(tmp_path / "backup", tmp_path / "back", postgresql_url)
    assert checked_ledger(tmp_path / "back").num_events == len(some_events())


def damage_log(backup: Path) -> None:
    (path,) = backup.glob("log-*.sqlite")
    engine = engine_of(sqlite_url(path))
    with engine.begin() as connection:
        connection.exec_driver_sql("update events set body = x'80' where seq = 2")
    engine.dispose()


def cut_log(backup: Path) -> None:
    (path,) = backup.glob("log-*.sqlite")
    engine = engine_of(sqlite_url(path))
    with engine.begin() as connection:
        connection.exec_driver_sql("delete from events where seq = (select max(seq) from events)")
    engine.dispose()


def damage_blob(backup: Path) -> None:
    (path,) = (p for p in (backup / "store").glob("??/*") if not p.suffix)
    path.chmod(0o600)
    path.write_text("another text")


def remove_table(backup: Path) -> None:
    (backup / "backup.json").unlink()


def garble_table(backup: Path) -> None:
    (backup / "backup.json").write_bytes(b'{"format": 1')


@pytest.mark.parametrize(
    ("damage", "error", "says"),
    [
        (damage_log, CorruptLog, "event 2 was changed or is missing"),
        (cut_log, CorruptLog, "does not end with event"),
        (damage_blob, HashMismatch, "is damaged"),
        (remove_table, LocalError, "is no backup, or an unfinished one"),
        (garble_table, LocalError, "is damaged"),
    ],
)
def test_a_damaged_backup_is_not_restored(
    folder: SwarmFolder, tmp_path: Path, damage, error: type[Exception], says: str
) -> None:
    running_log(folder).close()
    add_blob(folder, "a checkpoint")
    back_up(folder.root, tmp_path / "backup", NOW_MS)
    damage(tmp_path / "backup")
    with pytest.raises(error, match=says):
        restore(tmp_path / "backup", tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_nothing_that_is_there_is_overwritten(folder: SwarmFolder, tmp_path: Path) -> None:
    running_log(folder).close()
    back_up(folder.root, tmp_path / "backup", NOW_MS)
    with pytest.raises(LocalError, match="is there already"):
        restore(tmp_path / "backup", folder.root)


def test_the_commands_say_what_to_do_next(folder: SwarmFolder, tmp_path: Path) -> None:
    running_log(folder).close()
    run, app = CliRunner(), swarm_commands.app
    backup, back = str(tmp_path / "backup"), str(tmp_path / "back")
    made = run.invoke(app, ["backup", str(folder.root), backup])
    assert made.exit_code == 0, made.output
    assert "keep it where only you can read it" in made.output
    restored = run.invoke(app, ["restore", backup, back])
    assert f"kinoswarm swarm promote {back}" in restored.output
    promoted = run.invoke(app, ["promote", back, "--json"])
    assert json.loads(promoted.output) == {"epoch": ls.PROMOTION_STEP}
    verified = run.invoke(ledger_commands.app, ["verify", back, "--json"])
    facts = json.loads(verified.output)
    assert facts["signed_heads"] == 1
    assert facts["events"] == len(some_events())


def test_a_backup_is_for_its_owners_eyes(folder: SwarmFolder, tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        running_log(folder).close()
        back_up(folder.root, tmp_path / "backup", NOW_MS)
    finally:
        os.umask(before)
    assert (tmp_path / "backup").stat().st_mode & 0o077 == 0
