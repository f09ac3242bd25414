"""Reads the demo coordinator's public status over HTTP. Owns the address and the patience."""

import tomllib
from pathlib import Path
from typing import Any

import httpx

_TIMEOUT_S = 5.0


def page_address(swarm: Path) -> str:
    """The page's address, from the coordinator's settings."""
    settings = tomllib.loads((swarm / "coordinator" / "settings.toml").read_text())
    return f"http://{settings['http_host']}:{settings['http_port']}/"


def read_status(page: str) -> dict[str, Any] | None:
    """`/api/v1/status`, or None while nobody answers."""
    try:
        answer = httpx.get(f"{page}api/v1/status", timeout=_TIMEOUT_S, trust_env=False)
        answer.raise_for_status()
    except httpx.HTTPError:
        return None
    status: dict[str, Any] = answer.json()
    return status
