"""Writes docs/protocol-messages.md from the wire types themselves: every message, its fields in order, their bounds.

python -m protocol.describe      (run it in tests/)
"""

from pathlib import Path
from typing import Any

import msgspec
from msgspec import inspect

from kinoswarm_network.stream_frames import AskChunk, AskHave, AskManifest, Goodbye, No, Sending
from kinoswarm_protocol import (
    accounts,
    admin,
    charter,
    charter_chain,
    envelope,
    invite,
    log_head,
    manifest,
    messages,
    provenance,
    records,
    snapshot,
)

FILE = Path(__file__).parents[2] / "docs" / "protocol-messages.md"
HEAD = """# Messages, field by field

Made from the wire types by `tests/protocol/describe.py`; a test keeps it current. How these travel is in
[protocol.md](protocol.md). Every message is a MessagePack array with its fields in this order; where a tag is named, it
comes first. A trailing field with a default may be left out. Unknown fields are refused.
"""
SECTIONS: dict[str, list[type]] = {
    "Envelope": [envelope.Envelope],
    "Documents": [
        charter.Charter,
        charter.Amendment,
        charter_chain.CharterChain,
        invite.Invite,
        messages.Lease,
        messages.Contribution,
        messages.Verdict,
        messages.ReleaseManifest,
        snapshot.SiteSnapshot,
        log_head.LogHead,
        log_head.Mark,
        provenance.Provenance,
        admin.AdminRequest,
        admin.AdminAnswer,
        accounts.Delegation,
        accounts.Revocation,
    ],
    "Requests and replies": [messages.Request, messages.Reply],
    "DHT records": [
        records.CharterRecord,
        records.CoordinatorRecord,
        records.NodeRecord,
        records.WitnessRecord,
        records.ProviderRecord,
        records.ExpertRecord,
        records.ReleaseRecord,
    ],
    "Blobs": [manifest.BlobManifest, AskManifest, AskChunk, AskHave, Goodbye, Sending, No],
}


def document() -> str:
    """The whole page."""
    seen: set[type] = set()
    parts = [HEAD]
    for title, roots in SECTIONS.items():
        parts.append(f"## {title}\n")
        for root in roots:
            parts += [_message(found) for found in _reachable(root, seen)]
    return "\n".join(parts)


def _reachable(root: type, seen: set[type]) -> list[inspect.StructType]:
    """`root` and the messages inside it that were not described yet, outermost first."""
    waiting, found = [inspect.type_info(root)], []
    while waiting:
        info = waiting.pop(0)
        if isinstance(info, inspect.StructType):
            if info.cls in seen:
                continue
            seen.add(info.cls)
            found.append(info)
            waiting += [field.type for field in info.fields]
        else:
            waiting += _inside(info)
    return found


def _inside(info: inspect.Type) -> list[inspect.Type]:
    if isinstance(info, inspect.UnionType):
        return list(info.types)
    if isinstance(info, inspect.ListType):
        return [info.item_type]
    if isinstance(info, inspect.DictType):
        return [info.value_type]
    if isinstance(info, inspect.Metadata):
        return [info.type]
    return []


def _message(info: inspect.StructType) -> str:
    tag = f", tag `{info.tag}`" if info.tag is not None else ""
    summary = (info.cls.__doc__ or "").strip().split("\n")[0].strip('" ')
    lines = [f"### {info.cls.__name__}{tag}\n"]
    if summary and not summary.startswith(info.cls.__name__ + "("):
        lines.append(summary + "\n")
    lines += ["| field | type |", "|---|---|"]
    for field in info.fields:
        default = "" if field.default is msgspec.NODEFAULT else f", default `{field.default!r}`"
        lines.append(f"| `{field.name}` | {_type(field.type)}{default} |")
    return "\n".join(lines) + "\n"


def _type(info: inspect.Type) -> str:
    match info:
        case inspect.Metadata():
            return _type(info.type)
        case inspect.StructType():
            return f"[{info.cls.__name__}](#{_anchor(info)})"
        case inspect.UnionType():
            return " or ".join(_type(part) for part in info.types)
        case inspect.ListType():
            return f"list of {_type(info.item_type)}{_bounds(info, 'min_length', 'max_length')}"
        case inspect.DictType():
            return f"map of text to {_type(info.value_type)}{_bounds(info, 'min_length', 'max_length')}"
        case inspect.IntType():
            return "integer" + _bounds(info, "ge", "gt", "le", "lt")
        case inspect.FloatType():
            return "float" + _bounds(info, "ge", "gt", "le", "lt")
        case inspect.StrType():
            pattern = f", matches `{info.pattern}`".replace("|", "\\|") if info.pattern else ""
            return "text" + _bounds(info, "min_length", "max_length") + pattern
        case inspect.BytesType():
            return "bytes" + _bounds(info, "min_length", "max_length")
        case inspect.LiteralType():
            return "one of " + ", ".join(f"`{value}`" for value in info.values)
        case _:
            return type(info).__name__.removesuffix("Type").lower()


def _anchor(info: inspect.StructType) -> str:
    name = info.cls.__name__.lower()
    return f"{name}-tag-{info.tag}" if info.tag is not None else name


_SIGNS = {
    "ge": "≥",
    "gt": ">",
    "le": "≤",
    "lt": "<",
    "min_length": "length ≥",
    "max_length": "length ≤",
}


def _bounds(info: Any, *names: str) -> str:
    told = [
        f"{_SIGNS[name]} {getattr(info, name)}"
        for name in names
        if getattr(info, name) not in (None, 0) or (name == "ge" and getattr(info, name) == 0)
    ]
    return f" ({', '.join(told)})" if told else ""


if __name__ == "__main__":
    FILE.write_text(document())
