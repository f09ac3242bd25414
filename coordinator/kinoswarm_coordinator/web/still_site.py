"""The swarm's pages and data as files for any static host. Owns which pages a copy has and where; pure.

Links are relative, so that a copy works under any address and from a disk.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from msgspec import Struct

from kinoswarm_coordinator.leaders import AccountStory, Leader
from kinoswarm_coordinator.queries import ActionView, LedgerPiece, NodeStory, VerdictsPiece
from kinoswarm_coordinator.web.assets import load_assets
from kinoswarm_coordinator.web.health import Health
from kinoswarm_coordinator.web.page import Pages, ReleaseFacts
from kinoswarm_coordinator.web.snapshots import Snapshot


@dataclass(frozen=True, kw_only=True)
class SiteFacts:
    """Everything that the pages of a copy show, of one moment."""

    snapshot: Snapshot
    verdicts: VerdictsPiece
    leaders: list[Leader]
    ledger: LedgerPiece
    health: Health
    actions: list[ActionView]
    stories: list[NodeStory]
    accounts: list[AccountStory]
    releases: list[ReleaseFacts]
    invite: str
    frames: frozenset[int]
    """Clusters with frames of their data."""
    kept: frozenset[int]
    """Releases whose clips come along."""


def render_site(facts: SiteFacts) -> dict[str, bytes]:
    """Files by their path: pages, data as JSON, the pages' own files. Clips and frames are not among them."""
    assets = load_assets()
    pages = Pages(
        assets,
        facts.invite,
        has_frames=facts.frames.__contains__,
        is_kept=facts.kept.__contains__,
        still=True,
    )
    files = {
        f"{path}/index.html" if path else "index.html": html.encode()
        for path, html in _pages(pages, facts).items()
    }
    files |= {f"data/{name}.json": msgspec.json.encode(shown) for name, shown in _data(facts)}
    files |= {assets.address(name)[1:]: asset.data for name, asset in assets.files.items()}
    return files


def _pages(pages: Pages, facts: SiteFacts) -> dict[str, str]:
    shown = facts.snapshot
    found = {
        "": pages.overview(shown),
        "nodes": pages.nodes(shown),
        "releases": pages.releases(shown),
        "verdicts": pages.verdicts(shown, facts.verdicts),
        "leaderboard": pages.leaderboard(shown, facts.leaders),
        "ledger": pages.ledger(shown, facts.ledger),
        "health": pages.health(shown, facts.health, facts.actions),
        "join": pages.join(shown),
    }
    for cluster in shown.view.clusters:
        found[f"clusters/{cluster.cluster}"] = pages.cluster(shown, cluster.cluster)
    for story in facts.stories:
        found[f"nodes/{story.node.peer}"] = pages.node(shown, story)
    for account in facts.accounts:
        found[f"accounts/{account.account}"] = pages.account(shown, account)
    for release in facts.releases:
        found[f"releases/{release.release.version}"] = pages.release(shown, release)
    return found


def _data(facts: SiteFacts) -> list[tuple[str, Struct | Sequence[Struct]]]:
    return [
        ("status", facts.snapshot.view),
        ("history", facts.snapshot.history),
        ("verdicts", facts.verdicts),
        ("leaderboard", facts.leaders),
        ("ledger", facts.ledger),
        ("health", facts.health),
        ("actions", facts.actions),
    ]
