"""Writes a signed copy of the swarm's public state into a folder. Owns the order: the signature comes last.

A reader who comes in the middle finds files that the signature beside them does not name, and is told to try again.
"""

import hashlib
from pathlib import Path

from kinoswarm_coordinator.queries import MAX_PIECE
from kinoswarm_coordinator.state import ReleaseState
from kinoswarm_coordinator.web.page import ReleaseFacts
from kinoswarm_coordinator.web.pictures import qr_code
from kinoswarm_coordinator.web.snapshots import Snapshot
from kinoswarm_coordinator.web.sources import WebSources
from kinoswarm_coordinator.web.still_site import SiteFacts, render_site
from kinoswarm_network.durable import link_or_copy, remove_unnamed, write_atomic
from kinoswarm_protocol.codec import encode
from kinoswarm_protocol.envelope import seal
from kinoswarm_protocol.errors import LocalError
from kinoswarm_protocol.snapshot import (
    CHARTER_NAME,
    INVITE_NAME,
    RECORDS_NAME,
    RELEASE_TABLE_NAME,
    SNAPSHOT,
    SNAPSHOT_NAME,
    SiteSnapshot,
    SnapshotFile,
)

_MARK = ".kinoswarm-copy"
"""Lies in every folder that was filled here; such a folder may be filled again."""

_NODE_PAGES = 200
_BLOCK = 1 << 20


def site_facts(sources: WebSources) -> SiteFacts:
    """What a copy shows, of this moment. Call it where state does not change meanwhile."""
    view = sources.view()
    snapshot = Snapshot(view, "", sources.history())
    stories = [sources.node(node.peer) for node in view.nodes[:_NODE_PAGES]]
    leaders = sources.leaders()
    linked = {leader.peer for leader in leaders if leader.is_account}
    linked |= {story.account for story in stories if story is not None and story.account}
    accounts = [sources.account(account) for account in sorted(linked)]
    published = [release for release in view.releases if release.published]
    return SiteFacts(
        snapshot=snapshot,
        verdicts=sources.verdicts(None, MAX_PIECE),
        leaders=leaders,
        ledger=sources.ledger_piece(None, MAX_PIECE),
        health=sources.health(),
        actions=sources.actions(),
        accounts=[account for account in accounts if account is not None],
        stories=[story for story in stories if story is not None],
        releases=[
            ReleaseFacts(
                release=release,
                files=sources.release_files(release.version),
                card=sources.release_card(release.version),
            )
            for release in published
        ],
        invite=sources.invite,
        frames=frozenset(
            cluster.cluster
            for cluster in view.clusters
            if sources.frames(cluster.cluster) is not None
        ),
        kept=frozenset(
            release.version for release in published if sources.is_kept(release.version)
        ),
    )


def write_site(sources: WebSources, facts: SiteFacts, folder: Path, *, with_model: bool) -> Path:
    """Fill `folder` and sign it; returns the signed table's path. Files that a new copy no longer names are removed.

    Raises LocalError when `folder` holds something else than an earlier copy.
    """
    if folder.is_dir() and any(folder.iterdir()) and not (folder / _MARK).exists():
        raise LocalError(
            f"{folder} holds something else than an earlier copy; choose an empty folder, because files that a new "
            "copy does not name are removed"
        )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _MARK).touch()
    (folder / SNAPSHOT_NAME).unlink(missing_ok=True)
    files = render_site(facts)
    files[CHARTER_NAME] = sources.service.in_force.chain.raw
    files[INVITE_NAME] = (facts.invite + "\n").encode()
    files[RECORDS_NAME] = _records(sources)
    files["invite.svg"] = qr_code(facts.invite)
    for path, data in files.items():
        _write(folder / path, data)
    copied = _copied(sources, facts, with_model=with_model)
    for path, source in copied.items():
        link_or_copy(source, folder / path)
    entries = [_entry(folder, path) for path in sorted({*files, *copied})]
    remove_unnamed(folder, {_MARK, *(entry.path for entry in entries)})
    service = sources.service
    body = SiteSnapshot(made_at_ms=facts.snapshot.view.now_ms, files=entries)
    signed = folder / SNAPSHOT_NAME
    write_atomic(signed, seal(service.key, SNAPSHOT, service.swarm, body), mode=0o644)
    return signed


def _records(sources: WebSources) -> bytes:
    service = sources.service
    records = service.book.all(service.journal.state, service.now_ms())
    return encode([record.value for record in records])


def _copied(sources: WebSources, facts: SiteFacts, *, with_model: bool) -> dict[str, Path]:
    """Files that lie on this disk already: frames, clips, and the newest release when the model comes along."""
    found: dict[str, Path] = {}
    for cluster in facts.frames:
        path = sources.frames(cluster)
        if path is not None:
            found[f"clusters/{cluster}/frames.png"] = path
    newest = max(facts.kept, default=0)
    for release in sources.service.journal.state.releases:
        if release.version in facts.kept:
            whole = with_model and release.version == newest
            found |= _release_files(sources, release, clips_only=not whole)
    return found


def _release_files(
    sources: WebSources, release: ReleaseState, *, clips_only: bool
) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for file in release.files:
        path = sources.release_file(release.version, file.path)
        if path is not None and (not clips_only or file.path.startswith("samples/")):
            found[f"releases/{release.version}/{file.path}"] = path
    manifest = sources.store.path_of(release.manifest) if release.manifest else None
    if manifest is not None and not clips_only:
        found[f"releases/{release.version}/{RELEASE_TABLE_NAME}"] = manifest
    return found


def _write(target: Path, data: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)  # it may be a link to a file that others read
    target.write_bytes(data)


def _entry(folder: Path, path: str) -> SnapshotFile:
    digest, size = hashlib.sha256(), 0
    with (folder / path).open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            size += len(block)
    return SnapshotFile(path, size, digest.hexdigest())
