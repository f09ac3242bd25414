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
    trick: str = ""
    """What is done where training is real (workshop.py, real_truth.py); empty is honest training."""
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
                return Work(camp=own, size=0.33, gain=0.1, trick="lazy, a tenth")
            case "random":
                return Work(camp=own, gain=-5.0, trick="random")
            case "poison":
                return Work(camp=own, gain=0.9, learnt=1.0, trick="poisoned captions")
            case "wrong-cluster":
                return Work(camp=own, gain=0.0, elsewhere=True, trick="wrong cluster")
            case "captions":
                return Work(camp=own, gain=0.8, learnt=1.0, trick="poisoned captions")
            case "scaled":
                return Work(camp=own, size=10.0, gain=-20.0, trick="scaled tenfold")
            case "zero":
                return Work(camp=own, size=0.0, gain=0.0, trick="zero")
            case "colluding":
                return Work(camp="colluders", size=0.4, gain=0.1, trick="lazy, half")
            case "until-trusted":
                if done < _GAINED_TRUST:
                    return HONEST
                return Work(camp=own, size=0.33, gain=0.1, trick="lazy, half")
            case "flipped":
                return Work(camp=own, gain=-1.0, trick="sign-flipped")
            case "copied" | "malformed" | "not a number":
                return Work(camp=own, gain=0.0, trick=self.name)
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
    "flipped",
)
"""What a made-up swarm knows."""
BYTE_TRICKS = ("copied", "malformed", "not a number")
"""What takes real bytes."""
