"""Which clips of a cluster are held out. Owns the rule that one video's clips never lie on both sides."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """How many clips of a cluster to hold out: at least the share and at least the number, but never all."""

    fraction: float
    least: int

    def wanted(self, num_clips: int) -> int:
        """For a cluster of at least two clips."""
        # Rounded first: 10% of 30 clips is 3, not the 4 that 0.1 * 30 = 3.0000000000000004 would give.
        share = math.ceil(round(num_clips * self.fraction, 6))
        return min(max(self.least, share, 1), num_clips - 1)


def split(
    members: Indices, video_of_clip: Indices, rule: HeldOut, rng: np.random.Generator
) -> tuple[Indices, Indices]:
    """The held-out and the training clips of a cluster, each in random order.

    Neighbouring clips of one video look alike, so whole videos are held out. Only where that leaves less than half
    of the clips to train on (a cluster of one long video, say) is the last video cut, at one place.
    """
    wanted = rule.wanted(len(members))
    videos = rng.permutation(np.unique(video_of_clip[members]))
    heldout: list[int] = []
    for video in videos:
        if len(heldout) >= wanted:
            break
        clips = np.sort(members[video_of_clip[members] == video]).tolist()
        too_many = len(heldout) + len(clips) > max(wanted, len(members) // 2)
        heldout += clips[: wanted - len(heldout)] if too_many else clips
    training = np.setdiff1d(members, heldout)
    return rng.permutation(np.array(heldout, dtype=np.int64)), rng.permutation(training)
