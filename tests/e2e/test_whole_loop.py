"""The whole loop with real processes at the tiny preset: render, found, join, kill -9, release, download, generate."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from data.footage import footage
from e2e.processes import PATIENCE_S, Swarm, kinoswarm
from web.browsing import CHROMIUM, DESKTOP, FLAGS, PHONE, Visit

pytestmark = pytest.mark.e2e
TARGET = 2
PAGES = [
    "",
    "clusters/0",
    "nodes",
    "releases",
    "releases/1",
    "verdicts",
    "leaderboard",
    "ledger",
    "health",
    "join",
]
CLIPS_PER_SCENE = 20
"""Enough that two segments of an expert do not learn them by heart and are refused for it."""
SEGMENT_STEPS = 500
"""Some five seconds of training at the tiny preset: long enough to be killed in the middle."""


@pytest.fixture(scope="module")
def swarm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swarm]:
    root = tmp_path_factory.mktemp("swarm")
    kinoswarm("data", "render", root / "clips", "--clips-per-scene", CLIPS_PER_SCENE)
    kinoswarm("data", "prepare", root / "clips", root / "data", "--clusters", 2)
    kinoswarm(
        "swarm",
        "create",
        root / "data",
        "--name",
        "A tiny swarm",
        "--out",
        root / "founded",
        "--preset",
        "tiny",
        "--target-version",
        TARGET,
        "--segment-steps",
        SEGMENT_STEPS,
        "--threads",
        1,
    )
    founded = Swarm(root / "founded")
    yield founded
    founded.end()


def anybody_trains(status) -> bool:
    return any(node["step"] for node in status["nodes"])


def is_finished(status) -> bool:
    return any(r["published"] and min(r["considered"]) >= TARGET for r in status["releases"])


def test_node_and_coordinator_die_and_the_run_still_ends_well(swarm: Swarm) -> None:
    """kill -9 of a node in the middle of a segment, then of the coordinator after the first verdict."""
    coordinator = swarm.serve()
    first = swarm.join("first")
    swarm.join("second")
    swarm.wait_for(anybody_trains)
    first.kill_9()
    assert first.survivors() == [], "a child outlived its daemon"
    swarm.join("first")
    swarm.wait_for(lambda status: bool(status["verdicts"]))
    coordinator.kill_9()
    assert coordinator.survivors() == [], "a child outlived the coordinator"
    swarm.serve()
    status = swarm.wait_for(is_finished)
    assert {cluster["version"] for cluster in status["clusters"]} == {TARGET}
    assert status["contributions_by_state"]["merged"] >= 2 * TARGET
    assert [node for node in status["nodes"] if node["failed"]] == []


@pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed")
def test_the_page_follows_the_swarm_in_a_real_browser(swarm: Swarm) -> None:
    """A volunteer who comes appears without a reload; no page of the swarm makes the browser complain."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        overview = Visit(browser, swarm.page, viewport=DESKTOP)
        overview.page.wait_for_selector("#beat[data-state=live]")
        overview.page.evaluate("window.marker = 'not reloaded'")
        swarm.join("latecomer")
        overview.page.wait_for_selector("text=latecomer", timeout=PATIENCE_S * 1000)
        assert overview.page.evaluate("window.marker") == "not reloaded"
        overview.keep("swarm-overview-desktop")
        overview.close()
        for path in PAGES:
            visit = Visit(browser, swarm.page + path, viewport=PHONE)
            visit.page.wait_for_selector("#beat[data-state=live]")
            assert visit.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
            visit.keep(f"swarm-{path.replace('/', '-') or 'overview'}-phone")
            visit.close()
        browser.close()


def test_the_release_is_downloaded_and_generates_the_same_bytes_again(swarm: Swarm) -> None:
    """That another seed gives another clip needs no new process: tests/release/test_generate.py."""
    model = swarm.folder.parent / "model"
    kinoswarm("download", swarm.invite, "--out", model)
    first, again = (model.parent / f"{name}.mp4" for name in ("first", "again"))
    for clip in (first, again):
        kinoswarm("generate", "a hall of grey stone", "--model", model, "--out", clip, "--seed", 7)
    assert first.read_bytes() == again.read_bytes()


