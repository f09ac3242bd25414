"""Reads what a node left in its home, for commands that run beside it or after it. Changes nothing."""

import time

from kinoswarm_node.home import Home, running_pid
from kinoswarm_node.node_status import NodeStatus, read_status
from kinoswarm_node.settings import NodeSettings
from kinoswarm_node.swarm_folder import HistoryLine, read_history
from kinoswarm_node.why import Why, explain
from kinoswarm_protocol.ids import SwarmId


def history_of(home: Home, status: NodeStatus) -> list[HistoryLine]:
    """Every segment that came to an end in the swarm of `status`."""
    return list(read_history(home.swarm_root(SwarmId(status.swarm))))


def explain_home(settings: NodeSettings) -> Why:
    """`why.explain` on the files of a home. Raises LocalError when no node has run there."""
    home = Home(settings.home)
    status = read_status(home.status_path)
    running = running_pid(home) is not None
    now_ms = int(time.time() * 1000)
    return explain(status, running, history_of(home, status), settings, now_ms)
