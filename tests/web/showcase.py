"""Views made by hand: a swarm in full swing, and one with everything at its limit. Owns no files and no state."""

from kinoswarm_coordinator.online_history import OnlineAt
from kinoswarm_coordinator.queries import History, Throughput
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
from kinoswarm_protocol.messages import AccuracyAt

NOW_MS = 1_790_000_000_000
HOSTILE = '<img src=x onerror="alert(1)">\u202egnp.evil'
LABELS = ("grey hall", "hedge garden", "canyon", "red cavern", "vine ruins", "blue pool")
PROMPTS = (
    "a hall of grey stone, the camera walks forward",
    "a garden of tall green hedges, the camera turns left",
    "a brown canyon under a red sky",
    "a red cavern lit from below, the camera walks forward",
    "ruins overgrown with vines",
    "a blue pool in a courtyard, the camera turns right",
)
NODES = (
    ("quiet-otter", "NVIDIA GeForce RTX 3060", "training", 3, 412, 31, 0, 4_000),
    ("lena-attic", "AMD Radeon RX 7800 XT", "training", 1, 88, 27, 1, 11_000),
    ("old-thinkpad", "CPU (x86_64, 4 threads)", "training", 0, 19, 9, 0, 38_000),
    ("Käsekuchen 🎬", "Apple M2 Pro", "training", 3, 230, 14, 0, 2_000),
    ("garage-1080ti", "NVIDIA GeForce GTX 1080 Ti", "idle", None, None, 22, 2, 17_000),
    ("mira", "NVIDIA GeForce RTX 4070", "away", None, None, 41, 0, 9_300_000),
    ("bitflipper", "NVIDIA GeForce RTX 2060", "away", None, None, 3, 6, 97_000_000),
)


def full_swing() -> SwarmView:
    """Six experts, seven volunteers, three releases."""
    return SwarmView(
        swarm="3f9a" * 16,
        name="Corridors & Canyons",
        note="Rendered first-person walks through calm scenes; no people, no violence.",
        now_ms=NOW_MS,
        founded_at_ms=NOW_MS - 3 * 86_400_000,
        preset="small",
        phase="training: 4 segments under way, the experts have version 4 of 12 or newer",
        operator_doing="judging a contribution to expert 3",
        online=5,
        num_nodes=len(NODES),
        nodes=[_node(index, *row) for index, row in enumerate(NODES)],
        clusters=[_cluster(index) for index in range(len(LABELS))],
        verdicts=_verdicts(),
        contributions_by_state={"accepted": 6, "merged": 141, "rejected": 9, "quarantined": 1},
        samples_trained=1_284_992,
        flops_trained=3.1e17,
        bytes_up=48_200_000_000,
        bytes_down=6_730_000_000,
        router=RouterView(
            accuracy_by_t=[
                AccuracyAt(t=t, accuracy=hit) for t, hit in ((0.1, 0.99), (0.5, 0.91), (0.9, 0.62))
            ],
            calibration_error=0.031,
        ),
        releases=[_release(version) for version in (1, 2, 3)],
    )


def history() -> History:
    """Two days by the hour."""
    return History(
        span="hour",
        throughput=[
            Throughput(
                at_ms=NOW_MS - (48 - hour) * 3_600_000,
                samples=20_000 + 700 * (hour * 7 % 31),
                flops=2e15 + 7e13 * (hour * 7 % 31),
                accepted=3 + hour % 4,
                rejected=hour % 11 == 0,
            )
            for hour in range(48)
        ],
        nodes=[
            OnlineAt(
                at_ms=NOW_MS - (200 - i) * 15_000, online=4 + i * 13 % 5, training=3 + i * 7 % 3
            )
            for i in range(200)
        ],
    )


