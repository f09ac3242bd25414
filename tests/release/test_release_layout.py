"""kinoswarm.json and required files: round trip, bounds, and texts that name what is wrong."""

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from release.tiny_release import tiny_model

from kinoswarm_model.release_layout import (
    INFO,
    ReleaseExpert,
    ReleaseInfo,
    decode_info,
    encode_info,
    read_info,
    required_files,
)
from kinoswarm_protocol.errors import KinoswarmError, LimitExceeded, LocalError, MalformedBytes


def info() -> ReleaseInfo:
    return ReleaseInfo(
        swarm_name="Calm places",
        version=3,
        licence="Apache-2.0",
        experts=[ReleaseExpert(label="corridor", version=2)],
        model=tiny_model(),
    )


def empty_release(folder: Path) -> Path:
    for path in required_files(1):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"{}")
    (folder / INFO).write_bytes(encode_info(info()))
    return folder


def test_info_survives_a_round_trip() -> None:
    assert decode_info(encode_info(info())) == info()


def test_settings_are_written_by_name() -> None:
    fields = json.loads(encode_info(info()))
    assert fields["model"]["clip"]["frames"] == 4
    assert fields["model"]["expert"]["class_name"] == "WanTransformer3DModel"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("model", "expert", "class_name"), "PickledModel"),
        (("model", "clip", "frames"), 10**9),
        (("model", "clip", "extra"), 1),
        (("model", "modes"), "full"),
        (("model",), None),
        (("experts",), []),
        (("version",), -1),
        (("trust_remote_code",), True),
    ],
)
def test_a_tampered_setting_is_refused(path: tuple[str, ...], value: object) -> None:
    fields = json.loads(encode_info(info()))
    target = fields
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    with pytest.raises(MalformedBytes, match="kinoswarm download"):
        decode_info(json.dumps(fields).encode())


@given(st.binary(max_size=300))
def test_any_bytes_are_decoded_or_refused(raw: bytes) -> None:
    with pytest.raises(MalformedBytes):
        decode_info(raw)


@given(st.recursive(st.none() | st.integers() | st.text(), st.lists))
def test_any_json_as_model_is_refused(model: object) -> None:
    fields = {**json.loads(encode_info(info())), "model": model}
    with pytest.raises(KinoswarmError):
        decode_info(msgspec.json.encode(fields) if _fits(fields) else b"")


def _fits(fields: object) -> bool:
    try:
        msgspec.json.encode(fields)
    except (UnicodeEncodeError, OverflowError):
        return False
    return True


def test_a_whole_folder_is_read(tmp_path: Path) -> None:
    assert read_info(empty_release(tmp_path)) == info()


def test_missing_files_are_listed_exactly(tmp_path: Path) -> None:
    folder = empty_release(tmp_path)
    gone = ["experts/0/config.json", "router/model.safetensors"]
    for path in gone:
        (folder / path).unlink()
    with pytest.raises(LocalError) as caught:
        read_info(folder)
    text = str(caught.value)
    assert all(path in text for path in gone)
    assert "kinoswarm download" in text
    assert "model_index.json" not in text


def test_a_folder_without_kinoswarm_json_is_no_release(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match=r"no kinoswarm\.json"):
        read_info(tmp_path)


def test_a_link_out_of_the_folder_counts_as_missing(tmp_path: Path) -> None:
    outside = tmp_path / "secret"
    outside.write_bytes(b"{}")
    folder = empty_release(tmp_path / "release")
    (folder / "model_index.json").unlink()
    (folder / "model_index.json").symlink_to(outside)
    with pytest.raises(LocalError, match=r"model_index\.json"):
        read_info(folder)


def test_a_huge_info_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    folder = empty_release(tmp_path)
    (folder / INFO).write_bytes(b" " * (2 * 1024 * 1024))
    with pytest.raises(LimitExceeded):
        read_info(folder)
