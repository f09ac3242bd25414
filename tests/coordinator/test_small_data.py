"""A founder's handful of clips: how much training it bears, and what the founder is told."""

from kinoswarm_coordinator.small_data import fit_to_data
from kinoswarm_model.data.data_manifest import Clip, DataCluster, DataFile, DataManifest
from kinoswarm_model.presets import Preset, preset

DEMO: Preset = preset("demo", frames=8, height=32, width=32, num_clusters=2)


def _manifest(*sizes: int) -> DataManifest:
    file = DataFile("shards/0.safetensors", 1, 1, "0" * 64)
    clusters = [
        DataCluster(f"cluster of {size}", size, [file], DataFile("heldout/0", 1, 1, "0" * 64))
        for size in sizes
    ]
    return DataManifest(
        clip=Clip(8, 32, 32, 8),
        text_encoder="e",
        text_dim=384,
        text_tokens=32,
        seed=0,
        num_sources=len(sizes),
        left_out={},
        clusters=clusters,
        fingerprint="f",
    )


def test_a_preset_is_left_alone_by_data_that_bears_it() -> None:
    assert fit_to_data(DEMO, _manifest(200, 240)) == (DEMO, [])


def test_few_clips_shorten_segments_and_seed_in_proportion_and_say_so() -> None:
    fitted, notes = fit_to_data(DEMO, _manifest(4, 64))
    assert fitted.policy.segment_steps_max == fitted.policy.segment_steps_min == 12
    assert fitted.segment_steps == 12
    assert fitted.policy.quorum_samples == 12 * DEMO.model.recipe.batch_size
    assert fitted.seed_steps == 50 * 68 // DEMO.model.recipe.batch_size
    assert len(notes) == 1
    assert "'cluster of 4' has only 4 clips" in notes[0]
    assert "12 steps instead of 600" in notes[0]


def test_one_clip_still_gives_a_segment() -> None:
    fitted, _ = fit_to_data(DEMO, _manifest(1, 1))
    assert fitted.policy.segment_steps_max >= 1
    assert fitted.seed_steps >= 1
