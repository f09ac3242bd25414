"""`kinoswarm distill`: a release's experts as one dense model. Owns the flags; the work is kinoswarm_model's."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command()
def distill(
    release: Annotated[Path, typer.Argument(help="Folder made by `kinoswarm download`.")],
    data: Annotated[Path, typer.Argument(help="Folder made by `kinoswarm data prepare`.")],
    out: Annotated[Path, typer.Option(help="Folder of the distilled release.")],
    steps: Annotated[int, typer.Option(min=1, help="Optimizer steps of the student.")] = 2_000,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Clips of a step; the recipe's.")
    ] = None,
    top_k: Annotated[
        int | None, typer.Option(min=1, help="Experts that the teacher mixes; the recipe's.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Same input and seed, same release.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, …")] = "cpu",
    threads: Annotated[int, typer.Option(min=1, help="Processor threads.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print what came out as JSON.")] = False,
) -> None:
    """Teach one model of an expert's size what a release's experts and router do together.

    What comes out is a release with one expert and no routing to pay for. Killed, the same command goes on.
    """
    import msgspec
    import torch

    from kinoswarm_cli.progress_bars import reporting
    from kinoswarm_model.distill_release import DistillRequest
    from kinoswarm_model.distill_release import distill as distill_release

    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    request = DistillRequest(
        release=release,
        data=data,
        out=out,
        steps=steps,
        batch_size=batch_size,
        top_k=top_k,
        seed=seed,
        device=device,
        threads=threads,
    )
    with reporting(quiet=as_json) as report:
        found = distill_release(request, report)
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
        return
    start, student = found.start, found.student
    lines = [
        f"held-out loss: experts and router {found.teacher_loss:.4f}, student {student.loss:.4f}, "
        f"the expert it started from ({found.started_from}) {start.loss:.4f}",
        f"distance from what experts and router make: {student.imitation:.4f}, was {start.imitation:.4f}",
        f"training: {found.training_flops:.3g} FLOPs, the teacher's passes included",
        f"The distilled release: {found.release_dir}",
    ]
    typer.echo("\n".join(lines))
