"""Tokens per second, model FLOPs utilisation and peak memory of training, for each preset and mode that fits.

    python benchmarks/presets.py [--device cuda] [--presets home-8gb,home-12gb] [--micro-batch 1] [--json]

Utilisation is the training FLOPs that the model needs (recomputation by checkpointing does not count) over what one
large matrix product reaches on the same device in the same type, measured just before. On a processor only `tiny`
and `demo` are run, and peak memory is not counted. Clips are made up.
"""

import argparse
import json
import platform
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from statistics import median

import torch

from kinoswarm_model.devices import device_name, forget_peak, peak_bytes, training_dtype
from kinoswarm_model.flops import TRAIN_FACTOR, expert_flops
from kinoswarm_model.presets import preset_names, stated
from kinoswarm_model.self_test_job import Fit, Trial, seconds_per_step
from kinoswarm_model.training import OutOfMemory, is_out_of_memory
from kinoswarm_model.training_memory import Precision, Sizes, training_bytes
from kinoswarm_protocol.specs import ModelSpec, ModeSpec

CPU_PRESETS = ["tiny", "demo"]


@dataclass(frozen=True)
class Row:
    preset: str
    mode: str
    micro_batch: int
    checkpointing: bool
    tokens_per_second: float
    utilisation: float
    """Of the device's own large matrix product."""
    peak_gb: float
    """0 where the device does not count."""
    formula_gb: float


def main() -> None:
    arguments = parse()
    device = torch.device(arguments.device)
    if device.type == "cpu":
        torch.set_num_threads(arguments.threads)
    torch.set_flush_denormal(True)
    peak = median(matrix_product_flops(device) for _ in range(5))
    rows = []
    for name in chosen(arguments, device):
        model = stated(name).model
        for mode in model.modes:
            row = measured(model, mode, arguments, device, peak)
            if row is not None:
                rows.append(row)
    tell(arguments, device, peak, rows)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--presets", default="")
    parser.add_argument("--micro-batch", type=int, default=1)
    parser.add_argument("--batch", type=int, default=4, help="clips of one optimizer step")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def chosen(arguments: argparse.Namespace, device: torch.device) -> list[str]:
    if arguments.presets:
        return str(arguments.presets).split(",")
    return CPU_PRESETS if device.type == "cpu" else preset_names()


def measured(
    model: ModelSpec,
    mode: ModeSpec,
    arguments: argparse.Namespace,
    device: torch.device,
    peak_flops: float,
) -> Row | None:
    """The first of: no checkpointing, checkpointing; None when neither fits."""
    for checkpointing in (False, True):
        trial = Trial(
            model=model,
            mode=mode,
            batch_size=arguments.batch,
            seed=1,
            fit=Fit(arguments.micro_batch, checkpointing),
        )
        forget_peak(device)
        try:
            seconds = seconds_per_step(trial, device)
        except (RuntimeError, MemoryError, OutOfMemory) as error:
            if not (isinstance(error, OutOfMemory) or is_out_of_memory(error)):
                raise
            continue
        return row_of(trial, seconds, device, peak_flops)
    return None


def row_of(trial: Trial, seconds: float, device: torch.device, peak_flops: float) -> Row:
    model, fit = trial.model, trial.fit
    precision: Precision = "bfloat16" if training_dtype(device) == torch.bfloat16 else "float32"
    wanted = training_bytes(
        model,
        trial.mode,
        precision,
        micro_batch=fit.micro_batch,
        checkpointing=fit.checkpoint_activations,
    )
    flops = TRAIN_FACTOR * expert_flops(model) * trial.batch_size
    return Row(
        preset=model.preset,
        mode=trial.mode.label,
        micro_batch=fit.micro_batch,
        checkpointing=fit.checkpoint_activations,
        tokens_per_second=trial.batch_size * Sizes.of(model).patches / seconds,
        utilisation=flops / seconds / peak_flops,
        peak_gb=peak_bytes(device) / 1e9,
        formula_gb=wanted / 1e9,
    )


def matrix_product_flops(device: torch.device) -> float:
    """FLOPs per second of one large product in the type that training uses."""
    size = 1024 if device.type == "cpu" else 8192
    a = torch.randn(size, size, device=device, dtype=training_dtype(device))
    repeats = 4
    (a @ a).sum().item()
    started = time.perf_counter()
    for _ in range(repeats):
        b = a @ a
    b.sum().item()
    return repeats * 2.0 * size**3 / (time.perf_counter() - started)


def tell(arguments: argparse.Namespace, device: torch.device, peak: float, rows: list[Row]) -> None:
    found = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    facts = {
        "command": f"python {' '.join(sys.argv)}",
        "machine": f"{platform.system()} {platform.machine()}, {device_name(device)}, torch {torch.__version__}",
        "commit": found.stdout.strip() or "unknown",
        "matrix_product_tflops": peak / 1e12,
        "rows": [asdict(row) for row in rows],
    }
    if arguments.json:
        print(json.dumps(facts, indent=2))
        return
    for key in ("command", "machine", "commit"):
        print(f"{key}: {facts[key]}")
    print(f"large matrix product: {peak / 1e9:,.1f} GFLOP/s")
    for row in rows:
        checkpointing = ", checkpointing" if row.checkpointing else ""
        print(
            f"{row.preset} {row.mode} (micro-batch {row.micro_batch}{checkpointing}): "
            f"{row.tokens_per_second:,.0f} tokens/s, {row.utilisation:.1%} of a large product, "
            f"peak {peak_text(row)} (formula {row.formula_gb:.3f} GB)"
        )


def peak_text(row: Row) -> str:
    return f"{row.peak_gb:.3f} GB" if row.peak_gb else "not counted"


if __name__ == "__main__":
    main()
