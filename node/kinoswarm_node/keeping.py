"""What a node keeps alive for everybody: signed records, and the newest release. Owns which, and for how long.

Records are announced again by whoever holds them, so that a release is found when its coordinator is gone; the DHT
forgets within the hour what nobody repeats. Nothing here is believed: a record counts by its signature and dates.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import structlog

from kinoswarm_network.durable import write_atomic
from kinoswarm_node import mirroring
from kinoswarm_node.context import NodeContext
from kinoswarm_node.record_lookup import look_up
from kinoswarm_protocol.codec import decode, decode_json
from kinoswarm_protocol.envelope import Opened, open_envelope
from kinoswarm_protocol.errors import BadSignature, MalformedBytes, RemoteError
from kinoswarm_protocol.ids import BlobId
from kinoswarm_protocol.limits import MAX_RECORD_BYTES, MAX_RECORDS_PER_LOOKUP
from kinoswarm_protocol.messages import RELEASE, ReleaseManifest
from kinoswarm_protocol.records import (
    CHARTER_KEY,
    COORDINATOR_KEY,
    RELEASE_KEY,
    Authority,
    ReleaseRecord,
    newest,
    open_record,
    plain_key_of,
    provider_keys,
)

KEPT_KEYS = (CHARTER_KEY, COORDINATOR_KEY, RELEASE_KEY)
MAX_KEPT = 64
"""Records of all keys together: one a coordinator, one an amendment."""
_MAX_FILE = MAX_KEPT * (MAX_RECORD_BYTES + 16)
ENOUGH_PROVIDERS = 8
"""A release that so many serve already is not fetched by one more."""
_RECORDS = "kept-records.bin"
_RELEASE = "kept-release.json"
_GB = 1e9
_log = structlog.get_logger("keeping")


class KeptRelease(msgspec.Struct, frozen=True):
    """The release whose blobs are pinned here."""

    version: int
    table: BlobId
    files: list[BlobId]


async def keep_alive(node: NodeContext) -> None:
    """Learn the swarm's newest records, announce them again, and hold the newest release where there is room for it.

    Whatever can't be reached is tried again the next time.
    """
    records = await _learn(node)
    for record in records:
        try:
            await node.network.announce_again(record)
        except RemoteError as error:
            _log.info("not announced again", key=record.body.key, why=str(error))
    release = newest((r for r in records if isinstance(r.body, ReleaseRecord)), node.now_ms())
    serves = node.settings.keep_release_gb > 0 and not node.settings.https_only
    if release is not None and serves:
        await _hold(node, release.body)
    if node.is_helper and serves:
        held = _held(node.folder.root)
        await mirroring.mirror(node, set() if held is None else {held.table, *held.files})
    node.board.keeps(_kept_in_words(node))


def _kept_in_words(node: NodeContext) -> str:
    held, blobs = _held(node.folder.root), mirroring.mirrored(node.folder.root).size_by_blob
    parts = [f"release {held.version}"] if held is not None else []
    if blobs:
        gb = sum(blobs.values()) / _GB
        parts.append(f"{len(blobs)} files of experts and data ({gb:.2g} GB)")
    return f"Keeps for others: {' and '.join(parts)}." if parts else ""


def kept_records(root: Path, key: str) -> list[bytes]:
    """The signed records under one plain key that are kept in a swarm's folder; as they were when they were learnt."""
    if key not in KEPT_KEYS:
        return []
    found = [raw for raw in _read_list(root / _RECORDS) if _lies_under(raw, key)]
    return found[:MAX_RECORDS_PER_LOOKUP]


def held_tables(node: NodeContext) -> list[BlobId]:
    """The release tables whose whole release this node serves: announced, so that a stranger finds it."""
    held = _held(node.folder.root)
    return [held.table] if held is not None else []


