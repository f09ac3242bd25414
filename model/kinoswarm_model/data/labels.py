"""Short names of clusters from their captions' words. Owns what makes a word telling."""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kinoswarm_protocol.limits import MAX_NAME

_WORDS = 4
_COMMON_WORDS = """
    a an and are as at by from in into is it its of on or that the their this to under with
    camera sight slides turns moves forward backward left right video clip scene shot
"""
_COMMON = frozenset(_COMMON_WORDS.split())


def cluster_labels(
    captions: Sequence[str], labels: NDArray[np.int64], num_clusters: int
) -> list[str]:
    """For each cluster the words that are frequent in it and rare elsewhere (tf-idf over clusters)."""
    counts = [Counter[str]() for _ in range(num_clusters)]
    for caption, label in zip(captions, labels.tolist(), strict=True):
        counts[label].update(set(_telling_words(caption)))
    everywhere = sum(counts, Counter[str]())
    return [_label(index, count, everywhere) for index, count in enumerate(counts)]


def _telling_words(caption: str) -> list[str]:
    return [word for word in re.findall(r"[\w'-]+", caption.lower()) if word not in _COMMON]


def _label(index: int, count: "Counter[str]", everywhere: "Counter[str]") -> str:
    scores = {word: n * n / everywhere[word] for word, n in count.items()}
    best = sorted(scores, key=lambda word: (-scores[word], word))[:_WORDS]
    return (", ".join(best) or f"cluster {index}")[:MAX_NAME]
