"""What a router is worth on clips that it did not see: accuracy by t, calibration, shares. Owns the measuring.

The same figures stand on the swarm's page, in a release's card and in an evaluation. Shapes: B batch, K clusters.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kinoswarm_model.flow import noised
from kinoswarm_model.noise import Purpose
from kinoswarm_model.router import Router
from kinoswarm_model.training_data import ClipSet, Drawing

MEASURED_TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)
_CALIBRATION_BINS = 10
_MEASURE_BATCH = 64

OnTime = Callable[[int, int], None]
"""(noise levels measured, of how many)."""


@dataclass(frozen=True, kw_only=True)
class RouterFigures:
    """Measured at every noise level, with the clips' text."""

    accuracy_by_t: list[tuple[float, float]]
    """(t, share of clips whose cluster has the highest probability)."""
    calibration_error: float
    """Expected calibration error over all levels."""
    share_by_cluster: list[float]
    """How often each expert has the highest probability."""

    @property
    def most_picked(self) -> int:
        """The expert that has it most often."""
        return max(range(len(self.share_by_cluster)), key=lambda k: self.share_by_cluster[k])


def measured_router(
    router: Router, clips: ClipSet, seed: int, device: torch.device, on_time: OnTime | None = None
) -> RouterFigures:
    """The figures on these clips, whose clusters are known."""
    label_B = torch.tensor([clips.label(index) for index in range(len(clips))])
    rows: list[Tensor] = []
    accuracy: list[tuple[float, float]] = []
    for t in MEASURED_TIMES:
        if on_time is not None:
            on_time(len(rows), len(MEASURED_TIMES))
        p_BK = probabilities_at(router, clips, t, seed, device)
        rows.append(p_BK)
        accuracy.append((t, float((p_BK.argmax(dim=1) == label_B).float().mean())))
    p_BK = torch.cat(rows)
    picked_K = torch.bincount(p_BK.argmax(dim=1), minlength=p_BK.shape[1]) / len(p_BK)
    return RouterFigures(
        accuracy_by_t=accuracy,
        calibration_error=calibration_error(p_BK, label_B.repeat(len(rows))),
        share_by_cluster=[float(share) for share in picked_K],
    )


@torch.no_grad()
def probabilities_at(
    router: Router,
    clips: ClipSet,
    t: float,
    seed: int,
    device: torch.device,
    indices: Sequence[int] | None = None,
) -> Tensor:
    """Cluster probabilities of every clip (or of these) at noise level t, with its text: (clips, K), on the CPU."""
    wanted = range(len(clips)) if indices is None else indices
    router.to(device).eval()
    drawing = Drawing(purpose=Purpose.EVALUATE, text_dropout=0.0)
    rows = []
    for start in range(0, len(wanted), _MEASURE_BATCH):
        some = wanted[start : start + _MEASURE_BATCH]
        draws = drawing.draw(seed, [(index,) for index in some], clips.model)
        batch = clips.batch(list(some), draws).part(0, len(some), device)
        t_B = torch.full((len(some),), t, device=device)
        x_t = noised(batch.x_0_BCTHW, batch.eps_BCTHW, t_B)
        rows.append(router(x_t, t_B, batch.text_pooled_BD).softmax(dim=1).cpu())
    return torch.cat(rows)


def calibration_error(p_BK: Tensor, label_B: Tensor) -> float:
    """Expected calibration error over ten bins of confidence (arXiv 1706.04599, equation 3)."""
    confidence_B, guess_B = p_BK.max(dim=1)
    right_B = (guess_B == label_B).float()
    bin_B = (confidence_B * _CALIBRATION_BINS).long().clamp_max(_CALIBRATION_BINS - 1)
    error = 0.0
    for index in range(_CALIBRATION_BINS):
        inside = bin_B == index
        if bool(inside.any()):
            gap = (confidence_B[inside].mean() - right_B[inside].mean()).abs()
            error += float(gap) * float(inside.float().mean())
    return error
