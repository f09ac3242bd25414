"""The answer to who asks how a swarm does. Owns its lines; a part of the replies of messages.py."""

from typing import Annotated

from msgspec import Meta, Struct

from kinoswarm_protocol.field_types import ClusterIndex, Loss, Sentence, Version
from kinoswarm_protocol.ids import PeerIdField
from kinoswarm_protocol.specs import Count, Name, Rate


class _Wire(Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    pass


class NodeLine(_Wire, frozen=True, kw_only=True):
    peer: PeerIdField
    pseudonym: Name
    device: Name
    state: Name
    cluster: ClusterIndex | None
    accepted: Count
    rejected: Count
    last_seen_ms: Count


class ClusterLine(_Wire, frozen=True, kw_only=True):
    cluster: ClusterIndex
    label: Name
    version: Version
    heldout_loss: Loss | None
    seed_loss: Loss | None
    training: Count
    share: Rate | None


class SwarmStatus(_Wire, frozen=True, kw_only=True, tag="status"):
    swarm_name: Name
    now_ms: Count
    nodes: Annotated[list[NodeLine], Meta(max_length=512)]
    num_nodes: Count
    clusters: Annotated[list[ClusterLine], Meta(max_length=512)]
    release: Version | None
    accepted: Count
    rejected: Count
    sentence: Sentence
