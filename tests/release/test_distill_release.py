"""Distilling a release: the student does what the experts did, is a release itself, and needs no router."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from release.prepared import write_prepared, write_routed_release
from release.tiny_release import tiny_model
from typer.testing import CliRunner

from kinoswarm_cli.distill_command import app
from kinoswarm_model import distill_release
from kinoswarm_model.distill_release import Distilled, DistillRequest, distill
from kinoswarm_model.flops import expert_flops, router_flops, sampling_flops
from kinoswarm_model.generate import GenerateConfig, generate
from kinoswarm_model.release_layout import expert_weights
from kinoswarm_model.release_reader import open_release
from kinoswarm_protocol.errors import LocalError

STEPS, BATCH = 40, 8


def unheard(done: int, total: int, what: str) -> None:
    return


@pytest.fixture(scope="module")
def request_of(tmp_path_factory: pytest.TempPathFactory) -> DistillRequest:
    folder = tmp_path_factory.mktemp("distill")
    return DistillRequest(
        release=write_routed_release(folder, objectives=["velocity", "epsilon"]),
        data=write_prepared(folder / "data", [0, 1]),
        out=folder / "student",
        steps=STEPS,
        batch_size=BATCH,
        seed=5,
    )


@pytest.fixture(scope="module")
def distilled(request_of: DistillRequest) -> Distilled:
    return distill(request_of, unheard)


def test_the_student_comes_much_closer_to_what_the_experts_make(distilled: Distilled) -> None:
    assert distilled.start.imitation > 0
    assert distilled.student.imitation < 0.5 * distilled.start.imitation
    assert distilled.teacher_loss > 0


def test_the_teachers_passes_are_counted(distilled: Distilled) -> None:
    model = tiny_model()
    wanted = 4 * expert_flops(model) + router_flops(model, 2)  # three of training, one of top-1
    assert distilled.training_flops == pytest.approx(STEPS * BATCH * wanted)


def test_what_comes_out_is_a_release_of_one_expert_that_draws(distilled: Distilled) -> None:
    folder = Path(distilled.release_dir)
    release = open_release(folder)
    assert [expert.label for expert in release.info.experts] == ["distilled from 2 experts"]
    assert release.info.experts[0].objective == "velocity"
    (clip,) = generate(folder, ["cluster 0, scene 1"], GenerateConfig(steps=2))
    assert clip.shape == (4, 32, 32, 3)
    assert "distilled from 2 experts" in (folder / "README.md").read_text()


def test_a_single_expert_asks_no_router(
    distilled: Distilled, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = open_release(Path(distilled.release_dir))

    def asked(*_: object) -> torch.Tensor:
        raise AssertionError("the router was asked")

    monkeypatch.setattr(release.router, "forward", asked)
    from kinoswarm_model.generate import generate_from

    assert len(generate_from(release, ["cluster 1, scene 0"], GenerateConfig(steps=1))) == 1
    model = tiny_model()
    alone = sampling_flops(model, 1, steps=3, guidance=2.0, top_k=1)
    assert alone == 3 * 2 * expert_flops(model)


def test_an_interrupted_call_goes_on_to_the_same_student(
    request_of: DistillRequest, distilled: Distilled, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def killed(*_: object) -> None:
        raise Killed

    again = replace(request_of, out=request_of.out.with_name("again"))
    with monkeypatch.context() as patch:
        patch.setattr(distill_release.release_job, "run", killed)
        with pytest.raises(Killed):
            distill(again, unheard)
    with monkeypatch.context() as patch:
        patch.setattr(distill_release, "train_to_end", killed)  # it is not trained twice
        assert distill(again, unheard).student == distilled.student
    for name in (expert_weights(0), "README.md"):
        assert (again.out / name).read_bytes() == (request_of.out / name).read_bytes()


def test_one_expert_alone_is_not_distilled(
    request_of: DistillRequest, distilled: Distilled, tmp_path: Path
) -> None:
    with pytest.raises(LocalError, match="one dense model already"):
        distill(
            replace(request_of, release=Path(distilled.release_dir), out=tmp_path / "out"), unheard
        )


def test_the_command_tells_losses_and_flops(request_of: DistillRequest, tmp_path: Path) -> None:
    flags = ["--out", str(tmp_path / "out"), "--steps", "2", "--batch-size", "2"]
    found = CliRunner().invoke(app, [str(request_of.release), str(request_of.data), *flags])
    assert found.exit_code == 0, found.output
    assert "FLOPs, the teacher's passes included" in found.output
    assert f"The distilled release: {tmp_path / 'out'}" in found.output
