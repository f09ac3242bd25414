"""The systemd unit of a node, for one user and without root. Owns its text and its file; starts nothing by itself.

The unit is hardened as far as a user's manager allows: no new privileges, a read-only system, its own folder alone
writable, and the whole control group ended with the node, so that no worker or libp2p daemon is left over.
"""

import os
import shutil
import sys
from pathlib import Path

from kinoswarm_network.durable import write_atomic
from kinoswarm_node.service_manager import ask_manager
from kinoswarm_protocol.errors import LocalError

UNIT = "kinoswarm.service"

_TEXT = """\
[Unit]
Description=Kinoswarm node
Documentation=https://pypi.org/project/kinoswarm/
After=network-online.target
Wants=network-online.target

[Service]
Type=exec
ExecStart={command}
Restart=on-failure
RestartSec=30
RestartPreventExitStatus=2 3 5 7
KillMode=control-group
KillSignal=SIGTERM
TimeoutStopSec=40
Nice=5
NoNewPrivileges=yes
ProtectSystem=strict
ReadWritePaths={home}
PrivateTmp=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
RestrictSUIDSGID=yes
LockPersonality=yes
UMask=0077

[Install]
WantedBy=default.target
"""


def text(home: Path, python: str = sys.executable) -> str:
    """The unit of the node in `home`, which goes on with the swarm that it joined last."""
    words = [python, "-m", "kinoswarm_cli.main", "join", "--yes", "--home", str(home)]
    return _TEXT.format(command=" ".join(_quoted(word) for word in words), home=_quoted(str(home)))


def unit_path() -> Path:
    """Where systemd looks for units of this user."""
    config = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(config) / "systemd" / "user" / UNIT


def install(home: Path) -> list[str]:
    """Write the unit and start it now and at every login; returns what was done, in sentences.

    Raises LocalError when systemd refuses; the unit's file stays for a look at it.
    """
    path = unit_path()
    write_atomic(path, text(home).encode(), mode=0o644)
    done = [f"Wrote {path}."]
    ask_manager("systemctl", "--user", "daemon-reload")
    ask_manager("systemctl", "--user", "enable", "--now", UNIT)
    done.append("It runs now and after every login; `kinoswarm service uninstall` removes it.")
    done.append("To run it without anybody logged in: loginctl enable-linger")
    return done


def uninstall() -> list[str]:
    """Stop the node, remove the unit; the home with its key and work stays. Says what was done."""
    path = unit_path()
    if not path.exists():
        raise LocalError(f"no service is installed: {path} does not exist")
    if shutil.which("systemctl") is not None:
        ask_manager("systemctl", "--user", "disable", "--now", UNIT)
    path.unlink()
    return [f"Removed {path}. Your key, settings and results stay where they are."]


def _quoted(word: str) -> str:
    """A word of a unit file: quoted, with systemd's own specifiers and variables disarmed (systemd.service(5))."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    if not word.isprintable():
        raise LocalError(
            f"the path {word!r} has a letter that can not be printed; choose another --home"
        )
    return f'"{escaped}"' if escaped != word or " " in word else word
