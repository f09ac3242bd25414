"""Evaluating a tiny release: what the report says, determinism, and inputs that don't fit."""

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import pytest
from evaluation.conftest import HELDOUT_PER_CLUSTER, write_clips
from PIL import Image
from release.tiny_release import NUM_EXPERTS

from kinoswarm_cli.evaluation_view import evaluation_lines
from kinoswarm_model.evaluation.__main__ import main
from kinoswarm_model.evaluation.evaluate import (
    EvaluationConfig,
    EvaluationInput,
    evaluate_release,
)
from kinoswarm_model.evaluation.plots import write_plots
from kinoswarm_model.evaluation.report import EvaluationReport, Figure, NotMeasured
from kinoswarm_protocol.errors import LocalError, MalformedBytes

CLIPS = 12
CONFIG = EvaluationConfig(num_clips=CLIPS, steps=2, seed=3)


@dataclass(frozen=True)
class Run:
    report: EvaluationReport
    sheet: Path
    progress: list[tuple[int, int, str]]


@pytest.fixture(scope="module")
def run(tiny_input: EvaluationInput, tmp_path_factory: pytest.TempPathFactory) -> Run:
    sheet = tmp_path_factory.mktemp("run") / "sheets" / "sheet.png"
    progress: list[tuple[int, int, str]] = []
    found = evaluate_release(
        replace(tiny_input, contact_sheet=sheet),
        CONFIG,
        lambda done, total, what: progress.append((done, total, what)),
    )
    return Run(found, sheet, progress)


@pytest.fixture(scope="module")
def report(run: Run) -> EvaluationReport:
    return run.report


def test_the_report_counts_its_samples(report: EvaluationReport) -> None:
    assert report.samples.generated == CLIPS
    assert report.samples.heldout == NUM_EXPERTS * HELDOUT_PER_CLUSTER
    assert report.samples.floor == report.samples.projection == CLIPS
    assert report.frechet.release.num_clips == CLIPS
    assert report.frechet.release.num_real == NUM_EXPERTS * HELDOUT_PER_CLUSTER


def test_untrained_weights_are_far_above_the_floor(report: EvaluationReport) -> None:
    frechet = report.frechet
    assert frechet.seed is not None
    assert frechet.release.value > 2 * frechet.floor
    assert frechet.release_by_seed == pytest.approx(frechet.release.value / frechet.seed.value)
    assert report.frechet_motion.release.value > 0


def test_shares_are_those_of_the_picked_experts(report: EvaluationReport) -> None:
    assert sum(report.share_by_expert) == pytest.approx(1.0)
    assert [sum(row) for row in report.share_by_cluster] == pytest.approx([1.0, 1.0])
    assert [t for t, _ in report.router_accuracy_by_t] == [0.1, 0.3, 0.5, 0.7, 0.9]


def test_an_untrained_router_is_hardly_surer_than_it_is_right(report: EvaluationReport) -> None:
    accuracy = sum(share for _, share in report.router_accuracy_by_t) / 5
    assert 0.0 < accuracy < 1.0
    assert 0.0 < report.router_calibration_error < 0.5


def test_motion_is_measured_and_what_is_not_at_hand_is_told(report: EvaluationReport) -> None:
    assert isinstance(report.other.motion, Figure)
    assert report.other.motion.release > 0
    assert isinstance(report.other.fvd, NotMeasured)
    lines = "\n".join(evaluation_lines(report))
    assert "motion magnitude" in lines
    assert f"router calibration error: {report.router_calibration_error:.3f}" in lines
    assert "not measured, clip_text: no CLIP weights were named" in lines
    assert f"{report.frechet.release.value:.3f}" in lines


def test_plots_are_pictures(report: EvaluationReport, tmp_path: Path) -> None:
    names = [path.name for path in write_plots(report, tmp_path / "plots")]
    assert names == ["distances.png", "router.png", "shares.png"]
    for name in names:
        with Image.open(tmp_path / "plots" / name) as picture:
            assert picture.width > 600
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == sorted(names)


def test_the_sampling_is_told(report: EvaluationReport) -> None:
    assert (report.sampling.steps, report.sampling.seed) == (2, 3)
    assert report.sampling.flops_per_clip > 1e5
    assert (report.release_version, report.expert_versions) == (3, [2, 1])


def test_without_a_seed_checkpoint_the_release_alone_is_measured_and_alike(
    tiny_input: EvaluationInput, report: EvaluationReport
) -> None:
    alone = evaluate_release(replace(tiny_input, seed_checkpoint=None), CONFIG)
    assert alone.frechet.seed is None
    assert alone.frechet.release_by_seed is None
    assert alone.frechet.release == report.frechet.release
    assert alone.frechet.floor_details == report.frechet.floor_details
    assert alone.share_by_cluster == report.share_by_cluster


