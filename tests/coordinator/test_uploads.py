"""Results that nodes bring over HTTP: bounded by the lease, verified chunk by chunk, resumed; nothing else is taken."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from coordinator.upload_site import UploadSite, upload_site
from fastapi import FastAPI
from msgspec import structs
from protocol.samples import NODE
from starlette.types import Message

from kinoswarm_coordinator.events import VerdictGiven
from kinoswarm_coordinator.intake import Intake
from kinoswarm_coordinator.uploads import PARTIAL_KEPT_S, UPLOAD_PAUSE_S
from kinoswarm_coordinator.verdicts import unaudited
from kinoswarm_coordinator.web.upload_routes import upload_routes
from kinoswarm_network.http_client import HttpSource
from kinoswarm_protocol.errors import Code, HashMismatch, LimitExceeded, MalformedBytes, Refused
from kinoswarm_protocol.ids import BlobId, LeaseId
from kinoswarm_protocol.limits import MIB
from kinoswarm_protocol.manifest import encode_manifest, manifest_of


@pytest.fixture
def site(tmp_path: Path) -> Iterator[UploadSite]:
    made = upload_site(tmp_path)
    yield made
    made.uploads.close()


def over_http(site: UploadSite, work: Callable[[HttpSource], Awaitable[None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(30), site.served() as source:
            await work(source)

    asyncio.run(run())


@pytest.mark.parametrize("size", [1, MIB, 6 * MIB + 3])
def test_a_result_of_any_size_arrives_and_is_told_once(site: UploadSite, size: int) -> None:
    data = os.urandom(size)
    lease_id, blob = site.waiting(data)
    over_http(site, lambda source: source.deliver(lease_id, blob))
    path = site.theirs.path_of(blob)
    assert path is not None
    assert path.read_bytes() == data
    assert site.done == [lease_id]


def test_a_second_delivery_costs_one_question(site: UploadSite) -> None:
    lease_id, blob = site.waiting(b"x" * 100)

    async def twice(source: HttpSource) -> None:
        await source.deliver(lease_id, blob)
        site.asked.clear()
        await source.deliver(lease_id, blob)

    over_http(site, twice)
    assert site.asked == [f"GET {blob}"]


def test_an_upload_goes_on_after_a_restart_with_the_missing_chunks(site: UploadSite) -> None:
    lease_id, blob = site.waiting(os.urandom(5 * MIB))

    async def half() -> None:
        await site.uploads.take_manifest(lease_id, blob, site.ours.manifest_bytes(blob) or b"")
        for index in (0, 3):
            data = site.ours.read_range(blob, index * MIB, MIB)
            await site.uploads.take_chunk(lease_id, blob, index, data)
        site.uploads.close()  # what kill -9 leaves: chunks in the file, no process

    asyncio.run(half())
    site.uploads = site.restarted()
    over_http(site, lambda source: source.deliver(lease_id, blob))
    assert sorted(line for line in site.asked if line.startswith("PUT")) == [
        "PUT 1",
        "PUT 2",
        "PUT 4",
    ]
    assert site.theirs.path_of(blob) is not None


def test_nothing_is_taken_that_no_contribution_waits_for(site: UploadSite) -> None:
    lease_id, blob = site.waiting(b"wanted")
    other = site.ours.root / "other"
    other.write_bytes(b"unwanted")
    stranger = site.ours.add_file(other)

    async def try_all(source: HttpSource) -> None:
        for lease, name in ((lease_id, stranger), (LeaseId("9" * 32), blob)):
            with pytest.raises(Refused, match="submit it first") as refused:
                await source.deliver(lease, name)
            assert refused.value.code is Code.NOT_PERMITTED

    over_http(site, try_all)
    assert not list((site.theirs.root / "partial").iterdir())


def test_a_blob_larger_than_claimed_is_refused(site: UploadSite) -> None:
    lease_id, blob = site.waiting(b"y" * 1_000, claimed_bytes=999)

    async def deliver(source: HttpSource) -> None:
        with pytest.raises(Refused, match="at most 999"):
            await source.deliver(lease_id, blob)

    over_http(site, deliver)


def test_a_claim_does_not_lift_the_bound_of_the_lease(site: UploadSite) -> None:
    site.base_bytes = 10
    lease_id, blob = site.waiting(b"z" * (MIB + 21))
    raw = site.ours.manifest_bytes(blob) or b""
    with pytest.raises(LimitExceeded, match=f"at most {MIB + 20}"):
        asyncio.run(site.uploads.take_manifest(lease_id, blob, raw))


def test_wrong_chunks_and_manifests_are_refused_and_leave_the_rest_alone(site: UploadSite) -> None:
    lease_id, blob = site.waiting(os.urandom(2 * MIB))
    raw = site.ours.manifest_bytes(blob) or b""

    async def attack() -> None:
        with pytest.raises(Refused, match="manifest first"):
            await site.uploads.take_chunk(lease_id, blob, 0, bytes(MIB))
        with pytest.raises(HashMismatch):
            await site.uploads.take_manifest(lease_id, blob, raw[:-1])
        await site.uploads.take_manifest(lease_id, blob, raw)
        with pytest.raises(HashMismatch):
            await site.uploads.take_chunk(lease_id, blob, 0, bytes(MIB))
        with pytest.raises(MalformedBytes):
            await site.uploads.take_chunk(lease_id, blob, 2, bytes(MIB))
        state = await site.uploads.progress(lease_id, blob)
        assert [(gap.first, gap.count) for gap in state.gaps] == [(0, 2)]
        site.uploads.close()

    asyncio.run(attack())


def test_chunks_of_another_size_are_refused(site: UploadSite) -> None:
    lease_id, _ = site.waiting(b"q")
    blob, raw = encode_manifest(manifest_of([b"q"], chunk_bytes=64))
    work = site.swarm.state.work
    outcome = work[lease_id].outcome
    work[lease_id] = structs.replace(
        work[lease_id], outcome=structs.replace(outcome, delta=blob, delta_bytes=1)
    )
    with pytest.raises(MalformedBytes):
        asyncio.run(site.uploads.take_manifest(lease_id, blob, raw))


def test_what_nobody_waits_for_any_more_leaves_the_disk(site: UploadSite) -> None:
    lease_id, blob = site.waiting(os.urandom(2 * MIB))
    later, wanted = site.waiting(b"later")

    async def settle_and_ask() -> None:
        await site.uploads.take_manifest(lease_id, blob, site.ours.manifest_bytes(blob) or b"")
        assert list((site.theirs.root / "partial").iterdir())
        site.swarm.state.unsettled.discard(lease_id)
        await site.uploads.progress(later, wanted)
        assert not list((site.theirs.root / "partial").iterdir())

    asyncio.run(settle_and_ask())


def test_an_upload_counts_as_coming_until_it_rests(site: UploadSite) -> None:
    lease_id, blob = site.waiting(os.urandom(2 * MIB))

    async def begin() -> None:
        await site.uploads.take_manifest(lease_id, blob, site.ours.manifest_bytes(blob) or b"")

    asyncio.run(begin())
    assert site.uploads.is_coming(lease_id)
    site.now_s += UPLOAD_PAUSE_S + 1
    assert not site.uploads.is_coming(lease_id)
    site.uploads.close()


def test_open_files_are_bounded(site: UploadSite) -> None:
    site.uploads.max_open = 1

    async def begin_many() -> None:
        for number in range(2):
            lease_id, blob = site.waiting(number.to_bytes(2, "big"))
            await site.uploads.take_manifest(lease_id, blob, site.ours.manifest_bytes(blob) or b"")
            site.now_s += 1

    asyncio.run(begin_many())
    assert len(site.uploads._open) == 1
    site.uploads.close()


class NobodyFetches:
    """A network process that reaches no node; blobs lie in the store or nowhere."""

    def __init__(self, site: UploadSite) -> None:
        self.site = site
        self.most: list[int] = []
        """What each fetch was bounded by."""
        self.asked = asyncio.Event()

    async def blob_path(self, blob: BlobId) -> Path | None:
        return self.site.theirs.path_of(blob)

    async def fetch_blob(self, blob: BlobId, providers: object, *, max_bytes: int) -> None:
        self.most.append(max_bytes)
        self.asked.set()
        raise Refused(Code.UNREACHABLE, "nobody serves it")

    async def pin(self, blob: BlobId) -> None:
        self.site.theirs.pin(blob, True)


class Recording:
    """A service that folds events into the small swarm."""

    def __init__(self, site: UploadSite) -> None:
        self.swarm = site.swarm
        self.journal = self
        self.rules = site.swarm.rules

    @property
    def state(self) -> object:
        return self.swarm.state

    def now_ms(self) -> int:
        return self.swarm.now_ms

    async def record(self, events: list) -> None:
        self.swarm.record(events)


def broken_upload(site: UploadSite) -> tuple[LeaseId, BlobId]:
    """One of two chunks came; then the coordinator's process ended."""
    data = os.urandom(2 * MIB)
    lease_id, blob = site.waiting(data)
    _, manifest = encode_manifest(manifest_of([data[:MIB], data[MIB:]]))

    async def bring_half() -> None:
        await site.uploads.take_manifest(lease_id, blob, manifest)
        await site.uploads.take_chunk(lease_id, blob, 0, data[:MIB])

    asyncio.run(bring_half())
    site.uploads.close()
    site.uploads = site.restarted()
    return lease_id, blob


