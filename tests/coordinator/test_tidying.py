"""A round over a real store and log: the event first, the blobs after, whatever ends the coordinator in between."""

import asyncio
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from coordinator.small_service import service_over
from coordinator.small_swarm import trained
from coordinator.test_retention import FEW, KEY, swarm_with
from coordinator.tidied_swarm import TidiedSwarm
from msgspec import structs
from protocol.samples import BLOB, NODE

from kinoswarm_coordinator import events as ev
from kinoswarm_coordinator.event_log import MemoryLog
from kinoswarm_coordinator.home import SwarmFolder
from kinoswarm_coordinator.journal import Journal
from kinoswarm_coordinator.retention import Keep
from kinoswarm_coordinator.tidy_lock import may_tidy, nothing_goes
from kinoswarm_coordinator.tidying import Gone, Tidier
from kinoswarm_network.blob_store import BlobStore
from kinoswarm_protocol.errors import Unreachable
from kinoswarm_protocol.ids import BlobId, LeaseId

BYTES = b"a blob"


class Killed(BaseException):
    """The process ends here."""


class Store(BlobStore):
    """Tells somebody before each step of a round."""

    before: Callable[[str, BlobId], None] = staticmethod(lambda what, blob: None)

    def pin(self, blob: BlobId, pinned: bool) -> None:
        self.before("pin" if pinned else "unpin", blob)
        super().pin(blob, pinned)

    def forget(self, blob: BlobId) -> None:
        self.before("forget", blob)
        super().forget(blob)


class FullDisk(MemoryLog):
    """A log that takes nothing more after what it has."""

    is_full = False

    def append(self, events: Sequence[ev.Event]) -> None:
        if self.is_full:
            raise OSError(28, "No space left on device")
        super().append(events)


class Home:
    """A swarm's folder whose store holds, pinned, all that its history brought."""

    def __init__(self, root: Path, swarm: TidiedSwarm) -> None:
        self.swarm = swarm
        self.folder = SwarmFolder(root)
        self.folder.home.mkdir(parents=True, exist_ok=True)
        self.store = Store(self.folder.store)
        for blob in swarm.store - self.held():
            self.put(blob)
        self.log = FullDisk()
        self.log.append(swarm.history)

    def put(self, blob: BlobId) -> None:
        verified = self.folder.root / "verified"
        verified.write_bytes(BYTES)
        self.store.admit(blob, b"a manifest", verified)
        BlobStore.pin(self.store, blob, True)

    def tidier(self, keep: Keep = FEW) -> Tidier:
        """Of a coordinator that has just read its log."""
        service = service_over(Journal(self.log), self.swarm.rules)
        return Tidier(service=service, store=self.store, folder=self.folder, keep=keep)

    def held(self) -> set[BlobId]:
        return {entry.blob for entry in self.store.blobs()}


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("filled") / "swarm", swarm_with(6))


@pytest.fixture
def home(filled: Home, tmp_path: Path) -> Home:
    shutil.copytree(filled.folder.root, tmp_path / "swarm")
    return Home(tmp_path / "swarm", swarm_with(6))


def test_a_round_lets_go_of_what_nothing_needs_and_of_nothing_else(home: Home) -> None:
    for version in range(1, 7):
        (home.folder.releases / str(version)).mkdir(parents=True)
    stranger = BlobId("12" * 32)
    home.put(stranger)
    before = home.held()
    tidier = home.tidier()
    gone = asyncio.run(tidier.round())
    home.swarm.tidy()
    assert home.held() == home.swarm.store & before | {stranger}
    assert gone == Gone(len(before - home.held()), len(BYTES) * len(before - home.held()))
    assert all(entry.pinned for entry in home.store.blobs()), "what stays is pinned as before"
    assert [path.name for path in home.folder.releases.iterdir()] == ["6"]
    assert asyncio.run(tidier.round()) == Gone()


def test_a_kill_before_the_event_is_on_disk_loses_nothing(home: Home) -> None:
    before = home.held()
    home.log.is_full = True
    with pytest.raises(OSError, match="No space left"):
        asyncio.run(home.tidier().round())
    assert home.held() == before
    assert not Journal(home.log).state.forgotten


