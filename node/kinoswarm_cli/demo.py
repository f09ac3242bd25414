"""`kinoswarm demo`: the whole life of a swarm on this machine. Owns the command; the phases are demo_run's."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command()
def demo(
    nodes: Annotated[int, typer.Option(min=1, max=16, help="Volunteers to start.")] = 3,
    clusters: Annotated[int, typer.Option(min=1, max=8, help="Clusters, one expert each.")] = 4,
    out: Annotated[Path, typer.Option(help="Folder for everything.")] = Path("demo-out"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of data and training.")] = 0,
    budget: Annotated[
        float, typer.Option(min=1.0, max=10_000.0, help="Minutes to spend, about.")
    ] = 8.0,
    preset: Annotated[str, typer.Option(help="Size of the model: demo or tiny.")] = "demo",
    clips_per_scene: Annotated[int, typer.Option(min=8, help="Clips of each of 8 scenes.")] = 120,
    evaluation_clips: Annotated[
        int, typer.Option(min=16, help="Clips that the release is measured with.")
    ] = 256,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Render video, found a swarm, train it with several nodes, download the release, generate clips.

    Ctrl-C at any moment leaves no process behind; the same command goes on.
    """
    from kinoswarm_cli.demo_run import DemoConfig, run_demo

    config = DemoConfig(
        nodes=nodes,
        clusters=clusters,
        out=out.resolve(),
        seed=seed,
        budget_minutes=budget,
        preset=preset,
        clips_per_scene=clips_per_scene,
        evaluation_clips=evaluation_clips,
        as_json=as_json,
    )
    run_demo(config)
