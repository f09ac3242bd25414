"""What the page says of views made by hand: hostile names, the largest swarm, curves, words."""

import re
from html.parser import HTMLParser

import pytest
from msgspec import structs
from web.showcase import HOSTILE, NOW_MS, at_the_limit, full_swing, history

from kinoswarm_coordinator.views import SwarmView, VersionView
from kinoswarm_coordinator.web.assets import load_assets
from kinoswarm_coordinator.web.curve import loss_curve, share_bar
from kinoswarm_coordinator.web.page import Pages
from kinoswarm_coordinator.web.rendered import Rendered
from kinoswarm_coordinator.web.snapshots import Snapshot
from kinoswarm_coordinator.web.words import (
    ago,
    flops_in_words,
    grouped,
    iso_time,
    percent,
    since_seed,
    size_in_words,
)

VOID = {"meta", "link", "img", "br"}


def page(view: SwarmView) -> str:
    return Pages(load_assets(), "kinoswarm1:invite").overview(Snapshot(view, "tag", history()))


def line(*losses: float | None) -> list[VersionView]:
    return [
        VersionView(version=v, heldout_loss=loss, created_at_ms=0, contributions=0)
        for v, loss in enumerate(losses)
    ]


class Structure(HTMLParser):
    """Fails on a tag that closes another; collects what a reader's machine would act on."""

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.ids: list[str] = []
        self.targets: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        named = dict(attrs)
        if named.get("id"):
            self.ids.append(str(named["id"]))
        if str(named.get("href", "")).startswith("#"):
            self.targets.add(str(named["href"])[1:])
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag


def structure(html: str) -> Structure:
    found = Structure()
    found.feed(html)
    assert found.stack == []
    return found


@pytest.mark.parametrize("view", [full_swing(), at_the_limit()], ids=["full swing", "limit"])
def test_the_page_is_well_formed_and_its_links_lead_somewhere(view: SwarmView) -> None:
    found = structure(page(view))
    assert len(found.ids) == len(set(found.ids))
    assert found.targets <= set(found.ids)
    assert {"header", "nav", "main", "footer", "h1"} <= set(found.tags)
    assert not any(name.startswith("on") or name == "style" for name in found.attributes)


def test_hostile_names_stay_text_wherever_they_stand() -> None:
    html = page(at_the_limit())
    assert HOSTILE not in html
    assert "<img src=x" not in html
    assert structure(html).tags.count("script") == 3


def test_the_largest_swarm_keeps_the_page_small() -> None:
    view = at_the_limit()
    html = page(structs.replace(view, clusters=[view.clusters[0]] * 64))
    assets = sum(len(asset.data) for asset in load_assets().files.values())
    assert len(html.encode()) + assets < 400_000
    assert len(page(view).encode()) + assets < 150_000
    assert "of 12\N{NARROW NO-BREAK SPACE}345" in html


def test_who_trains_an_expert_is_named_on_its_card() -> None:
    html = page(full_swing())
    assert "trained now by <bdi>Käsekuchen 🎬</bdi>, <bdi>quiet-otter</bdi>" in html


def test_a_loss_of_the_noise_is_called_one() -> None:
    view = full_swing()
    assert [cluster.objective for cluster in view.clusters].count("epsilon") == 1
    assert page(view).count("<dt>held-out loss of the noise</dt>") == 1
    pages = Pages(load_assets(), "kinoswarm1:invite")
    newest = Snapshot(view, "tag", history())
    for cluster in view.clusters:
        wanted = int(cluster.objective == "epsilon")
        assert pages.cluster(newest, cluster.cluster).count("loss of the noise") == wanted


def test_a_swarm_that_nobody_joined_says_what_comes_next() -> None:
    view = structs.replace(
        full_swing(), nodes=[], num_nodes=0, verdicts=[], releases=[], router=None
    )
    html = page(view)
    assert "Nobody has joined yet" in html
    assert "No release yet" in html
    assert "No contribution has been judged yet" in html


