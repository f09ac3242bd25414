"""Remembers what was computed for a model, because a worker does job after job with the same one. Owns nothing else."""

from collections.abc import Callable
from functools import wraps
from typing import TypeVar

from kinoswarm_protocol import codec
from kinoswarm_protocol.specs import ModelSpec

R = TypeVar("R")

_MOST = 16
"""A process that sees more models than this (a test, a comparison) begins anew."""


def once_per_model(compute: Callable[[ModelSpec], R]) -> Callable[[ModelSpec], R]:
    """`compute`, but once for equal specs; what it raises is not remembered. Its results must not be changed."""
    known: dict[bytes, R] = {}

    @wraps(compute)
    def recall(model: ModelSpec) -> R:
        key = codec.encode(model)
        if key not in known:
            if len(known) >= _MOST:
                known.clear()
            known[key] = compute(model)
        return known[key]

    return recall
