"""Attackers against a small swarm that really trains, checks, compares and merges, in virtual time."""

import pytest
import torch
from model.samples import make_shard, tiny

from kinoswarm_coordinator.norm_band import outside_band
from kinoswarm_model.checkpoints import weights_of
from kinoswarm_model.compare_job import apartness
from kinoswarm_model.delta import decode_delta, encode_delta
from kinoswarm_model.experts import build_expert
from kinoswarm_model.training_data import ClipSet
from kinoswarm_protocol.errors import RemoteError
from kinoswarm_protocol.messages import TrainOrder
from kinoswarm_protocol.specs import ModeSpec
from kinoswarm_simulator.real_truth import damaged
from kinoswarm_simulator.workshop import HOSTILE_TRAINING, Machine, Task, Workshop


@pytest.fixture(scope="module")
def workshop() -> Workshop:
    torch.set_num_threads(1)
    model = tiny().model
    shards = [[make_shard(model, 96, seed, brightness=90 * seed)] for seed in range(2)]
    return Workshop(model=model, clips=[ClipSet(each, model) for each in shards], shards=shards)


@pytest.fixture(scope="module")
def task(workshop: Workshop) -> Task:
    order = TrainOrder(
        cluster=0,
        lineage=0,
        base_version=0,
        base="0" * 64,
        mode=ModeSpec(name="full"),
        steps=10,
        batch_size=8,
        seed=3,
    )
    return Task(order=order, base=weights_of(build_expert(workshop.model, seed=0).network))


@pytest.fixture(scope="module")
def honest_bytes(workshop: Workshop, task: Task) -> bytes:
    """Of an honest run on another machine."""
    return encode_delta(task.base, workshop.trained(task, Machine(micro_batch=4, onednn=False)))


@pytest.mark.parametrize("name", sorted(HOSTILE_TRAINING.keys() - {"lazy, half"}))
def test_an_audit_tells_every_attack_from_honest_work(
    workshop: Workshop, task: Task, honest_bytes: bytes, name: str
) -> None:
    """False captions lie nearest, since a fresh network hardly reads them."""
    shapes = {key: tuple(tensor.shape) for key, tensor in task.base.items()}
    attack = encode_delta(task.base, HOSTILE_TRAINING[name](workshop, task, Machine()))
    far = apartness(*(decode_delta(raw, shapes) for raw in (attack, honest_bytes))).distance
    assert far > (0.35 if name == "poisoned captions" else 0.45)


def test_honest_machines_of_every_kind_lie_near_each_other(workshop: Workshop, task: Task) -> None:
    shapes = {key: tuple(tensor.shape) for key, tensor in task.base.items()}
    deltas = [
        decode_delta(encode_delta(task.base, workshop.trained(task, machine)), shapes)
        for machine in (Machine(), Machine(micro_batch=2, onednn=False), Machine(bfloat16=True))
    ]
    assert max(apartness(deltas[0], other).distance for other in deltas[1:]) < 0.25


def test_numbers_that_are_none_are_refused_before_anything_is_computed(
    workshop: Workshop, task: Task
) -> None:
    shapes = {key: tuple(tensor.shape) for key, tensor in task.base.items()}
    raw = damaged(encode_delta(task.base, workshop.trained(task, Machine())))
    with pytest.raises(RemoteError):
        decode_delta(raw, shapes)


def test_an_empty_delta_is_outside_every_band() -> None:
    assert outside_band(0.0, [1.0] * 8)