def left_on_disk(site: UploadSite) -> int:
    return len(list((site.theirs.root / "partial").iterdir()))


def test_what_a_broken_upload_left_goes_when_its_lease_is_settled(site: UploadSite) -> None:
    lease_id, blob = broken_upload(site)
    now_s = time.time()
    assert asyncio.run(site.uploads.sweep(now_s)) == []
    site.swarm.state.unsettled.discard(lease_id)
    assert asyncio.run(site.uploads.sweep(now_s)) == [blob]
    assert left_on_disk(site) == 0


def test_an_upload_that_rests_for_a_day_is_given_up(site: UploadSite) -> None:
    _, blob = broken_upload(site)
    assert asyncio.run(site.uploads.sweep(time.time() + PARTIAL_KEPT_S + 60)) == [blob]
    assert left_on_disk(site) == 0


def test_a_download_under_way_is_never_swept(site: UploadSite) -> None:
    """The network process holds it: another process with the same folder."""
    lease_id, blob = broken_upload(site)
    site.swarm.state.unsettled.discard(lease_id)
    raw = site.theirs.partial_manifest(blob)
    assert raw is not None
    held = site.theirs.begin(blob, raw)
    assert asyncio.run(site.uploads.sweep(time.time())) == []
    held.close()
    assert asyncio.run(site.uploads.sweep(time.time())) == [blob]