@pytest.mark.parametrize("after", range(4))
@pytest.mark.parametrize("what", ["unpin", "forget"])
def test_a_kill_between_the_event_and_the_blobs_leaves_the_rest_to_the_next_round(
    home: Home, what: str, after: int
) -> None:
    """Killed before the first, second, … blob is unpinned or dropped; the event is in the log by then."""
    seen: list[BlobId] = []

    def kill(step: str, blob: BlobId) -> None:
        seen.extend([blob] if step == what else [])
        if len(seen) > after:
            raise Killed

    home.store.before = kill
    with pytest.raises(Killed):
        asyncio.run(home.tidier().round())
    assert Journal(home.log).state.is_forgotten(KEY, 1), "forgotten first"
    home.swarm.tidy()
    assert home.swarm.store <= home.held(), "nothing that is needed went"
    home.store.before = lambda step, blob: None
    asyncio.run(home.tidier().round())
    assert home.held() == home.swarm.store


def test_bytes_that_are_named_anew_during_a_round_stay(tmp_path: Path) -> None:
    """The copy of an audit brings the bytes of a run that was refused, in the moment before these go."""
    swarm = swarm_with(1)
    refused = swarm.train(NODE)
    swarm.operate(worse=True)
    copy = swarm.leased(NODE)
    copy = structs.replace(copy, order=structs.replace(copy.order, seed=refused.order.seed))
    home = Home(tmp_path / "swarm", swarm)
    delta = swarm.state.delta_of(LeaseId(refused.lease_id))

    async def go() -> None:
        tidier = home.tidier()
        loop = asyncio.get_running_loop()
        named = ev.WorkReceived(
            at_ms=1,
            lease_id=LeaseId(copy.lease_id),
            node=NODE.peer_id,
            outcome=structs.replace(trained(copy), delta=delta),
            raw=b"",
        )

        def bring(step: str, blob: BlobId) -> None:
            if step == "unpin" and blob == delta:
                recording = tidier.service.record([named])
                asyncio.run_coroutine_threadsafe(recording, loop).result(5)

        home.store.before = bring
        await tidier.round()

    asyncio.run(go())
    assert delta in home.held()
    assert home.store.is_pinned(delta)


def test_what_somebody_takes_into_use_in_the_last_moment_stays(home: Home) -> None:
    """Pinned after the look at what is needed, while others of the batch go already."""
    going: list[BlobId] = []

    def take(step: str, blob: BlobId) -> None:
        if step == "forget":
            going.append(blob)
            BlobStore.pin(home.store, taken, True)

    home.swarm.forget()
    taken = max(home.held() - home.swarm.needed())
    home.store.before = take
    asyncio.run(home.tidier().round())
    assert taken in home.held()
    assert going
    assert taken not in going


def test_nothing_goes_while_a_backup_is_made(home: Home) -> None:
    before = home.held()
    with nothing_goes(home.folder.tidy_lock), nothing_goes(home.folder.tidy_lock):
        assert asyncio.run(home.tidier().round()) == Gone()
        assert home.held() == before
    with may_tidy(home.folder.tidy_lock) as may:
        assert may
    assert asyncio.run(home.tidier().round()).num_blobs


def test_rounds_come_again_and_again_and_a_storage_that_is_away_ends_none(home: Home) -> None:
    rests: list[float] = []
    whole = home.held()

    def away(step: str, blob: BlobId) -> None:
        if step == "forget" and not rests:
            raise Unreachable("s3://bucket cannot be used")

    async def rest(seconds: float) -> None:
        rests.append(seconds)
        if len(rests) == 1:
            assert home.held() == whole
        if len(rests) == 3:
            raise asyncio.CancelledError

    home.store.before = away
    tidier = home.tidier()
    tidier.rest = rest
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(tidier.run(60.0))
    assert rests == [60.0] * 3
    home.swarm.tidy()
    assert home.held() == home.swarm.store


def test_zero_seconds_between_rounds_is_never(home: Home) -> None:
    before = home.held()
    asyncio.run(home.tidier().run(0.0))
    assert home.held() == before
    assert BLOB in before
