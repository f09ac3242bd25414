"""A signed copy of the pages: whole, relative, checked file by file, kept by mirrors, downloaded from."""

import asyncio
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import pytest
from protocol.samples import COORDINATOR, FOUNDER, NODE, charter, invite
from web.browsing import CHROMIUM, DESKTOP, FLAGS, Visit
from web.served import HOSTILE, sources
from web.static_host import StaticHost

from kinoswarm_coordinator.site_writer import site_facts, write_site
from kinoswarm_coordinator.web.sources import WebSources
from kinoswarm_network.blob_store import BlobStore
from kinoswarm_node.copy_release import CopyRelease
from kinoswarm_node.release_download import ReleaseSource, download_release
from kinoswarm_node.site_copy import SiteCopy, check_all, keep_copy, recover
from kinoswarm_protocol.charter import CHARTER
from kinoswarm_protocol.charter_chain import chain_of, open_chain
from kinoswarm_protocol.envelope import peek_payload, seal
from kinoswarm_protocol.errors import (
    BadSignature,
    HashMismatch,
    LocalError,
    MalformedBytes,
    Refused,
)
from kinoswarm_protocol.ids import swarm_id_of
from kinoswarm_protocol.invite import write_invite
from kinoswarm_protocol.limits import MAX_CHARTER_BYTES
from kinoswarm_protocol.messages import RELEASE, ExpertRef, ReleaseManifest
from kinoswarm_protocol.records import Authority
from kinoswarm_protocol.snapshot import SNAPSHOT, SNAPSHOT_NAME, SiteSnapshot, SnapshotFile

RAW_CHARTER = seal(FOUNDER, CHARTER, "", charter())
OWN = swarm_id_of(peek_payload(RAW_CHARTER, MAX_CHARTER_BYTES))


def nothing(done: int, total: int) -> None:
    """Progress that nobody watches."""


def own_sources(folder: Path) -> WebSources:
    """The lived swarm under the id of a real charter, its newest release with a signed table of contents."""
    made = sources(folder)
    service = made.service
    service.in_force = replace(service.in_force, chain=open_chain(chain_of(RAW_CHARTER)))
    service.swarm = OWN
    service.book = replace(service.book, swarm=OWN)
    made.invite = write_invite(FOUNDER, invite())
    release = service.journal.state.releases[-1]
    body = ReleaseManifest(
        version=release.version,
        swarm_name=charter().name,
        created_at_ms=release.created_at_ms,
        experts=[ExpertRef(cluster=0, lineage=0, version=1, checkpoint=release.files[0].blob)],
        files=release.files,
        router_accuracy=[],
        share_by_expert=release.share_by_expert,
        charter_sha256=OWN,
    )
    table = folder / "table"
    table.write_bytes(seal(COORDINATOR, RELEASE, OWN, body))
    service.journal.state.releases[-1] = type(release)(
        **{name: getattr(release, name) for name in release.__struct_fields__}
        | {"manifest": made.store.add_file(table)}
    )
    return made


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> WebSources:
    return own_sources(tmp_path_factory.mktemp("swarm"))


@pytest.fixture
def copy_folder(made: WebSources, tmp_path: Path) -> Path:
    write_site(made, site_facts(made), tmp_path / "www" / "copy", with_model=True)
    return tmp_path / "www" / "copy"


@pytest.fixture
def host(copy_folder: Path) -> Iterator[StaticHost]:
    serving = StaticHost(copy_folder.parent)
    yield serving
    serving.stop()


@pytest.fixture
def site(host: StaticHost) -> Iterator[SiteCopy]:
    with SiteCopy(host.address + "copy/") as reading:
        yield reading


def test_every_relative_link_of_every_page_names_a_file_of_the_copy(copy_folder: Path) -> None:
    pages = list(copy_folder.rglob("*.html"))
    assert len(pages) >= 10
    for page in pages:
        base = "http://host/sub/" + page.relative_to(copy_folder).as_posix()
        text = page.read_text()
        assert HOSTILE not in text
        for link in re.findall(r'(?:href|src)="([^"#]+)"', text):
            target = urlsplit(urljoin(base, link)).path
            assert target.startswith("/sub/"), (page, link)
            assert (copy_folder / target.removeprefix("/sub/")).is_file(), (page, link)


def test_a_copy_is_proved_file_by_file(site: SiteCopy, tmp_path: Path) -> None:
    copy = site.open(OWN)
    assert (copy.name, copy.signer) == ("Test swarm", COORDINATOR.peer_id)
    assert check_all(site, copy, tmp_path, nothing) == []


