"""The launchd agent of a node on macOS, for one user and without root. Owns its text and its file.

launchd can't tell one exit code from another: a node that the swarm refuses is started again too, only not soon. It
ends the whole process group with the node. macOS has no sandbox for an agent like systemd's.
"""

import contextlib
import os
import plistlib
import sys
from pathlib import Path

from kinoswarm_network.durable import write_atomic
from kinoswarm_node.service_manager import ask_manager
from kinoswarm_protocol.errors import LocalError

LABEL = "org.kinoswarm.node"
_AGAIN_S = 300
_STOP_S = 40


def text(home: Path, python: str = sys.executable) -> str:
    """The property list of the node in `home`, which goes on with the swarm that it joined last."""
    if not str(home).isprintable():
        raise LocalError(
            f"the path {str(home)!r} has a letter that can not be printed; choose another --home"
        )
    log = str(home / "service.log")
    agent = {
        "Label": LABEL,
        "ProgramArguments": [
            *(python, "-m", "kinoswarm_cli.main", "join", "--yes", "--home", str(home))
        ],
        "WorkingDirectory": str(home),
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": _AGAIN_S,
        "ExitTimeOut": _STOP_S,
        "Nice": 5,
        "LowPriorityIO": True,
        "Umask": 0o077,
        "StandardOutPath": log,
        "StandardErrorPath": log,
    }
    return plistlib.dumps(agent).decode()


def path() -> Path:
    """Where launchd looks for agents of this user."""
    return Path.home() / "Library" / "LaunchAgents" / f"{LABEL}.plist"


def install(home: Path) -> list[str]:
    """Write the agent and start it now and at every login; returns what was done, in sentences.

    Raises LocalError when launchd refuses; the file stays for a look at it.
    """
    write_atomic(path(), text(home).encode(), mode=0o644)
    with contextlib.suppress(LocalError):  # none was there
        ask_manager("launchctl", "bootout", f"{_domain()}/{LABEL}")
    ask_manager("launchctl", "bootstrap", _domain(), str(path()))
    return [
        f"Wrote {path()}.",
        "It runs now and after every login; `kinoswarm service uninstall` removes it.",
    ]


def uninstall() -> list[str]:
    """Stop the node, remove the agent; the home with its key and work stays. Says what was done."""
    if not path().exists():
        raise LocalError(f"no service is installed: {path()} does not exist")
    with contextlib.suppress(LocalError):  # it was ended by hand
        ask_manager("launchctl", "bootout", f"{_domain()}/{LABEL}")
    path().unlink()
    return [f"Removed {path()}. Your key, settings and results stay where they are."]


def _domain() -> str:
    return f"gui/{os.getuid()}"
