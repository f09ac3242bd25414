"""Growing a release: what stays, what comes, that a router goes on instead of starting anew."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from release.prepared import route, write_prepared, write_routed_release
from release.tiny_release import tiny_model
from typer.testing import CliRunner

from kinoswarm_cli.grow_command import app
from kinoswarm_model import grow_release
from kinoswarm_model.checkpoints import read_checkpoint
from kinoswarm_model.grow_release import Grown, GrowRequest, grow
from kinoswarm_model.jobs import RouteDone
from kinoswarm_model.release_layout import ROUTER_WEIGHTS, expert_weights
from kinoswarm_model.release_reader import open_release
from kinoswarm_model.router import build_router, grown_router, router_shapes
from kinoswarm_protocol.errors import LocalError

MODEL = tiny_model()


def unheard(done: int, total: int, what: str) -> None:
    return


def mean_accuracy(done: RouteDone) -> float:
    return sum(share for _, share in done.accuracy_by_t) / len(done.accuracy_by_t)


@pytest.fixture(scope="module")
def request_of(tmp_path_factory: pytest.TempPathFactory) -> GrowRequest:
    folder = tmp_path_factory.mktemp("grow")
    return GrowRequest(
        release=write_routed_release(folder, objectives=["epsilon", "epsilon"]),
        data=write_prepared(folder / "old", [0, 1]),
        new_data=write_prepared(folder / "new", [2]),
        out=folder / "grown",
        expert_steps=6,
        router_steps=30,
        seed=3,
    )


@pytest.fixture(scope="module")
def grown(request_of: GrowRequest) -> Grown:
    return grow(request_of, unheard)


def test_a_grown_head_sends_every_clip_where_the_old_one_did() -> None:
    old = build_router(MODEL, 2, seed=4)
    new = grown_router(old.state_dict(), MODEL, 2, 4)
    generator = torch.Generator().manual_seed(0)
    clip = MODEL.clip
    x = torch.randn(6, clip.channels, clip.frames, clip.height, clip.width, generator=generator)
    t, text = (
        torch.rand(6, generator=generator),
        torch.randn(6, MODEL.text.dim, generator=generator),
    )
    before, after = old(x, t, text), new(x, t, text)
    torch.testing.assert_close(after[:, :2], before)
    assert torch.equal(after.argmax(1), before.argmax(1))
    with pytest.raises(LocalError, match="can't grow to 2"):
        grown_router(old.state_dict(), MODEL, 2, 2)


def test_a_grown_router_starts_far_ahead_of_one_from_nothing(tmp_path: Path) -> None:
    old = route(tmp_path, [0, 1])
    base = {"base_path": old.router_path, "base_clusters": 2}
    anew, early = (route(tmp_path, [0, 1, 2], steps=4, **more) for more in ({}, base))
    assert mean_accuracy(old) > 0.9
    assert mean_accuracy(early) > mean_accuracy(anew) + 0.1
    late = route(tmp_path, [0, 1, 2], steps=20, **base)
    assert mean_accuracy(late) > 0.9
    assert min(late.share_by_cluster) > 0.2


def test_old_experts_stay_to_the_bit_and_the_new_one_is_better_on_its_clips(
    request_of: GrowRequest, grown: Grown
) -> None:
    release = open_release(Path(grown.release_dir))
    assert [expert.label for expert in release.info.experts] == [
        "brown corridor",
        "outside | sky",
        "kind 2",
    ]
    assert release.info.version == 4
    for index in range(2):
        old, new = (
            read_checkpoint(folder / expert_weights(index), router_free_shapes())
            for folder in (request_of.release, release.folder)
        )
        assert all(torch.equal(old[name], new[name]) for name in old)
    (expert,) = grown.experts
    assert expert.started_from in ("brown corridor", "outside | sky")
    assert expert.objective == "epsilon"
    assert {each.objective for each in release.info.experts} == {"epsilon"}
    assert expert.loss.difference < -2 * expert.loss.standard_error
    assert grown.router.accuracy_by_t[0][1] > 0.8
    card = (release.folder / "README.md").read_text()
    assert "| 2 | kind 2 | 0 |" in card


def router_free_shapes() -> dict[str, tuple[int, ...]]:
    from kinoswarm_model.experts import tensor_shapes

    return tensor_shapes(MODEL)


def test_an_interrupted_call_goes_on_to_the_same_release(
    request_of: GrowRequest, grown: Grown, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def killed(*_: object) -> None:
        raise Killed

    again = replace(request_of, out=request_of.out.with_name("again"))
    with monkeypatch.context() as patch:
        patch.setattr(grow_release.route_job, "run", killed)
        with pytest.raises(Killed):
            grow(again, unheard)
    with monkeypatch.context() as patch:
        patch.setattr(grow_release.segment, "run", killed)  # the expert is not trained twice
        grow(again, unheard)
    for name in (ROUTER_WEIGHTS, expert_weights(2), "README.md"):
        assert (again.out / name).read_bytes() == (request_of.out / name).read_bytes()
    assert not again.out.with_name(".again.part").exists()
    assert read_checkpoint(again.out / ROUTER_WEIGHTS, router_shapes(MODEL, 3))


def test_folders_that_do_not_fit_are_refused(request_of: GrowRequest, tmp_path: Path) -> None:
    with pytest.raises(LocalError, match=r"has 1 clusters, the release 2 experts"):
        grow(replace(request_of, data=request_of.new_data, out=tmp_path / "out"), unheard)
    manifest = tmp_path / "other" / "manifest.json"
    write_prepared(manifest.parent, [2])
    fields = json.loads(manifest.read_bytes())
    fields["clip"][3] += 1
    manifest.write_text(json.dumps(fields))
    with pytest.raises(LocalError, match=r"the clips in .* are not this model's"):
        grow(replace(request_of, new_data=manifest.parent, out=tmp_path / "out"), unheard)
    with pytest.raises(LocalError, match="exists already"):
        grow(replace(request_of, out=tmp_path), unheard)


def test_the_command_tells_what_was_added(request_of: GrowRequest, tmp_path: Path) -> None:
    paths = [str(request_of.release), str(request_of.data), str(request_of.new_data)]
    flags = ["--out", str(tmp_path / "out"), "--steps", "2", "--router-steps", "2"]
    found = CliRunner().invoke(app, [*paths, *flags])
    assert found.exit_code == 0, found.output
    assert "kind 2: from the expert of" in found.output
    assert f"The grown release: {tmp_path / 'out'}" in found.output
