"""`kinoswarm presets`: what a founder can choose from. Owns the table; the sums are kinoswarm_model's."""

from typing import Annotated, Any

import typer

app = typer.Typer()
_MEANING = (
    "Memory of training: the least (one clip at a time with activation checkpointing), then the same without\n"
    "checkpointing, which is faster. A graphics driver's own 0.3 to 1 GB comes on top."
)


@app.command()
def presets(
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Models to found a swarm with: parameters, tokens, and the memory that training takes in each mode.

    Memory is what tensors take with bfloat16 arithmetic; a graphics driver's own 0.3 to 1 GB comes on top.
    """
    import json

    from kinoswarm_model.presets import preset_names

    found = [_facts(name) for name in preset_names()]
    if as_json:
        typer.echo(json.dumps(found))
        return
    typer.echo("\n".join([*map(_text, found), "", _MEANING]))


def _facts(name: str) -> dict[str, Any]:
    from kinoswarm_model.presets import stated
    from kinoswarm_model.training_memory import Sizes, parameters, training_bytes

    model = stated(name).model
    frames, height, width = model.pixels
    modes = [
        {
            "mode": mode.label,
            "least_bytes": round(training_bytes(model, mode, "bfloat16", checkpointing=True)),
            "without_checkpointing_bytes": round(training_bytes(model, mode, "bfloat16")),
        }
        for mode in model.modes
    ]
    return {
        "name": name,
        "parameters": parameters(model),
        "codec": model.clip.codec,
        "clip": {"frames": frames, "height": height, "width": width},
        "tokens": Sizes.of(model).patches,
        "modes": modes,
    }


def _text(facts: dict[str, Any]) -> str:
    clip = facts["clip"]
    sees = "latents of a VAE" if facts["codec"] == "vae" else "pixels"
    head = (
        f"{facts['name']:<11}{facts['parameters'] / 1e6:,.1f}M parameters, {clip['frames']} frames of "
        f"{clip['height']}x{clip['width']} as {sees}, {facts['tokens']:,} tokens"
    )
    rows = [
        f"    {mode['mode']:<11}{_size(mode['least_bytes']):>9}{_size(mode['without_checkpointing_bytes']):>11}"
        for mode in facts["modes"]
    ]
    return "\n".join([head, *rows])


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.0f} MB"
