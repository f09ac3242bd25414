"""How much training a data set bears. Owns the bound on passes over it; pure.

A preset's steps suit hundreds of clips a cluster. With a handful an expert learns them by heart, and every honest
contribution would be refused for being worse on held-out clips.
"""

from dataclasses import replace

from msgspec import structs

from kinoswarm_model.data.data_manifest import DataManifest
from kinoswarm_model.presets import Preset

_PASSES = 50
"""Passes over the data of a cluster in one segment; the demo's segments make 45."""
_MIN_STEPS = 8


def fit_to_data(chosen: Preset, manifest: DataManifest) -> tuple[Preset, list[str]]:
    """`chosen` with no more steps than the data bears, and a sentence for each thing that was cut.

    The seed is bounded by the clips of all clusters, segments by those of the smallest.
    """
    batch = chosen.model.recipe.batch_size
    smallest = min(manifest.clusters, key=lambda cluster: cluster.num_clips)
    seed_steps = _bounded(chosen.seed_steps, sum(c.num_clips for c in manifest.clusters), batch)
    steps = _bounded(chosen.policy.segment_steps_max, smallest.num_clips, batch)
    notes = []
    if steps < chosen.policy.segment_steps_max:
        notes.append(
            f"cluster '{smallest.label}' has only {smallest.num_clips} clips to train on: segments are "
            f"{steps} steps instead of {chosen.policy.segment_steps_max}, so that its expert does not learn "
            "them by heart; more video or fewer clusters would make a better model"
        )
    share = steps / chosen.policy.segment_steps_max
    policy = structs.replace(
        chosen.policy,
        segment_steps_min=min(chosen.policy.segment_steps_min, steps),
        segment_steps_max=steps,
        quorum_samples=max(1, round(chosen.policy.quorum_samples * share)),
    )
    fitted = replace(
        chosen,
        policy=policy,
        seed_steps=seed_steps,
        segment_steps=min(chosen.segment_steps, steps),
    )
    return fitted, notes


def _bounded(steps: int, num_clips: int, batch: int) -> int:
    return min(steps, max(_MIN_STEPS, _PASSES * num_clips // batch))
