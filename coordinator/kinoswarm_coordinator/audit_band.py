"""How far apart two honest runs of one work order may lie. Owns the band; pure.

The charter states the widest distance. What was confirmed lately, by mode and by the kinds of device compared, narrows
it: machines of one kind differ by rounding, and a run with half of the steps lies far outside of that. It is never
narrower than what the arithmetic of honest machines differs by, whatever the charter says.
"""

import math
from collections.abc import Mapping, Sequence

from kinoswarm_coordinator.state import Rules, SwarmState
from kinoswarm_protocol.ids import LeaseId
from kinoswarm_protocol.messages import TrainOrder
from kinoswarm_protocol.specs import DeltaCodec

LEAST = 16
"""Confirmed comparisons of a kind before they count."""
KEPT = 64
_FACTOR = 4.0
"""How far beyond the usual distance an honest machine may lie."""
HONEST_DISTANCE: Mapping[DeltaCodec, float] = {"int8.1": 0.1, "int4.1": 0.15, "sparse.1": 0.5}
"""Runs in float32 and in bfloat16 were seen 0.03, 0.08 and 0.35 apart (docs/lab-notes.md); coarse codes widen it."""

BandKey = tuple[str, str, str]
"""Mode and the two device classes, sorted."""


def band_key(state: SwarmState, first: LeaseId, second: LeaseId) -> BandKey:
    """Which history a comparison belongs to."""
    order = state.leases[first].order
    assert isinstance(order, TrainOrder)
    one, other = sorted((_device_class(state, first), _device_class(state, second)))
    return order.mode.label, one, other


def allowed_distance(state: SwarmState, rules: Rules, first: LeaseId, second: LeaseId) -> float:
    """The limit for two runs: the charter's, less where comparisons of that kind say so, or what honest runs need."""
    policy = rules.charter.policy
    recent = state.audit_distances.get(band_key(state, first, second), ())
    narrowed = _FACTOR * _usual(recent) if len(recent) >= LEAST else math.inf
    return max(HONEST_DISTANCE[policy.delta_codec], min(policy.audit_distance, narrowed))


def _usual(recent: Sequence[float]) -> float:
    """The ninetieth of a hundred: a few far ones must not widen the band, many must."""
    return sorted(recent)[math.ceil(0.9 * len(recent)) - 1]


def _device_class(state: SwarmState, lease_id: LeaseId) -> str:
    """`cuda` of "cuda: some card"; what a node says of itself, so it only chooses between bands."""
    node = state.nodes.get(state.work[lease_id].node)
    return node.device.split(":")[0].split(" ")[0].lower()[:16] if node is not None else ""