def test_the_contact_sheet_shows_every_caption_once_and_all_clusters(run: Run) -> None:
    from PIL import Image

    captions = run.report.contact_sheet_captions
    assert len(set(captions)) == len(captions) == 6
    assert {caption[:9] for caption in captions[:2]} == {"cluster 0", "cluster 1"}
    with Image.open(run.sheet) as image:
        assert image.width > 500


def test_progress_reaches_the_end_of_every_stage(run: Run) -> None:
    last = {what: (done, total) for done, total, what in run.progress}
    assert last["sampling the release"] == (CLIPS, CLIPS)
    assert last["sampling the seed version"] == (CLIPS, CLIPS)
    done, total = last["features of the seed version's clips"]
    assert done == total


def test_data_of_another_number_of_clusters_is_refused(tiny_input: EvaluationInput) -> None:
    given = replace(tiny_input, heldout_by_cluster=tiny_input.heldout_by_cluster[:1])
    with pytest.raises(LocalError, match=r"held-out files of 1 .* 2 experts"):
        evaluate_release(given, CONFIG)


def test_a_missing_heldout_file_is_named(tiny_input: EvaluationInput, tmp_path: Path) -> None:
    gone = [tiny_input.heldout_by_cluster[0], tmp_path / "gone.safetensors"]
    with pytest.raises(LocalError, match=r"gone.safetensors is missing"):
        evaluate_release(replace(tiny_input, heldout_by_cluster=gone), CONFIG)


def test_clips_of_another_geometry_are_refused(
    tiny_input: EvaluationInput, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import evaluation.conftest as data

    from kinoswarm_model.presets import preset

    other = preset("tiny", frames=4, height=16, width=16, num_clusters=2).model
    monkeypatch.setattr(data, "tiny_model", lambda: other)
    small = write_clips(tmp_path / "small.safetensors", 0, 4, 1)
    given = replace(tiny_input, heldout_by_cluster=[small, tiny_input.heldout_by_cluster[1]])
    with pytest.raises(MalformedBytes, match="this release needs"):
        evaluate_release(given, CONFIG)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_clips": 3}, "at least 8"),
        ({"steps": 0}, "steps"),
        ({"guidance": -1.0}, "guidance"),
        ({"seed": -1}, "seed"),
    ],
)
def test_settings_out_of_bounds_are_named(
    tiny_input: EvaluationInput, change: dict[str, float], message: str
) -> None:
    with pytest.raises(LocalError, match=message):
        evaluate_release(tiny_input, replace(CONFIG, **change))  # type: ignore[arg-type]


def write_data_folder(folder: Path, given: EvaluationInput) -> None:
    """A prepared data folder around the files of an input."""
    from kinoswarm_model.data.data_manifest import (
        MANIFEST_NAME,
        Clip,
        DataCluster,
        DataFile,
        DataManifest,
    )

    def entry(path: Path) -> DataFile:
        shutil.copyfile(path, folder / path.name)
        return DataFile(path.name, 0, path.stat().st_size, "0" * 64)

    clusters = [
        DataCluster(f"cluster {k}", 0, [entry(path) for path in shards], entry(heldout))
        for k, (heldout, shards) in enumerate(
            zip(given.heldout_by_cluster, given.shards_by_cluster, strict=True)
        )
    ]
    manifest = DataManifest(
        clip=Clip(4, 32, 32, 8),
        text_encoder="x",
        text_dim=384,
        text_tokens=8,
        seed=0,
        num_sources=1,
        left_out={},
        clusters=clusters,
    )
    (folder / MANIFEST_NAME).write_bytes(msgspec.json.encode(manifest))


def test_the_module_writes_the_report_and_lines_of_progress(
    tiny_input: EvaluationInput, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_data_folder(tmp_path, tiny_input)
    out = tmp_path / "report.json"
    arguments = [str(tiny_input.model_dir), str(tmp_path), "--out", str(out)]
    arguments += ["--clips", "8", "--steps", "1"]
    assert main([*arguments, "--seed-checkpoint", str(tiny_input.seed_checkpoint)]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {"sampling the release", "sampling the seed version"} <= {line["what"] for line in lines}
    assert msgspec.json.decode(out.read_bytes(), type=EvaluationReport).samples.generated == 8


def run_module(*arguments: str) -> "subprocess.CompletedProcess[str]":
    root = Path(__file__).parents[2]
    return subprocess.run(
        [sys.executable, "-m", "kinoswarm_model.evaluation", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={"PYTHONPATH": f"{root / 'protocol'}:{root / 'model'}", "PATH": "/usr/bin:/bin"},
    )


def test_the_module_says_in_one_sentence_what_is_wrong(tmp_path: Path) -> None:
    ran = run_module(str(tmp_path), str(tmp_path), "--out", str(tmp_path / "report.json"))
    assert ran.returncode == 1
    assert "not a prepared data folder" in ran.stderr
    assert "Traceback" not in ran.stderr
