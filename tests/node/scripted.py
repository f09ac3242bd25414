"""A scripted coordinator, network and trainer: the daemon's faults as data, without processes or sockets."""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msgspec import structs
from protocol.samples import COORDINATOR, FOUNDER, LICENCES, NODE, charter, invite

from kinoswarm_model.jobs import (
    Done,
    Job,
    JobProgress,
    RebuildDone,
    RebuildJob,
    SampleDone,
    SampleJob,
    SelfTestDone,
    SelfTestJob,
    TrainDone,
    TrainJob,
)
from kinoswarm_model.supervisor import WorkerDied, WorkerError
from kinoswarm_network.coordinator_client import CoordinatorClient
from kinoswarm_node.context import NodeContext
from kinoswarm_node.governor.readings import GpuReading, Reading
from kinoswarm_node.governor.rules import Rules
from kinoswarm_node.governor.watch import Governor
from kinoswarm_node.home import Home
from kinoswarm_node.joining import licences_of
from kinoswarm_node.life_events import Fit
from kinoswarm_node.live_settings import LiveSettings
from kinoswarm_node.node_status import NodeStatus
from kinoswarm_node.ports import OnBytes
from kinoswarm_node.settings import load_settings
from kinoswarm_node.status_board import News, StatusBoard
from kinoswarm_node.swarm_folder import Consent, SwarmFolder
from kinoswarm_node.wishes import WishFiles
from kinoswarm_protocol.charter import CHARTER, Amendment, Charter
from kinoswarm_protocol.charter_chain import chain_of, lengthen, open_chain
from kinoswarm_protocol.codec import encode
from kinoswarm_protocol.envelope import Opened, open_envelope, seal
from kinoswarm_protocol.errors import Code, Unreachable
from kinoswarm_protocol.ids import BlobId, LeaseId, PeerId, SwarmId, swarm_id_of
from kinoswarm_protocol.invite import Invite
from kinoswarm_protocol.keys import KeyPair
from kinoswarm_protocol.manifest import encode_manifest, manifest_of
from kinoswarm_protocol.messages import (
    CONTRIBUTION,
    LEASE,
    REPLY,
    REQUEST,
    VERDICT,
    AskVerdicts,
    Contribution,
    FailedOutcome,
    Hello,
    Lease,
    LeaseGrant,
    Lookup,
    NoWork,
    Progress,
    ProgressNoted,
    ProviderHint,
    PullLease,
    Receipt,
    Records,
    Refusal,
    Reply,
    ReplyBody,
    Request,
    RequestBody,
    Submit,
    TrainOrder,
    Verdict,
    Verdicts,
    Welcome,
)
from kinoswarm_protocol.records import NodeRecord
from kinoswarm_protocol.specs import ModeSpec
from kinoswarm_protocol.version_steps import VersionStep

NOW_MS = 1_700_000_000_000


def blob_of(data: bytes) -> BlobId:
    return encode_manifest(manifest_of([data]))[0]


async def give_way() -> None:
    """Let everything else that is ready run once."""
    loop = asyncio.get_running_loop()
    turn: asyncio.Future[None] = loop.create_future()
    loop.call_soon(turn.set_result, None)
    await turn


BASE = b"base checkpoint"
SHARD = b"one shard"


