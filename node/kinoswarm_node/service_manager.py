"""Which manager runs a node after every login on this system, and how one is asked. Owns no unit."""

import shutil
import subprocess

from kinoswarm_protocol.errors import LocalError


def ask_manager(program: str, *arguments: str) -> None:
    """Have systemd or launchd do something. Raises LocalError with what it said."""
    if shutil.which(program) is None:
        raise LocalError(f"there is no {program} here to start a service with")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise LocalError(
            f"{program} {' '.join(arguments)} failed: {said[-1] if said else 'no message'}"
        )