def test_foreign_files_beside_uploads_disturb_nothing(site: UploadSite) -> None:
    (site.theirs.root / "partial" / "notes.manifest").write_bytes(b"?")
    assert asyncio.run(site.uploads.sweep(time.time())) == []


def test_the_coordinator_settles_at_once_what_was_brought(site: UploadSite) -> None:
    lease_id, blob = site.waiting(os.urandom(MIB + 1))
    intake = Intake(
        service=Recording(site), network=NobodyFetches(site), is_coming=site.uploads.is_coming
    )
    site.uploads.on_complete = intake.look_again

    async def bring(source: HttpSource) -> None:
        intake.begin(lease_id)
        await source.deliver(lease_id, blob)
        await asyncio.gather(*intake._running.values())

    over_http(site, bring)
    assert site.swarm.state.work[lease_id].phase == "available"


def intake_of(site: UploadSite, network: NobodyFetches) -> Intake:
    return Intake(service=Recording(site), network=network, is_coming=lambda lease_id: False)


async def tried_once(intake: Intake, lease_id: LeaseId, network: NobodyFetches) -> None:
    """Until the first try has failed."""
    async with asyncio.timeout(10):
        intake.begin(lease_id)
        await network.asked.wait()


@pytest.mark.parametrize(("claimed", "expected"), [(10**15, 2 * 3 * MIB + MIB), (100, 100)])
def test_a_blob_that_peers_send_is_bounded_as_an_upload_is(
    site: UploadSite, claimed: int, expected: int
) -> None:
    """Else a fresh identity could fill the coordinator's disk with one contribution."""
    site.base_bytes = 3 * MIB
    lease_id, _ = site.waiting(b"x" * 100, claimed_bytes=claimed)
    network = NobodyFetches(site)
    intake = intake_of(site, network)

    async def run() -> None:
        await tried_once(intake, lease_id, network)
        await intake.stop()

    asyncio.run(run())
    assert network.most == [expected]


