"""Which configurations are compared, with which seeds, in which order. Owns the chosen regime and the list.

The order is that of importance: a grid that is stopped early has the headline first.
"""

from dataclasses import dataclass, replace

from benchmarks.quality.clips import FilmPlan
from benchmarks.quality.latents import LatentPlan
from benchmarks.quality.regime import NetworkSize, Regime, RouterPlan
from benchmarks.quality.sides import Partition, Setup

from kinoswarm_model.data.scenes import View

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
    alike: tuple[float, ...] = ()
    """Guidances that every side is measured with in full beside its best one, as the papers do."""


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


GRIDS = ("latent-24", "latent-24-long", "views")


def grid_of(name: str) -> Grid:
    """One of GRIDS: the same FLOP rules and metric.

    `latent-24` is the one to finish: a linear codec lets a narrow network see detail, so that capacity for 64 places
    decides. `latent-24-long` trains four times as long, at twice the batch, up to 16 experts, and samples in 50 steps
    as Paris 2.0 does. `views` has 56 places of one view each and twelve tokens a clip: a minute of one core a training.
    """
    return {"latent-24": _latent, "latent-24-long": _long, "views": _views}[name]()


_EMA = 0.99
_NETWORK = NetworkSize(heads=2, head_dim=12, ffn=48, layers=2, patch=(1, 1, 1))
_MEASUREMENT = Measurement(clips=2048, sweep_clips=320, guidances=(1.0, 1.5, 2.5))
_BATCH = 512
_STEPS = 585
_MONOLITH_RATE, _SMALL_RATE, _EXPERT_RATE = 4e-3, 3e-3, 4e-3
"""At batch 512, at batch 64, and of experts: found in short trials."""


_LATENT = LatentPlan(patch=(2, 4, 4), channels=16, flattening=0.5)


def _latent() -> Grid:
    sides = _Sides(batch=512, monolith_rate=5e-3, small_rate=3e-3, expert_rate=4e-3)
    return Grid(
        regime=_latent_regime(sides.batch, steps=1172, router_steps=400),
        measurement=_MEASUREMENT,
        entries=(
            *_latent_headline(sides, (0,)),
            *_latent_variants(sides),
            *_latent_headline(sides, (1, 2)),
        ),
    )


def _long() -> Grid:
    sides = _Sides(batch=1024, monolith_rate=5e-3, small_rate=3e-3, expert_rate=4e-3)
    setups = {
        "experts-16": sides.experts(count=16),
        MONOLITH: sides.monolith(sides.batch, sides.monolith_rate),
        HEADLINE: sides.experts(),
        "monolith-batch-128": sides.monolith(128, sides.small_rate),
        "monolith-batch-512": sides.monolith(512, sides.monolith_rate),
    }
    return Grid(
        regime=replace(_latent_regime(sides.batch, steps=2344, router_steps=800), sample_steps=50),
        measurement=_MEASUREMENT,
        entries=tuple(
            Entry(name=name, setup=setup, seed=seed)
            for seed in (0, 1, 2)
            for name, setup in setups.items()
        ),
    )


def _latent_regime(batch_size: int, steps: int, router_steps: int) -> Regime:
    regime = _regime(_NETWORK, batch_size, steps=steps, router_steps=router_steps)
    return replace(
        regime, latent=_LATENT, shift=2.0, router=replace(regime.router, patch=(2, 1, 1))
    )


def _regime(network: NetworkSize, batch_size: int, steps: int, router_steps: int) -> Regime:
    return Regime(
        film=FilmPlan(),
        network=network,
        router=RouterPlan(
            width=32,
            depth=1,
            heads=2,
            patch=(4, 4, 4),
            batch_size=64,
            steps=router_steps,
            learning_rate=2e-3,
        ),
        steps=steps,
        batch_size=batch_size,
        sample_steps=16,
    )


@dataclass(frozen=True, kw_only=True)
class _Sides:
    """Batch size of the papers' protocol and learning rates found in short trials."""

    batch: int
    monolith_rate: float
    small_rate: float
    """Of the monolith at batch 64."""
    expert_rate: float

    def monolith(self, batch: int, rate: float, ema_decay: float | None = None) -> Setup:
        return Setup(num_experts=1, batch_size=batch, learning_rate=rate, ema_decay=ema_decay)

    def experts(
        self,
        count: int = 8,
        seed_share: float = 0.25,
        seed_decays: bool = True,
        partition: Partition = Partition.SEMANTIC,
        ema_decay: float | None = None,
    ) -> Setup:
        return Setup(
            num_experts=count,
            batch_size=self.batch,
            learning_rate=self.expert_rate,
            seed_share=seed_share,
            seed_decays=seed_decays,
            partition=partition,
            ema_decay=ema_decay,
        )


def _latent_headline(sides: _Sides, seeds: tuple[int, ...]) -> tuple[Entry, ...]:
    """Monolith, experts and the strongest monolith, seed by seed."""
    papers, small = (
        sides.monolith(sides.batch, sides.monolith_rate),
        sides.monolith(64, sides.small_rate),
    )
    return tuple(
        entry
        for seed in seeds
        for entry in (
            Entry(name=HEADLINE, setup=sides.experts(), seed=seed, all_routings=seed == seeds[-1]),
            Entry(name=MONOLITH, setup=papers, seed=seed),
            Entry(name="monolith-batch-64", setup=small, seed=seed),
        )
    )


def _latent_variants(sides: _Sides) -> tuple[Entry, ...]:
    """One seed each."""
    large, rate = sides.batch, sides.monolith_rate
    setups = {
        "experts-4": sides.experts(count=4),
        "experts-2": sides.experts(count=2),
        "experts-8-constant-rate-seed": sides.experts(seed_decays=False),
        "experts-8-random": sides.experts(partition=Partition.RANDOM),
        "experts-8-seed-50": sides.experts(seed_share=0.5),
        "experts-8-no-seed": sides.experts(seed_share=0.0),
        "monolith-batch-32": sides.monolith(32, sides.small_rate),
        "monolith-batch-128": sides.monolith(128, sides.small_rate),
        "monolith-rate-3e-3": sides.monolith(large, 3e-3),
        "monolith-rate-8e-3": sides.monolith(large, 8e-3),
        "experts-8-average": sides.experts(ema_decay=_EMA),
        "monolith-average": sides.monolith(large, rate, ema_decay=_EMA),
    }
    return tuple(Entry(name=name, setup=setup, seed=0) for name, setup in setups.items())


def _views() -> Grid:
    return Grid(
        regime=Regime(
            film=FilmPlan(
                counts=(80, 37, 9, 18), places=56, view=View(spread_degrees=6.0, most_tics=2)
            ),
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
        measurement=Measurement(
            clips=2048, sweep_clips=280, guidances=(1.0, 1.5, 2.5), alike=(2.5, 7.5)
        ),
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
    """The headline's sides are measured in full, and all else with few clips."""
    return Entry(
        name=name,
        setup=_SETUPS[name],
        seed=seed,
        in_full=name in (HEADLINE, MONOLITH, "monolith-batch-64"),
        all_routings=seed == 0 and name == HEADLINE,
    )
