"""`kinoswarm data …`: render captioned clips, prepare a data set. Owns the flags, not the work."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from kinoswarm_model.data.data_manifest import DataManifest
    from kinoswarm_model.data.engine import Engine

app = typer.Typer(help="Make and prepare captioned video data.", no_args_is_help=True)


class EngineName(StrEnum):
    """Where `prepare` computes."""

    LOCAL = "local"
    RAY = "ray"


@app.command()
def render(
    out: Annotated[Path, typer.Argument(help="Folder for the mp4 files and captions.")],
    clips_per_scene: Annotated[int, typer.Option(min=2, help="Clips of each scene.")] = 120,
    size: Annotated[int, typer.Option(min=16, max=120, help="Height and width in pixels.")] = 32,
    frames: Annotated[int, typer.Option(min=1, max=128, help="Frames a clip.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same clips.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Render captioned clips of calm scenes from ViZDoom's Freedoom maps."""
    from kinoswarm_cli.progress_bars import reporting
    from kinoswarm_model.data.render import RenderConfig, render_clips

    config = RenderConfig(
        clips_per_scene=clips_per_scene, height=size, width=size, frames=frames, seed=seed
    )
    with reporting(quiet=as_json) as report:
        summary = render_clips(out, config, report)
    _tell(
        as_json,
        {"clips": summary.num_clips, "scenes": summary.num_scenes, "folder": str(out)},
        f"{summary.num_clips} clips of {summary.num_scenes} scenes in {out}\n"
        f"Next: kinoswarm data prepare {out} DATA",
    )


@app.command()
def prepare(
    source: Annotated[
        Path,
        typer.Argument(
            help="Folder of videos or pictures, with a .txt caption beside each or one table (.csv, .jsonl, .parquet); "
            "or of WebDataset .tar files."
        ),
    ],
    out: Annotated[Path, typer.Argument(help="Folder for shards, held-out parts and manifest.")],
    clusters: Annotated[int, typer.Option(min=1, max=4096, help="Clusters, one expert each.")] = 4,
    size: Annotated[int, typer.Option(min=16, max=512, help="Height and width in pixels.")] = 32,
    frames: Annotated[int, typer.Option(min=1, max=128, help="Frames a clip.")] = 8,
    fps: Annotated[int, typer.Option(min=1, max=120, help="Frames a second.")] = 8,
    captions: Annotated[
        Path | None, typer.Option(help="Table of files and captions, when it lies elsewhere.")
    ] = None,
    features: Annotated[
        Path | None, typer.Option(help="Folder of DINOv2 weights to sort the clips by.")
    ] = None,
    vae: Annotated[
        str | None, typer.Option(help="Folder or hub name of a video VAE, for latents.")
    ] = None,
    clips_per_video: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Clips cut from one video at most.")
    ] = 64,
    heldout: Annotated[float, typer.Option(min=0.01, max=0.5, help="Share kept private.")] = 0.1,
    seed: Annotated[int, typer.Option(min=0, help="Same input and seed, same bytes.")] = 0,
    engine: Annotated[
        EngineName,
        typer.Option(
            help="local: one video after the other. ray: on all cores, or on a Ray cluster, with the same result "
            "(pip install 'kinoswarm[ray]')."
        ),
    ] = EngineName.LOCAL,
    ray_address: Annotated[
        str | None,
        typer.Option(
            help="HOST:PORT of the Ray cluster to join, or auto; else RAY_ADDRESS counts. All its "
            "machines must see the videos, DATA and the folders named here under the same paths, on "
            "shared storage, and have the same packages.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Decode, embed, cluster and shard captioned videos; keep a held-out part of every cluster.

    Broken, static, short and duplicate clips are left out and counted. Killed, the same command goes on.
    """
    from kinoswarm_cli.progress_bars import reporting
    from kinoswarm_model.data.prepare import PrepareConfig
    from kinoswarm_model.data.prepare import prepare as prepare_data
    from kinoswarm_model.vae import named_vae

    config = PrepareConfig(
        num_clusters=clusters,
        height=size,
        width=size,
        frames=frames,
        fps=fps,
        heldout_fraction=heldout,
        captions_table=captions,
        features_dir=features,
        vae_dir=named_vae(vae) if vae else None,
        clips_per_video=clips_per_video,
        seed=seed,
    )
    with _engine(engine, ray_address) as found, reporting(quiet=as_json) as report:
        manifest = prepare_data(source, out, config, report, found)
    _tell_prepared(as_json, manifest, out)


def _tell_prepared(as_json: bool, manifest: "DataManifest", out: Path) -> None:
    clusters_found = [
        {"label": cluster.label, "clips": cluster.num_clips, "heldout": cluster.heldout.num_clips}
        for cluster in manifest.clusters
    ]
    lines = [f"{len(clusters_found)} clusters in {out}"]
    lines += [
        f"  {c['label']}: {c['clips']} clips, {c['heldout']} held out" for c in clusters_found
    ]
    lines += [f"  left out, {reason}: {count}" for reason, count in manifest.left_out.items()]
    lines.append(f"Next: kinoswarm swarm create {out} --name NAME --out SWARM")
    facts: dict[str, object] = {
        "clusters": clusters_found,
        "left_out": manifest.left_out,
        "folder": str(out),
    }
    _tell(as_json, facts, "\n".join(lines))


@contextmanager
def _engine(name: EngineName, ray_address: str | None) -> "Iterator[Engine]":
    if name is EngineName.LOCAL and ray_address:
        raise typer.BadParameter("--ray-address needs --engine ray")
    if name is EngineName.RAY:
        from kinoswarm_model.data.ray_session import ray_engine

        with ray_engine(ray_address or os.environ.get("RAY_ADDRESS") or None) as engine:
            yield engine
    else:
        from kinoswarm_model.data.engine import LocalEngine

        yield LocalEngine()


@app.command()
def inspect(
    data: Annotated[Path, typer.Argument(help="Folder made by `kinoswarm data prepare`.")],
    sheet: Annotated[
        Path | None, typer.Option(help="PNG to write: clips of every cluster.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Show the clusters of prepared data: sizes, words of their captions, pictures."""
    import msgspec

    from kinoswarm_model.data.inspecting import inspect_data, write_cluster_sheet

    view = inspect_data(data)
    if sheet is not None:
        write_cluster_sheet(sheet, data)
    if as_json:
        typer.echo(msgspec.json.encode(view))
        return
    clip = view.clip
    typer.echo(
        f"{view.clips} clips of {view.sources} files: "
        f"{clip.frames} frames of {clip.height}x{clip.width} at {clip.fps}/s; "
        f"{view.size_bytes / 1e6:.0f} MB; the largest cluster has {view.largest_by_mean:.2f} times the mean"
    )
    for number, cluster in enumerate(view.clusters):
        words = ", ".join(f"{entry.word} {entry.share:.0%}" for entry in cluster.words)
        typer.echo(
            f"  {number}. {cluster.label}: {cluster.clips} clips in {cluster.shards} shards, "
            f"{cluster.heldout} held out, {cluster.captions} captions ({words})"
        )
    for reason, count in view.left_out.items():
        typer.echo(f"  left out, {reason}: {count}")
    if sheet is not None:
        typer.echo(f"Pictures: {sheet}")


def _tell(as_json: bool, facts: dict[str, object], text: str) -> None:
    typer.echo(json.dumps(facts) if as_json else text)
