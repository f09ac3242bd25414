"""The study of segments: ways differ in what they say they differ in, and nothing else moves."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from benchmarks.quality.segments import WAYS, Bench, Way, benches, heldout_loss_of, segment, table
from benchmarks.quality.training import TrainPlan
from quality.toy import EXPERTS, GRID, toy_data

PLAN = TrainPlan(steps=4, batch_size=4, learning_rate=3e-3, seed=1)


@pytest.fixture(scope="module")
def bench() -> Bench:
    torch.set_num_threads(1)
    return replace(benches(toy_data(), GRID, EXPERTS, [1])[0], steps=80, batch_size=4)


def test_one_segment_is_the_bare_loop(bench: Bench, tmp_path: Path) -> None:
    bare = heldout_loss_of(bench, Way(name="bare", versions=1), 0, tmp_path)
    kept = heldout_loss_of(bench, Way(name="x", versions=1, keeps_moments=True), 0, tmp_path)
    assert bare == kept


def test_every_way_trains_and_is_judged(bench: Bench, tmp_path: Path) -> None:
    found = {way.name: [heldout_loss_of(bench, way, 0, tmp_path)] for way in WAYS}
    assert len(set(map(tuple, found.values()))) == len(WAYS)
    assert table(found).splitlines()[1].split()[-4:] == ["1.0000", "1.0000", "to", "1.0000"]


def test_moments_are_carried_and_the_schedule_begins_anew(bench: Bench) -> None:
    weights, moments = segment(bench, bench.start, PLAN, None, 0)
    fresh, _ = segment(bench, weights, PLAN, None, 1)
    carried, _ = segment(bench, weights, PLAN, moments, 1)
    assert any(not torch.equal(fresh[name], carried[name]) for name in fresh)
