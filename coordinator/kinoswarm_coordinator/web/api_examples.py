"""Examples for the API's description: one small made-up swarm. Owns no meaning; types are those of the answers."""

from kinoswarm_coordinator.credit import CreditEntry
from kinoswarm_coordinator.leaders import AccountMachine, AccountStory, Leader
from kinoswarm_coordinator.online_history import OnlineAt
from kinoswarm_coordinator.queries import (
    ActionView,
    CreditView,
    History,
    LedgerPiece,
    NodesPiece,
    NodeStory,
    Throughput,
    VerdictsPiece,
)
from kinoswarm_coordinator.try_queue import Wish
from kinoswarm_coordinator.views import (
    ClusterView,
    NodeView,
    ReleaseView,
    RouterView,
    SampleView,
    SwarmView,
    VerdictView,
    VersionView,
)
from kinoswarm_coordinator.web.health import Check, Health
from kinoswarm_protocol.messages import AccuracyAt

_NOW_MS = 1_790_000_000_000
_PEER = "12D3KooWGzBpNp8BXfGvMpDUKUDbVN5gfHf2PbXhYvB4eVhEzVhB"

_NODE = NodeView(
    peer=_PEER,
    pseudonym="quiet-otter",
    device="NVIDIA GeForce RTX 3060",
    program_version="0.1.0",
    state="training",
    cluster=0,
    step=412,
    accepted=31,
    rejected=0,
    failed=1,
    last_seen_ms=_NOW_MS - 4_000,
    joined_at_ms=_NOW_MS - 86_400_000,
)
_VERDICT = VerdictView(
    lease_id="6c7310cf2477c3006a0a7240fa26aced",
    peer=_PEER,
    pseudonym="quiet-otter",
    cluster=0,
    state="merged",
    code="accepted",
    sentence="held-out loss fell by 1.84%, from 0.5312",
    decided_at_ms=_NOW_MS - 60_000,
)
CLUSTER = ClusterView(
    cluster=0,
    label="hall, grey stone",
    objective="velocity",
    num_clips=1_840,
    version=1,
    versions=[
        VersionView(
            version=0, heldout_loss=0.5312, created_at_ms=_NOW_MS - 86_400_000, contributions=0
        ),
        VersionView(version=1, heldout_loss=0.5214, created_at_ms=_NOW_MS, contributions=3),
    ],
    training=1,
    trainers=["quiet-otter"],
    pending=1,
    share=0.24,
)
RELEASE = ReleaseView(
    version=1,
    expert_versions=[1],
    considered=[2],
    held_back=[
        "halls: version 2 has a held-out loss of 0.5391, version 1 of the last release 0.5214"
    ],
    created_at_ms=_NOW_MS - 60_000,
    published=True,
    size_bytes=412_000_000,
    num_files=34,
    share_by_expert=[1.0],
    samples=[
        SampleView(path="/releases/1/samples/sample-00.mp4", prompt="a hall of grey stone"),
    ],
)
STATUS = SwarmView(
    swarm="3f9a" * 16,
    name="Corridors & Canyons",
    note="Walks through calm rendered places.",
    now_ms=_NOW_MS,
    founded_at_ms=_NOW_MS - 86_400_000,
    preset="demo",
    phase="training: 1 segment under way, every expert has version 1 of 12 or newer",
    operator_doing="",
    online=1,
    num_nodes=1,
    nodes=[_NODE],
    clusters=[CLUSTER],
    verdicts=[_VERDICT],
    contributions_by_state={"merged": 3, "received": 1},
    samples_trained=28_800,
    flops_trained=7.7e12,
    bytes_up=48_200_000,
    bytes_down=6_730_000,
    router=RouterView(accuracy_by_t=[AccuracyAt(t=0.5, accuracy=0.91)], calibration_error=0.031),
    releases=[RELEASE],
)
NODES = NodesPiece(nodes=[_NODE], next=None, total=1)
NODE = NodeStory(node=_NODE, samples=28_800, flops=7.7e12, verdicts=[_VERDICT])
VERDICTS = VerdictsPiece(verdicts=[_VERDICT], next=None, total=1)
LEADERS = [
    Leader(
        peer=_PEER,
        pseudonym="quiet-otter",
        accepted=31,
        rejected=0,
        samples=28_800,
        flops=7.7e12,
        is_account=True,
        machines=1,
    )
]
ACCOUNT = AccountStory(
    account=_PEER,
    name="otters",
    flops=7.7e12,
    machines=[
        AccountMachine(
            peer=_PEER,
            pseudonym="quiet-otter",
            device="NVIDIA GeForce RTX 3060",
            flops=7.7e12,
            counts_now=True,
        )
    ],
)
ACTIONS = [
    ActionView(
        at_ms=_NOW_MS - 7_200_000,
        signer=_PEER,
        action="rollback",
        sentence="rolled expert 0 back to version 3: version 4 made clips flicker",
    )
]
LEDGER = LedgerPiece(
    entries=[
        CreditView(
            entry=CreditEntry(
                at_ms=_NOW_MS - 60_000,
                peer=_PEER,
                lease_id="6c7310cf2477c3006a0a7240fa26aced",
                cluster=0,
                steps=600,
                flops=2.6e12,
                reason="held-out loss fell by 1.84%, from 0.5312",
                account=_PEER,
            ),
            pseudonym="quiet-otter",
        )
    ],
    next=None,
    total=1,
    total_flops=2.6e12,
)
HISTORY = History(
    span="minute",
    throughput=[
        Throughput(at_ms=_NOW_MS - 60_000, samples=9_600, flops=2.6e12, accepted=1, rejected=0)
    ],
    nodes=[OnlineAt(at_ms=_NOW_MS - 15_000, online=1, training=1)],
)
HEALTH = Health(state="good", checks=[Check(name="volunteers", state="good", sentence="1 on-line")])

WISH = Wish(
    wish_id="0f3a9c1d2b4e5f60",
    prompt="a hall of grey stone, the camera glides forward",
    seed=7,
    release=2,
    asked_at_ms=_NOW_MS,
    phase="running",
    step=3,
    total=16,
    expert_by_step=[1, 1, 0],
)
