"""The comparison as a swarm: its data can be founded on, and its charter asks for the bare loop's steps."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from benchmarks.quality.clips import QualityData
from benchmarks.quality.latents import LatentPlan, fit_codec, with_latents
from benchmarks.quality.regime import Regime
from benchmarks.quality.sides import budget_of
from benchmarks.quality.swarm_data import SwarmPlan, swarm_model, swarm_preset, write_data
from benchmarks.quality.swarm_row import VOLUNTEERS
from quality.toy import EXPERTS, REGIME, toy_data

from kinoswarm_model.data.data_manifest import read_manifest
from kinoswarm_model.training_data import ClipSet
from kinoswarm_node.settings import load_settings

PLAN = LatentPlan(patch=(2, 4, 4), channels=4)
LATENT = replace(
    REGIME,
    latent=PLAN,
    network=replace(REGIME.network, patch=(1, 1, 1)),
    router=replace(REGIME.router, patch=(1, 1, 1)),
)


@pytest.fixture(scope="module")
def data() -> QualityData:
    plain = toy_data()
    return with_latents(plain, fit_codec(plain.fit.pixels, PLAN))


def founded(data: QualityData, regime: Regime, folder: Path) -> Path:
    codec = fit_codec(data.fit.pixels, PLAN)
    floor = replace(data.floor, latents=codec.encode(data.floor.pixels))
    write_data(folder, data, floor, regime, EXPERTS)
    return folder


def test_the_shards_hold_the_latents_of_their_cluster(data: QualityData, tmp_path: Path) -> None:
    folder = founded(data, LATENT, tmp_path)
    manifest, model = read_manifest(folder), swarm_model(LATENT, EXPERTS)
    paths = [[str(folder / shard.path) for shard in c.shards] for c in manifest.clusters]
    clips = ClipSet.read_clusters(paths, model)
    assert len(clips) == len(data.training)
    assert data.training.latents is not None
    whole = torch.from_numpy(data.training.latents).half().float().flatten(1)
    assert all(bool((whole == clips.clip(row).flatten()).all(1).any()) for row in range(8))
    assert manifest.clip_spec() == model.clip


def test_the_charter_asks_for_what_the_bare_loop_does() -> None:
    wanted, plan = budget_of(LATENT, EXPERTS), SwarmPlan(versions=2)
    chosen = swarm_preset(LATENT, EXPERTS, plan)
    assert chosen.seed_steps == wanted.seed_steps
    assert plan.versions * chosen.policy.segment_steps_max == wanted.expert_steps // 2 * 2
    assert chosen.model.recipe.batch_size == EXPERTS.batch_size // EXPERTS.num_experts
    assert chosen.policy.delta_codec == "int4.1"


@pytest.mark.parametrize("volunteer", VOLUNTEERS, ids=lambda v: v.name)
def test_every_volunteer_has_settings_that_a_node_takes(
    volunteer: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in volunteer.environment.items():  # type: ignore[attr-defined]
        monkeypatch.setenv(name, value)
    settings = load_settings(home=tmp_path)
    own = [name for name in os.environ if name.startswith("KINOSWARM_NODE_")]
    assert all(hasattr(settings, name.removeprefix("KINOSWARM_NODE_").lower()) for name in own)