def test_an_unpublished_release_is_not_shown() -> None:
    view = full_swing()
    last = structs.replace(view.releases[-1], published=False)
    assert "Release 3" not in page(structs.replace(view, releases=[*view.releases[:-1], last]))


class _Newest:
    """Stands for the snapshots of a running coordinator."""

    def __init__(self, view: SwarmView) -> None:
        self.snapshot = Snapshot(view, "tag", history())

    def newest(self) -> Snapshot:
        return self.snapshot


def test_a_page_is_rendered_once_for_a_snapshot() -> None:
    newest, rendered = _Newest(full_swing()), []
    pages = Rendered(newest)

    def render(snapshot: Snapshot) -> str:
        rendered.append(snapshot.view.name)
        return snapshot.view.name

    assert pages.once("overview", render).body == pages.once("overview", render).body
    newest.snapshot = Snapshot(structs.replace(full_swing(), name="another"), "other", history())
    assert pages.once("overview", render).body == b"another"
    assert rendered == [full_swing().name, "another"]


def test_a_falling_loss_falls_on_screen_and_is_told_in_words() -> None:
    curve = str(loss_curve(line(1.0, 0.9, 0.85)))
    heights = [float(y) for y in re.findall(r'cy="([\d.]+)"', curve)]
    assert heights == sorted(heights)
    assert heights[0] < heights[-1]
    assert "version 1 0.9000" in curve


def test_a_curve_needs_two_measurements() -> None:
    assert "<svg" not in loss_curve(line(1.0))
    assert "<svg" not in loss_curve(line(1.0, None, float("nan")))
    assert "<svg" in loss_curve(line(1.0, None, 0.5))


def test_broken_losses_are_left_out_of_a_curve() -> None:
    curve = str(loss_curve(line(1.0, float("nan"), float("inf"), 0.5)))
    assert "nan" not in curve
    assert "inf" not in curve


def test_a_long_curve_is_thinned_between_its_ends() -> None:
    curve = str(loss_curve(line(*(1 / (1 + v) for v in range(5_000)))))
    assert len(curve) < 5_000
    assert "at version 0 to" in curve
    assert "at version 4999" in curve


def test_a_flat_loss_draws_a_flat_line() -> None:
    heights = set(re.findall(r'cy="([\d.]+)"', str(loss_curve(line(0.5, 0.5, 0.5)))))
    assert len(heights) == 1


def test_shares_fill_the_bar_in_proportion() -> None:
    widths = [
        float(w) for w in re.findall(r'width="([\d.]+)"', str(share_bar(full_swing().clusters)))
    ]
    assert sum(widths) == pytest.approx(1000, abs=6 * 3 + 1)
    assert max(widths) == widths[3]
    assert share_bar([structs.replace(c, share=None) for c in full_swing().clusters]) == ""


@pytest.mark.parametrize(
    ("before_ms", "words"),
    [
        (0, "just now"),
        (-9_000, "just now"),
        (59_999, "59 s ago"),
        (60_000, "1 min ago"),
        (3_600_000, "1 h ago"),
        (90_000_000, "1 d ago"),
    ],
)
def test_times_read_as_words(before_ms: int, words: str) -> None:
    assert ago(NOW_MS - before_ms, NOW_MS) == words


def test_figures_read_as_words() -> None:
    assert ago(0, NOW_MS) == "not lately"
    assert size_in_words(999) == "999 B"
    assert size_in_words(1_400_000) == "1.4 MB"
    assert size_in_words(999_990) == "1.0 MB"
    assert flops_in_words(2.1e15) == "2.1 PFLOP"
    assert grouped(1_284) == "1\N{NARROW NO-BREAK SPACE}284"
    assert percent(None) == percent(float("nan")) == "–"
    assert percent(0.339) == "34%"
    assert since_seed(line(1.0, 0.875)) == "\N{MINUS SIGN}12.5%"
    assert since_seed(line(1.0)) == since_seed(line(0.0, 1.0)) == ""
    assert iso_time(0) == "1970-01-01T00:00:00Z"
    assert iso_time(2**60) == ""
