"""A comparison of seconds: a few places of coloured, moving bars instead of films."""

from pathlib import Path

import numpy as np
import torch
from benchmarks.quality.clips import Clips, FilmPlan, QualityData
from benchmarks.quality.grid import Entry, Grid, Measurement
from benchmarks.quality.measure import yardstick
from benchmarks.quality.regime import NetworkSize, Regime, RouterPlan
from benchmarks.quality.run import Bench
from benchmarks.quality.sides import Partition, Setup

from kinoswarm_model.presets import TEXT_DIM
from kinoswarm_model.sampler import TextBatch

PLACES, MOTIONS = 4, 2
FILM = FilmPlan(frames=4, counts=(16, 4, 4, 8), places=PLACES)
REGIME = Regime(
    film=FILM,
    network=NetworkSize(heads=2, head_dim=8, ffn=16, layers=1, patch=(4, 4, 4), positions=3),
    router=RouterPlan(
        width=16, depth=1, heads=2, patch=(4, 6, 8), batch_size=8, steps=4, learning_rate=3e-3
    ),
    steps=12,
    batch_size=16,
    sample_steps=2,
)
MONOLITH = Setup(num_experts=1, batch_size=16, learning_rate=3e-3)
EXPERTS = Setup(num_experts=2, batch_size=16, learning_rate=3e-3, seed_share=0.25)
RANDOM_PARTITION = Setup(
    num_experts=2, batch_size=16, learning_rate=3e-3, partition=Partition.RANDOM
)
GRID = Grid(
    regime=REGIME,
    measurement=Measurement(clips=12, sweep_clips=8, guidances=(1.0, 2.0)),
    entries=(
        Entry(name="monolith", setup=MONOLITH, seed=0),
        Entry(name="experts-2", setup=EXPERTS, seed=0, all_routings=True),
        Entry(name="random-2", setup=RANDOM_PARTITION, seed=0, in_full=False),
    ),
)


def toy_data() -> QualityData:
    """Places differ in colour, motions in direction."""
    parts = [_clips(count, seed) for seed, count in enumerate(FILM.counts)]
    colours = np.eye(PLACES, dtype=np.float32)[parts[3].place]
    return QualityData(*parts, colours, [f"place {i}" for i in range(PLACES)])


def toy_bench(folder: Path) -> Bench:
    """Everything in `folder`."""
    data = toy_data()
    return Bench(
        data=data,
        yardstick=yardstick(data, REGIME, folder),
        weights=folder / "weights",
        results=folder / "cells",
        command="pytest",
    )


def _clips(per_place: int, seed: int) -> Clips:
    rng = np.random.default_rng(seed)
    place = np.repeat(np.arange(PLACES), per_place)
    motion = np.tile(np.arange(MOTIONS), len(place) // MOTIONS)
    columns, frames = np.arange(FILM.width), np.arange(FILM.frames)[:, None]
    speed = np.where(motion == 0, -1.0, 1.0)[:, None, None]
    phase = rng.uniform(0, 6.3, len(place))[:, None, None]
    bars_NTW = np.sin(0.8 * (columns + speed * frames) + phase)
    colour_NC = rng.uniform(0.9, 1.0, (PLACES, 3)) * np.array(_COLOURS)
    pixels = 127 + 120 * np.einsum("ntw,nc->nctw", bars_NTW, colour_NC[place])
    pixels = np.repeat(pixels[:, :, :, None], FILM.height, axis=3)
    embedded = torch.from_numpy(np.random.default_rng(9).standard_normal((8, TEXT_DIM))).float()
    return Clips(
        pixels=pixels.astype(np.uint8),
        captions=[f"place {p} moves {m}" for p, m in zip(place, motion, strict=True)],
        place=place,
        motion=motion,
        text=TextBatch(
            tokens_BLD=embedded.unsqueeze(1),
            mask_BL=torch.ones(8, FILM.tokens, dtype=torch.bool),
            pooled_BD=embedded / embedded.norm(dim=1, keepdim=True),
        ),
        text_row=place * MOTIONS + motion,
    )


_COLOURS = ((1.0, 0.2, 0.2), (0.2, 1.0, 0.2), (0.2, 0.2, 1.0), (1.0, 1.0, 0.2))