def test_a_blob_that_comes_after_its_contribution_was_refused_changes_no_verdict(
    site: UploadSite,
) -> None:
    """An account may be refuted while the delta of another of its contributions is still on its way."""
    lease_id, blob = site.waiting(b"x" * 100)
    network = NobodyFetches(site)
    intake = intake_of(site, network)

    async def run() -> None:
        await tried_once(intake, lease_id, network)
        verdict = unaudited(lease_id, NODE.peer_id, site.swarm.now_ms)
        site.swarm.record([VerdictGiven(at_ms=site.swarm.now_ms, verdict=verdict)])
        assert site.theirs.add_file(site.ours.path_of(blob) or Path()) == blob
        intake.look_again(lease_id)
        await asyncio.gather(*intake._running.values())

    asyncio.run(run())
    work = site.swarm.state.work[lease_id]
    assert (work.phase, work.verdict and work.verdict.code) == ("quarantined", Code.SET_ASIDE)


def test_a_copy_is_refused_without_being_fetched(site: UploadSite) -> None:
    lease_id, _ = site.waiting(b"x" * 100)
    network = NobodyFetches(site)
    intake = intake_of(site, network)
    site.swarm.state.unsettled.discard(lease_id)

    async def run() -> None:
        intake.begin(lease_id)
        await asyncio.gather(*intake._running.values())

    asyncio.run(run())
    assert network.most == []


@pytest.mark.parametrize("what", ["manifest", "0"])
def test_of_a_body_that_nobody_waits_for_not_a_byte_is_read(site: UploadSite, what: str) -> None:
    """Else a thousand open connections of a stranger would hold gigabytes of the coordinator's memory."""
    sent: list[Message] = []

    async def receive() -> Message:
        raise AssertionError("the body was read")

    async def send(message: Message) -> None:
        sent.append(message)

    app = FastAPI()
    app.include_router(upload_routes(site.uploads))
    path = f"/kinoswarm/1/uploads/{'0' * 32}/{'1' * 64}/{what}"
    scope = {"type": "http", "method": "PUT", "path": path, "headers": [], "query_string": b""}
    asyncio.run(app(scope, receive, send))
    assert sent[0]["status"] == 403


def test_a_blob_that_went_just_before_it_was_pinned_is_fetched_anew(site: UploadSite) -> None:
    """A round of tidying drops bytes in the moment in which a contribution names them again."""
    lease_id, blob = site.waiting(b"x" * 100)
    source = site.ours.path_of(blob) or Path()
    site.theirs.add_file(source)

    class DropsFirst(NobodyFetches):
        async def pin(self, blob: BlobId) -> None:
            if not self.most:
                site.theirs.drop(blob)
            await super().pin(blob)

        async def fetch_blob(self, blob: BlobId, providers: object, *, max_bytes: int) -> None:
            self.most.append(max_bytes)
            site.theirs.add_file(source)

    network = DropsFirst(site)
    intake = intake_of(site, network)

    async def run() -> None:
        intake.begin(lease_id)
        while intake._running:
            intake.look_again(lease_id)  # else the next try comes a second later
            await asyncio.wait(intake._running.values(), timeout=0.01)

    asyncio.run(run())
    assert len(network.most) == 1
    assert site.swarm.state.work[lease_id].phase == "available"
    assert site.theirs.is_pinned(blob)
