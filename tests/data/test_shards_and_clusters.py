"""Shard files from strangers, clusters that keep scenes whole, clips from real footage, truthful captions."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from data.footage import footage
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from kinoswarm_model.data.cluster import assign_clusters
from kinoswarm_model.data.decode import Geometry, decode_clips
from kinoswarm_model.data.errors import DataError, UnreadableVideo
from kinoswarm_model.data.filming import MOTIONS
from kinoswarm_model.data.render import RenderConfig, render_clips
from kinoswarm_model.data.scenes import SCENES
from kinoswarm_model.data.shards import Shard, make_shard, read_shard, write_shard
from kinoswarm_model.data.text import TextBatch, TextEncoder
from kinoswarm_protocol.errors import MalformedBytes

GEOMETRY = Geometry(frames=8, height=32, width=48, fps=8)


class Held:
    """Points in memory."""

    def __init__(self, points: np.ndarray) -> None:
        self.points = points

    def __len__(self) -> int:
        return len(self.points)

    def take(self, indices: Sequence[int] | np.ndarray, /) -> np.ndarray:
        return self.points[np.asarray(indices, dtype=np.int64)]


def small_shard() -> Shard:
    rng = np.random.default_rng(0)
    text = TextBatch(
        rng.normal(size=(2, 4, 6)).astype(np.float16),
        np.ones((2, 4), np.uint8),
        rng.normal(size=(2, 6)).astype(np.float16),
    )
    clips = rng.integers(0, 255, (3, 3, 2, 8, 8), dtype=np.uint8)
    return make_shard(clips, ["b", "a", "b"], {"a": 0, "b": 1}, text)


def test_a_shard_comes_back_as_it_was_written(tmp_path: Path) -> None:
    shard = small_shard()
    write_shard(tmp_path / "s.safetensors", shard)
    back = read_shard(tmp_path / "s.safetensors")
    assert np.array_equal(back.clips, shard.clips)
    assert [back.captions[i] for i in back.caption_index] == ["b", "a", "b"]
    assert np.array_equal(back.text.pooled, shard.text.pooled)


@given(st.data())
def test_no_changed_byte_crashes_the_reader(tmp_path_factory, data: st.DataObject) -> None:
    path = tmp_path_factory.mktemp("shard") / "s.safetensors"
    write_shard(path, small_shard())
    raw = bytearray(path.read_bytes())
    position = data.draw(st.integers(0, min(len(raw) - 1, 700)))
    raw[position] ^= data.draw(st.integers(1, 255))
    path.write_bytes(bytes(raw[: data.draw(st.integers(1, len(raw)))]))
    try:
        read_shard(path)
    except MalformedBytes:
        return


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("caption_index", np.array([0, 1, 9], np.int32), "points outside its 2 captions"),
        (
            "caption_index",
            np.array([0], np.int32),
            r"clips of shape \(3, 3, 2, 8, 8\), 1 caption indices",
        ),
        ("captions", np.frombuffer(b"{}", np.uint8), "not a list of texts"),
        ("captions", np.frombuffer(b"[[", np.uint8), "not JSON"),
        ("text_mask", np.ones((2, 5), np.uint8), "text_mask does not fit"),
        ("clips", np.zeros((3, 3, 2, 8, 8), np.float32), "expected tensors"),
        ("extra", np.zeros(1, np.uint8), "expected tensors"),
    ],
)
def test_a_shard_that_contradicts_itself_is_refused(
    tmp_path: Path, name: str, value: np.ndarray, message: str
) -> None:
    path = tmp_path / "s.safetensors"
    write_shard(path, small_shard())
    save_file({**load_file(path), name: value}, path)
    with pytest.raises(MalformedBytes, match=message):
        read_shard(path)


def test_a_header_that_claims_gigabytes_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    path.write_bytes((2**40).to_bytes(8, "little") + b"{}")
    with pytest.raises(MalformedBytes, match="header of 1099511627776 bytes"):
        read_shard(path)


def blobs_of_points(sizes: list[int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors around random centres, and which centre each belongs to."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(len(sizes), 32))
    scene = np.repeat(np.arange(len(sizes)), sizes)
    points = centres[scene] + 0.15 * rng.normal(size=(len(scene), 32))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return points.astype(np.float32), scene


@pytest.mark.parametrize("seed", range(5))
def test_scenes_are_kept_whole_and_clusters_balanced(seed: int) -> None:
    points, scene = blobs_of_points([60] * 8, seed)
    labels = assign_clusters(Held(points), 4, seed)
    assert all(len(set(labels[scene == s])) == 1 for s in range(8))
    assert max(np.bincount(labels)) <= 2 * min(np.bincount(labels))


def test_many_clips_are_assigned_from_centres_of_a_part_of_them() -> None:
    points, scene = blobs_of_points([900] * 8)
    labels = assign_clusters(Held(points), 4, 0)
    assert all(len(set(labels[scene == s])) == 1 for s in range(8))


def test_every_cluster_is_used_and_the_result_is_repeatable() -> None:
    points, _ = blobs_of_points([5, 3])
    labels = assign_clusters(Held(points), 4, 1)
    assert sorted(set(labels.tolist())) == [0, 1, 2, 3]
    assert np.array_equal(labels, assign_clusters(Held(points), 4, 1))


def test_fewer_clips_than_clusters_is_an_error() -> None:
    with pytest.raises(DataError, match="3 clips cannot fill 4 clusters"):
        assign_clusters(Held(np.eye(3, dtype=np.float32)), 4, 0)


def test_real_footage_is_cut_into_clips_at_the_wanted_rate() -> None:
    clips = list(decode_clips(footage("bikes.mp4"), GEOMETRY, 100))
    assert len(clips) == 10  # 250 frames at 25/s are 10 s: 80 frames at 8/s
    assert all(clip.shape == (8, 32, 48, 3) for clip in clips)
    assert len(list(decode_clips(footage("bikes.mp4"), GEOMETRY, 3))) == 3


def test_a_video_shorter_than_a_clip_says_how_long_it_is() -> None:
    long = Geometry(frames=1000, height=32, width=32, fps=8)
    with pytest.raises(UnreadableVideo, match="too short, under 1000 frames at 8/s"):
        list(decode_clips(footage("bikes.mp4"), long, 1))


@given(st.binary(max_size=400))
def test_no_bytes_crash_the_decoder(tmp_path_factory, raw: bytes) -> None:
    path = tmp_path_factory.mktemp("video") / "v.mp4"
    path.write_bytes(raw)
    with pytest.raises(UnreadableVideo):
        list(decode_clips(path, GEOMETRY, 1))


def test_rendered_captions_say_what_the_camera_does(tmp_path: Path) -> None:
    """When the camera turns left, the picture moves right; the other way round for right."""
    config = RenderConfig(clips_per_scene=40, seed=3, frames=3, scenes=SCENES[:1])
    render_clips(tmp_path, config)
    shifts: dict[str, list[int]] = {"turns left": [], "turns right": []}
    for caption in sorted(tmp_path.glob("*.txt")):
        text = caption.read_text().strip()
        assert text.startswith("the camera ")
        assert SCENES[0].place in text
        assert any(motion.words in text for motion in MOTIONS)
        for words, found in shifts.items():
            if words in text:
                geometry = Geometry(frames=3, height=32, width=32, fps=8)
                (clip,) = decode_clips(caption.with_suffix(".mp4"), geometry, 1)
                found.append(horizontal_shift(clip))
    assert np.median(shifts["turns left"]) > 0 > np.median(shifts["turns right"])


def horizontal_shift(clip: np.ndarray) -> int:
    """By how many columns the picture moved to the right between the first two frames."""
    grey = clip.astype(float).mean(axis=3)
    errors = {
        shift: np.abs(grey[1, :, 8:24] - grey[0, :, 8 - shift : 24 - shift]).mean()
        for shift in range(-7, 8)
    }
    return min(errors, key=lambda shift: errors[shift])


def test_rendering_is_repeatable(tmp_path: Path) -> None:
    for name, processes in (("a", 1), ("b", 2)):
        config = RenderConfig(clips_per_scene=1, seed=5, scenes=SCENES[:4], processes=processes)
        render_clips(tmp_path / name, config)
    files = [sorted((tmp_path / name).iterdir()) for name in ("a", "b")]
    assert [f.read_bytes() for f in files[0]] == [f.read_bytes() for f in files[1]]


def test_similar_prompts_have_similar_embeddings(encoder: TextEncoder) -> None:
    texts = ["a hall of grey stone", "a corridor of gray rock", "a garden with green hedges"]
    pooled = encoder.encode(texts).pooled.astype(np.float32)
    assert pooled[0] @ pooled[1] > pooled[0] @ pooled[2] + 0.1


def test_an_encoder_folder_that_is_incomplete_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({}))
    with pytest.raises(DataError, match=r"lacks model\.safetensors, tokenizer\.json"):
        TextEncoder.load(tmp_path)
