"""`kinoswarm provenance`: checks where a clip comes from. Owns the command and its words."""

import json
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command()
def provenance(
    clip: Annotated[Path, typer.Argument(help="The clip, as it was saved from a swarm's page.")],
    note: Annotated[Path, typer.Argument(help="Its signed note, saved beside it.")],
    invite: Annotated[
        str, typer.Option(help="The swarm's invite, from somewhere you trust: text, file or URL.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print the note as JSON.")] = False,
) -> None:
    """Check that a coordinator of the swarm made this very clip, and say from which release, prompt and seed."""
    import msgspec

    from kinoswarm_cli.copy_words import age_in_words
    from kinoswarm_node.clip_note import read_clip_note
    from kinoswarm_node.invites import get_invite

    opened = read_clip_note(clip, note, get_invite(invite).body)
    body = opened.body
    if as_json:
        typer.echo(json.dumps({"signer": opened.signer, **msgspec.to_builtins(_as_map(body))}))
        return
    typer.echo(
        f"This clip was made by coordinator {opened.signer}, {age_in_words(body.made_at_ms)}."
    )
    typer.echo(f"Release {body.release}, seed {body.seed}, guidance {body.guidance:g}, prompt:")
    typer.echo(f"  {body.prompt}")
    typer.echo(
        "Expert of every denoising step: " + " ".join(str(expert) for expert in body.expert_by_step)
    )


def _as_map(body: object) -> dict[str, object]:
    fields: tuple[str, ...] = body.__struct_fields__  # type: ignore[attr-defined]
    return {name: getattr(body, name) for name in fields}