def merged(
    known: Iterable[bytes], heard: Iterable[bytes], authority: Authority, now_ms: int
) -> list[Opened[Any]]:
    """Valid records of both, the newest of each place (key and signer or version), at most MAX_KEPT."""
    best: dict[tuple[str, str], Opened[Any]] = {}
    for raw in (*known, *heard):
        try:
            opened = open_record(raw, authority)
        except RemoteError:
            continue
        if opened.body.key not in KEPT_KEYS or opened.body.valid_until_ms <= now_ms:
            continue
        place = (opened.body.key, opened.signer if opened.body.key == COORDINATOR_KEY else "")
        if opened.body.key == CHARTER_KEY:
            place = (opened.body.key, str(opened.body.number))
        before = best.get(place)
        best[place] = opened if before is None else newest((before, opened), now_ms) or opened
    return [best[place] for place in sorted(best)][:MAX_KEPT]


async def _learn(node: NodeContext) -> list[Opened[Any]]:
    """From the coordinator; from the DHT when it is away; and what was known before."""
    charter = node.the_charter()
    authority = Authority(node.invite.swarm, charter.founder, frozenset(charter.coordinators))
    path = node.folder.root / _RECORDS
    known = _read_list(path)
    heard: list[bytes] = []
    for key in KEPT_KEYS:
        heard += await look_up(node, key)
    records = merged(known, heard, authority, node.now_ms())
    raw = [record.raw for record in records]
    if raw != known:
        write_atomic(path, msgspec.msgpack.encode(raw))
    return records


async def _hold(node: NodeContext, release: ReleaseRecord) -> None:
    """Fetch and pin a release that is newer than the held one; the older one may go then."""
    before = _held(node.folder.root)
    if before is not None and before.version >= release.version:
        return
    table = BlobId(release.blob)
    if not node.is_helper and await _num_providers(node, table) >= ENOUGH_PROVIDERS:
        return
    manifest = await _manifest(node, table)
    size = sum(file.size_bytes for file in manifest.files)
    if size > node.settings.keep_release_gb * _GB:
        _log.info("release not kept", version=release.version, gb=round(size / _GB, 3))
        return
    files = [BlobId(file.blob) for file in manifest.files]
    for blob in (table, *files):
        await node.network.fetch_blob(blob, (), _quietly)
        await node.network.pin(blob)
    kept = KeptRelease(release.version, table, files)
    write_atomic(node.folder.root / _RELEASE, msgspec.json.encode(kept))
    for blob in set() if before is None else {before.table, *before.files} - {table, *files}:
        await node.network.unpin(blob)
    _log.info("keeps a release for everybody", version=release.version, gb=round(size / _GB, 3))


async def _num_providers(node: NodeContext, table: BlobId) -> int:
    try:
        return sum([len(await node.network.look_up(key)) for key in provider_keys(table)])
    except RemoteError:
        return 0  # without a DHT nobody is known to serve it


async def _manifest(node: NodeContext, table: BlobId) -> ReleaseManifest:
    path = await node.network.fetch_blob(table, (), _quietly)
    charter = node.the_charter()
    with path.open("rb") as file:
        opened = open_envelope(file.read(RELEASE.max_bytes + 1_024), RELEASE, node.invite.swarm)
    if opened.signer not in charter.coordinators:
        raise BadSignature(f"release table {table[:12]}… is signed by no coordinator")
    return opened.body


def _held(root: Path) -> KeptRelease | None:
    try:
        return decode_json((root / _RELEASE).read_bytes(), KeptRelease)
    except (OSError, MalformedBytes):
        return None


def _read_list(path: Path) -> list[bytes]:
    """What was kept; a damaged file is an empty one, because everything in it can be learnt again."""
    try:
        with path.open("rb") as file:
            return decode(file.read(_MAX_FILE), list[bytes], _MAX_FILE)
    except (OSError, MalformedBytes):
        return []


def _lies_under(raw: bytes, key: str) -> bool:
    try:
        return plain_key_of(raw) == key
    except RemoteError:
        return False  # the file is damaged; it is written anew at the next look


def _quietly(done: int, total: int) -> None:
    """Nobody watches."""
