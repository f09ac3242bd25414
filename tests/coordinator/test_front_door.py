"""What strangers may write into a log that is kept for ever: newcomers by address, changes by node, some an hour."""

import asyncio

from coordinator.small_service import journal_of, service_over
from coordinator.small_swarm import SmallSwarm, rules
from protocol.samples import SWARM

from kinoswarm_coordinator.front_door import door_for
from kinoswarm_protocol.envelope import open_envelope, seal
from kinoswarm_protocol.errors import Code
from kinoswarm_protocol.keys import KeyPair
from kinoswarm_protocol.messages import (
    REPLY,
    REQUEST,
    Hello,
    Machine,
    Refusal,
    ReplyBody,
    Request,
    Welcome,
)

HOME, ELSEWHERE = "198.51.101.7", "198.51.101.8"
HOUR_MS = 3_600_000


class Door:
    """A coordinator, its clock, and hellos from anywhere."""

    def __init__(self, newcomers_per_hour: float) -> None:
        self.swarm = SmallSwarm()
        self.service = service_over(
            journal_of(self.swarm.history),
            rules(),
            now_ms=lambda: self.swarm.now_ms,
            door=door_for(newcomers_per_hour),
        )

    def hello(self, number: int, host: str, pseudonym: str = "somebody") -> ReplyBody:
        machine = Machine(device="cpu", memory_gib=8.0, seconds_per_step=1.0)
        body = Hello(program_version="1.0.0", pseudonym=pseudonym, machine=machine, addresses=[])
        request = Request(request_id=f"{number:032x}", body=body)
        raw = seal(key_of(number), REQUEST, SWARM, request)
        return open_envelope(asyncio.run(self.service.answer(raw, host)), REPLY, SWARM).body.body

    def pseudonym_of(self, number: int) -> str:
        return self.service.journal.state.nodes[key_of(number).peer_id].pseudonym


def key_of(number: int) -> KeyPair:
    return KeyPair(bytes([number]) * 32)


def test_an_address_brings_so_many_newcomers_an_hour_and_others_are_not_held_up() -> None:
    door = Door(newcomers_per_hour=3)
    assert all(isinstance(door.hello(number, HOME), Welcome) for number in (20, 21, 22))
    refused = door.hello(23, HOME)
    assert isinstance(refused, Refusal)
    assert refused.code == Code.RATE_LIMITED
    assert "1200 s" in refused.sentence
    assert key_of(23).peer_id not in door.service.journal.state.nodes
    assert isinstance(door.hello(20, HOME, "another name"), Welcome), "it is no newcomer"
    assert isinstance(door.hello(24, ELSEWHERE), Welcome)
    door.swarm.now_ms += HOUR_MS // 3
    assert isinstance(door.hello(23, HOME), Welcome)


def test_whose_address_is_not_known_shuts_nobody_out() -> None:
    door = Door(newcomers_per_hour=1)
    assert all(isinstance(door.hello(number, ""), Welcome) for number in (20, 21, 22))


def test_a_node_that_changes_its_words_for_ever_is_welcome_and_logged_so_often() -> None:
    door = Door(newcomers_per_hour=0)
    for turn in range(30):
        assert isinstance(door.hello(20, HOME, f"name {turn}"), Welcome)
    assert door.pseudonym_of(20) == "name 6", "the first hello, and six changes at once"
    door.swarm.now_ms += HOUR_MS
    door.hello(20, HOME, "the last")
    assert door.pseudonym_of(20) == "the last"
