"""Renders pages. Owns what of a large swarm is shown at once; every text is escaped."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from kinoswarm_coordinator.leaders import AccountStory, Leader
from kinoswarm_coordinator.queries import ActionView, LedgerPiece, NodeStory, VerdictsPiece
from kinoswarm_coordinator.try_desk import TryDesk
from kinoswarm_coordinator.try_queue import Wish
from kinoswarm_coordinator.views import ReleaseView
from kinoswarm_coordinator.web import chart_data, curve, words
from kinoswarm_coordinator.web.assets import Assets
from kinoswarm_coordinator.web.health import Health
from kinoswarm_coordinator.web.links import Links, up_from
from kinoswarm_coordinator.web.snapshots import Snapshot
from kinoswarm_protocol.messages import ReleaseFile

_TEMPLATES = Path(__file__).parent / "templates"
_SHOWN_NODES = 40
_SHOWN_VERDICTS = 12
_OLDER_RELEASES = 4


@dataclass(frozen=True, kw_only=True)
class ReleaseFacts:
    """What a release's page shows beside the view."""

    release: ReleaseView
    files: list[ReleaseFile]
    card: str


class Pages:
    """The templates, compiled once. `still` renders a copy for static hosts instead of the live page."""

    def __init__(
        self,
        assets: Assets,
        invite: str,
        *,
        has_frames: Callable[[int], bool] = lambda cluster: False,
        is_kept: Callable[[int], bool] = lambda version: True,
        still: bool = False,
        can_try: bool = False,
    ) -> None:
        self._assets = assets
        self._has_frames = has_frames
        self._is_kept = is_kept
        self._still = still
        self._templates = _environment()
        self._templates.globals.update(
            assets=assets.digest,
            invite=invite,
            num_hues=curve.NUM_HUES,
            still=still,
            can_try=can_try,
        )

    def overview(self, snapshot: Snapshot) -> str:
        """The first page."""
        view, history = snapshot.view, snapshot.history
        kept = [release for release in view.releases if self._shows(release)]
        return self._render(
            "overview.html",
            "",
            snapshot,
            nodes=view.nodes[:_SHOWN_NODES],
            verdicts=view.verdicts[:_SHOWN_VERDICTS],
            release=kept[-1] if kept else None,
            older=kept[-2 : -2 - _OLDER_RELEASES : -1],
            history=history,
            throughput_data=chart_data.throughput(history),
            throughput_table=curve.bars([span.samples for span in history.throughput]),
            presence_data=chart_data.presence(history),
        )

    def cluster(self, snapshot: Snapshot, index: int) -> str:
        """One cluster and its expert. Raises IndexError for a cluster that is not there."""
        cluster = snapshot.view.clusters[index]
        verdicts = [verdict for verdict in snapshot.view.verdicts if verdict.cluster == index]
        return self._render(
            "cluster.html",
            f"clusters/{index}",
            snapshot,
            cluster=cluster,
            verdicts=verdicts,
            loss_data=chart_data.loss(cluster),
        )

    def nodes(self, snapshot: Snapshot) -> str:
        """The volunteers seen last."""
        return self._render("nodes.html", "nodes", snapshot)

    def node(self, snapshot: Snapshot, story: NodeStory) -> str:
        """One volunteer."""
        return self._render("node.html", f"nodes/{story.node.peer}", snapshot, story=story)

    def verdicts(self, snapshot: Snapshot, piece: VerdictsPiece) -> str:
        """The verification log."""
        return self._render("verdicts.html", "verdicts", snapshot, piece=piece)

    def leaderboard(self, snapshot: Snapshot, leaders: list[Leader]) -> str:
        """Who contributed most."""
        return self._render("leaderboard.html", "leaderboard", snapshot, leaders=leaders)

    def account(self, snapshot: Snapshot, story: AccountStory) -> str:
        """One account and its machines."""
        return self._render("account.html", f"accounts/{story.account}", snapshot, story=story)

    def ledger(self, snapshot: Snapshot, piece: LedgerPiece) -> str:
        """Credit, line by line."""
        return self._render("ledger.html", "ledger", snapshot, piece=piece)

    def releases(self, snapshot: Snapshot) -> str:
        """All published releases, newest first."""
        published = [release for release in snapshot.view.releases if release.published]
        return self._render("releases.html", "releases", snapshot, releases=published[::-1])

    def release(self, snapshot: Snapshot, facts: ReleaseFacts) -> str:
        """One release."""
        return self._render(
            "release.html",
            f"releases/{facts.release.version}",
            snapshot,
            release=facts.release,
            files=facts.files,
            card=facts.card,
        )

    def health(self, snapshot: Snapshot, health: Health, actions: list[ActionView]) -> str:
        """The swarm's checks, and what its operators did."""
        return self._render("health.html", "health", snapshot, health=health, actions=actions)

    def join(self, snapshot: Snapshot) -> str:
        """How to take part."""
        return self._render("join.html", "join", snapshot)

    def try_it(
        self,
        snapshot: Snapshot,
        desk: TryDesk,
        *,
        wish: Wish | None = None,
        prompt: str = "",
        problem: str = "",
    ) -> str:
        """The box for a prompt of one's own, and how far a wish is."""
        return self._render(
            "try.html",
            "try",
            snapshot,
            release=desk.newest_release(),
            prompts=desk.service.rules.prompts,
            max_prompt=desk.max_prompt,
            wish=wish,
            prompt=wish.prompt if wish else prompt,
            problem=problem,
        )

    def _shows(self, release: ReleaseView) -> bool:
        return release.published and self._is_kept(release.version)

    def _render(self, name: str, page: str, snapshot: Snapshot, **shown: Any) -> str:
        links = Links(self._assets, up_from(page) if self._still else None)
        frames = [
            f"/clusters/{cluster.cluster}/frames.png" if self._has_frames(cluster.cluster) else ""
            for cluster in snapshot.view.clusters
        ]
        return self._templates.get_template(name).render(
            view=snapshot.view,
            tag=snapshot.tag,
            page=page,
            frames=frames,
            is_kept=self._is_kept,
            link=links.link,
            file=links.file,
            asset=links.asset,
            **shown,
        )


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        ago=words.ago,
        iso=words.iso_time,
        size=words.size_in_words,
        flops=words.flops_in_words,
        grouped=words.grouped,
        percent=words.percent,
        since_seed=words.since_seed,
        upto=words.upto,
        curve=curve.loss_curve,
        shares=curve.share_bar,
    )
    return environment
