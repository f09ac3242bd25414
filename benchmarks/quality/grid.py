"""Which configurations are compared, with which seeds, in which order. Owns the chosen regime and the list.

The order is that of importance: a grid that is stopped early has the headline first.
"""

from dataclasses import dataclass

from benchmarks.quality.clips import FilmPlan
from benchmarks.quality.latents import LatentPlan
from benchmarks.quality.regime import NetworkSize, Regime, RouterPlan
from benchmarks.quality.sides import Partition, Setup

HEADLINE = "experts-8"
MONOLITH = "monolith"


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """How much is measured of every cell."""

    clips: int
    """Generated for the final figures."""
    sweep_clips: int
    """Generated for each guidance that is tried."""
    guidances: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One cell to be computed."""

    name: str
    setup: Setup
    seed: int
    in_full: bool = True
    """Measure the full number of clips after the sweep; False only selects."""
    all_routings: bool = False
    """Measure top-2, a threshold and the full mixture beside top-1, with few clips."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A regime with its cells."""

    regime: Regime
    measurement: Measurement
    entries: tuple[Entry, ...]


GRIDS = ("views",)


def grid_of(name: str) -> Grid:
    """One of GRIDS.

    `views`: 56 places, each one view with a little sway and six camera motions; a linear codec that leaves twelve
    tokens a clip, so that networks of width 24 are trained to where their loss flattens in a minute of one core.
    """
    return {"views": _views}[name]()


_EMA = 0.99
_NETWORK = NetworkSize(heads=2, head_dim=12, ffn=48, layers=2, patch=(1, 1, 1))
_BATCH = 512
_STEPS = 585
_MONOLITH_RATE, _SMALL_RATE, _EXPERT_RATE = 4e-3, 3e-3, 4e-3
"""At batch 512, at batch 64, and of experts: found in short trials."""


def _views() -> Grid:
    return Grid(
        regime=Regime(
            film=FilmPlan(),
            network=_NETWORK,
            router=RouterPlan(
                width=32,
                depth=1,
                heads=2,
                patch=(1, 1, 1),
                batch_size=64,
                steps=400,
                learning_rate=2e-3,
            ),
            steps=_STEPS,
            batch_size=_BATCH,
            sample_steps=50,
            shift=2.0,
            latent=LatentPlan(patch=(8, 4, 4), channels=32, flattening=0.5),
        ),
        measurement=Measurement(clips=2048, sweep_clips=280, guidances=(1.0, 1.5, 2.5)),
        entries=tuple(
            _entry(name, seed)
            for name, seed in (
                (HEADLINE, 0),
                (MONOLITH, 0),
                ("monolith-batch-64", 0),
                ("experts-4", 0),
                ("experts-8-random", 0),
                (HEADLINE, 1),
                (MONOLITH, 1),
                ("experts-2", 0),
                ("monolith-batch-64", 1),
                (HEADLINE, 2),
                (MONOLITH, 2),
                ("monolith-batch-64", 2),
                *((name, 0) for name in _VARIANTS),
            )
        ),
    )


def _monolith(batch: int, rate: float, ema_decay: float | None = None) -> Setup:
    return Setup(num_experts=1, batch_size=batch, learning_rate=rate, ema_decay=ema_decay)


def _experts(
    count: int = 8,
    seed_share: float = 0.25,
    partition: Partition = Partition.SEMANTIC,
    ema_decay: float | None = None,
) -> Setup:
    return Setup(
        num_experts=count,
        batch_size=_BATCH,
        learning_rate=_EXPERT_RATE,
        seed_share=seed_share,
        partition=partition,
        ema_decay=ema_decay,
    )


_VARIANTS = {
    "experts-8-average": _experts(ema_decay=_EMA),
    "monolith-average": _monolith(_BATCH, _MONOLITH_RATE, ema_decay=_EMA),
    "monolith-batch-128": _monolith(128, _SMALL_RATE),
    "experts-8-no-seed": _experts(seed_share=0.0),
    "monolith-rate-8e-3": _monolith(_BATCH, 8e-3),
    "experts-16": _experts(count=16),
}
_SETUPS = {
    HEADLINE: _experts(),
    MONOLITH: _monolith(_BATCH, _MONOLITH_RATE),
    "monolith-batch-64": _monolith(64, _SMALL_RATE),
    "experts-4": _experts(count=4),
    "experts-2": _experts(count=2),
    "experts-8-random": _experts(partition=Partition.RANDOM),
    **_VARIANTS,
}


def _entry(name: str, seed: int) -> Entry:
    """The headline's two sides are measured in full once; all else, and the spread over seeds, with few clips."""
    return Entry(
        name=name,
        setup=_SETUPS[name],
        seed=seed,
        in_full=seed == 0 and name in (HEADLINE, MONOLITH),
        all_routings=seed == 0 and name == HEADLINE,
    )
