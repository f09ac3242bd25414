"""`kinoswarm grow`: a downloaded release with experts for more data. Owns the flags; the work is kinoswarm_model's."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from kinoswarm_model.grow_release import Grown

app = typer.Typer()


@app.command()
def grow(
    release: Annotated[Path, typer.Argument(help="Folder made by `kinoswarm download`.")],
    data: Annotated[Path, typer.Argument(help="Prepared data that the release was made from.")],
    new_data: Annotated[Path, typer.Argument(help="Prepared data of one or more new clusters.")],
    out: Annotated[Path, typer.Option(help="Folder of the grown release.")],
    steps: Annotated[int, typer.Option(min=1, help="Optimizer steps of each new expert.")] = 1_000,
    router_steps: Annotated[
        int | None, typer.Option(min=1, help="Of the grown router; a quarter of the recipe's.")
    ] = None,
    licence: Annotated[
        str | None, typer.Option(help="Licence text of the grown release, if it is another.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Same input and seed, same release.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, …")] = "cpu",
    threads: Annotated[int, typer.Option(min=1, help="Processor threads.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print what came out as JSON.")] = False,
) -> None:
    """Add an expert for every cluster of new data to a release.

    Old experts stay as they are; the router keeps its weights and goes on with a larger head.
    Killed, the same command goes on.
    """
    import msgspec
    import torch

    from kinoswarm_cli.progress_bars import reporting
    from kinoswarm_model.grow_release import GrowRequest
    from kinoswarm_model.grow_release import grow as grow_release

    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    request = GrowRequest(
        release=release,
        data=data,
        new_data=new_data,
        out=out,
        expert_steps=steps,
        router_steps=router_steps,
        licence=licence,
        seed=seed,
        device=device,
        threads=threads,
    )
    with reporting(quiet=as_json) as report:
        grown = grow_release(request, report)
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(grown), indent=2).decode())
        return
    typer.echo("\n".join(_lines(grown)))


def _lines(grown: "Grown") -> list[str]:
    lines = [
        f"{expert.label}: from the expert of {expert.started_from}; held-out loss {expert.loss.base:.4f} before, "
        f"{expert.loss.candidate:.4f} after"
        for expert in grown.experts
    ]
    for name, router in (
        ("before, old clusters", grown.old_router),
        ("all clusters", grown.router),
    ):
        accuracy = ", ".join(f"{share:.0%} at t={t:g}" for t, share in router.accuracy_by_t)
        lines.append(
            f"router, {name}: {accuracy}; calibration error {router.calibration_error:.3f}"
        )
    return [*lines, f"The grown release: {grown.release_dir}"]
