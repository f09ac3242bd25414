"""What is measured of a trained side: clips for the held-out captions, distances, agreement, losses. Owns the figures.

Real clips' features are computed once and kept beside the films. Held-out captions are taken place by place in turn, so
that any number of them covers all places alike.
Shapes: N clips, T frames, H height, W width, K experts.
"""

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from benchmarks.quality.clips import Clips, QualityData
from benchmarks.quality.latents import fit_codec
from benchmarks.quality.regime import Regime, model_of
from benchmarks.quality.sides import TrainedSide
from benchmarks.quality.training import batch_of
from msgspec import Struct
from numpy.typing import NDArray
from torch import Tensor

from kinoswarm_model.clip_sampling import rows_of, sample_clips
from kinoswarm_model.evaluation.features import FeatureExtractor, VideoFeatures
from kinoswarm_model.evaluation.frechet import Distances, FrechetSpace, fit_space
from kinoswarm_model.evaluation.optical_flow import grid_flow, motion_features, motion_magnitude
from kinoswarm_model.evaluation.probe import Probe, fit_probe
from kinoswarm_model.flow import losses_of, times_of
from kinoswarm_model.sampler import RoutedModel, SampleSettings

_SAMPLE_BATCH = 256
_LOSS_BATCH = 128
_NOISE_SEED = 1_000_000
"""Clip i of every side starts from noise _NOISE_SEED + i."""


class Routing(Struct, frozen=True, kw_only=True):
    """How experts are mixed, and the guidance."""

    guidance: float
    top_k: int = 1
    threshold: float | None = None

    @property
    def name(self) -> str:
        """For tables."""
        return f"threshold {self.threshold}" if self.threshold is not None else f"top-{self.top_k}"


class Figures(Struct, frozen=True, kw_only=True):
    """Measured on generated clips."""

    routing: Routing
    sample_steps: int
    num_clips: int
    frechet: Distances
    """From the held-out clips as they were filmed."""
    frechet_coded: Distances | None = None
    """From the held-out clips as the codec shows them: what the networks could reach, and nothing of the codec."""
    place_agreement: float
    """Share of clips in which the probe reads the caption's place."""
    motion_agreement: float
    """The same for the camera's motion."""
    motion_magnitude: float
    """Pixels a frame; descriptive."""
    share_by_expert: list[float]


class RealFigures(Struct, frozen=True, kw_only=True):
    """The same of other real clips: what a perfect model would get."""

    frechet: Distances
    place_agreement: float
    motion_agreement: float
    motion_magnitude: float
    explained_variance: float
    """Share of variance that the PCA keeps."""
    codec: Distances | None = None
    """Of the held-out clips after the codec from themselves before it: no network can go below."""


@dataclass(frozen=True)
class Yardstick:
    """Real clips' features, and the space and the probes fitted on those of the `fit` part."""

    space: FrechetSpace
    heldout: VideoFeatures
    places: Probe
    motions: Probe
    real: RealFigures
    coded: VideoFeatures | None = None
    """Of the held-out clips as the codec shows them."""


def yardstick(data: QualityData, regime: Regime, folder: Path) -> Yardstick:
    """Measure the real clips; features are kept in `folder`."""
    film = regime.film
    name = f"{film.name}-{film.height}x{film.width}"
    fit, floor, heldout = (
        _kept(folder / f"features-{name}-{part}.npz", clips)
        for part, clips in (("fit", data.fit), ("floor", data.floor), ("heldout", data.heldout))
    )
    space = fit_space(fit, len(heldout))
    coded = _coded(data, regime, folder / f"features-{name}-heldout")
    flows = [grid_flow(clips.frames_last()) for clips in (data.fit, data.floor)]
    places = fit_probe(fit.mean, data.fit.place)
    motions = fit_probe(motion_features(flows[0]), data.fit.motion)
    real = RealFigures(
        frechet=space.distances(floor, heldout),
        place_agreement=places.agreement(floor.mean, data.floor.place),
        motion_agreement=motions.agreement(motion_features(flows[1]), data.floor.motion),
        motion_magnitude=float(motion_magnitude(flows[1]).mean()),
        explained_variance=space.both.explained,
        codec=space.distances(coded, heldout) if coded is not None else None,
    )
    return Yardstick(space, heldout, places, motions, real, coded)


def _coded(data: QualityData, regime: Regime, path: Path) -> VideoFeatures | None:
    """Features of the held-out clips after the regime's codec; nothing without one."""
    if regime.latent is None:
        return None
    codec = fit_codec(data.fit.pixels, regime.latent)
    shown_NTHWC = codec.decode(torch.from_numpy(codec.encode(data.heldout.pixels)))
    pixels = np.ascontiguousarray(shown_NTHWC.transpose(0, 4, 1, 2, 3))
    plan = regime.latent
    words = "x".join(map(str, (*plan.patch, plan.channels)))
    return _kept(path.with_name(f"{path.name}-{words}.npz"), replace(data.heldout, pixels=pixels))