@pytest.mark.parametrize(
    "changed", ["index.html", "data/status.json", "releases/2/samples/sample-00.mp4"]
)
def test_one_changed_letter_is_found(
    site: SiteCopy, copy_folder: Path, tmp_path: Path, changed: str
) -> None:
    data = bytearray((copy_folder / changed).read_bytes())
    data[len(data) // 2] ^= 1
    (copy_folder / changed).unlink()
    (copy_folder / changed).write_bytes(data)
    wrong = check_all(site, site.open(OWN), tmp_path, nothing)
    assert len(wrong) == 1
    assert changed in wrong[0]


def test_only_a_coordinator_of_the_charter_may_sign(site: SiteCopy, copy_folder: Path) -> None:
    entries = site.open(OWN).snapshot.files
    forged = seal(NODE, SNAPSHOT, OWN, SiteSnapshot(made_at_ms=1, files=entries))
    (copy_folder / SNAPSHOT_NAME).write_bytes(forged)
    with pytest.raises(BadSignature, match="no coordinator"):
        site.open(OWN)


def test_another_swarms_copy_is_refused(site: SiteCopy) -> None:
    with pytest.raises(HashMismatch, match="another swarm"):
        site.open(swarm_id_of(b"another"))


@pytest.mark.parametrize("path", ["../up", "/etc/passwd", "a/../b", ".hidden", "a//b", "a\n", ""])
def test_no_path_leads_out_of_the_copy(path: str) -> None:
    entry = SnapshotFile(path, 1, "0" * 64)
    with pytest.raises(MalformedBytes):
        seal(COORDINATOR, SNAPSHOT, OWN, SiteSnapshot(made_at_ms=1, files=[entry]))


def test_a_mirror_fetches_only_what_is_new(
    made: WebSources, site: SiteCopy, copy_folder: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "mine"
    first = keep_copy(site, site.open(OWN), mine, nothing)
    assert first == sum(entry.size_bytes for entry in site.open(OWN).snapshot.files)
    write_site(made, site_facts(made), copy_folder, with_model=True)
    assert keep_copy(site, site.open(OWN), mine, nothing) == 0
    assert (mine / "index.html").read_bytes() == (copy_folder / "index.html").read_bytes()


def test_a_mirror_keeps_its_last_copy_when_the_new_one_is_broken(
    site: SiteCopy, copy_folder: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "mine"
    keep_copy(site, site.open(OWN), mine, nothing)
    (mine / "data" / "status.json").unlink()
    (copy_folder / "data" / "status.json").write_bytes(b"{}")
    with pytest.raises(HashMismatch, match=r"data/status\.json"):
        keep_copy(site, site.open(OWN), mine, nothing)
    assert (mine / "index.html").is_file()


def test_a_swap_broken_between_its_two_renames_is_mended(site: SiteCopy, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    keep_copy(site, site.open(OWN), mine, nothing)
    mine.rename(tmp_path / ".mine.old")
    recover(mine)
    assert (mine / SNAPSHOT_NAME).is_file()


def test_a_folder_with_something_else_is_left_alone(
    made: WebSources, site: SiteCopy, tmp_path: Path
) -> None:
    precious = tmp_path / "home" / "letter.txt"
    precious.parent.mkdir()
    precious.write_text("dear friend")
    with pytest.raises(LocalError, match="something else"):
        write_site(made, site_facts(made), precious.parent, with_model=True)
    with pytest.raises(LocalError, match="something else"):
        keep_copy(site, site.open(OWN), precious.parent, nothing)
    assert precious.read_text() == "dear friend"


def test_a_release_is_downloaded_from_a_copy_alone(
    made: WebSources, site: SiteCopy, tmp_path: Path
) -> None:
    release = CopyRelease(site, site.open(OWN), BlobStore(tmp_path / "store"))
    authority = Authority(OWN, FOUNDER.peer_id, frozenset({COORDINATOR.peer_id}))
    now_ms = made.service.now_ms
    source = ReleaseSource(release.look_up, authority, release.fetch, now_ms)
    got = asyncio.run(download_release(source, tmp_path / "model", nothing))
    assert got.manifest.version == 2
    for file in got.manifest.files:
        whole = (tmp_path / "model" / file.path).read_bytes()
        assert whole == made.store.path_of(file.blob).read_bytes()


def test_a_copy_without_the_model_says_so(made: WebSources, tmp_path: Path) -> None:
    write_site(made, site_facts(made), tmp_path / "copy", with_model=False)
    host = StaticHost(tmp_path / "copy")
    with SiteCopy(host.address) as site:
        release = CopyRelease(site, site.open(OWN), BlobStore(tmp_path / "store"))
        blob = made.service.journal.state.releases[-1].manifest
        with pytest.raises(Refused, match="another mirror"):
            asyncio.run(release.fetch(blob, nothing))
    host.stop()


@pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed")
def test_a_copy_reads_well_in_a_browser_and_says_what_it_is(host: StaticHost) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        visit = Visit(chromium, host.address + "copy/", viewport=DESKTOP)
        assert "This is a copy" in visit.page.inner_text("body")
        visit.page.click("nav >> text=Nodes")
        visit.page.wait_for_selector("h1 >> text=Nodes")
        visit.page.click("th a")
        visit.page.wait_for_selector("text=Verdicts")
        visit.page.goto(host.address + "copy/clusters/0/index.html")
        visit.page.wait_for_selector("#loss canvas")
        visit.close()
        chromium.close()