def at_the_limit() -> SwarmView:
    """Hostile names wherever others may write, the most nodes, long lines of versions, broken losses."""
    name = "W" * 64
    versions = [
        VersionView(
            version=v,
            heldout_loss=float("nan") if v % 50 == 7 else 1 / (1 + v),
            created_at_ms=NOW_MS,
            contributions=1,
        )
        for v in range(1_000)
    ]
    base = _cluster(0)
    nodes = [
        _node(i, HOSTILE if i % 2 else name, name, "training", i % 7, 10**9, 10**9, 10**9, 0)
        for i in range(500)
    ]
    cluster = ClusterView(
        cluster=0,
        label=HOSTILE,
        objective="velocity",
        num_clips=10**12,
        version=999,
        versions=versions,
        training=500,
        trainers=[HOSTILE, name],
        pending=10**6,
        share=float("nan"),
    )
    swing = full_swing()
    verdict = VerdictView(
        lease_id="0" * 32,
        peer="12D3KooW" + "0" * 44,
        pseudonym=HOSTILE,
        cluster=7,
        state="rejected",
        code="worse",
        sentence="x" * 500,
        decided_at_ms=NOW_MS,
    )
    return SwarmView(
        **{field: getattr(swing, field) for field in swing.__struct_fields__}
        | {
            "name": name,
            "note": HOSTILE * 10,
            "phase": HOSTILE,
            "nodes": nodes,
            "num_nodes": 12_345,
            "clusters": [cluster, base],
            "verdicts": [verdict] * 20,
            "flops_trained": 1e30,
            "founded_at_ms": 2**53,
        }
    )


def _node(
    index, name, device, state, cluster, step, accepted, rejected, seen_before_ms
) -> NodeView:
    return NodeView(
        peer=f"12D3KooW{index:044d}",
        pseudonym=name,
        device=device,
        program_version="0.1.0",
        state=state,
        cluster=cluster,
        step=step,
        accepted=accepted,
        rejected=rejected,
        failed=0,
        last_seen_ms=NOW_MS - seen_before_ms,
        joined_at_ms=NOW_MS - 3 * 86_400_000,
    )


def _cluster(index: int) -> ClusterView:
    newest = 4 + index % 3
    versions = [
        VersionView(
            version=v,
            heldout_loss=0.42 + index * 0.03 + 0.3 / (1 + 0.8 * v) + (0.004 if v == 3 else 0),
            created_at_ms=NOW_MS - (newest - v) * 3_600_000,
            contributions=0 if v == 0 else 3,
        )
        for v in range(newest + 1)
    ]
    names = sorted(row[0] for row in NODES if row[3] == index)
    return ClusterView(
        cluster=index,
        label=LABELS[index],
        objective="epsilon" if index == 4 else "velocity",
        num_clips=1_840 + 97 * index,
        version=newest,
        versions=versions,
        training=len(names),
        trainers=names,
        pending=1 if index == 3 else 0,
        share=(0.21, 0.17, 0.14, 0.24, 0.13, 0.11)[index],
    )


def _verdicts() -> list[VerdictView]:
    said = [
        ("quiet-otter", 3, "accepted", "held-out loss fell by 1.84%, from 0.5312"),
        ("lena-attic", 1, "merged", "held-out loss fell by 0.93%, from 0.4870"),
        (
            "bitflipper",
            2,
            "rejected",
            "held-out loss got worse by 12.40% (from 0.5011), more than chance and the margin of "
            "1.0% explain; either this machine computes wrongly or the cluster has too little data",
        ),
        ("Käsekuchen 🎬", 3, "merged", "held-out loss fell by 2.10%, from 0.5427"),
        (
            "garage-1080ti",
            5,
            "quarantined",
            "the update is a copy of one that another account sent",
        ),
        ("mira", 4, "merged", "held-out loss fell by 1.02%, from 0.5560"),
    ]
    return [
        VerdictView(
            lease_id=f"{index:032x}",
            peer=f"12D3KooW{index:044d}",
            pseudonym=name,
            cluster=cluster,
            state=state,
            code=state,
            sentence=sentence,
            decided_at_ms=NOW_MS - 41_000 * (1 + index * index),
        )
        for index, (name, cluster, state, sentence) in enumerate(said)
    ]


def _release(version: int) -> ReleaseView:
    return ReleaseView(
        version=version,
        expert_versions=[version + 1 + i % 3 for i in range(len(LABELS))],
        considered=[version + 1 + i % 3 for i in range(len(LABELS))],
        held_back=[],
        created_at_ms=NOW_MS - (3 - version) * 20_000_000 - 1_500_000,
        published=True,
        size_bytes=412_000_000,
        num_files=34,
        share_by_expert=[1 / 6] * 6,
        samples=[
            SampleView(path=f"/releases/{version}/samples/sample-{i:02d}.mp4", prompt=prompt)
            for i, prompt in enumerate(PROMPTS)
        ],
    )
