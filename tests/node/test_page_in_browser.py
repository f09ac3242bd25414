"""The local page in Debian's Chromium: it shows, it changes, it fits a phone's width, and complains of nothing."""

import asyncio
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec import json
from node.scripted import NOW_MS, World

from kinoswarm_model.video_io import write_mp4
from kinoswarm_node.context import NodeContext
from kinoswarm_node.own_samples import OwnSample
from kinoswarm_node.page.server import serving_page
from kinoswarm_node.swarm_folder import HistoryLine

ENOUGH_DATA = 4
"""readyState of a clip that plays."""
CHROMIUM = shutil.which("chromium")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
PHONE = {"width": 390, "height": 844}

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed")


class Served:
    """A node's page in a loop of its own."""

    def __init__(self, folder: Path) -> None:
        self.node: NodeContext = World(folder).node(page_port=7420)
        self.address = ""
        self._ready, self._over = threading.Event(), asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(20)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        async with serving_page(self.node) as address:
            self.address = address
            self._ready.set()
            await self._over.wait()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(10)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    serving = Served(tmp_path)
    yield serving
    serving.stop()


@pytest.fixture
def browser_page() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport=PHONE)
        page.complaints = []
        page.on("console", lambda m: m.type == "error" and page.complaints.append(m.text))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        yield page
        browser.close()


def test_a_volunteer_looks_pauses_sets_a_limit_and_makes_a_backup(
    served: Served, browser_page: Any
) -> None:
    from playwright.sync_api import expect

    page, node = browser_page, served.node
    node.board._keep_loss(1, 0.9)
    node.board._keep_loss(2, 0.7)
    page.goto(served.address)
    page.wait_for_selector("#limits input[name=share_percent]")
    assert "token" not in page.url
    assert "Starting for" in page.inner_text("#state")
    expect(page.locator("#loss-words")).to_contain_text("Step 2: 0.7000")
    assert page.locator("#loss polyline").get_attribute("points")

    page.click("#hour")
    expect(page.locator("#resume")).to_be_enabled()
    pause = node.wishes.paused(NOW_MS)
    assert pause is not None
    assert pause.until_ms is not None
    page.click("#resume")
    expect(page.locator("#resume")).to_be_disabled()
    assert node.wishes.paused(NOW_MS) is None

    with page.expect_response("**/api/limits"):
        page.focus("input[name=share_percent]")
        page.keyboard.press("ArrowLeft")
    assert node.live.now.share_percent == 95.0
    with page.expect_response("**/api/limits"):
        page.check("input[name=on_battery]")
    assert node.live.now.on_battery
    page.fill("input[name=hours]", "25:00")
    page.keyboard.press("Tab")
    expect(page.locator("#problem")).to_contain_text("22:00-07:00")
    page.fill("input[name=hours]", "22:00-07:00")
    with page.expect_response("**/api/limits"):
        page.keyboard.press("Tab")
    assert node.live.now.hours == "22:00-07:00"

    page.fill("#passphrase", "a few plain words")
    page.click("#identity button")
    expect(page.locator("#backup")).to_have_value(re.compile("^kinoswarm-backup-1 "))
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert [text for text in page.complaints if "400" not in text] == []


def test_an_earlier_answer_that_comes_late_wipes_no_problem_away(
    served: Served, browser_page: Any
) -> None:
    from playwright.sync_api import expect

    page, held = browser_page, []

    def hold_the_switch(route: Any) -> None:
        if "on_battery" in route.request.post_data:
            held.append(route)
        else:
            route.continue_()

    page.route("**/api/limits", hold_the_switch)
    page.goto(served.address)
    page.check("input[name=on_battery]")
    page.fill("input[name=hours]", "25:00")
    page.keyboard.press("Tab")
    expect(page.locator("#problem")).to_contain_text("22:00-07:00")
    with page.expect_response("**/api/limits"):
        held[0].continue_()
    page.evaluate("() => fetch('/api/now').then((answer) => answer.text())")
    expect(page.locator("#problem")).to_contain_text("22:00-07:00")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_read_it_and_a_wide_screen_has_two_columns(
    served: Served, browser_page: Any, scheme: str
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page, node = browser_page, served.node
    for number, state in enumerate(("accepted", "rejected", "quarantined")):
        line = HistoryLine(
            at_ms=NOW_MS,
            lease_id=f"{number:032x}",
            state=state,
            code=state,
            sentence="because",
        )
        node.folder.close(line.lease_id, line)
    page.emulate_media(color_scheme=scheme)
    page.goto(served.address)
    page.wait_for_selector("#history td.bad")
    page.wait_for_selector("#limits input[name=hours]")
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    page.set_viewport_size({"width": 1280, "height": 900})
    left, right = (page.locator(name).bounding_box()["x"] for name in ("#h-now", "#h-log"))
    assert right > left + 500
    assert page.complaints == []


def test_a_foreign_page_reaches_nothing_even_with_the_cookie_in_the_browser(
    served: Served, browser_page: Any
) -> None:
    """Another origin on the same machine posts a form and fetches: the node does not change and nothing is read."""
    page, node = browser_page, served.node
    page.goto(served.address)
    target = served.address.split("/enter")[0]
    page.goto("data:text/html,<title>evil</title>")
    told = page.evaluate(
        """async (target) => {
          const results = [];
          for (const options of [
            {method: "POST", mode: "no-cors", credentials: "include", body: "{}"},
            {credentials: "include"},
          ]) {
            try {
              const answer = await fetch(target + "/api/pause", options);
              results.push(await answer.text());
            } catch (error) { results.push("blocked"); }
          }
          return results;
        }""",
        target,
    )
    assert set(told) <= {"", "blocked"}
    assert node.wishes.paused(NOW_MS) is None


def test_a_clip_of_my_expert_plays_on_a_phone(served: Served, browser_page: Any) -> None:
    from playwright.sync_api import expect

    page, folder = browser_page, served.node.folder
    made = OwnSample(
        file="cluster-0-version-3.mp4",
        cluster=0,
        label="grey hall <b>",
        version=3,
        caption="a hall of grey stone",
        at_ms=NOW_MS,
        segments=4,
    )
    (folder.root / "samples").mkdir()
    frames = np.random.default_rng(0).integers(0, 255, (8, 64, 64, 3), dtype=np.uint8)
    write_mp4(folder.root / "samples" / made.file, frames, 8)
    folder.keep_text("samples.json", json.encode([made]))
    page.goto(served.address)
    expect(page.locator("#samples li")).to_contain_text("grey hall <b>, version 3: a hall of grey")
    expect(page.locator("#samples video")).to_have_js_property("readyState", ENOUGH_DATA)
    assert page.evaluate("document.querySelector('#samples video').videoWidth") == 64
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert page.complaints == []