@dataclass
class World:
    """Everything a scripted swarm consists of, and the faults to inject."""

    tmp: Path
    charter_changes: dict[str, object] = field(default_factory=dict)
    tamper_charter: bool = False
    fail_asks: list[type[RequestBody]] = field(default_factory=list)
    """Requests of these types get no answer, once each."""
    lose_replies: list[type[RequestBody]] = field(default_factory=list)
    """Requests of these types are worked on, but the reply gets lost, once each."""
    refuse: dict[type[RequestBody], Refusal] = field(default_factory=dict)
    worker_faults: list[Exception] = field(default_factory=list)
    sample_faults: list[Exception] = field(default_factory=list)
    fetch_faults: list[Exception] = field(default_factory=list)
    verdict: str = "accepted"
    go_on: bool = True
    num_leases: int = 1
    signer: KeyPair = COORDINATOR
    block_training: bool = False
    base: bytes = BASE
    shard: bytes = SHARD
    steps: int = 8
    node_key: KeyPair | None = NODE
    """None: whoever says hello."""

    records: dict[str, list[bytes]] = field(default_factory=dict)
    """Signed records that the coordinator answers look-ups with."""

    def __post_init__(self) -> None:
        founding = charter()
        shards = [structs.replace(founding.clusters[0].shards[0], blob=blob_of(self.shard))]
        cluster = structs.replace(founding.clusters[0], shards=shards)
        changed = {"clusters": [cluster], **self.charter_changes}
        self.charter: Charter = structs.replace(founding, **changed)
        self.swarm: SwarmId = swarm_id_of(encode(self.charter))
        self.charter_raw = seal(FOUNDER, CHARTER, "", self.charter)
        if self.tamper_charter:
            self.charter_raw = seal(
                FOUNDER, CHARTER, "", structs.replace(self.charter, content_note="other")
            )
        self.blobs = {blob_of(d): d for d in (self.base, self.shard, self.charter_raw)}
        self.amendments: list[bytes] = []
        self.addresses: list[str] = []
        """Where this machine can be dialled, as its network process finds at a (re)start."""
        self.chains: list[bytes] = []
        """What web addresses and the DHT hand out."""
        self.version_steps: list[VersionStep] = []
        """Told with every lease."""
        self.bodies: list[RequestBody] = []
        self.contributions: dict[str, Contribution] = {}
        self.leases_by_request: dict[str, bytes] = {}
        self.jobs: list[Job] = []
        self.news: list[News] = []
        self.peer = NODE.peer_id
        self.hello: Hello | None = None
        self.sensors = ScriptedSensors()
        self.trained_with = Fit()
        self.governor = Governor(self.sensors, Rules, lambda: self.monotonic_ms)
        self.monotonic_ms = 0

    def amend(self, **fields: object) -> None:
        """The founder signs one more amendment; the coordinator knows it at once."""
        before = open_chain(chain_of(self.charter_raw, self.amendments))
        change = Amendment(number=1, previous_sha256="0" * 64, created_at_ms=NOW_MS, **fields)
        chain = lengthen(FOUNDER, before, change)
        self.amendments = [opened.raw for opened in chain.amendments]
        self.blobs[blob_of(self.amendments[-1])] = self.amendments[-1]

    def chain(self) -> bytes:
        return chain_of(self.charter_raw, self.amendments)

    @property
    def invite(self) -> Invite:
        return structs.replace(invite(), swarm=self.swarm)

    @property
    def reasons(self) -> list[str]:
        return [n.reason for n in self.news if n.reason]

    # --- coordinator

    async def deliver(self, lease_id: LeaseId, blob: BlobId) -> None:
        """A coordinator that fetches for itself."""

    async def ask(self, raw: bytes) -> bytes:
        """The transport: answers a request as a coordinator would."""
        await give_way()
        opened = open_envelope(raw, REQUEST, self.swarm)
        request = opened.body
        self.peer = self.node_key.peer_id if self.node_key else opened.signer
        self.bodies.append(request.body)
        kind = type(request.body)
        if kind in self.fail_asks:
            self.fail_asks.remove(kind)
            raise Unreachable("nobody answered in 20 s")
        body = self.refuse.get(kind) or self.answer(request)
        if kind in self.lose_replies:
            self.lose_replies.remove(kind)
            raise Unreachable("the connection broke before the reply")
        reply = Reply(request_id=request.request_id, time_ms=NOW_MS, body=body)
        return seal(self.signer, REPLY, self.swarm, reply)

    def answer(self, request: Request) -> ReplyBody:
        match request.body:
            case Hello() as hello:
                self.hello = hello
                return Welcome(
                    charter=blob_of(self.charter_raw),
                    amendments=[blob_of(raw) for raw in self.amendments],
                    notice="",
                )
            case PullLease():
                return self.grant(request.request_id)
            case Progress():
                return ProgressNoted(go_on=self.go_on, sentence="another node was faster")
            case Submit(contribution=raw):
                body = open_envelope(raw, CONTRIBUTION, self.swarm, self.peer).body
                self.contributions[body.lease_id] = body
                return Receipt(lease_id=body.lease_id, verdict=None)
            case AskVerdicts(lease_ids=ids):
                return Verdicts(
                    verdicts=[self.verdict_on(i) for i in ids if i in self.contributions]
                )
            case Lookup(key=key):
                return Records(records=self.records.get(key, []))
            case _:
                return Refusal(code=Code.UNKNOWN_KIND.value, sentence="not scripted")

    def grant(self, request_id: str) -> ReplyBody:
        if request_id not in self.leases_by_request:
            if len(self.leases_by_request) >= self.num_leases:
                return NoWork(
                    code="all_done", sentence="every cluster is trained", retry_after_s=3600.0
                )
            self.leases_by_request[request_id] = self.lease(len(self.leases_by_request))
        hint = ProviderHint(peer=COORDINATOR.peer_id, addresses=[])
        lease = self.leases_by_request[request_id]
        return LeaseGrant(lease=lease, providers=[hint], steps=self.version_steps)

    def lease(self, number: int) -> bytes:
        order = TrainOrder(
            cluster=0,
            lineage=0,
            base_version=0,
            base=blob_of(self.base),
            mode=ModeSpec(name="full"),
            steps=self.steps,
            batch_size=4,
            seed=number,
        )
        lease = Lease(
            lease_id=f"{number:032x}",
            node=self.peer,
            issued_at_ms=NOW_MS,
            deadline_ms=NOW_MS + 60_000,
            order=order,
        )
        return seal(COORDINATOR, LEASE, self.swarm, lease)

    def verdict_on(self, lease_id: str) -> bytes:
        verdict = Verdict(
            lease_id=lease_id,
            node=self.peer,
            state=self.verdict,
            code="accepted" if self.verdict == "accepted" else "worse_on_heldout",
            sentence="the held-out loss went down"
            if self.verdict == "accepted"
            else "it got worse",
            decided_at_ms=NOW_MS,
        )
        return seal(COORDINATOR, VERDICT, self.swarm, verdict)

    def node_hint(self) -> ProviderHint:
        """Where the node said that it can be dialled."""
        return ProviderHint(peer=self.peer, addresses=self.hello.addresses if self.hello else [])

    # --- a node in it

    def node(self, **settings: object) -> NodeContext:
        home = Home(self.tmp / "home")
        home.create()
        folder = SwarmFolder(home.swarm_root(self.swarm), self.swarm)
        folder.keep_consent(
            Consent(
                at_ms=NOW_MS,
                swarm=self.swarm,
                name="Test swarm",
                licences=licences_of(LICENCES),
                content_note="",
            )
        )
        first = NodeStatus(
            pid=1,
            peer_id=NODE.peer_id,
            pseudonym="tester",
            swarm=self.swarm,
            swarm_name="Test swarm",
            state="starting",
            since_ms=NOW_MS,
            updated_at_ms=NOW_MS,
            reason="",
        )
        client = CoordinatorClient(
            NODE, self.swarm, [COORDINATOR.peer_id], [self], now_ms=lambda: NOW_MS
        )
        given = {"keep_free_gib": 0.0, "threads": 1, "page_port": 0, **settings}
        chosen = load_settings(home=home.root, **given)
        return NodeContext(
            settings=chosen,
            live=LiveSettings(chosen),
            key=NODE,
            invite=self.invite,
            folder=folder,
            network=FakeNetwork(self),
            trainer=FakeTrainer(self),
            client=client,
            now_ms=lambda: NOW_MS,
            wishes=WishFiles(home.root),
            governor=self.governor,
            board=StatusBoard(home.status_path, first, self.news.append, lambda: NOW_MS),
        )


