"""What a helper holds beside the release: every cluster's newest expert and its data. Owns which, and how much.

So a newcomer fetches from many machines what it would else fetch from the coordinator alone. Whatever the network
process holds whole it announces; held blobs are pinned, so that the disk's quota does not drop them, and all together
stay within keep_release_gb. Nothing is believed: an expert is named by a record that a coordinator signed.
"""

import shutil
from collections.abc import AsyncIterator, Collection
from pathlib import Path

import msgspec
import structlog

from kinoswarm_network.durable import write_atomic
from kinoswarm_node.context import NodeContext
from kinoswarm_node.record_lookup import look_up
from kinoswarm_protocol.charter import Charter
from kinoswarm_protocol.codec import decode_json
from kinoswarm_protocol.errors import MalformedBytes, RemoteError
from kinoswarm_protocol.ids import BlobId
from kinoswarm_protocol.records import Authority, ExpertRecord, expert_key, newest, open_record

_FILE = "mirror.json"
_MAX_FILE = 16 * 1024 * 1024
_GB = 1e9
_log = structlog.get_logger("mirroring")


class Mirrored(msgspec.Struct, frozen=True):
    """The blobs that are pinned here for others."""

    size_by_blob: dict[BlobId, int] = {}


async def mirror(node: NodeContext, release: Collection[BlobId]) -> None:
    """Hold what fits beside the blobs of the `release`, and let go what is not wanted any more.

    Raises Unreachable when a blob can't be had, with all before it held.
    """
    if _is_costly(node):
        return
    path = node.folder.root / _FILE
    before, held = mirrored(node.folder.root).size_by_blob, dict[BlobId, int]()
    left = int(node.settings.keep_release_gb * _GB) - await _size_of(node, release)
    async for blob, least in _wanted(node):
        size = before.get(blob, least)
        if blob in held or size > left or not _has_room(node, size):
            continue
        file = await node.network.fetch_blob(blob, (), _quietly)
        size = file.stat().st_size
        if size > left:
            continue
        await node.network.pin(blob)
        held[blob], left = size, left - size
        write_atomic(path, msgspec.json.encode(Mirrored({**before, **held})))
    for blob in set(before) - set(held) - set(release):
        await node.network.unpin(blob)
    write_atomic(path, msgspec.json.encode(Mirrored(held)))
    _log.info("mirrors", blobs=len(held), gb=round(sum(held.values()) / _GB, 3))


def mirrored(root: Path) -> Mirrored:
    """What is held; a damaged file is an empty one: the next round fetches nothing anew, and pins it again."""
    try:
        with (root / _FILE).open("rb") as file:
            return decode_json(file.read(_MAX_FILE), Mirrored)
    except (OSError, MalformedBytes):
        return Mirrored()


async def _wanted(node: NodeContext) -> AsyncIterator[tuple[BlobId, int]]:
    """Blobs and the least that they take: experts first, which change, then data, which every newcomer needs."""
    charter = node.the_charter()
    for cluster in range(len(charter.clusters)):
        for lineage in range(charter.policy.lineages):
            expert = await _newest_expert(node, charter, expert_key(cluster, lineage))
            if expert is not None:
                yield expert, 0
    for entry in charter.clusters:
        for shard in entry.shards:
            yield BlobId(shard.blob), shard.size_bytes


async def _newest_expert(node: NodeContext, charter: Charter, key: str) -> BlobId | None:
    authority = Authority(node.invite.swarm, charter.founder, frozenset(charter.coordinators))
    found = []
    for raw in await look_up(node, key):
        try:
            opened = open_record(raw, authority)
        except RemoteError:
            continue
        if opened.body.key == key and isinstance(opened.body, ExpertRecord):
            found.append(opened)
    best = newest(found, node.now_ms())
    return None if best is None else BlobId(best.body.checkpoint)


async def _size_of(node: NodeContext, blobs: Collection[BlobId]) -> int:
    paths = [await node.network.blob_path(blob) for blob in blobs]
    return sum(path.stat().st_size for path in paths if path is not None)


def _is_costly(node: NodeContext) -> bool:
    """Whether this connection is metered and the volunteer wants nothing done on such a one."""
    reading = node.governor.reading
    return bool(reading and reading.metered) and not node.live.now.on_metered


def _has_room(node: NodeContext, size: int) -> bool:
    return shutil.disk_usage(node.folder.root).free - size >= node.settings.keep_free_bytes


def _quietly(done: int, total: int) -> None:
    """Nobody watches."""
