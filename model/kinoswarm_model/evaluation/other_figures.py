"""Figures beside our Fréchet distance: motion, published FVD, CLIP text-video, aesthetic score. Owns which are taken.

What needs weights that no package ships is taken when the user names them; otherwise the report says how to get them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kinoswarm_model.evaluation.aesthetic import NotAtHand, aesthetic_predictor
from kinoswarm_model.evaluation.clip_text import clip_text
from kinoswarm_model.evaluation.frechet import frechet_distance
from kinoswarm_model.evaluation.i3d import I3D, LEAST_FRAMES
from kinoswarm_model.evaluation.optical_flow import grid_flow, motion_magnitude
from kinoswarm_model.evaluation.report import Figure, NotMeasured, OtherFigures
from kinoswarm_protocol.errors import LocalError

Pixels = NDArray[np.uint8]
"""(N, T, H, W, C)"""


@dataclass(frozen=True, kw_only=True)
class OtherWeights:
    """Files and folders that the user named."""

    i3d: Path | None = None
    """TorchScript: naming it runs the code in it."""
    clip: Path | None = None
    aesthetic: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Generated clips, the captions they were made from, and held-out clips with theirs."""

    made: Pixels
    made_captions: Sequence[str]
    real: Pixels
    real_captions: Sequence[str]


def other_figures(
    clips: Compared, weights: OtherWeights, report: Callable[[int, int, str], None]
) -> OtherFigures:
    """Take every figure that can be. Raises LocalError for weights that were named and do not fit."""
    steps: dict[str, Callable[[], Figure | NotMeasured]] = {
        "motion": lambda: _motion(clips),
        "fvd": lambda: _fvd(clips, weights.i3d),
        "clip_text": lambda: _clip_text(clips, weights.clip),
        "aesthetic": lambda: _aesthetic(clips, weights.aesthetic),
    }
    found: dict[str, Figure | NotMeasured] = {}
    for done, (name, take) in enumerate(steps.items()):
        report(done, len(steps), "measuring other figures")
        found[name] = take()
    return OtherFigures(**found)


def _motion(clips: Compared) -> Figure | NotMeasured:
    try:
        made, real = (
            float(motion_magnitude(grid_flow(pixels)).mean()) for pixels in (clips.made, clips.real)
        )
    except LocalError as error:
        return NotMeasured(reason=str(error))
    return Figure(what="motion magnitude, pixels a frame", release=made, real=real)


def _fvd(clips: Compared, path: Path | None) -> Figure | NotMeasured:
    if path is None:
        return NotMeasured(
            reason="no I3D was named; download i3d_torchscript.pt (the StyleGAN-V repository says where) and give it "
            "with --i3d and --i3d-runs-code"
        )
    frames = clips.made.shape[1]
    if frames < LEAST_FRAMES:
        return NotMeasured(
            reason=f"I3D needs clips of at least {LEAST_FRAMES} frames; these have {frames}"
        )
    network = I3D.load(path)
    real = network.features(clips.real)
    half = len(real) // 2
    return Figure(
        what=f"FVD on I3D over {len(clips.made)} clips; real: one half of the held-out clips against the other",
        release=frechet_distance(network.features(clips.made), real),
        real=frechet_distance(real[:half], real[half:]),
    )


def _clip_text(clips: Compared, folder: Path | None) -> Figure | NotMeasured:
    network = clip_text(folder)
    if isinstance(network, NotAtHand):
        return NotMeasured(reason=network.reason)
    return Figure(
        what="CLIP text-video similarity, 100 x cosine",
        release=float(network.scores(clips.made, clips.made_captions).mean()),
        real=float(network.scores(clips.real, clips.real_captions).mean()),
    )


def _aesthetic(clips: Compared, folder: Path | None) -> Figure | NotMeasured:
    network = aesthetic_predictor(folder)
    if isinstance(network, NotAtHand):
        return NotMeasured(reason=network.reason)
    return Figure(
        what="aesthetic score, 1 to 10",
        release=float(network.scores(clips.made).mean()),
        real=float(network.scores(clips.real).mean()),
    )