CALM = Reading(minute_of_week=0, gpu=GpuReading(name="Test GPU"), idle_s=3600.0)


class ScriptedSensors:
    """Sees what the test says."""

    def __init__(self) -> None:
        self.reading = CALM
        self.watts: list[int] = []

    def limit_power(self, watts: int) -> str:
        self.watts.append(watts)
        return f"the card's power limit is {watts} W" if watts else ""

    async def read(self) -> Reading:
        return self.reading


class FakeNetwork:
    """Blobs in a folder; everybody's blobs are in World.blobs."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.root = world.tmp / "home" / "blobs"
        self.root.mkdir(parents=True, exist_ok=True)
        self.started = False
        self.reachable_at: list[str] = []
        self.announced: list[str] = []
        self.pinned: list[BlobId] = []
        self.unpinned: list[BlobId] = []
        self.again: list[str] = []
        self.dht: dict[str, list[bytes]] = {}
        self.believed: tuple[PeerId, list[PeerId], list[str]] | None = None

    async def start(self) -> None:
        self.started = True
        self.reachable_at = list(self.world.addresses)

    def transports(self) -> list[World]:
        return [self.world]

    async def believe(
        self, founder: PeerId, coordinators: Sequence[PeerId], addresses: Sequence[str]
    ) -> None:
        self.believed = (founder, list(coordinators), list(addresses))

    async def charter_chains(self) -> list[bytes]:
        return self.world.chains

    async def remember_peers(self, hints: Sequence[ProviderHint]) -> None:
        self.peers = list(hints)

    async def add_blob(self, path: Path) -> BlobId:
        data = path.read_bytes()
        blob = blob_of(data)
        (self.root / blob).write_bytes(data)
        self.world.blobs[blob] = data
        return blob

    async def pin(self, blob: BlobId) -> None:
        self.pinned.append(blob)

    async def unpin(self, blob: BlobId) -> None:
        self.unpinned.append(blob)

    async def blob_path(self, blob: BlobId) -> Path | None:
        path = self.root / blob
        return path if path.exists() else None

    async def fetch_blob(
        self, blob: BlobId, providers: Sequence[ProviderHint], on_bytes: OnBytes
    ) -> Path:
        await give_way()
        data = self.world.blobs[blob]
        if self.world.fetch_faults and data != self.world.charter_raw:
            raise self.world.fetch_faults.pop(0)
        on_bytes(len(data), len(data))
        (self.root / blob).write_bytes(data)
        return self.root / blob

    async def announce(self, record: NodeRecord, blobs: Sequence[BlobId]) -> None:
        self.announced.append(record.state)
        self.provided = list(blobs)

    async def announce_again(self, record: Opened[Any]) -> None:
        self.again.append(record.body.key)

    async def look_up(self, key: str) -> list[bytes]:
        return self.dht.get(key, [])

    def addresses(self) -> list[str]:
        return self.reachable_at if self.started else []

    def reach(self) -> str:
        return "yes"

    async def stop(self) -> None:
        self.started = False


class FakeTrainer:
    """ "Trains" by hashing; resumes from a file like the real worker; fails as World.worker_faults says."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.stopped = False
        self.share = 1.0
        self.confined = ["no network"]
        self.devices: list[str] = []

    async def start(self) -> None:
        self.devices = ["cuda:0", "cpu"]

    def limit(self, share: float) -> None:
        self.share = share

    def _sample(self, job: SampleJob) -> SampleDone:
        if self.world.sample_faults:
            raise self.world.sample_faults.pop(0)
        clip = Path(job.work_dir) / "sample.mp4"
        clip.write_bytes(b"clip of " + Path(job.checkpoint_path).read_bytes())
        return SampleDone(clip_path=str(clip), caption="a hall of grey stone")

    def _rebuilt(self, job: RebuildJob) -> RebuildDone:
        """Steps are appended."""
        raw = b"".join(Path(path).read_bytes() for path in [job.base_path, *job.step_paths])
        if blob_of(raw) != job.blob:
            raise WorkerError(Code.HASH_MISMATCH.value, "the steps give another blob", False)
        path = Path(job.work_dir) / "checkpoint"
        path.write_bytes(raw)
        return RebuildDone(checkpoint_path=str(path))

    async def run(self, job: Job, on_progress: Callable[[JobProgress], None]) -> Done:
        await give_way()
        self.world.jobs.append(job)
        if isinstance(job, SelfTestJob):
            return SelfTestDone(
                ok=True,
                sentence="the known answer came out",
                seconds_per_step=0.5,
                device_name="Test CPU",
                memory_bytes=2**33,
                micro_batch=4,
            )
        if isinstance(job, SampleJob):
            return self._sample(job)
        if isinstance(job, RebuildJob):
            return self._rebuilt(job)
        assert isinstance(job, TrainJob)
        on_progress(JobProgress(job_id=job.job_id, step=4, total=8, loss=0.5, what="training"))
        (Path(job.work_dir) / "resume").write_text("4")
        if self.world.worker_faults:
            raise self.world.worker_faults.pop(0)
        if self.world.block_training:
            await asyncio.Event().wait()
        output = Path(job.work_dir) / "delta.zst"
        output.write_bytes(hashlib.sha256(job.job_id.encode()).digest())
        return TrainDone(
            output_path=str(output),
            steps=job.steps,
            samples=job.steps * job.batch_size,
            loss_first=1.0,
            loss_last=0.5,
            delta_norm=1.0,
            seconds=1.0,
            flops=1e9,
            micro_batch=self.world.trained_with.micro_batch,
            checkpoint_activations=self.world.trained_with.checkpoint_activations,
        )

    async def stop(self) -> None:
        self.stopped = True


def out_of_memory() -> WorkerError:
    return WorkerError(Code.WORK_FAILED.value, "CUDA out of memory", True)


def worker_death() -> WorkerDied:
    return WorkerDied("the worker ended with signal 9")


__all__ = ["NOW_MS", "FailedOutcome", "LeaseId", "World", "out_of_memory", "worker_death"]
