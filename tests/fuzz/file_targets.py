"""Readers of files that a person, another program or a power cut may have changed."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from fuzz.target import Target, from_file, scratch
from protocol.golden_samples import SWARM
from protocol.samples import model_spec

from kinoswarm_coordinator.event_log import Row, event_of
from kinoswarm_coordinator.events import Event, LeaseExpired, LeaseFailed
from kinoswarm_model.data.caption_tables import read_table
from kinoswarm_model.data.data_manifest import (
    MANIFEST_NAME,
    Clip,
    DataCluster,
    DataFile,
    DataManifest,
    read_manifest,
)
from kinoswarm_model.release_layout import ReleaseExpert, ReleaseInfo, decode_info, encode_info
from kinoswarm_network.identity import key_text, parse_key_text
from kinoswarm_node.governor.hours import parse_hours
from kinoswarm_node.limits_file import read_limits
from kinoswarm_node.node_status import NodeStatus, read_status
from kinoswarm_node.swarm_folder import Consent, HistoryLine, SelfTest, SwarmFolder
from kinoswarm_protocol.codec import encode
from kinoswarm_protocol.keys import KeyPair

_FILE = DataFile(path="a/0.safetensors", num_clips=3, size_bytes=5, sha256="ab" * 32)


def _manifest() -> DataManifest:
    return DataManifest(
        clip=Clip(8, 32, 48, 8),
        text_encoder="mini",
        text_dim=6,
        text_tokens=4,
        seed=0,
        num_sources=1,
        left_out={"too short": 1},
        clusters=[DataCluster(label="halls", num_clips=3, shards=[], heldout=_FILE)],
    )


def _read_manifest(path: Path) -> DataManifest:
    held = path.parent / _FILE.path
    held.parent.mkdir(exist_ok=True)
    held.touch()
    return read_manifest(path.parent)


def _info() -> bytes:
    return encode_info(
        ReleaseInfo(
            swarm_name="Calm places",
            version=3,
            licence="Apache-2.0",
            experts=[ReleaseExpert(label="hall", version=2)],
            model=model_spec(),
        )
    )


def _text(read: Callable[[str], Any]) -> Callable[[bytes], Any]:
    return lambda raw: read(raw.decode(errors="replace"))


def _log_event(raw: bytes) -> Event:
    """As from a backup of a stranger: hashes are no secret, so the row's is right."""
    return event_of(Row(1, bytes(32), raw), "the log")


def _log_events() -> Sequence[bytes]:
    return [
        encode(LeaseExpired(at_ms=1, lease_id="a" * 32)),
        encode(LeaseFailed(at_ms=1, lease_id="a" * 32, code="work_failed", sentence="no memory")),
    ]


def _folder(name: str, use: Callable[[SwarmFolder], Any]) -> Callable[[bytes], Any]:
    """A file in a swarm's folder; damaged ones count as missing, so nothing is refused."""

    def read(raw: bytes) -> Any:
        folder = SwarmFolder(scratch() / "swarm", SWARM)
        folder.keep_text(name, raw)
        return use(folder)

    return read


def _status() -> Sequence[bytes]:
    status = NodeStatus(
        pid=1,
        peer_id="12D3Koo",
        pseudonym="quiet-otter",
        swarm=SWARM,
        swarm_name="Calm places",
        state="training",
        since_ms=1,
        updated_at_ms=2,
        reason="it trains",
    )
    return [msgspec.json.encode(status)]


def _consent() -> bytes:
    return msgspec.json.encode(
        Consent(at_ms=1, swarm=SWARM, name="Calm places", licences={"data": "CC0"}, content_note="")
    )


def _self_test() -> bytes:
    return msgspec.json.encode(
        SelfTest(
            device="cpu", threads=2, device_name="CPU", memory_bytes=2**30, seconds_per_step=0.5
        )
    )


def _history() -> bytes:
    line = HistoryLine(at_ms=12, lease_id="a" * 32, state="accepted", code="accepted", sentence="")
    return msgspec.json.encode(line) + b"\n"


FILES: dict[str, Target] = {
    "data_manifests": Target(
        from_file(MANIFEST_NAME, _read_manifest),
        lambda: [msgspec.json.encode(_manifest())],
        msgspec.json.encode,
    ),
    "log_events": Target(_log_event, _log_events, encode),
    "caption_csv": Target(
        from_file("captions.csv", read_table), lambda: [b"file_name,caption\na.mp4,a hall\n"]
    ),
    "caption_jsonl": Target(
        from_file("captions.jsonl", read_table),
        lambda: [b'{"file_name": "a.mp4", "caption": "a hall"}\n'],
    ),
    "release_infos": Target(decode_info, lambda: [_info()], encode_info),
    "key_files": Target(
        _text(parse_key_text),
        lambda: [key_text(KeyPair(bytes(32))).encode()],
        lambda key: key_text(key).encode(),
    ),
    "hours": Target(_text(parse_hours), lambda: [b"22:00-07:00", b"sat-sun 0:00-24:00"]),
    "limits": Target(
        from_file("limits.json", lambda path: read_limits(path.parent)),
        lambda: [b'{"gpu_share": 0.5, "hours": "22:00-07:00"}'],
        msgspec.json.encode,
    ),
    "statuses": Target(from_file("status.json", read_status), _status),
    "consents": Target(_folder("consent.json", SwarmFolder.consent), lambda: [_consent()]),
    "self_tests": Target(
        _folder("self_test.json", lambda folder: folder.self_test("cpu", 2)),
        lambda: [_self_test()],
    ),
    "histories": Target(
        _folder("history.jsonl", lambda folder: list(folder.history())),
        lambda: [_history()],
    ),
}
