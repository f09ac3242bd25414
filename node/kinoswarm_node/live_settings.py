"""Settings that change while the node runs, as on the local page. Owns what is in force; limits_file.py keeps it.

A change counts at once, and at later starts until a flag or a variable of the environment says otherwise.
"""

from collections.abc import Mapping
from typing import Any

from kinoswarm_node.governor.rules import Rules
from kinoswarm_node.limits_file import LIVE, add_limits
from kinoswarm_node.settings import NodeSettings, explain_settings
from kinoswarm_protocol.errors import LocalError


class LiveSettings:
    """The settings in force now."""

    def __init__(self, settings: NodeSettings) -> None:
        self.now = settings

    def rules(self) -> Rules:
        """The governor's rules now."""
        return self.now.rules()

    def change(self, changes: Mapping[str, Any]) -> NodeSettings:
        """Check, keep and put in force. Raises LocalError naming the setting, and changes nothing then."""
        foreign = sorted(set(changes) - set(LIVE))
        if foreign:
            raise LocalError(
                f"setting {foreign[0][:64]!r} can't be changed while the node runs; these can: {', '.join(LIVE)}"
            )
        changed = explain_settings(lambda: self.now.with_changes(changes))
        add_limits(changed.home, changes)
        self.now = changed
        return changed
