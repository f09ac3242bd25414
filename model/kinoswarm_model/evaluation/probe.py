"""Reads from clips what their captions asked for. Owns the probe behind "prompt agreement".

A linear classifier is fitted on features of real clips, whose captions are true by construction, and then asked about
generated ones: does a clip of "the hydroponic facility" look like it, does "turns left" turn left? The same probe's
accuracy on other real clips is the ceiling, and is reported beside every figure.
Shapes: N clips, D features.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kinoswarm_protocol.errors import LocalError

_INVERSE_PENALTY = 0.1
"""A strong penalty: there are few real clips for each label."""
_ITERATIONS = 60

Features = NDArray[np.float64]
Labels = Sequence[int] | NDArray[np.int64]


@dataclass(frozen=True)
class Probe:
    """A fitted linear classifier: label = argmax of scaled features @ weights + bias."""

    centre_D: Features
    scale_D: Features
    weights_DL: Features
    bias_L: Features
    labels_L: NDArray[np.int64]

    def read(self, features_ND: Features) -> NDArray[np.int64]:
        """The label of every clip."""
        scores = (features_ND - self.centre_D) / self.scale_D @ self.weights_DL + self.bias_L
        read: NDArray[np.int64] = self.labels_L[scores.argmax(axis=1)]
        return read

    def agreement(self, features_ND: Features, wanted: Labels) -> float:
        """Share of clips in which the probe reads what was wanted."""
        return float((self.read(features_ND) == np.asarray(wanted)).mean())


def fit_probe(features_ND: Features, labels: Labels) -> Probe:
    """Multinomial logistic regression on real clips. Raises LocalError for fewer than two labels."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    known = np.unique(np.asarray(labels))
    if len(known) < 2:
        raise LocalError(f"a probe tells labels apart; the real clips have {len(known)}")
    centre, scale = features_ND.mean(axis=0), features_ND.std(axis=0).clip(min=1e-9)
    model = LogisticRegression(C=_INVERSE_PENALTY, max_iter=_ITERATIONS)
    with warnings.catch_warnings():
        # The last digits of the weights don't change what is read.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit((features_ND - centre) / scale, np.asarray(labels))
    weights, bias = model.coef_.T, model.intercept_
    if len(known) == 2:
        weights, bias = np.hstack([-weights, weights]) / 2, np.array([-bias[0], bias[0]]) / 2
    return Probe(centre, scale, weights, bias, known.astype(np.int64))
