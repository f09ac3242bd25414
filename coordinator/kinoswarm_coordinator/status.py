"""The short answer to "how is the swarm?", for the wire. Owns SwarmStatus; never an address."""

from kinoswarm_coordinator.presence import Presence
from kinoswarm_coordinator.state import NodeState, Rules, SwarmState
from kinoswarm_protocol.messages import TrainOrder
from kinoswarm_protocol.swarm_status import ClusterLine, NodeLine, SwarmStatus

_MAX_LINES = 512


def swarm_status(state: SwarmState, rules: Rules, presence: Presence, now_ms: int) -> SwarmStatus:
    """The newest figures; lists are cut at what the message holds."""
    volunteers = [node for node in state.nodes.values() if node.peer != rules.operator]
    volunteers.sort(key=lambda node: -presence.last_seen_ms.get(node.peer, 0))
    return SwarmStatus(
        swarm_name=rules.charter.name,
        now_ms=now_ms,
        nodes=[_node_line(state, presence, node, now_ms) for node in volunteers[:_MAX_LINES]],
        num_nodes=len(volunteers),
        clusters=cluster_lines(state, rules)[:_MAX_LINES],
        release=state.releases[-1].version if state.releases else None,
        accepted=sum(node.accepted for node in volunteers),
        rejected=sum(node.rejected for node in volunteers),
        sentence=phase_sentence(state, rules),
    )


def cluster_lines(state: SwarmState, rules: Rules) -> list[ClusterLine]:
    """One line per cluster: version, held-out loss now and of the seed, who trains it, its share of the routing."""
    shares = state.router.share_by_cluster if state.router else []
    training = training_by_cluster(state)
    lines = []
    for index, cluster in enumerate(rules.charter.clusters):
        line = state.versions[state.furthest(index)]
        lines.append(
            ClusterLine(
                cluster=index,
                label=cluster.label,
                version=line[-1].version,
                heldout_loss=line[-1].heldout_loss,
                seed_loss=line[0].heldout_loss,
                training=training.get(index, 0),
                share=shares[index] if index < len(shares) else None,
            )
        )
    return lines


def training_by_cluster(state: SwarmState) -> dict[int, int]:
    """Number of open train leases by cluster."""
    counts: dict[int, int] = {}
    for lease_id in state.open_leases:
        order = state.leases[lease_id].order
        if isinstance(order, TrainOrder):
            counts[order.cluster] = counts.get(order.cluster, 0) + 1
    return counts


def phase_sentence(state: SwarmState, rules: Rules) -> str:
    """Where the swarm stands, in a sentence."""
    target = rules.charter.policy.target_version
    lowest = state.lowest_version()
    if target and lowest >= target:
        release = state.releases[-1] if state.releases else None
        if release and release.manifest and min(release.considered) >= target:
            return f"finished: every expert has version {target}, release {release.version} is out"
        return f"every expert has version {target}; the release is being made"
    goal = f"version {lowest} of {target}" if target else f"version {lowest}"
    progress = f"every expert has {goal} or newer"
    training = sum(training_by_cluster(state).values())
    if training:
        segments = "1 segment" if training == 1 else f"{training} segments"
        return f"training: {segments} under way, {progress}"
    if state.undecided or any(state.unmerged.values()):
        return f"checking and merging contributions, {progress}"
    return f"waiting for volunteers, {progress}"


def _node_line(state: SwarmState, presence: Presence, node: NodeState, now_ms: int) -> NodeLine:
    cluster = cluster_in_training(state, node)
    online = presence.is_online(node.peer, now_ms)
    return NodeLine(
        peer=node.peer,
        pseudonym=node.pseudonym,
        device=node.device,
        state=("training" if cluster is not None else "idle") if online else "away",
        cluster=cluster if online else None,
        accepted=node.accepted,
        rejected=node.rejected,
        last_seen_ms=presence.last_seen_ms.get(node.peer, 0),
    )


def cluster_in_training(state: SwarmState, node: NodeState) -> int | None:
    """The cluster of the train lease that a node holds."""
    for lease_id in state.open_by_node.get(node.peer, ()):
        order = state.leases[lease_id].order
        if isinstance(order, TrainOrder):
            return order.cluster
    return None
