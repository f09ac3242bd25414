"""`kinoswarm generate`: clips from a prompt with a downloaded release. Owns the flags and the names of the files."""

import json
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()

_SCALE = 8


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="What to show, in a sentence.")],
    model: Annotated[Path, typer.Option(help="Folder made by `kinoswarm download`.")],
    out: Annotated[Path, typer.Option(help="The mp4 to write.")] = Path("clip.mp4"),
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same clip.")] = 0,
    steps: Annotated[
        int | None,
        typer.Option(min=1, max=1_000, help="Denoising steps; the model's own if left out."),
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option(min=0.0, max=100.0, help="How strictly to follow the prompt; 1 is off."),
    ] = None,
    top_k: Annotated[int | None, typer.Option(min=1, help="Experts mixed at every step.")] = None,
    num: Annotated[
        int, typer.Option(min=1, max=1_024, help="Clips to make, with seeds in a row.")
    ] = 1,
    scale: Annotated[
        int, typer.Option(min=1, max=64, help="Enlarge pixels this many times.")
    ] = _SCALE,
    device: Annotated[str, typer.Option(help="cpu, cuda, …")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print the files as JSON.")] = False,
) -> None:
    """Make a clip from a prompt. The same seed gives the same bytes."""
    from kinoswarm_cli.progress_bars import reporting
    from kinoswarm_model.generate import GenerateConfig, check_request
    from kinoswarm_model.generate import generate as make_clips
    from kinoswarm_model.release_layout import read_info
    from kinoswarm_model.video_io import write_mp4

    config = GenerateConfig(
        seed=seed,
        steps=steps,
        guidance=guidance,
        top_k=top_k,
        clips_per_prompt=num,
        device=device,
    )
    check_request([prompt], config)
    fps = read_info(model).model.clip.fps
    with reporting(quiet=as_json) as report:
        clips = make_clips(
            model, [prompt], config, lambda done, total: report(done, total, "denoising")
        )
    paths = [out] if num == 1 else [out.with_stem(f"{out.stem}-{i}") for i in range(num)]
    out.parent.mkdir(parents=True, exist_ok=True)
    for path, clip in zip(paths, clips, strict=True):
        write_mp4(path, clip, fps, scale=scale)
    names = [str(path) for path in paths]
    typer.echo(json.dumps({"clips": names, "seed": seed}) if as_json else "\n".join(names))
