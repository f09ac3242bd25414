"""`kinoswarm evaluate`: a release's figures on held-out clips. Owns the flags; the measuring is kinoswarm_model's."""

from pathlib import Path
from typing import Annotated

import typer

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
    clips: Annotated[int, typer.Option(min=8, help="Clips to generate.")] = 256,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the generated clips.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, …")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Measure a release: Fréchet distances against held-out clips, router accuracy, share per expert."""
    from kinoswarm_model.data.data_manifest import read_manifest

    manifest = read_manifest(data)

    import msgspec

    from kinoswarm_cli.progress_bars import reporting
    from kinoswarm_model.evaluation.evaluate import (
        EvaluationConfig,
        EvaluationInput,
        evaluate_release,
    )
    from kinoswarm_network.durable import write_atomic

    given = EvaluationInput(
        model_dir=release,
        heldout_by_cluster=[data / cluster.heldout.path for cluster in manifest.clusters],
        shards_by_cluster=[
            [data / shard.path for shard in cluster.shards] for cluster in manifest.clusters
        ],
        seed_checkpoint=seed_checkpoint,
        contact_sheet=contact_sheet,
    )
    config = EvaluationConfig(num_clips=clips, seed=seed, device=device)
    with reporting(quiet=as_json) as report:
        found = evaluate_release(given, config, report)
    raw = msgspec.json.format(msgspec.json.encode(found), indent=2)
    write_atomic(out, raw, mode=0o644)
    if as_json:
        typer.echo(raw.decode())
        return
    frechet = found.frechet
    typer.echo(f"{found.metric}: {frechet.release.value:.3f} over {found.samples.generated} clips")
    if frechet.seed is not None:
        typer.echo(f"  the seed version: {frechet.seed.value:.3f}")
    typer.echo(f"  real clips against real clips: {frechet.floor:.3f}")
    typer.echo(f"All figures: {out}")
