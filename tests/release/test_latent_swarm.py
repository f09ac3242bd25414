"""A swarm on latents: a tiny VAE, from `data prepare --vae` to clips out of a release."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from data.conftest import write_clips
from data.elsewhere import ElsewhereEngine
from release.small_swarms import SmallSwarm, run_small_swarm

from kinoswarm_coordinator.founding import FoundingConfig, create_swarm
from kinoswarm_coordinator.home import SwarmFolder
from kinoswarm_model.checkpoints import BadTensors, decode_tensors, encode_tensors
from kinoswarm_model.data.data_manifest import DataManifest
from kinoswarm_model.data.errors import DataError
from kinoswarm_model.data.inspecting import write_cluster_sheet
from kinoswarm_model.data.prepare import PrepareConfig, prepare
from kinoswarm_model.data.shards import read_shard
from kinoswarm_model.evaluation.real_clips import heldout_clips
from kinoswarm_model.generate import GenerateConfig, generate
from kinoswarm_model.pipeline import RoutedVideoPipeline
from kinoswarm_model.vae import CONFIG, WEIGHTS, VideoVae, named_vae
from kinoswarm_protocol.charter import Charter, open_charter
from kinoswarm_protocol.envelope import peek_payload
from kinoswarm_protocol.errors import (
    KinoswarmError,
    LimitExceeded,
    LocalError,
    MalformedBytes,
    VersionMismatch,
)
from kinoswarm_protocol.ids import swarm_id_of
from kinoswarm_protocol.limits import MAX_CHARTER_BYTES

FRAMES, SIZE = 5, 32


@pytest.fixture(scope="module")
def vae_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Wan VAE of 60,000 random weights, as diffusers saves it."""
    from diffusers import AutoencoderKLWan

    torch.manual_seed(0)
    network = AutoencoderKLWan(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
    )
    folder = tmp_path_factory.mktemp("tiny-vae")
    network.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def data(vae_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DataManifest]:
    folder = tmp_path_factory.mktemp("latents")
    config = PrepareConfig(num_clusters=2, frames=FRAMES, vae_dir=vae_dir)
    return folder / "data", prepare(write_clips(folder / "clips", 12), folder / "data", config)


@pytest.fixture(scope="module")
def swarm(data: tuple[Path, DataManifest], tmp_path_factory: pytest.TempPathFactory) -> SmallSwarm:
    return run_small_swarm(*data, tmp_path_factory.mktemp("swarm"))


def test_shards_hold_latents_of_mean_zero_and_deviation_one_per_channel(
    data: tuple[Path, DataManifest],
) -> None:
    folder, manifest = data
    files = [file.path for c in manifest.clusters for file in [*c.shards, c.heldout]]
    shards = [read_shard(folder / path).clips for path in files]
    latents = np.concatenate(shards).astype(np.float64)
    assert {shard.dtype for shard in shards} == {np.dtype(np.float16)}
    assert latents.shape == (12, 4, 2, 4, 4)
    assert np.allclose(latents.mean(axis=(0, 2, 3, 4)), 0.0, atol=2e-3)
    assert np.allclose(latents.std(axis=(0, 2, 3, 4)), 1.0, atol=2e-3)


def test_the_same_clips_and_vae_give_the_same_bytes_on_another_engine(
    data: tuple[Path, DataManifest], vae_dir: Path, tmp_path: Path
) -> None:
    folder, manifest = data
    config = PrepareConfig(num_clusters=2, frames=FRAMES, vae_dir=vae_dir)
    elsewhere = ElsewhereEngine()
    again = prepare(folder.parent / "clips", tmp_path / "again", config, engine=elsewhere)
    assert again.clusters == manifest.clusters
    assert (tmp_path / "again" / "vae" / WEIGHTS).read_bytes() == (vae_dir / WEIGHTS).read_bytes()


def test_a_segment_on_latents_is_judged_on_latents(swarm: SmallSwarm) -> None:
    (report,) = swarm.judged.reports
    assert report.problem == ""
    assert report.loss is not None
    assert swarm.trained.flops > 0


@pytest.fixture
def pretrained(tmp_path: Path) -> Path:
    """A Wan transformer for these latents, saved by diffusers."""
    from diffusers import WanTransformer3DModel

    network = WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        text_dim=8,
        freq_dim=32,
        ffn_dim=64,
        num_layers=1,
        rope_max_seq_len=32,
    )
    network.save_pretrained(tmp_path / "wan")
    return tmp_path / "wan"


def test_a_swarm_is_founded_on_latents_and_pretrained_weights(
    data: tuple[Path, DataManifest], pretrained: Path, tmp_path: Path
) -> None:
    config = FoundingConfig(
        name="Walls", preset="tiny", seed_steps=1, threads=1, start_from=pretrained
    )
    with pytest.raises(LocalError, match="--base-licence"):
        create_swarm(data[0], tmp_path / "swarm", config)
    create_swarm(data[0], tmp_path / "swarm", replace(config, base_licence="Apache-2.0"))
    folder = SwarmFolder(tmp_path / "swarm")
    charter = peek_charter(folder)
    assert charter.licences.base_weights == "Apache-2.0"
    assert charter.model.vae == data[1].vae
    assert charter.model.expert.config["num_layers"] == 1
    assert VideoVae.load(folder.vae).class_name == "AutoencoderKLWan"


def peek_charter(folder: SwarmFolder) -> Charter:
    raw = folder.charter.read_bytes()
    return open_charter(raw, swarm_id_of(peek_payload(raw, MAX_CHARTER_BYTES))).body


