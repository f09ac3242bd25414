"""The node as a service of its user, whatever the system calls that. Owns the choice."""

import sys
from pathlib import Path
from typing import Protocol

from kinoswarm_node import launch_agent, service_unit
from kinoswarm_protocol.errors import LocalError


class Service(Protocol):
    """What service_unit.py (systemd) and launch_agent.py (launchd) offer."""

    def text(self, home: Path) -> str:
        """The file that is installed. Raises LocalError for a home that can't be named in it."""

    def install(self, home: Path) -> list[str]:
        """Start it now and at every login; says what was done. Raises LocalError."""

    def uninstall(self) -> list[str]:
        """The way back; says what was done. Raises LocalError when there is none."""


def of_this_system(platform: str = sys.platform) -> Service:
    """Raises LocalError where there is none, with what to do instead."""
    if platform == "darwin":
        return launch_agent
    if platform.startswith("linux"):
        return service_unit
    raise LocalError(
        "there is no service for this system yet; let its own scheduler run `kinoswarm join --yes` when you log in "
        "(on Windows: Task Scheduler, trigger 'At log on')"
    )