def generate(
    side: TrainedSide, data: QualityData, regime: Regime, routing: Routing, num_clips: int
) -> tuple[NDArray[np.uint8], list[float]]:
    """Clips (num_clips, T, H, W, 3) for held-out captions, and the share of every expert."""
    rows = spread_rows(data.heldout, num_clips)
    model = model_of(regime)
    routed = RoutedModel(
        model=model,
        expert=lambda k: side.experts[k],
        available_K=[True] * len(side.experts),
        router=side.router,
        decode=data.decode,
    )
    settings = SampleSettings(
        steps=regime.sample_steps,
        guidance=routing.guidance,
        shift=regime.shift,
        top_k=routing.top_k,
        threshold=routing.threshold,
    )
    text = rows_of(data.heldout.text, data.heldout.text_row[rows].tolist())
    seeds = [_NOISE_SEED + int(row) for row in rows]
    made = sample_clips(routed, text, seeds, settings, _SAMPLE_BATCH)
    return made.clips, made.share_by_expert


def figures_of(
    clips_NTHWC: NDArray[np.uint8],
    share_by_expert: list[float],
    data: QualityData,
    measured: tuple[Yardstick, Regime, Routing],
) -> Figures:
    """Compare generated clips with all held-out ones."""
    stick, regime, routing = measured
    rows = spread_rows(data.heldout, len(clips_NTHWC))
    features = FeatureExtractor(clips_NTHWC.shape[1]).extract(clips_NTHWC)
    flow = grid_flow(clips_NTHWC)
    return Figures(
        routing=routing,
        sample_steps=regime.sample_steps,
        num_clips=len(clips_NTHWC),
        frechet=stick.space.distances(features, stick.heldout),
        frechet_coded=(
            stick.space.distances(features, stick.coded) if stick.coded is not None else None
        ),
        place_agreement=stick.places.agreement(features.mean, data.heldout.place[rows]),
        motion_agreement=stick.motions.agreement(motion_features(flow), data.heldout.motion[rows]),
        motion_magnitude=float(motion_magnitude(flow).mean()),
        share_by_expert=share_by_expert,
    )


@torch.no_grad()
def heldout_loss(side: TrainedSide, data: QualityData, regime: Regime) -> float:
    """Mean loss of held-out clips at fixed (x, noise, t), each by the expert that the router puts first."""
    model, found = model_of(regime), []
    for rows in torch.arange(len(data.heldout)).split(_LOSS_BATCH):
        chance = torch.Generator().manual_seed(int(rows[0]))
        batch = batch_of(data.heldout, rows, lambda n: times_of(n, model.recipe), 0.0, chance)
        x_t = batch.x_t_BCTHW
        picked = _picked(side, x_t, batch.t_B, batch.text_pooled_BD)
        for k in picked.unique().tolist():
            own = torch.nonzero(picked == k).squeeze(1)
            predicted = side.experts[k](
                x_t[own], batch.t_B[own], batch.text_tokens_BLD[own], batch.text_mask_BL[own]
            )
            x_0, eps = batch.x_0_BCTHW[own], batch.eps_BCTHW[own]
            found.append(losses_of(predicted, x_0, eps, batch.t_B[own], model.recipe))
    return float(torch.cat(found).mean())


@torch.no_grad()
def router_accuracy(side: TrainedSide, data: QualityData, t: float) -> float:
    """Share of held-out clips whose place's expert the router puts first at noise level t; 1 for a monolith."""
    label = torch.from_numpy(side.cluster_of_place[data.heldout.place])
    rows = torch.arange(len(data.heldout))
    chance = torch.Generator().manual_seed(0)
    batch = batch_of(data.heldout, rows, lambda n: torch.full_like(n, t), 0.0, chance)
    picked = _picked(side, batch.x_t_BCTHW, batch.t_B, batch.text_pooled_BD)
    return float((picked == label).float().mean())


def spread_rows(clips: Clips, count: int) -> NDArray[np.int64]:
    """`count` rows, place by place in turn."""
    turn = np.zeros(len(clips), dtype=np.int64)
    for place in np.unique(clips.place):
        own = clips.place == place
        turn[own] = np.arange(own.sum())
    return np.argsort(turn, kind="stable")[:count]


def _picked(side: TrainedSide, x_t: Tensor, t_B: Tensor, pooled_BD: Tensor) -> Tensor:
    if side.router is None:
        return torch.zeros(len(t_B), dtype=torch.int64)
    logits_BK: Tensor = side.router(x_t, t_B, pooled_BD)
    return logits_BK.argmax(dim=1)


def _kept(path: Path, clips: Clips) -> VideoFeatures:
    if not path.exists():
        features = FeatureExtractor(clips.pixels.shape[2]).extract(clips.frames_last())
        temporary = path.with_name(f".{os.getpid()}.{path.name}")
        with temporary.open("wb") as file:
            np.savez(file, mean=features.mean, motion=features.motion)
        os.replace(temporary, path)
    kept = np.load(path)
    return VideoFeatures(kept["mean"], kept["motion"])
