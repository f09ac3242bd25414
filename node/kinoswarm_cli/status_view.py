"""Tables for `kinoswarm status`. Owns layout and words; a stranger's text is shown as it is, never as markup."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from kinoswarm_node.node_status import NodeStatus
from kinoswarm_protocol.swarm_status import ClusterLine, NodeLine, SwarmStatus

MAX_NODES_SHOWN = 30


def swarm_table(status: SwarmStatus) -> RenderableType:
    """Who is in, what each cluster has, what was released."""
    release = f"release {status.release}" if status.release is not None else "no release yet"
    head = Text.assemble(
        (status.swarm_name, "bold"),
        f"   {status.num_nodes} node(s), {status.accepted} accepted, {status.rejected} not, {release}",
    )
    parts: list[RenderableType] = [head, Text(status.sentence), _clusters(status.clusters)]
    if status.nodes:
        parts.append(_nodes(status.nodes, status.now_ms))
    if status.num_nodes > min(len(status.nodes), MAX_NODES_SHOWN):
        parts.append(Text(f"… of {status.num_nodes} nodes"))
    return Group(*parts)


def _clusters(clusters: list[ClusterLine]) -> Table:
    table = Table("cluster", "expert", "held-out loss", "of the seed", "training now", "share")
    for line in clusters:
        table.add_row(
            Text(f"{line.cluster} {line.label}"),
            f"version {line.version}",
            _loss(line.heldout_loss),
            _loss(line.seed_loss),
            str(line.training),
            "–" if line.share is None else f"{line.share:.0%}",
        )
    return table


def _nodes(nodes: list[NodeLine], now_ms: int) -> Table:
    table = Table("node", "machine", "does", "accepted", "not", "seen")
    for line in nodes[:MAX_NODES_SHOWN]:
        cluster = "" if line.cluster is None else f" (cluster {line.cluster})"
        table.add_row(
            Text(f"{line.pseudonym} …{line.peer[-6:]}"),
            Text(line.device),
            Text(line.state + cluster),
            str(line.accepted),
            str(line.rejected),
            _ago(now_ms - line.last_seen_ms),
        )
    return table


def node_table(status: NodeStatus, running: bool) -> RenderableType:
    """What the node of this home does, and why."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")  # an address is there to be copied: never with an ellipsis
    state = status.state if running else f"not running (last: {status.state})"
    rows = [
        ("node", f"{status.pseudonym} {status.peer_id}"),
        ("swarm", status.swarm_name),
        ("listens at", "\n".join(status.addresses) if running else ""),
        ("reachable", status.reach if running else ""),
        ("state", state),
        ("because", status.reason),
        ("governor", status.governor.reason if status.governor else ""),
        ("segment", _segment(status)),
        ("accepted", f"{status.accepted}, not accepted {status.rejected}"),
        ("kept", f"{status.unsent} unsent, {status.awaiting_verdict} awaiting a verdict"),
        ("last verdict", status.last_verdict or "none yet"),
    ]
    rows += [("update", status.update)] if status.update else []
    rows += [("founder", notice) for notice in status.notices[:1]]
    for name, value in rows:
        table.add_row(Text(name, style="dim"), Text(value))
    return table


def _segment(status: NodeStatus) -> str:
    segment = status.segment
    if segment is None:
        return "none"
    speed = f", {segment.steps_per_s:.2f} steps/s" if segment.steps_per_s else ""
    loss = f", loss {segment.loss:.4f}" if segment.loss is not None else ""
    return f"{segment.label}: step {segment.step} of {segment.total}{speed}{loss}"


def _loss(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _ago(ms: int) -> str:
    seconds = max(0, ms // 1000)
    return f"{seconds} s ago" if seconds < 120 else f"{seconds // 60} min ago"
