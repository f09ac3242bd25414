"""The layout of `kinoswarm why`: one screen. A stranger's text is shown as it is, never as markup."""

from rich.console import Group, RenderableType
from rich.text import Text

from kinoswarm_node.why import Why


def screen(why: Why) -> RenderableType:
    """Headings and indented lines; empty parts are left out."""
    seen = ", ".join(f"{name}: {value}" for name, value in why.sees.items())
    parts = [
        ("Now", why.now),
        ("Why not more", [*why.not_more, *([f"Seen: {seen}."] if seen else [])]),
        ("What became of your work", why.verdicts),
        ("Credit", why.credit),
        ("If the power went now", why.safe),
        ("From the founder", why.founder),
        ("The coordinator's log", why.log),
        ("Next step", [why.next_step]),
    ]
    shown: list[RenderableType] = []
    for heading, lines in parts:
        if lines:
            shown.append(Text(heading, style="bold"))
            shown += [Text(f"  {line}") for line in lines]
    return Group(*shown)
