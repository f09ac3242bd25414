"""The page in a real browser: live updates, no console error, no CSP violation, phone width, without JavaScript."""

from collections.abc import Iterator

import pytest
from web.browsing import CHROMIUM, DESKTOP, PHONE, Served, Visit
from web.showcase import at_the_limit

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed")


@pytest.fixture(scope="module")
def limit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    serving = Served(tmp_path_factory.mktemp("limit"), at_the_limit())
    yield serving
    serving.stop()


def test_a_new_volunteer_appears_without_a_reload(browser, live: Served) -> None:
    visit = Visit(browser, live.address, viewport=DESKTOP)
    visit.page.wait_for_selector("#beat[data-state=live]")
    visit.page.evaluate("window.marker = 'not reloaded'")
    live.volunteer_joins("newcomer-42")
    visit.page.wait_for_selector("text=newcomer-42")
    assert visit.page.evaluate("window.marker") == "not reloaded"
    visit.close()


def test_an_update_leaves_clips_playing_and_details_open(browser, live: Served) -> None:
    from playwright.sync_api import expect

    visit = Visit(browser, live.address, viewport=DESKTOP)
    visit.page.wait_for_selector("#beat[data-state=live]")
    visit.page.click("summary")
    visit.page.evaluate("window.clip = document.querySelector('video')")
    expect(visit.page.locator("video").first).to_have_js_property("paused", False)
    live.volunteer_joins("newcomer-43")
    visit.page.wait_for_selector("text=newcomer-43")
    assert visit.page.evaluate("window.clip === document.querySelector('video')")
    assert not visit.page.evaluate("window.clip.paused")
    assert visit.page.locator("details[open]").count() == 1
    visit.close()


def test_all_clips_stop_on_one_button_and_stay_stopped(browser, live: Served) -> None:
    from playwright.sync_api import expect

    visit = Visit(browser, live.address, viewport=DESKTOP)
    visit.page.click("text=Pause all clips")
    live.volunteer_joins("newcomer-44")
    visit.page.wait_for_selector("text=newcomer-44")
    assert visit.page.evaluate("[...document.querySelectorAll('video')].every(v => v.paused)")
    visit.page.click("text=Play all clips")
    expect(visit.page.locator("video").first).to_have_js_property("paused", False)
    visit.close()


def test_clips_stand_still_where_motion_is_unwelcome(browser, live: Served) -> None:
    visit = Visit(browser, live.address, viewport=DESKTOP, reduced_motion="reduce")
    visit.page.wait_for_selector("#beat[data-state=live]")
    every = "[...document.querySelectorAll('video')].every(v => v.paused && v.controls)"
    assert visit.page.evaluate(every)
    visit.close()


def test_the_invite_is_copied_by_a_button(browser, live: Served) -> None:
    allowed = ["clipboard-read", "clipboard-write"]
    visit = Visit(browser, live.address, viewport=DESKTOP, permissions=allowed)
    visit.page.click("#join-title ~ .command button")
    visit.page.wait_for_selector("text=Copied")
    copied = visit.page.evaluate("navigator.clipboard.readText()")
    assert copied == f"kinoswarm join {live.sources.invite}"
    visit.close()


def test_without_a_clipboard_the_button_selects_the_command(browser, live: Served) -> None:
    visit = Visit(browser, live.address, viewport=DESKTOP)
    visit.page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    visit.page.click("#join-title ~ .command button")
    visit.page.wait_for_selector("text=Selected")
    selected = visit.page.evaluate("getSelection().toString()")
    assert selected == f"kinoswarm join {live.sources.invite}"
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


def test_a_hostile_name_runs_nothing(browser, live: Served) -> None:
    visit = Visit(browser, live.address, viewport=DESKTOP)
    dialogs: list[str] = []
    visit.page.on("dialog", lambda dialog: dialogs.append(dialog.message))
    visit.page.wait_for_selector("#beat[data-state=live]")
    assert visit.page.locator("th[scope=row]", has_text="<script>").count() == 1
    assert dialogs == []
    visit.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_nothing_is_wider_than_the_window(browser, live: Served, viewport, scheme) -> None:
    visit = Visit(browser, live.address, viewport=viewport, color_scheme=scheme)
    visit.page.wait_for_selector("#beat[data-state=live]")
    width = visit.page.evaluate("document.documentElement.scrollWidth")
    assert width <= viewport["width"]
    visit.keep(f"page-{viewport['width']}-{scheme}")
    visit.close()


def test_the_page_is_whole_without_javascript(browser, live: Served) -> None:
    visit = Visit(browser, live.address, viewport=DESKTOP, java_script_enabled=False)
    text = visit.page.inner_text("main")
    for heading in ("Release 2", "Experts", "Nodes", "Latest verdicts", "Take the model"):
        assert heading in text
    assert visit.page.locator("video[controls]").count() == visit.page.locator("video").count()
    assert visit.page.locator("button").count() == 0
    assert "kinoswarm join kinoswarm1:" in text
    visit.close()


def test_the_keyboard_reaches_the_content_first(browser, live: Served) -> None:
    visit = Visit(browser, live.address, viewport=DESKTOP)
    visit.page.wait_for_selector("#beat[data-state=live]")
    visit.page.keyboard.press("Tab")
    assert visit.page.evaluate("document.activeElement.textContent") == "Skip to the content"
    visit.close()
