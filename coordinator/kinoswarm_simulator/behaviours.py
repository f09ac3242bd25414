"""What volunteers hand in, honest or not. Owns the strategies; pure.

A piece of work is described by what checks can see of it: its camp (runs of one order and one camp lie near each
other), its size against honest work, and what it does to the held-out loss.
"""

from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, kw_only=True)
class Work:
    """One trained delta, as the checks see it."""

    camp: str
    size: float = 1.0
    """Norm against an honest delta's."""
    gain: float = 1.0
    """Improvement of the held-out loss against an honest one's; negative does harm."""
    learnt: float = 0.0
    """How far the samples of its order stand out, against honest work."""
    elsewhere: bool = False
    """Trained for another cluster."""
    honest: bool = False


HONEST = Work(camp="honest", learnt=1.0, honest=True)
"""All that follow the order get the same, up to rounding."""

_GAINED_TRUST = 14
"""Contributions after which "honest until trusted" stops being honest."""


@dataclass(frozen=True)
class Behaviour:
    """A strategy by name; `done` counts what this volunteer handed in before."""

    name: str

    def work(self, peer: str, done: int, chance: Random) -> Work | None:
        """What comes of a lease; None is never handed in."""
        own = f"{peer}/{chance.random()}"
        match self.name:
            case "honest":
                return HONEST
            case "lazy":
                return Work(camp=own, size=0.33, gain=0.1)
            case "random":
                return Work(camp=own, gain=-5.0)
            case "poison":
                return Work(camp=own, gain=0.9, learnt=1.0)
            case "wrong-cluster":
                return Work(camp=own, gain=0.0, elsewhere=True)
            case "captions":
                return Work(camp=own, gain=0.8, learnt=1.0)
            case "scaled":
                return Work(camp=own, size=10.0, gain=-20.0)
            case "zero":
                return Work(camp=own, size=0.0, gain=0.0)
            case "colluding":
                return Work(camp="colluders", size=0.4, gain=0.1)
            case "until-trusted":
                return HONEST if done < _GAINED_TRUST else Work(camp=own, size=0.33, gain=0.1)
            case "hoarding":
                return None
            case _:
                raise ValueError(f"no such behaviour: {self.name}")


HOSTILE = (
    "lazy",
    "random",
    "poison",
    "scaled",
    "zero",
    "colluding",
    "until-trusted",
    "hoarding",
    "wrong-cluster",
    "captions",
)
