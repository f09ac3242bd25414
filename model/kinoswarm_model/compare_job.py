"""A compare job: how far apart deltas lie that different machines trained under one work order. Owns no verdict.

Equal seeds fix data, noise and times, so that honest deltas differ by rounding alone. A delta that can't be used has no
distance to any other; the rest is compared all the same.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from kinoswarm_model.delta import Delta, read_delta
from kinoswarm_model.experts import tensor_shapes
from kinoswarm_model.jobs import CompareDone, CompareJob, JobProgress, PairDistance
from kinoswarm_protocol.errors import RemoteError


def run(job: CompareJob, report: Callable[[JobProgress], None]) -> CompareDone:
    """Compare every pair; the wire code of a delta that can't be read is its verdict's business."""
    shapes = tensor_shapes(job.model)
    deltas = [_read(Path(path), shapes) for path in job.delta_paths]
    pairs = list(combinations(range(len(deltas)), 2))
    distances = []
    for number, (first, second) in enumerate(pairs, start=1):
        distances.append(_pair(first, second, deltas[first], deltas[second]))
        report(
            JobProgress(
                job_id=job.job_id, step=number, total=len(pairs), loss=None, what="comparing"
            )
        )
    return CompareDone(distances=distances)


def _read(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> Delta | None:
    try:
        return read_delta(path, shapes)
    except RemoteError:
        return None


def _pair(first: int, second: int, one: Delta | None, other: Delta | None) -> PairDistance:
    if one is None or other is None:
        return PairDistance(first=first, second=second, distance=None, cosine=None)
    apart = apartness(one, other)
    return PairDistance(first=first, second=second, distance=apart.distance, cosine=apart.cosine)


@dataclass(frozen=True)
class Apartness:
    """Two deltas of one model."""

    distance: float
    """||a - b|| / max(||a||, ||b||): 0 for equal deltas, 0.9 for one that did a tenth of the other's way."""
    cosine: float


def apartness(one: Delta, other: Delta) -> Apartness:
    """Distance and cosine over all tensors, summed in float64; two empty deltas are equal."""
    squares_one, squares_other, products = [], [], []
    for name, tensor in one.tensors():
        left, right = tensor.double().flatten(), other.tensor(name).double().flatten()
        squares_one.append(float(left @ left))
        squares_other.append(float(right @ right))
        products.append(float(left @ right))
    square_one, square_other = math.fsum(squares_one), math.fsum(squares_other)
    product, larger = math.fsum(products), max(square_one, square_other)
    if larger == 0.0:
        return Apartness(0.0, 1.0)
    between = max(0.0, square_one + square_other - 2.0 * product)
    norms = math.sqrt(square_one * square_other)
    cosine = max(-1.0, min(1.0, product / norms)) if norms else 0.0
    return Apartness(math.sqrt(between / larger), cosine)
