"""`kinoswarm evaluate`: a release's figures on held-out clips. Owns the flags; the measuring is kinoswarm_model's."""

from pathlib import Path
from typing import Annotated

import typer

from kinoswarm_protocol.errors import LocalError

app = typer.Typer()


@app.command()
def evaluate(
    release: Annotated[Path, typer.Argument(help="Folder made by `kinoswarm download`.")],
    data: Annotated[Path, typer.Argument(help="Folder made by `kinoswarm data prepare`.")],
    out: Annotated[Path, typer.Option(help="Where to write the figures as JSON.")] = Path(
        "evaluation.json"
    ),
    seed_checkpoint: Annotated[
        Path | None, typer.Option(help="Version 0, to compare with what training added.")
    ] = None,
    contact_sheet: Annotated[
        Path | None, typer.Option(help="PNG with real clips beside generated ones.")
    ] = None,
    plots: Annotated[Path | None, typer.Option(help="Folder for plots as PNG.")] = None,
    i3d: Annotated[
        Path | None, typer.Option(help="I3D as TorchScript, for the FVD that papers publish.")
    ] = None,
    i3d_runs_code: Annotated[
        bool, typer.Option("--i3d-runs-code", help="Yes, run the code in the file of --i3d.")
    ] = False,
    clip: Annotated[
        Path | None, typer.Option(help="Folder of CLIP weights, for text-video similarity.")
    ] = None,
    aesthetic: Annotated[
        Path | None, typer.Option(help="Folder of CLIP weights with an aesthetic head.")
    ] = None,
    clips: Annotated[int, typer.Option(min=8, help="Clips to generate.")] = 256,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the generated clips.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, …")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Measure a release: Fréchet distances against held-out clips, motion, router accuracy, share per expert."""
    _check_i3d(i3d, i3d_runs_code)
    from kinoswarm_model.data.data_manifest import read_manifest

    manifest = read_manifest(data)

    import msgspec

    from kinoswarm_cli.evaluation_view import evaluation_lines
    from kinoswarm_cli.progress_bars import reporting
    from kinoswarm_model.evaluation.evaluate import (
        EvaluationConfig,
        EvaluationInput,
        evaluate_release,
    )
    from kinoswarm_model.evaluation.other_figures import OtherWeights
    from kinoswarm_model.evaluation.plots import write_plots
    from kinoswarm_network.durable import write_atomic

    clusters = manifest.clusters
    given = EvaluationInput(
        model_dir=release,
        heldout_by_cluster=[data / cluster.heldout.path for cluster in clusters],
        shards_by_cluster=[[data / s.path for s in cluster.shards] for cluster in clusters],
        seed_checkpoint=seed_checkpoint,
        contact_sheet=contact_sheet,
        weights=OtherWeights(i3d=i3d, clip=clip, aesthetic=aesthetic),
    )
    config = EvaluationConfig(num_clips=clips, seed=seed, device=device)
    with reporting(quiet=as_json) as report:
        found = evaluate_release(given, config, report)
    raw = msgspec.json.format(msgspec.json.encode(found), indent=2)
    write_atomic(out, raw, mode=0o644)
    drawn = write_plots(found, plots) if plots is not None else []
    if as_json:
        typer.echo(raw.decode())
        return
    lines = [*evaluation_lines(found), *(f"plot: {path}" for path in drawn)]
    typer.echo("\n".join([*lines, f"All figures: {out}"]))


def _check_i3d(path: Path | None, agreed: bool) -> None:
    """A TorchScript file may do anything on this machine: only with the user's word."""
    if path is not None and not agreed:
        raise LocalError(
            f"{path} is a TorchScript file, and loading it runs the code in it; if you trust where you got it, add "
            "--i3d-runs-code"
        )
