"""The release job: what it writes, that it is deterministic and that an attempt that broke off does no harm."""

import hashlib
import json
import re
from pathlib import Path

import av
import pytest
from evaluation.conftest import write_clips
from release.tiny_release import NUM_EXPERTS, PROMPTS, tiny_job

from kinoswarm_model.jobs import JobProgress, ReleaseDone
from kinoswarm_model.release_job import run
from kinoswarm_model.release_layout import required_files
from kinoswarm_model.release_reader import open_release
from kinoswarm_protocol.errors import KinoswarmError, LocalError

Written = tuple[ReleaseDone, list[JobProgress]]


def digests(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def test_every_required_file_is_listed_and_there(written: Written) -> None:
    done, _ = written
    assert set(required_files(NUM_EXPERTS)) <= set(done.files)
    assert all((Path(done.release_dir) / path).is_file() for path in done.files)
    assert "README.md" in done.files


def test_shares_sum_to_one_over_the_experts(written: Written) -> None:
    done, _ = written
    assert len(done.share_by_expert) == NUM_EXPERTS
    assert sum(done.share_by_expert) == pytest.approx(1.0)


def test_progress_counts_every_denoising_step(written: Written) -> None:
    _, progress = written
    total = len(PROMPTS) * tiny_job_steps()
    sampled = [event.step for event in progress if event.what == "sampling"]
    assert sampled == list(range(1, total + 1))
    assert {event.total for event in progress if event.what == "sampling"} == {total}


def tiny_job_steps() -> int:
    from release.tiny_release import tiny_model

    return tiny_model().recipe.sample_steps


def test_samples_are_playable_at_four_times_the_size(written: Written) -> None:
    done, _ = written
    assert len(done.sample_paths) == len(PROMPTS)
    with av.open(done.sample_paths[0]) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert [frame.shape for frame in frames] == [(128, 128, 3)] * 4


def test_model_card_names_experts_versions_and_licence(release_dir: Path) -> None:
    card = (release_dir / "README.md").read_text()
    assert "| 0 | brown corridor | 2 |" in card
    assert "| 1 | outside   sky | 1 |" in card
    assert "BSD-3-Clause" in card
    assert "RoutedVideoPipeline.from_pretrained" in card


def test_model_card_states_flops_and_the_router_measured_on_heldout_clips(
    release_dir: Path, tmp_path: Path
) -> None:
    heldout = [str(write_clips(tmp_path / f"{k}.safetensors", k, 5, seed=1)) for k in range(2)]
    job = tiny_job(tmp_path, heldout_paths=heldout, seed_flops=1.5e9, expert_flops=2.25e12)
    card = (Path(run(job, lambda _: None).release_dir) / "README.md").read_text()
    assert "| training the experts | 2.25e+12 FLOPs |" in card
    assert "| training their common seed | 1.5e+09 FLOPs |" in card
    assert re.search(r"router accuracy .*\d% at t = 0\.1, .*\d% at t = 0\.9 \|", card)
    assert re.search(r"router calibration error \| 0\.\d{3} \|", card)
    without = (release_dir / "README.md").read_text()
    assert "generating one clip" in without
    assert "router accuracy" not in without


def test_expert_folders_are_in_the_layout_of_diffusers(release_dir: Path) -> None:
    config = json.loads((release_dir / "experts/1/config.json").read_text())
    assert config["_class_name"] == "WanTransformer3DModel"
    assert config["num_layers"] == 2


def test_the_same_job_gives_the_same_bytes_over_the_rest_of_a_broken_attempt(
    release_dir: Path, tmp_path: Path
) -> None:
    leftover = tmp_path / "work/.release.part/experts/7"
    leftover.mkdir(parents=True)
    (leftover / "config.json").write_text("half")
    done = run(tiny_job(tmp_path), lambda _: None)
    assert digests(Path(done.release_dir)) == digests(release_dir)
    assert not leftover.exists()


def test_a_cluster_without_an_expert_is_refused(tmp_path: Path) -> None:
    job = tiny_job(tmp_path)
    with pytest.raises(LocalError, match="no expert for cluster 1"):
        run(tiny_job(tmp_path, experts=job.experts[:1]), lambda _: None)


def test_a_foreign_checkpoint_leaves_no_release(tmp_path: Path) -> None:
    job = tiny_job(tmp_path)
    Path(job.experts[1].path).write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    with pytest.raises(KinoswarmError):
        run(job, lambda _: None)
    assert not (tmp_path / "work/release").exists()


def test_a_swarm_without_prompts_still_gets_its_release(tmp_path: Path) -> None:
    done = run(tiny_job(tmp_path, prompts=[]), lambda progress: None)
    assert done.sample_paths == []
    assert len(open_release(Path(done.release_dir)).experts) == 2