def test_a_release_decodes_its_clips(swarm: SmallSwarm) -> None:
    index = json.loads((swarm.release / "model_index.json").read_text())
    assert index["vae"] == ["diffusers", "AutoencoderKLWan"]
    assert f"Clips of {FRAMES} frames at {SIZE}×{SIZE} pixels" in (
        swarm.release / "README.md"
    ).read_text(encoding="utf-8")
    (clip,) = generate(swarm.release, ["a red wall"], GenerateConfig(seed=1))
    assert clip.shape == (FRAMES, SIZE, SIZE, 3)
    assert clip.std() > 0


def test_the_pipeline_decodes_other_lengths_and_is_saved_with_its_vae(
    swarm: SmallSwarm, tmp_path: Path
) -> None:
    pipe = RoutedVideoPipeline.from_pretrained(swarm.release)
    pipe.set_progress_bar_config(disable=True)
    assert pipe("a wall", num_frames=7).frames.shape == (1, 7, SIZE, SIZE, 3)
    pipe.save_pretrained(tmp_path / "saved")
    again = RoutedVideoPipeline.from_pretrained(tmp_path / "saved")
    again.set_progress_bar_config(disable=True)
    clips = [p("a wall", generator=torch.Generator().manual_seed(1)).frames for p in (pipe, again)]
    assert np.array_equal(*clips)


def test_a_release_without_its_vae_says_what_is_missing(swarm: SmallSwarm, tmp_path: Path) -> None:
    shutil.copytree(swarm.release, tmp_path / "copy")
    (tmp_path / "copy/vae" / WEIGHTS).unlink()
    with pytest.raises(LocalError, match=f"lacks vae/{WEIGHTS}"):
        RoutedVideoPipeline.from_pretrained(tmp_path / "copy")


def test_a_release_of_latents_is_measured_on_pixels_of_its_own_size(
    swarm: SmallSwarm, data: tuple[Path, DataManifest], tmp_path: Path
) -> None:
    config = PrepareConfig(num_clusters=2, frames=FRAMES)
    manifest = prepare(data[0].parent / "clips", tmp_path / "pixels", config)
    paths = [tmp_path / "pixels" / cluster.heldout.path for cluster in manifest.clusters]
    assert heldout_clips(paths, swarm.model, 3, seed=0).pixels.shape == (3, FRAMES, SIZE, SIZE, 3)
    latents = [data[0] / cluster.heldout.path for cluster in data[1].clusters]
    with pytest.raises(LocalError, match="without --vae"):
        heldout_clips(latents, swarm.model, 3, seed=0)


def test_latents_are_no_pictures(data: tuple[Path, DataManifest], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no pictures"):
        write_cluster_sheet(tmp_path / "sheet.png", data[0])


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"_class_name": "EvilVae"}, VersionMismatch),
        ({"_class_name": "AutoencoderKL"}, VersionMismatch),
        ({"trust_remote_code": True}, MalformedBytes),
        ({"base_dim": 10**6}, LimitExceeded),
        ({"num_res_blocks": 10**6}, LimitExceeded),
        ({"dim_mult": [1] * 10_000}, LimitExceeded),
        ({"dim_mult": "1234"}, MalformedBytes),
        ({"base_dim": 16}, BadTensors),
    ],
)
def test_a_foreign_vae_is_refused(
    vae_dir: Path, tmp_path: Path, changes: dict[str, object], kind: type[KinoswarmError]
) -> None:
    config = {**json.loads((vae_dir / CONFIG).read_text()), **changes}
    (tmp_path / CONFIG).write_text(json.dumps(config))
    shutil.copyfile(vae_dir / WEIGHTS, tmp_path / WEIGHTS)
    with pytest.raises(kind):
        VideoVae.load(tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw[: len(raw) // 2],
        lambda raw: b"",
        lambda raw: encode_tensors(
            {name: tensor * float("nan") for name, tensor in decode_tensors(raw).items()}
        ),
    ],
    ids=["torn", "empty", "not a number"],
)
def test_damaged_weights_of_a_vae_are_refused(
    vae_dir: Path, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    shutil.copyfile(vae_dir / CONFIG, tmp_path / CONFIG)
    (tmp_path / WEIGHTS).write_bytes(damage((vae_dir / WEIGHTS).read_bytes()))
    with pytest.raises(KinoswarmError):
        VideoVae.load(tmp_path)


def test_half_precision_weights_and_a_pipelines_folder_are_taken(
    vae_dir: Path, tmp_path: Path
) -> None:
    place = tmp_path / "vae"
    place.mkdir()
    shutil.copyfile(vae_dir / CONFIG, place / CONFIG)
    weights = decode_tensors((vae_dir / WEIGHTS).read_bytes())
    halves = {name: tensor.bfloat16() for name, tensor in weights.items()}
    (place / WEIGHTS).write_bytes(encode_tensors(halves))
    assert VideoVae.load(tmp_path).steps(1, 32, 32).channels == 4


def test_a_vae_is_found_by_its_name_on_the_hub(
    vae_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def download(name: str, allow_patterns: list[str]) -> str:
        asked.append((name, sorted(allow_patterns)))
        return str(vae_dir)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert named_vae("someone/a-vae") == vae_dir
    assert asked == [
        ("someone/a-vae", sorted([CONFIG, WEIGHTS, f"vae/{CONFIG}", f"vae/{WEIGHTS}"]))
    ]
    with pytest.raises(LocalError, match="holds no VAE"):
        named_vae("no-such-folder")


def test_clips_that_a_vae_can_not_keep_are_refused_with_what_would_do(vae_dir: Path) -> None:
    with pytest.raises(LocalError, match="1 frame more than a multiple of 4"):
        VideoVae.load(vae_dir).steps(4, 32, 32)
