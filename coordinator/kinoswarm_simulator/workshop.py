"""Real training of made-up volunteers, honest and hostile. Owns what each does with a work order; decides nothing.

Machines differ as homes' do: micro-batch, threads, kernels (oneDNN on or off), arithmetic (float32, or bfloat16
products). The instruction set is a matter of the process: ATEN_CPU_CAPABILITY and ONEDNN_MAX_CPU_ISA before it starts.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random

import numpy as np
import torch
from torch import Tensor

from kinoswarm_model.checkpoints import weights_of
from kinoswarm_model.data.shards import Shard
from kinoswarm_model.experts import build_expert
from kinoswarm_model.jobs import TrainJob
from kinoswarm_model.segment import batch_plan, expert_trainer
from kinoswarm_model.training_data import ClipSet, prefetched
from kinoswarm_protocol.messages import TrainOrder
from kinoswarm_protocol.specs import ModelSpec

Weights = dict[str, Tensor]
_MICRO_BATCHES = (0, 2, 4)
_OF_NO_MATTER = ("TF32 acceleration", "Mismatch dtype between input and weight")
"""Warnings of torch about kernels that this processor lacks: that is the point here."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What differs between honest machines."""

    micro_batch: int = 0
    threads: int = 1
    onednn: bool = True
    bfloat16: bool = False

    @classmethod
    def some(cls, chance: Random) -> "Machine":
        """Any."""
        return cls(
            micro_batch=chance.choice(_MICRO_BATCHES),
            threads=chance.choice((1, 2)),
            onednn=chance.random() < 0.5,
            bfloat16=chance.random() < 0.3,
        )

    @contextmanager
    def computing(self) -> Iterator[None]:
        """This process computes as this machine would."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            with warnings.catch_warnings():
                for said in _OF_NO_MATTER:
                    warnings.filterwarnings("ignore", said)
                with torch.backends.mkldnn.flags(enabled=self.onednn):
                    yield
        finally:
            torch.set_num_threads(before)


@dataclass(frozen=True, kw_only=True)
class Task:
    """A train order with its base."""

    order: TrainOrder
    base: Weights

    @property
    def cluster(self) -> int:
        """Whose clips it is about."""
        return self.order.cluster


@dataclass(kw_only=True)
class Workshop:
    """The data of a swarm, and a place to train."""

    model: ModelSpec
    clips: list[ClipSet]
    """By cluster."""
    shards: list[list[Shard]]
    _mislabelled: dict[int, ClipSet] = field(default_factory=dict, init=False)

    def trained(
        self,
        task: Task,
        machine: Machine,
        *,
        steps: int = 0,
        clips: ClipSet | None = None,
        seed: int | None = None,
    ) -> Weights:
        """The weights after the order; or after fewer steps, on other clips, or with another seed."""
        order = task.order
        job = TrainJob(
            job_id="workshop",
            model=self.model,
            work_dir="",
            shard_paths=[],
            steps=order.steps,
            batch_size=order.batch_size,
            seed=order.seed if seed is None else seed,
            micro_batch=machine.micro_batch,
            precision="bfloat16" if machine.bfloat16 else "float32",
        )
        expert = build_expert(self.model, seed=0)
        expert.network.load_state_dict(task.base)
        with machine.computing():
            trainer = expert_trainer(expert, job)
            for batch in prefetched(
                clips or self.clips[task.cluster], batch_plan(job), range(steps or order.steps)
            ):
                trainer.train_step(batch)
        return weights_of(expert.network)

    def mislabelled(self, cluster: int) -> ClipSet:
        """The cluster's clips, each with the caption of another one."""
        if cluster not in self._mislabelled:
            moved = [
                Shard(
                    shard.clips,
                    np.roll(shard.caption_index, 1 + len(shard) // 3),
                    shard.text,
                    shard.captions,
                )
                for shard in self.shards[cluster]
            ]
            self._mislabelled[cluster] = ClipSet(moved, self.model)
        return self._mislabelled[cluster]


Attack = Callable[[Workshop, Task, Machine], Weights]


def _moved(task: Task, new: Weights, factor: float) -> Weights:
    return {name: task.base[name] + factor * (new[name] - task.base[name]) for name in new}


def _noise(task: Task, new: Weights) -> Weights:
    """Noise of a delta's size, tensor by tensor."""
    generator = torch.Generator().manual_seed(task.order.seed)
    return {
        name: float((tensor - task.base[name]).double().square().mean().sqrt())
        * torch.randn(tensor.shape, generator=generator)
        for name, tensor in new.items()
    }


def _random(workshop: Workshop, task: Task, machine: Machine) -> Weights:
    noise = _noise(task, workshop.trained(task, machine))
    return {name: task.base[name] + noise[name] for name in noise}


def _copied(workshop: Workshop, task: Task, machine: Machine) -> Weights:
    """Somebody's honest delta of another order, with a tenth of noise so that its bytes are new."""
    theirs = workshop.trained(task, machine, seed=task.order.seed ^ 1)
    noise = _noise(task, theirs)
    return {name: theirs[name] + 0.1 * noise[name] for name in theirs}


def _few(task: Task, share: float) -> int:
    return max(1, round(task.order.steps * share))


def _scaled(factor: float) -> Attack:
    return lambda workshop, task, machine: _moved(task, workshop.trained(task, machine), factor)


def _lazy(share: float) -> Attack:
    return lambda workshop, task, machine: workshop.trained(task, machine, steps=_few(task, share))


def _elsewhere(workshop: Workshop, task: Task, machine: Machine) -> Weights:
    clips = workshop.clips[(task.cluster + 1) % len(workshop.clips)]
    return workshop.trained(task, machine, clips=clips)


HOSTILE_TRAINING: dict[str, Attack] = {
    "random": _random,
    "zero": lambda workshop, task, machine: dict(task.base),
    "sign-flipped": _scaled(-1.0),
    "scaled tenfold": _scaled(10.0),
    "scaled twofold": _scaled(2.0),
    "lazy, a tenth": _lazy(0.1),
    "lazy, half": _lazy(0.5),
    "lazy, scaled up": lambda workshop, task, machine: _moved(
        task, workshop.trained(task, machine, steps=_few(task, 0.1)), 10.0**0.5
    ),
    "copied with noise": _copied,
    "wrong cluster": _elsewhere,
    "poisoned captions": lambda workshop, task, machine: workshop.trained(
        task, machine, clips=workshop.mislabelled(task.cluster)
    ),
}
"""What a hostile volunteer trains instead."""


def honest(workshop: Workshop, task: Task, machine: Machine) -> Weights:
    """What the order says."""
    return workshop.trained(task, machine)
