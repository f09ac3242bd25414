"""Made-up volunteers: how fast, when on, when gone. Owns their chance; pure."""

import math
from dataclasses import dataclass
from random import Random

from kinoswarm_coordinator.events import NodeJoined
from kinoswarm_protocol.ids import PeerId
from kinoswarm_simulator.behaviours import Behaviour
from kinoswarm_simulator.plan import DAY_MS, HOUR_MS, STEPS_PER_S, Plan

_SPREAD_OF_SPEED = 0.7
_EVENING_H = 17.0
_DEVICES = ("NVIDIA GeForce RTX 3060", "NVIDIA GeForce RTX 4090", "AMD Radeon RX 7900", "Apple M2")


@dataclass
class Volunteer:
    """One machine."""

    number: int
    peer: PeerId
    device: str
    seconds_per_step: float
    behaviour: Behaviour
    on_from_ms: int
    """Of the day, where it stands."""
    on_for_ms: int
    vanishes_at_ms: int
    joined_at_ms: int
    done: int = 0
    """Contributions handed in."""
    waiting: str = ""
    """The pull that it awaits an answer to."""

    def is_on(self, now_ms: int) -> bool:
        """Whether it may train now."""
        return (now_ms - self.on_from_ms) % DAY_MS < self.on_for_ms

    def next_on_ms(self, now_ms: int) -> int:
        """When it may train again, now at the earliest."""
        since = (now_ms - self.on_from_ms) % DAY_MS
        return now_ms if since < self.on_for_ms else now_ms + DAY_MS - since

    def finishes_at_ms(self, now_ms: int, work_ms: float) -> int:
        """When work that begins now is done, with the nights between."""
        left = work_ms
        at = self.next_on_ms(now_ms)
        while True:
            since = (at - self.on_from_ms) % DAY_MS
            free = self.on_for_ms - since
            if left <= free:
                return round(at + left)
            left -= free
            at = self.next_on_ms(at + free)

    def on_between(self, start_ms: int, end_ms: int) -> int:
        """Milliseconds in which it was on."""
        total, at = 0, start_ms
        while at < end_ms:
            at = self.next_on_ms(at)
            free = self.on_for_ms - (at - self.on_from_ms) % DAY_MS
            total += max(0, min(end_ms, at + free) - at)
            at += max(1, free)
        return total


def volunteer(plan: Plan, number: int, joins_at_ms: int, chance: Random) -> Volunteer:
    """A machine that joins then; speeds are log-normal around two seconds a step."""
    churn = plan.churn
    always = chance.random() < churn.always_on
    hours = 24.0 if always else min(23.0, max(2.0, chance.gauss(churn.hours_a_day, 4.0)))
    zone = chance.choice((-8, -5, 0, 1, 2, 5, 8, 9))
    begins_h = (_EVENING_H + chance.gauss(0.0, 3.0) - zone) % 24
    rate = -math.log(1.0 - churn.vanish_per_day) / DAY_MS if churn.vanish_per_day else 0.0
    gone = joins_at_ms + round(chance.expovariate(rate)) if rate else plan.ends_at_ms * 2
    return Volunteer(
        number=number,
        peer=PeerId(f"12D3KooWSim{number:08d}"),
        device=chance.choice(_DEVICES),
        seconds_per_step=math.exp(chance.gauss(0.0, _SPREAD_OF_SPEED)) / STEPS_PER_S,
        behaviour=Behaviour(_behaviour(plan, chance)),
        on_from_ms=round(begins_h * HOUR_MS),
        on_for_ms=DAY_MS if always else round(hours * HOUR_MS),
        vanishes_at_ms=gone,
        joined_at_ms=joins_at_ms,
    )


def _behaviour(plan: Plan, chance: Random) -> str:
    draw = chance.random()
    for name, share in sorted(plan.hostile.items()):
        if draw < share:
            return name
        draw -= share
    return "honest"


def joined(someone: Volunteer, now_ms: int) -> NodeJoined:
    """Its first hello."""
    return NodeJoined(
        at_ms=now_ms,
        peer=someone.peer,
        pseudonym=f"{someone.behaviour.name} {someone.peer[-8:]}",
        device=someone.device,
        program_version="0.1.0",
        addresses=[],
        seconds_per_step=someone.seconds_per_step,
    )
