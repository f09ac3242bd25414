"""Asking for work: a lease is checked before it is believed, and stored before it is begun. Activities only."""

import re

from msgspec import structs

from kinoswarm_network.coordinator_client import new_request_id
from kinoswarm_node import life_events as ev
from kinoswarm_node.context import NodeContext
from kinoswarm_node.swarm_folder import SelfTest
from kinoswarm_protocol.charter import Charter, ClusterEntry
from kinoswarm_protocol.envelope import open_envelope
from kinoswarm_protocol.errors import BadSignature, MalformedBytes, RemoteError
from kinoswarm_protocol.ids import BlobId, LeaseId
from kinoswarm_protocol.messages import (
    LEASE,
    Lease,
    LeaseGrant,
    NoWork,
    Progress,
    ProgressNoted,
    PullLease,
    TrainOrder,
)
from kinoswarm_protocol.specs import ModeSpec

_MAX_ON_DISK = 256  # PullLease's own bound
_PULL_ID = "pull.id"
_TOO_SMALL = (
    "This machine is too small to do others' segments again; it keeps and serves what they need."
)
_TOO_SMALL_RETRY_S = 3_600.0
_REQUEST_ID = re.compile(rb"[0-9a-f]{32}")


async def pull(node: NodeContext) -> ev.Event:
    """A lease, or why there is none.

    A pull whose reply got lost, or whose lease could not be kept, is repeated under the same id, even after a crash.
    """
    if node.is_helper and node.self_test is None:
        return ev.NoWorkGiven(sentence=_TOO_SMALL, retry_after_s=_TOO_SMALL_RETRY_S)
    body = await _request(node)
    answer = await node.client.ask(body, LeaseGrant, NoWork, request_id=_pull_id(node))
    if isinstance(answer, NoWork):
        _forget_pull(node)
        return ev.NoWorkGiven(sentence=answer.sentence, retry_after_s=answer.retry_after_s)
    try:
        lease = checked_lease(node, answer.lease)
    except RemoteError:
        _forget_pull(node)  # asking again under this id would bring the same
        raise
    node.folder.keep_lease(LeaseId(lease.lease_id), answer.lease)
    _forget_pull(node)
    node.hints[LeaseId(lease.lease_id)] = answer.providers
    node.steps[LeaseId(lease.lease_id)] = answer.steps
    await node.network.remember_peers(answer.providers)
    return ev.LeaseGranted(segment=segment_of(node, lease))


async def ask_go_on(node: NodeContext, segment: ev.Segment) -> ev.Event:
    """Whether a segment found on disk is still wanted."""
    progress = Progress(lease_id=segment.lease_id, step=0, loss=None)
    noted = await node.client.ask(progress, ProgressNoted)
    if not noted.go_on:
        return ev.Withdrawn(sentence=noted.sentence)
    label = label_of(node.charter, segment.cluster)
    return ev.GoOn(segment=structs.replace(segment, label=label))


def checked_lease(node: NodeContext, raw: bytes) -> Lease:
    """A lease of this swarm, signed by a coordinator, for this node, of a kind that it can do."""
    opened = open_envelope(raw, LEASE, node.invite.swarm)
    lease, charter = opened.body, node.the_charter()
    if opened.signer not in node.client.coordinators:
        raise BadSignature(f"the lease is signed by {opened.signer}, which is no coordinator")
    if lease.node != node.key.peer_id:
        raise BadSignature(f"the lease is for {lease.node}, this node is {node.key.peer_id}")
    order = lease.order
    if not isinstance(order, TrainOrder):
        raise MalformedBytes(f"a lease to {type(order).__name__} came; this node only trains")
    if order.cluster >= len(charter.clusters):
        raise MalformedBytes(
            f"the lease names cluster {order.cluster}; the charter has {len(charter.clusters)}"
        )
    if order.mode not in charter.model.modes:
        raise MalformedBytes(f"the lease names mode {order.mode.label}, which the charter lacks")
    return lease


def segment_of(node: NodeContext, lease: Lease) -> ev.Segment:
    """The life cycle's view of a train lease."""
    order = train_order(lease)
    return ev.Segment(
        lease_id=LeaseId(lease.lease_id),
        cluster=order.cluster,
        label=label_of(node.charter, order.cluster),
        base_version=order.base_version,
        steps=order.steps,
        batch_size=order.batch_size,
        deadline_ms=lease.deadline_ms,
    )


def label_of(charter: Charter | None, cluster: int) -> str:
    """The cluster's name for people; its number while the charter is not known."""
    if charter is None or cluster >= len(charter.clusters):
        return f"cluster {cluster}"
    return charter.clusters[cluster].label


def train_order(lease: Lease) -> TrainOrder:
    """The lease's order, which checked_lease made sure of."""
    if not isinstance(lease.order, TrainOrder):
        raise MalformedBytes(f"expected a train order, got {type(lease.order).__name__}")
    return lease.order


async def _request(node: NodeContext) -> PullLease:
    charter, test = node.the_charter(), node.self_test
    return PullLease(
        modes=_proposed_modes(charter, test),
        clusters_on_disk=await _clusters_on_disk(node),
        seconds_per_step=test.seconds_per_step if test else 0.0,
        helper=node.is_helper,
    )


def _proposed_modes(charter: Charter, test: SelfTest | None) -> list[ModeSpec]:
    """What the self-test found to fit, best first; all of the charter's where that is not known."""
    fitting = [mode for mode in (test.modes if test else []) if mode in charter.model.modes]
    return fitting or list(charter.model.modes)


async def _clusters_on_disk(node: NodeContext) -> list[int]:
    found: list[int] = []
    for index, cluster in enumerate(node.the_charter().clusters):
        if len(found) < _MAX_ON_DISK and await _is_here(node, cluster):
            found.append(index)
    return found


async def _is_here(node: NodeContext, cluster: ClusterEntry) -> bool:
    """Whether all shards are; the first that is not settles it."""
    for shard in cluster.shards:
        if await node.network.blob_path(BlobId(shard.blob)) is None:
            return False
    return True


def _forget_pull(node: NodeContext) -> None:
    (node.folder.root / _PULL_ID).unlink(missing_ok=True)


def _pull_id(node: NodeContext) -> str:
    """The id of the pull in flight: found on disk, or drawn and stored before it is sent."""
    stored = node.folder.text(_PULL_ID)
    if stored is not None and _REQUEST_ID.fullmatch(stored):
        return stored.decode("ascii")
    request_id = new_request_id()
    node.folder.keep_text(_PULL_ID, request_id.encode())
    return request_id
