"""Which configurations are compared, with which seeds, in which order. Owns the chosen regime and the list.

The order is that of importance: a grid that is stopped early has the headline first.
"""

from dataclasses import dataclass

from benchmarks.quality.clips import FilmPlan
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
    all_routings: bool = False
    """Measure top-2, a threshold and the full mixture beside top-1."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A regime with its cells."""

    regime: Regime
    measurement: Measurement
    entries: tuple[Entry, ...]


def full_grid() -> Grid:
    """The grid behind the published table."""
    return Grid(regime=_regime(), measurement=_measurement(), entries=_entries())


def _regime() -> Regime:
    """A small network, many places, a batch that is large for a monolith and healthy after division by eight."""
    patch = (4, 4, 4)
    return Regime(
        film=FilmPlan(),
        network=NetworkSize(heads=2, head_dim=24, ffn=96, layers=2, patch=patch),
        router=RouterPlan(
            width=32, depth=1, heads=2, patch=patch, batch_size=64, steps=200, learning_rate=2e-3
        ),
        steps=586,
        batch_size=_BATCH,
        sample_steps=16,
    )


def _measurement() -> Measurement:
    return Measurement(clips=2048, sweep_clips=320, guidances=(1.0, 1.5, 2.5))


def _entries() -> tuple[Entry, ...]:
    return (
        Entry(name=MONOLITH, setup=_monolith(_BATCH, 5e-3), seed=0),
        Entry(name=HEADLINE, setup=_experts(8), seed=0, all_routings=True),
        Entry(name="monolith-batch-128", setup=_monolith(128, 3e-3), seed=0),
        Entry(name="monolith-batch-64", setup=_monolith(64, 2e-3), seed=0),
        *(
            entry
            for seed in (1, 2)
            for entry in (
                Entry(name=HEADLINE, setup=_experts(8), seed=seed),
                Entry(name=MONOLITH, setup=_monolith(_BATCH, 5e-3), seed=seed),
                Entry(name="monolith-batch-64", setup=_monolith(64, 2e-3), seed=seed),
            )
        ),
        Entry(name="experts-4", setup=_experts(4), seed=0),
        Entry(name="experts-2", setup=_experts(2), seed=0),
        Entry(name="experts-8-random", setup=_experts(8, partition=Partition.RANDOM), seed=0),
        Entry(name="experts-8-seed-50", setup=_experts(8, seed_share=0.5), seed=0),
        Entry(name="experts-8-no-seed", setup=_experts(8, seed_share=0.0), seed=0),
        Entry(name="monolith-batch-256", setup=_monolith(256, 4e-3), seed=0),
        Entry(name="monolith-rate-3e-3", setup=_monolith(_BATCH, 3e-3), seed=0),
        Entry(name="monolith-rate-8e-3", setup=_monolith(_BATCH, 8e-3), seed=0),
        Entry(name="experts-8-average", setup=_experts(8, ema_decay=_EMA), seed=0),
        Entry(name="monolith-average", setup=_monolith(_BATCH, 5e-3, ema_decay=_EMA), seed=0),
    )


_BATCH = 1024
_EMA = 0.99


def _monolith(batch_size: int, learning_rate: float, ema_decay: float | None = None) -> Setup:
    return Setup(
        num_experts=1, batch_size=batch_size, learning_rate=learning_rate, ema_decay=ema_decay
    )


def _experts(
    count: int,
    seed_share: float = 0.25,
    partition: Partition = Partition.SEMANTIC,
    ema_decay: float | None = None,
) -> Setup:
    return Setup(
        num_experts=count,
        batch_size=_BATCH,
        learning_rate=3e-3,
        seed_share=seed_share,
        partition=partition,
        ema_decay=ema_decay,
    )
