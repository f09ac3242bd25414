"""The page in a real browser: live updates, no console error, no CSP violation, phone width, without JavaScript."""

import asyncio
import os
import shutil
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import pytest
import uvicorn
from protocol.samples import FOUNDER
from web.served import sources
from web.showcase import at_the_limit

from kinoswarm_coordinator.views import SwarmView
from kinoswarm_coordinator.web.app import create_app
from kinoswarm_coordinator.web.sources import WebSources
from kinoswarm_protocol.messages import Hello, Machine, Request

CHROMIUM = shutil.which("chromium")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 900}

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed")


@dataclass(kw_only=True)
class Shown(WebSources):
    """The HTTP side of a view made by hand."""

    shown: SwarmView

    def view(self) -> SwarmView:
        return self.shown


class Served:
    """The application in a real server on loopback, in a thread of its own."""

    def __init__(self, folder: Path, shown: SwarmView | None = None) -> None:
        self.sources: WebSources = sources(folder)
        if shown is not None:
            parts = {f.name: getattr(self.sources, f.name) for f in fields(WebSources)}
            self.sources = Shown(shown=shown, **parts)
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.socket.getsockname()[1]}/"
        config = uvicorn.Config(create_app(self.sources), log_level="error", lifespan="off")
        self.server = uvicorn.Server(config)
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(self.server.serve(sockets=[self.socket]))

    def volunteer_joins(self, name: str) -> None:
        """A request as it comes from the network, in the server's own loop."""
        from kinoswarm_coordinator.requests import Asked, handle

        service = self.sources.service
        machine = Machine(device="CPU", memory_gib=4.0, seconds_per_step=0.1)
        hello = Hello(pseudonym=name, program_version="0.1.0", machine=machine, addresses=[])
        asked = Asked(
            signer=FOUNDER.peer_id,
            request=Request(request_id="2" * 32, body=hello),
            swarm=service.swarm,
            now_ms=service.now_ms(),
            seed=1,
        )
        events = handle(service.journal.state, service.rules, asked).events
        asyncio.run_coroutine_threadsafe(service.record(events), self.loop).result(10)

    def stop(self) -> None:
        self.server.should_exit = True
        self.server.force_exit = True
        self.thread.join(10)
        self.socket.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    serving = Served(tmp_path_factory.mktemp("swarm"))
    yield serving
    serving.stop()


@pytest.fixture(scope="module")
def limit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    serving = Served(tmp_path_factory.mktemp("limit"), at_the_limit())
    yield serving
    serving.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


class Visit:
    """One page with everything that the browser complained about."""

    def __init__(self, browser, address: str, **options) -> None:
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(address, wait_until="domcontentloaded")

    def _heard(self, message) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def close(self) -> None:
        self.context.close()
        assert self.complaints == []


def test_a_new_volunteer_appears_without_a_reload(browser, served: Served) -> None:
    visit = Visit(browser, served.address, viewport=DESKTOP)
    visit.page.wait_for_selector("#beat[data-state=live]")
    visit.page.evaluate("window.marker = 'not reloaded'")
    served.volunteer_joins("newcomer-42")
    visit.page.wait_for_selector("text=newcomer-42")
    assert visit.page.evaluate("window.marker") == "not reloaded"
    visit.close()


def test_an_update_leaves_clips_playing_and_details_open(browser, served: Served) -> None:
    visit = Visit(browser, served.address, viewport=DESKTOP)
    visit.page.wait_for_selector("#beat[data-state=live]")
    visit.page.click("summary")
    visit.page.evaluate("window.clip = document.querySelector('video')")
    visit.page.wait_for_function("window.clip.currentTime > 0 && !window.clip.paused")
    served.volunteer_joins("newcomer-43")
    visit.page.wait_for_selector("text=newcomer-43")
    assert visit.page.evaluate("window.clip === document.querySelector('video')")
    assert not visit.page.evaluate("window.clip.paused")
    assert visit.page.locator("details[open]").count() == 1
    visit.close()


