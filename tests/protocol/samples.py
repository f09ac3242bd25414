"""Small valid documents that protocol tests start from."""

from kinoswarm_protocol.charter import Charter, ClusterEntry, Licences, Policy, ShardEntry
from kinoswarm_protocol.ids import BlobId, SwarmId
from kinoswarm_protocol.invite import Invite
from kinoswarm_protocol.keys import KeyPair
from kinoswarm_protocol.specs import (
    ClipSpec,
    ExpertSpec,
    ModelSpec,
    ModeSpec,
    RecipeSpec,
    RouterSpec,
    TextSpec,
)

FOUNDER = KeyPair(bytes(range(32)))
COORDINATOR = KeyPair(bytes(range(1, 33)))
NODE = KeyPair(bytes(range(2, 34)))
ACCOUNT = KeyPair(bytes(range(3, 35)))
SWARM = SwarmId("ab" * 32)
BLOB = BlobId("cd" * 32)
LICENCES = Licences(
    data="CC0-1.0", base_weights="none", contributions="Apache-2.0", release="Apache-2.0"
)


def model_spec() -> ModelSpec:
    recipe = RecipeSpec(
        prediction="clean",
        t_floor=0.05,
        t_mean=0.0,
        t_std=1.0,
        shift=1.0,
        text_dropout=0.1,
        batch_size=4,
        learning_rate=1e-3,
        warmup_steps=2,
        weight_decay=0.0,
        beta_1=0.9,
        beta_2=0.99,
        grad_clip=1.0,
        sample_steps=4,
        guidance=2.0,
        top_k=1,
    )
    router = RouterSpec(
        width=16,
        depth=1,
        heads=2,
        patch=[4, 8, 8],
        text_dropout=0.1,
        learning_rate=1e-3,
        batch_size=4,
        steps=4,
    )
    return ModelSpec(
        preset="tiny",
        expert=ExpertSpec(
            class_name="WanTransformer3DModel", config={"num_layers": 1, "patch_size": [1, 2, 2]}
        ),
        clip=ClipSpec(codec="pixel", channels=3, frames=4, height=16, width=16, fps=8),
        text=TextSpec(encoder="all-MiniLM-L6-v2", dim=384, max_tokens=16),
        router=router,
        recipe=recipe,
        modes=[ModeSpec(name="full")],
    )


def policy() -> Policy:
    return Policy(
        segment_s=20.0,
        segment_steps_min=1,
        segment_steps_max=100,
        lease_factor=4.0,
        lease_min_s=30.0,
        quorum_samples=100,
        grace_s=10.0,
        max_staleness=2,
        staleness_decay=0.5,
        outer_rate=0.7,
        outer_momentum=0.9,
        norm_clip=2.0,
        heldout_margin=0.01,
        heldout_pairs=16,
        target_version=2,
    )


def charter() -> Charter:
    shard = ShardEntry(blob=BLOB, num_clips=10, size_bytes=1000)
    cluster = ClusterEntry(
        label="stone halls",
        num_clips=10,
        num_heldout=2,
        heldout_sha256="ef" * 32,
        shards=[shard],
    )
    return Charter(
        name="Test swarm",
        founder=FOUNDER.peer_id,
        created_at_ms=1_700_000_000_000,
        content_note="rendered corridors",
        licences=LICENCES,
        model=model_spec(),
        clusters=[cluster],
        seed_checkpoint=BLOB,
        seed_flops=1e9,
        seed_steps=10,
        policy=policy(),
        coordinators=[COORDINATOR.peer_id],
        addresses=["http://127.0.0.1:8700"],
        min_version="0.1.0",
    )


def invite() -> Invite:
    return Invite(
        swarm=SWARM,
        name="Test swarm",
        founder=FOUNDER.peer_id,
        coordinators=[COORDINATOR.peer_id],
        addresses=["/ip4/127.0.0.1/tcp/4001", "http://127.0.0.1:8700"],
        licences=LICENCES,
        content_note="rendered corridors",
    )
