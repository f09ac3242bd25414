"""Time of routed generation beside one expert alone, and memory as experts are held or not; taken in turns.

    python benchmarks/generation.py [--preset demo] [--experts 4] [--clips 4] [--rounds 5] [--steps 16] [--device cpu]

The goal is a top-1 ratio of at most 1.15. Weights are freshly made: what a clip shows does not matter to its time.
"""

import argparse
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch

from kinoswarm_model.checkpoints import weights_of, write_checkpoint
from kinoswarm_model.expert_set import ExpertSet
from kinoswarm_model.experts import build_expert
from kinoswarm_model.noise import Purpose, stream
from kinoswarm_model.presets import stated
from kinoswarm_model.release_layout import ReleaseExpert, ReleaseInfo
from kinoswarm_model.router import build_router
from kinoswarm_model.sampler import RoutedModel, SampleSettings, TextBatch, sample, settings_of
from kinoswarm_protocol.specs import ModelSpec

SEED = 1


def main() -> None:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    torch.set_flush_denormal(True)
    print(f"command: python {' '.join(sys.argv)}")
    print(f"machine: {platform.system()} {platform.machine()}, torch {torch.__version__}")
    print(f"commit:  {commit()}; {arguments.device}, {arguments.threads} thread(s)")
    with tempfile.TemporaryDirectory() as folder:
        measure(arguments, Path(folder))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="demo")
    parser.add_argument("--experts", type=int, default=4)
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


def measure(arguments: argparse.Namespace, folder: Path) -> None:
    model = stated(arguments.preset).model
    device = torch.device(arguments.device)
    routed = made_up(model, arguments.experts, folder, device)
    alone = replace(routed, router=None, available_K=[True] + [False] * (arguments.experts - 1))
    settings = replace(settings_of(model.recipe), steps=arguments.steps)
    text = made_up_text(model, arguments.clips, device)
    ways: dict[str, tuple[RoutedModel, SampleSettings]] = {
        "one expert alone": (alone, settings),
        "routed, top 1": (routed, replace(settings, top_k=1)),
        "routed, top 2": (routed, replace(settings, top_k=2)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(arguments.rounds + 1):
        for name, (way, how) in ways.items():
            spent = timed(way, how, text, arguments.clips)
            if number > 0:  # round 0 loads experts and warms up
                seconds[name].append(spent)
    base = seconds["one expert alone"]
    for name, values in seconds.items():
        ratios = [value / one for value, one in zip(values, base, strict=True)]
        print(
            f"{name}: median {median(values):.3f} s for {arguments.clips} clips, ratio {median(ratios):.3f} "
            f"(from {min(ratios):.3f} to {max(ratios):.3f})"
        )


def made_up(model: ModelSpec, count: int, folder: Path, device: torch.device) -> RoutedModel:
    paths = [folder / f"{index}.safetensors" for index in range(count)]
    for index, path in enumerate(paths):
        write_checkpoint(path, weights_of(build_expert(model, seed=index).network))
    info = ReleaseInfo(
        swarm_name="benchmark",
        version=1,
        licence="none",
        experts=[ReleaseExpert(label=str(index), version=1) for index in range(count)],
        model=model,
    )
    experts = ExpertSet(info, paths)
    experts.place(device, torch.float32)
    router = build_router(model, count, seed=SEED).to(device).eval()
    return RoutedModel(model=model, expert=experts, available_K=[True] * count, router=router)


def made_up_text(model: ModelSpec, count: int, device: torch.device) -> TextBatch:
    tokens = torch.from_numpy(
        stream(SEED, Purpose.SAMPLE).standard_normal((count, model.text.max_tokens, model.text.dim))
    ).float()
    mask = torch.ones(count, model.text.max_tokens, dtype=torch.bool)
    return TextBatch(
        tokens_BLD=tokens.to(device), mask_BL=mask.to(device), pooled_BD=tokens.mean(1).to(device)
    )


def timed(routed: RoutedModel, settings: SampleSettings, text: TextBatch, clips: int) -> float:
    """Seconds; of this process alone on a processor, so that other programs don't count."""
    clock = time.process_time if text.tokens_BLD.device.type == "cpu" else time.perf_counter
    started = clock()
    routed.decode(sample(routed, text, list(range(clips)), settings))
    return clock() - started


def commit() -> str:
    found = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or "unknown"


if __name__ == "__main__":
    main()