def test_the_second_implementation_of_libp2p_brings_the_same_release(swarm: Swarm) -> None:
    light = swarm.folder.parent / "light"
    kinoswarm("download", swarm.invite, "--out", light, "--light")
    assert contents(light) == contents(swarm.folder.parent / "model")


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_status_tells_the_same_to_a_program(swarm: Swarm) -> None:
    told = kinoswarm("status", swarm.page, "--json").stdout
    assert '"A tiny swarm"' in told


def test_a_release_outlives_its_coordinator_in_a_mirror(swarm: Swarm) -> None:
    """kill -9 of the coordinator after a mirror has a copy; the swarm is then served on for the last test."""
    mirror = swarm.start(
        "mirror", "mirror", swarm.page, "--out", swarm.folder.parent / "mirrored", "--port", 0
    )
    address = mirror.wait_for_line(r"Serving it at (\S+);")
    checked = kinoswarm("snapshot", "verify", address, "--swarm", swarm.invite)
    assert "files are as signed" in checked.stdout
    swarm.kill_coordinator()
    copy = swarm.folder.parent / "from-mirror"
    kinoswarm("download", address, "--out", copy)
    assert (copy / "model_index.json").is_file()
    swarm.serve()


def test_a_release_is_found_by_the_dht_alone(swarm: Swarm) -> None:
    """kill -9 of the coordinator once a node keeps its release: no page, no copy, only the swarm's nodes."""
    home = swarm.folder.parent / "second"
    released = swarm.status()["releases"][-1]["version"]
    wait_until(lambda: kept_version(home) == released)
    swarm.kill_coordinator()
    (address, *_) = json.loads(kinoswarm("status", "--home", home, "--json").stdout)["addresses"]
    alone = swarm.folder.parent / "from-nodes"
    told = kinoswarm("download", swarm.invite, "--out", alone, "--peer", address)
    assert f"release {released} of A tiny swarm" in told.stdout
    assert (alone / "model_index.json").is_file()
    light = swarm.folder.parent / "light-from-nodes"
    kinoswarm("download", swarm.invite, "--out", light, "--light", "--peer", address)
    assert contents(light) == contents(alone)
    swarm.serve()


def kept_version(home: Path) -> int:
    found = list(home.glob("**/kept-release.json"))
    return json.loads(found[0].read_bytes())["version"] if found else 0


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.3)


def test_ctrl_c_leaves_nothing_behind(swarm: Swarm) -> None:
    """The last test of the module: ends everything that still runs."""
    for running in reversed(swarm.running):
        if running.process.poll() is None:
            running.end()
            assert running.survivors() == [], f"{running.log} left a process behind"
    deadline = time.monotonic() + 5.0
    while swarm.status() is not None:
        assert time.monotonic() < deadline, "the page still answers"
        time.sleep(0.2)


def test_a_swarm_of_ones_own_mp4_files(tmp_path: Path) -> None:
    """The founder's way with a folder of videos of another size, as the README describes it."""
    own = tmp_path / "own"
    own.mkdir()
    for name in ("bikes", "carphone_pristine"):
        (own / f"{name}.mp4").write_bytes(footage(f"{name}.mp4").read_bytes())
        (own / f"{name}.txt").write_text(f"a video of {name.split('_')[0]}\n")
    kinoswarm("data", "prepare", own, tmp_path / "data", "--clusters", 2)
    done = kinoswarm(
        "swarm",
        "create",
        tmp_path / "data",
        "--name",
        "My swarm",
        "--out",
        tmp_path / "swarm",
        "--preset",
        "tiny",
        "--threads",
        1,
    )
    assert "kinoswarm1:" in done.stdout
