"""Steps per second of a worker's training against the same model in a bare loop, taken in turns on this machine.

    python benchmarks/training_speed.py [--preset demo] [--rounds 5] [--steps 60] [--device cpu]

The bare loop has its batch ready in memory and draws noise with torch.randn; the worker reads shards, draws its own
reproducible noise, reports progress and writes a resume point and a delta. Only training time is compared.
"""

import argparse
import asyncio
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from kinoswarm_model.data.shards import write_shard
from kinoswarm_model.experts import Expert, build_expert
from kinoswarm_model.flow import losses_of, noised, times_of
from kinoswarm_model.jobs import TrainDone, TrainJob
from kinoswarm_model.presets import preset
from kinoswarm_model.self_test_job import made_up_shard
from kinoswarm_model.supervisor import WorkerSupervisor
from kinoswarm_protocol.specs import ModelSpec

NUM_CLIPS = 240
SEED = 1


def main() -> None:
    arguments = parse()
    with tempfile.TemporaryDirectory() as folder:
        bare, worker = asyncio.run(measure(arguments, Path(folder)))
    print(f"command: python {' '.join(sys.argv)}")
    print(
        f"machine: {platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    )
    print(f"torch {torch.__version__}, device {arguments.device}, {arguments.threads} thread(s)")
    print(f"bare loop: {spread(bare)} steps/s")
    print(f"worker:    {spread(worker)} steps/s")
    ratios = [ours / theirs for ours, theirs in zip(worker, bare, strict=True)]
    print(f"ratio worker / bare loop, round by round: {spread(ratios)}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="demo")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


async def measure(arguments: argparse.Namespace, folder: Path) -> tuple[list[float], list[float]]:
    torch.set_num_threads(arguments.threads)
    torch.set_flush_denormal(True)
    model = preset(arguments.preset, frames=8, height=32, width=32, num_clusters=4).model
    shard = folder / "shard.safetensors"
    write_shard(shard, made_up_shard(model, NUM_CLIPS, SEED))
    supervisor = WorkerSupervisor(folder / "worker.log")
    bare, worker = [], []
    for number in range(arguments.rounds + 1):
        job = train_job(arguments, model, folder / f"round-{number}", shard)
        done = await supervisor.run(job, lambda progress: None)
        assert isinstance(done, TrainDone)
        if number > 0:  # round 0 warms both up
            worker.append(done.steps / done.seconds)
            bare.append(bare_steps_per_second(model, arguments))
        else:
            bare_steps_per_second(model, arguments)
    await supervisor.stop()
    return bare, worker


def train_job(
    arguments: argparse.Namespace, model: ModelSpec, work_dir: Path, shard: Path
) -> TrainJob:
    return TrainJob(
        job_id=work_dir.name,
        model=model,
        work_dir=str(work_dir),
        device=arguments.device,
        threads=arguments.threads,
        shard_paths=[str(shard)],
        steps=arguments.steps,
        batch_size=model.recipe.batch_size,
        seed=SEED,
    )


def bare_steps_per_second(model: ModelSpec, arguments: argparse.Namespace) -> float:
    device = torch.device(arguments.device)
    expert = build_expert(model, seed=SEED).to(device).train()
    optimizer = torch.optim.AdamW(
        expert.parameters(), lr=model.recipe.learning_rate, weight_decay=0.0, fused=True
    )
    batch = ready_batch(model, device)
    started = time.perf_counter()
    for _ in range(arguments.steps):
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
            loss = bare_loss(expert, model, *batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(expert.parameters(), model.recipe.grad_clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()
    return arguments.steps / (time.perf_counter() - started)


def ready_batch(model: ModelSpec, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    count, clip, text = model.recipe.batch_size, model.clip, model.text
    x_0 = torch.rand(count, clip.channels, clip.frames, clip.height, clip.width) * 2 - 1
    tokens = torch.randn(count, text.max_tokens, text.dim)
    return x_0.to(device), tokens.to(device), torch.ones(count, text.max_tokens, device=device)


def bare_loss(
    expert: Expert, model: ModelSpec, x_0: Tensor, tokens: Tensor, mask: Tensor
) -> Tensor:
    eps = torch.randn_like(x_0)
    t = times_of(torch.randn(len(x_0), device=x_0.device), model.recipe)
    prediction = expert(noised(x_0, eps, t), t, tokens, mask)
    return losses_of(prediction, x_0, eps, t, model.recipe).mean()


def spread(values: list[float]) -> str:
    return f"median {median(values):.3f} (from {min(values):.3f} to {max(values):.3f}, {len(values)} rounds)"


if __name__ == "__main__":
    main()
