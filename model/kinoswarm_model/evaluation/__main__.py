"""`python -m kinoswarm_model.evaluation RELEASE DATA --out REPORT.json`: one evaluation as a process of its own.

Owns the command line only. Progress goes to standard output as one JSON object a line; an error goes to standard error
in one sentence, and the exit code is 1.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from kinoswarm_model.data.data_manifest import read_manifest
from kinoswarm_protocol.errors import KinoswarmError


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write the report. Gives the exit code."""
    options = _parser().parse_args(arguments)
    try:
        _evaluate(options)
    except KinoswarmError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m kinoswarm_model.evaluation",
        description="Measure a release against its seed version on held-out clips.",
    )
    add = parser.add_argument
    add("release", type=Path, help="release folder")
    add("data", type=Path, help="folder that `kinoswarm data prepare` wrote")
    add("--out", type=Path, required=True, help="JSON report to write")
    add("--seed-checkpoint", type=Path, help="version 0 of the experts")
    add("--contact-sheet", type=Path, help="PNG to write: real clips beside generated ones")
    add("--clips", type=int, default=256, help="clips to generate (default 256)")
    add("--steps", type=int, help="denoising steps (default: the recipe's)")
    add("--guidance", type=float, help="1 is off (default: the recipe's)")
    add("--top-k", type=int, help="experts mixed at every step (default: the recipe's)")
    add("--seed", type=int, default=0, help="of the first clip (default 0)")
    add("--device", default="cpu", help="cpu (default), cuda:0, ...")
    add("--threads", type=int, default=1, help="CPU threads (default 1)")
    return parser


def _evaluate(options: argparse.Namespace) -> None:
    clusters = read_manifest(options.data).clusters
    import torch

    from kinoswarm_model.checkpoints import write_atomic
    from kinoswarm_model.evaluation.evaluate import (
        EvaluationConfig,
        EvaluationInput,
        evaluate_release,
    )

    torch.set_num_threads(max(1, options.threads))
    torch.set_flush_denormal(True)
    given = EvaluationInput(
        model_dir=options.release,
        heldout_by_cluster=[options.data / cluster.heldout.path for cluster in clusters],
        shards_by_cluster=[
            [options.data / shard.path for shard in cluster.shards] for cluster in clusters
        ],
        seed_checkpoint=options.seed_checkpoint,
        contact_sheet=options.contact_sheet,
    )
    config = EvaluationConfig(
        num_clips=options.clips,
        seed=options.seed,
        steps=options.steps,
        guidance=options.guidance,
        top_k=options.top_k,
        device=options.device,
    )
    report = evaluate_release(given, config, _say)
    write_atomic(options.out, msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")


def _say(done: int, total: int, what: str) -> None:
    line = msgspec.json.encode({"done": done, "total": total, "what": what})
    print(line.decode(), flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
