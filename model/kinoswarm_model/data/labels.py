"""Short names of clusters from their captions. Owns what makes a phrase telling."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from kinoswarm_protocol.limits import MAX_NAME

_PHRASES = 3
_LONGEST_PHRASE = 3  # words
_COMMON_WORDS = """
    a above across along an and are around as at behind below beside by down for from has in into is it its near of on
    or out over past some that the their there through to toward towards this under up was were which while with
    camera sight slides turns moves forward backward left right video clip scene shot
"""
_WORD = re.compile(r"[\w'-]+|[^\w\s]")
"""A word or a mark, which no phrase goes across."""
_COMMON = frozenset(_COMMON_WORDS.split())


def cluster_labels(
    captions: Sequence[str], labels: NDArray[np.int64], num_clusters: int
) -> list[str]:
    """For each cluster the phrases that are frequent in it and rare elsewhere (tf-idf over clusters)."""
    counts = [Counter[str]() for _ in range(num_clusters)]
    for caption, label in zip(captions, labels.tolist(), strict=True):
        counts[label].update(set(_phrases(caption)))
    everywhere = sum(counts, Counter[str]())
    return [_label(index, count, everywhere) for index, count in enumerate(counts)]


def telling_words(caption: str) -> list[str]:
    """The words that say what is seen, in order."""
    return [word for word in _WORD.findall(caption.lower()) if _is_telling(word)]


def _phrases(caption: str) -> Iterator[str]:
    """Every run of up to three telling words that stand side by side: "red rock" as well as "red" and "rock"."""
    words = _WORD.findall(caption.lower())
    for start in range(len(words)):
        for end in range(start + 1, min(start + _LONGEST_PHRASE, len(words)) + 1):
            if not _is_telling(words[end - 1]):
                break
            yield " ".join(words[start:end])


def _is_telling(word: str) -> bool:
    return word not in _COMMON and re.match(r"\w", word) is not None


def _label(index: int, count: "Counter[str]", everywhere: "Counter[str]") -> str:
    """The best phrases, none of which shares a word with a better one."""
    scores = {phrase: n * n / everywhere[phrase] for phrase, n in count.items()}
    # Of phrases that always come together the longest says most.
    ranked = sorted(scores, key=lambda phrase: (-scores[phrase], -len(phrase.split()), phrase))
    chosen: list[str] = []
    for phrase in ranked:
        if len(chosen) < _PHRASES and not set(phrase.split()) & set(" ".join(chosen).split()):
            chosen.append(phrase)
    return (", ".join(chosen) or f"cluster {index}")[:MAX_NAME].rstrip(", ")