def test_all_clips_stop_on_one_button_and_stay_stopped(browser, served: Served) -> None:
    visit = Visit(browser, served.address, viewport=DESKTOP)
    visit.page.click("text=Pause all clips")
    served.volunteer_joins("newcomer-44")
    visit.page.wait_for_selector("text=newcomer-44")
    assert visit.page.evaluate("[...document.querySelectorAll('video')].every(v => v.paused)")
    visit.page.click("text=Play all clips")
    visit.page.wait_for_function("!document.querySelector('video').paused")
    visit.close()


def test_clips_stand_still_where_motion_is_unwelcome(browser, served: Served) -> None:
    visit = Visit(browser, served.address, viewport=DESKTOP, reduced_motion="reduce")
    visit.page.wait_for_selector("#beat[data-state=live]")
    every = "[...document.querySelectorAll('video')].every(v => v.paused && v.controls)"
    assert visit.page.evaluate(every)
    visit.close()


def test_the_invite_is_copied_by_a_button(browser, served: Served) -> None:
    allowed = ["clipboard-read", "clipboard-write"]
    visit = Visit(browser, served.address, viewport=DESKTOP, permissions=allowed)
    visit.page.click("#join-title ~ .command button")
    visit.page.wait_for_selector("text=Copied")
    copied = visit.page.evaluate("navigator.clipboard.readText()")
    assert copied == f"kinoswarm join {served.sources.invite}"
    visit.close()


def test_without_a_clipboard_the_button_selects_the_command(browser, served: Served) -> None:
    visit = Visit(browser, served.address, viewport=DESKTOP)
    visit.page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    visit.page.click("#join-title ~ .command button")
    visit.page.wait_for_selector("text=Selected")
    selected = visit.page.evaluate("getSelection().toString()")
    assert selected == f"kinoswarm join {served.sources.invite}"
    visit.close()


@pytest.mark.parametrize("viewport", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_hostile_and_endless_names_break_nothing(browser, limit: Served, viewport) -> None:
    visit = Visit(browser, limit.address, viewport=viewport)
    visit.page.wait_for_selector("#beat[data-state=live]")
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    assert visit.page.locator("img[src=x]").count() == 0
    # The clips of this view made by hand do not exist.
    visit.complaints[:] = [text for text in visit.complaints if "404" not in text]
    visit.close()


def test_a_hostile_name_runs_nothing(browser, served: Served) -> None:
    visit = Visit(browser, served.address, viewport=DESKTOP)
    dialogs: list[str] = []
    visit.page.on("dialog", lambda dialog: dialogs.append(dialog.message))
    visit.page.wait_for_selector("#beat[data-state=live]")
    assert visit.page.locator("th[scope=row]", has_text="<script>").count() == 1
    assert dialogs == []
    visit.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_nothing_is_wider_than_the_window(browser, served: Served, viewport, scheme) -> None:
    visit = Visit(browser, served.address, viewport=viewport, color_scheme=scheme)
    visit.page.wait_for_selector("#beat[data-state=live]")
    width = visit.page.evaluate("document.documentElement.scrollWidth")
    assert width <= viewport["width"]
    if folder := os.environ.get("KINOSWARM_SCREENSHOTS"):
        name = f"page-{viewport['width']}-{scheme}.png"
        visit.page.screenshot(path=Path(folder) / name, full_page=True)
    visit.close()


def test_the_page_is_whole_without_javascript(browser, served: Served) -> None:
    visit = Visit(browser, served.address, viewport=DESKTOP, java_script_enabled=False)
    text = visit.page.inner_text("main")
    for heading in ("Release 2", "Experts", "Nodes", "Latest verdicts", "Take the model"):
        assert heading in text
    assert visit.page.locator("video[controls]").count() == visit.page.locator("video").count()
    assert visit.page.locator("button").count() == 0
    assert "kinoswarm join kinoswarm1:" in text
    visit.close()


def test_the_keyboard_reaches_the_content_first(browser, served: Served) -> None:
    visit = Visit(browser, served.address, viewport=DESKTOP)
    visit.page.wait_for_selector("#beat[data-state=live]")
    visit.page.keyboard.press("Tab")
    assert visit.page.evaluate("document.activeElement.textContent") == "Skip to the content"
    visit.close()
