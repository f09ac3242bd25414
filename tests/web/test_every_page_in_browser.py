"""Every page in a real browser: no complaint of the browser, no serious finding of axe, no page wider than a phone."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from protocol.samples import ACCOUNT, NODE
from web.browsing import CHROMIUM, DESKTOP, PHONE, Served, Visit

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed")

PAGES = {
    "overview": "",
    "cluster": "clusters/0",
    "nodes": "nodes",
    "node": f"nodes/{NODE.peer_id}",
    "releases": "releases",
    "release": "releases/2",
    "verdicts": "verdicts",
    "leaderboard": "leaderboard",
    "account": f"accounts/{ACCOUNT.peer_id}",
    "ledger": "ledger",
    "health": "health",
    "join": "join",
    "try": "try",
}


@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing_serious_and_the_browser_nothing_at_all(
    browser, live: Served, name: str
) -> None:
    visit = Visit(browser, live.address + PAGES[name], viewport=DESKTOP)
    visit.page.wait_for_selector("#beat[data-state=live]")
    for scheme in ("light", "dark"):
        visit.page.emulate_media(color_scheme=scheme)
        found = Axe().run(visit.page).response["violations"]
        serious = [v for v in found if v["impact"] in ("serious", "critical")]
        assert [(v["id"], [n["html"] for n in v["nodes"]]) for v in serious] == []
        visit.keep(f"{name}-desktop-{scheme}")
    visit.close()


@pytest.mark.parametrize("name", PAGES)
def test_no_page_is_wider_than_a_phone(browser, live: Served, name: str) -> None:
    visit = Visit(browser, live.address + PAGES[name], viewport=PHONE, color_scheme="dark")
    visit.page.wait_for_selector("#beat[data-state=live]")
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert visit.page.locator("h1").count() == 1
    visit.keep(f"{name}-phone-dark")
    visit.close()


def test_every_link_of_every_page_leads_somewhere(browser, live: Served) -> None:
    visit = Visit(browser, live.address, viewport=DESKTOP, java_script_enabled=False)
    seen: dict[str, int] = {}
    for path in PAGES.values():
        visit.page.goto(live.address + path)
        links = visit.page.eval_on_selector_all("a[href]", "all => all.map(a => a.href)")
        for address in {link.split("#")[0] for link in links} - set(seen):
            seen[address] = visit.context.request.get(address).status
    assert {address: status for address, status in seen.items() if status != 200} == {}
    assert len(seen) > len(PAGES)
    visit.close()


def test_charts_are_drawn_and_follow_the_swarm(browser, live: Served) -> None:
    visit = Visit(browser, live.address + "clusters/0", viewport=DESKTOP)
    visit.page.wait_for_selector("#loss canvas")
    assert visit.page.locator("#loss svg").count() == 0
    visit.close()
