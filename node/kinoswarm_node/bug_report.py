"""Packs what a bug report needs into one zip file, secrets and addresses removed. Owns what goes in; sends nothing."""

import getpass
import importlib.metadata
import io
import platform
import socket
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

from kinoswarm_network.durable import write_atomic
from kinoswarm_node.home import Home
from kinoswarm_node.redaction import redacted
from kinoswarm_node.settings import NodeSettings

TAIL_BYTES = 1024 * 1024
"""Of each log: its end is what matters, and a report should fit into a mail."""

_PACKAGES = ("kinoswarm", "torch", "hivemind", "diffusers", "nvidia-ml-py", "psutil")
_LOGS = ("node.log", "node.log.1", "network.log", "worker.log")
_STATES = ("status.json", "format.json")


def pack_report(settings: NodeSettings, out: Path) -> list[str]:
    """Write the report to `out`; returns the names of its files. Raises LocalError when `out` can't be written."""
    home, private = Home(settings.home), _private_texts(settings)
    packed = io.BytesIO()
    names = []
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in _files(home, settings):
            archive.writestr(name, redacted(text, private))
            names.append(name)
    write_atomic(out, packed.getvalue())
    return names


def _files(home: Home, settings: NodeSettings) -> Iterator[tuple[str, str]]:
    yield "about.json", _pretty(_about())
    yield "settings.json", _pretty(settings.model_dump(mode="json"))
    for name in (*_STATES, *_LOGS):
        if (home.root / name).is_file():
            yield name, _tail(home.root / name)
    for history in sorted(home.root.glob("swarms/*/history.jsonl")):
        yield f"{history.parent.name}-history.jsonl", _tail(history)


def _about() -> dict[str, object]:
    return {
        "python": sys.version,
        "system": platform.system(),
        "machine": platform.machine(),
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _private_texts(settings: NodeSettings) -> dict[str, str]:
    """Texts that name this machine and its people."""
    texts = {str(settings.home): "<home>", str(Path.home()): "<user's folder>"}
    texts |= {_user(): "<user>", socket.gethostname(): "<host>"}
    return {text: word for text, word in texts.items() if text and text != "/"}


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return ""


def _tail(path: Path) -> str:
    with path.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(max(0, size - TAIL_BYTES))
        return file.read().decode("utf-8", "replace")


def _pretty(value: object) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
