"""`kinoswarm generate`: a prompt into a clip. Owns the command only."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command()
def generate(
    prompts: Annotated[
        list[str], typer.Argument(metavar="PROMPT…", help="What to show, in a sentence each.")
    ],
    model: Annotated[Path, typer.Option(help="Folder made by `kinoswarm download`.")],
    out: Annotated[
        Path, typer.Option(help="The .mp4, or .png of one frame, to write; several get numbers.")
    ] = Path("clip.mp4"),
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same clip.")] = 0,
    steps: Annotated[
        int | None, typer.Option(min=1, max=1000, help="Denoising steps; left out: the recipe's.")
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option(min=0.0, max=100.0, help="How closely to follow the prompt; 1 is off."),
    ] = None,
    top_k: Annotated[
        int | None, typer.Option(min=1, help="Experts mixed at every step; left out: the recipe's.")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Mix all experts of this probability instead, 0 to 1.")
    ] = None,
    num: Annotated[
        int, typer.Option(min=1, max=1024, help="Clips to make, each of its own seed.")
    ] = 1,
    scale: Annotated[
        int, typer.Option(min=1, max=32, help="Enlarge every pixel this many times.")
    ] = 1,
    frames: Annotated[
        int | None, typer.Option(min=1, max=4096, help="Frames; left out: as many as in training.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:0, xpu or mps.")] = "cpu",
    dtype: Annotated[
        str, typer.Option(help="Of the weights: float32, bfloat16 or float16.")
    ] = "float32",
    experts_in_memory: Annotated[
        int, typer.Option(min=0, help="Experts held at once; 0 keeps all that were used.")
    ] = 0,
    allow_missing_experts: Annotated[
        bool, typer.Option(help="Route around experts whose weights are not in the folder.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Make a clip from a prompt with a downloaded release. Same release, prompt, seed and flags: the same bytes."""
    from kinoswarm_cli.run_generate import GenerateRequest, run_generate

    run_generate(
        GenerateRequest(
            prompts=prompts,
            model=model,
            out=out,
            seed=seed,
            steps=steps,
            guidance=guidance,
            top_k=top_k,
            threshold=threshold,
            num=num,
            scale=scale,
            frames=frames,
            device=device,
            dtype=dtype,
            experts_in_memory=experts_in_memory,
            allow_missing_experts=allow_missing_experts,
            as_json=as_json,
        )
    )
