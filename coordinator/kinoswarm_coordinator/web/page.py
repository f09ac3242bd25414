"""Renders the page from a snapshot. Owns what of a large swarm is shown at once; every text is escaped."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from kinoswarm_coordinator.web import curve, words
from kinoswarm_coordinator.web.assets import Assets
from kinoswarm_coordinator.web.snapshots import Snapshot

_TEMPLATES = Path(__file__).parent / "templates"
_SHOWN_NODES = 40
_SHOWN_VERDICTS = 12
_OLDER_RELEASES = 4


class Pages:
    """The template, compiled once, and the page of the last snapshot."""

    def __init__(self, assets: Assets, invite: str) -> None:
        self._last: tuple[Snapshot, str] | None = None
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
            curve=curve.loss_curve,
            shares=curve.share_bar,
        )
        environment.globals.update(
            asset=assets.address, assets=assets.digest, invite=invite, num_hues=curve.NUM_HUES
        )
        self._template = environment.get_template("overview.html")

    def overview(self, snapshot: Snapshot) -> str:
        """The whole page; the same snapshot is rendered once."""
        if self._last is None or self._last[0] is not snapshot:
            self._last = (snapshot, self._render(snapshot))
        return self._last[1]

    def _render(self, snapshot: Snapshot) -> str:
        view = snapshot.view
        published = [release for release in view.releases if release.published]
        return self._template.render(
            view=view,
            tag=snapshot.tag,
            nodes=view.nodes[:_SHOWN_NODES],
            verdicts=view.verdicts[:_SHOWN_VERDICTS],
            release=published[-1] if published else None,
            older=published[-2 : -2 - _OLDER_RELEASES : -1],
        )
