"""A swarm of one scripted coordinator behind a real network process, with a real tiny model and real data."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from msgspec import structs
from node.scripted import World
from protocol.samples import COORDINATOR, FOUNDER, invite

from kinoswarm_model.checkpoints import weights_of, write_checkpoint
from kinoswarm_model.data.shards import Shard, write_shard
from kinoswarm_model.data.text import TextBatch
from kinoswarm_model.experts import build_expert
from kinoswarm_model.presets import preset
from kinoswarm_network.client import NetworkClient, NetworkConfig
from kinoswarm_network.identity import key_text
from kinoswarm_protocol.ids import BlobId, PeerId
from kinoswarm_protocol.invite import write_invite
from kinoswarm_protocol.messages import TrainOutcome
from kinoswarm_protocol.specs import ModelSpec

DEAD_WEB = "http://127.0.0.1:1"
LOOPBACK = "/ip4/127.0.0.1/tcp/0"


@dataclass
class RealSwarm:
    """What a test needs of it."""

    world: World
    client: NetworkClient

    @property
    def invite_text(self) -> str:
        """Its web address is dead, so whatever works does so through libp2p."""
        changed = structs.replace(
            invite(), swarm=self.world.swarm, addresses=[DEAD_WEB, *self.client.addresses]
        )
        return write_invite(FOUNDER, changed)

    async def fetch_delta(self, lease_id: str) -> Path:
        """What a coordinator does before it decides; the node's addresses come from its hello."""
        outcome = self.world.contributions[lease_id].outcome
        assert isinstance(outcome, TrainOutcome)
        return await self.client.fetch_blob(BlobId(outcome.delta), [self.world.node_hint()])


def tiny_model() -> ModelSpec:
    return preset("tiny", frames=4, height=16, width=16, num_clusters=2).model


def made_up_shard(model: ModelSpec, num_clips: int) -> Shard:
    """Noise in the model's geometry under one caption."""
    clip, text = model.clip, model.text
    random = np.random.default_rng(3)
    tokens = random.standard_normal((1, text.max_tokens, text.dim)).astype(np.float16)
    return Shard(
        clips=random.integers(
            0, 256, (num_clips, clip.channels, clip.frames, clip.height, clip.width), np.uint8
        ),
        caption_index=np.zeros(num_clips, np.int32),
        text=TextBatch(tokens, np.ones(tokens.shape[:2], np.uint8), tokens[:, 0]),
        captions=["noise"],
    )


def make_blobs(folder: Path, model: ModelSpec) -> tuple[Path, Path]:
    """A base checkpoint and a shard."""
    base, shard = folder / "base.safetensors", folder / "shard.safetensors"
    write_checkpoint(base, weights_of(build_expert(model, seed=1).network))
    write_shard(shard, made_up_shard(model, num_clips=8))
    return base, shard


@asynccontextmanager
async def real_swarm(folder: Path, steps: int) -> AsyncIterator[RealSwarm]:
    """Started, and ended with everything that belongs to it."""
    folder.mkdir(parents=True, exist_ok=True)
    key_file = folder / "coordinator.key"
    key_file.write_text(key_text(COORDINATOR))
    model = tiny_model()
    base, shard = await asyncio.to_thread(make_blobs, folder, model)
    world = World(
        folder,
        charter_changes={"model": model},
        base=base.read_bytes(),
        shard=shard.read_bytes(),
        steps=steps,
        node_key=None,
    )

    async def on_control(peer: PeerId, request: bytes) -> bytes:
        return await world.ask(request)

    config = NetworkConfig(
        home=str(folder / "network"),
        swarm=world.swarm,
        key_file=str(key_file),
        founder=FOUNDER.peer_id,
        coordinators=[COORDINATOR.peer_id],
        listen=[LOOPBACK],
    )
    client = await NetworkClient.start(config, on_control)
    try:
        charter_file = folder / "charter.bin"
        charter_file.write_bytes(world.charter_raw)
        for path in (base, shard, charter_file):
            assert await client.add_blob(path) in world.blobs
        yield RealSwarm(world, client)
    finally:
        await client.stop()
