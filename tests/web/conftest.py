"""What browser tests of the coordinator's pages share: one Chromium and one served swarm a file."""

from collections.abc import Iterator

import pytest
from web.browsing import CHROMIUM, FLAGS, Served


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    serving = Served(tmp_path_factory.mktemp("swarm"), can_try=True)
    yield serving
    serving.stop()
