"""Who is on-line and how far: heard from volunteers about themselves, and kept for no more than there are of them."""

import asyncio
from unittest.mock import Mock

import pytest
from coordinator.small_service import journal_of, service_over
from coordinator.small_swarm import SmallSwarm, rules
from protocol.samples import NODE, SWARM

from kinoswarm_coordinator.presence import Presence
from kinoswarm_coordinator.service import Service
from kinoswarm_coordinator.status import cluster_in_training
from kinoswarm_coordinator.views import num_online
from kinoswarm_protocol.envelope import seal
from kinoswarm_protocol.ids import LeaseId
from kinoswarm_protocol.keys import KeyPair
from kinoswarm_protocol.messages import REQUEST, AskStatus, Progress, Request, RequestBody

STRANGER = KeyPair(b"\x09" * 32)


@pytest.fixture
def swarm() -> SmallSwarm:
    """One volunteer, at work."""
    made = SmallSwarm()
    made.hello(NODE)
    made.leased(NODE)
    return made


def service_of(swarm: SmallSwarm) -> Service:
    return service_over(journal_of(swarm.history), rules(), now_ms=lambda: swarm.now_ms)


def say(service: Service, key: KeyPair, *bodies: RequestBody) -> None:
    async def go() -> None:
        for number, body in enumerate(bodies):
            request = Request(request_id=f"{number:032x}", body=body)
            await service.answer(seal(key, REQUEST, SWARM, request), "198.51.101.7")

    asyncio.run(go())


def test_a_stranger_says_nothing_about_anybodys_segment(swarm: SmallSwarm) -> None:
    service = service_of(swarm)
    (lease_id,) = swarm.state.open_leases
    say(service, NODE, Progress(lease_id=lease_id, step=5, loss=None))
    say(service, STRANGER, Progress(lease_id=lease_id, step=9_000, loss=None))
    assert service.presence.step_of(NODE.peer_id, lease_id) == 5
    assert service.presence.step_of(NODE.peer_id, LeaseId("f" * 32)) is None


def test_whoever_never_joined_is_nobody_on_line_and_takes_no_memory(swarm: SmallSwarm) -> None:
    """A signature is free: an address could make a million of them a day."""
    service = service_of(swarm)
    for number in range(20, 30):
        key = KeyPair(bytes([number]) * 32)
        say(service, key, AskStatus(), Progress(lease_id=f"{number:032x}", step=1, loss=None))
    say(service, NODE, AskStatus())
    assert service.presence == _only_heard_of(NODE, swarm.now_ms)
    assert num_online(service.rules, service.presence, swarm.now_ms) == 1


def test_what_was_told_of_a_segment_is_forgotten_with_the_next(swarm: SmallSwarm) -> None:
    service = service_of(swarm)
    (lease_id,) = swarm.state.open_leases
    service.presence.progressed(NODE.peer_id, Progress(lease_id="e" * 32, step=3, loss=0.5))
    say(service, NODE, Progress(lease_id=lease_id, step=5, loss=None))
    assert service.presence.step_of(NODE.peer_id, LeaseId("e" * 32)) is None
    assert service.presence.step_of(NODE.peer_id, lease_id) == 5


def test_a_line_of_the_status_looks_at_the_leases_of_its_own_node_alone(swarm: SmallSwarm) -> None:
    """Lines times leases is what one cheap request would cost otherwise."""
    looked = Mock(wraps=swarm.state.leases)
    looked.__getitem__ = Mock(side_effect=swarm.state.leases.__getitem__)
    swarm.state.leases = looked
    idle = [KeyPair(bytes([number]) * 32) for number in range(20, 30)]
    for key in idle:
        swarm.hello(key)
    clusters = [
        cluster_in_training(swarm.state, swarm.state.nodes[key.peer_id]) for key in [*idle, NODE]
    ]
    assert clusters == [None] * 10 + [0]
    assert looked.__getitem__.call_count == 1


def _only_heard_of(key: KeyPair, now_ms: int) -> Presence:
    presence = Presence()
    presence.seen(key.peer_id, now_ms, "198.51.101.0/24")
    return presence
