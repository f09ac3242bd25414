"""Founding and starting a coordinator: what is written, and what is said when something is wrong."""

import asyncio
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from msgspec import json as msgspec_json
from typer.testing import CliRunner

from kinoswarm_cli.swarm_commands import app
from kinoswarm_coordinator.founding import FoundingConfig, create_swarm, listening
from kinoswarm_coordinator.home import SwarmFolder
from kinoswarm_coordinator.serve import run_coordinator
from kinoswarm_coordinator.settings import load_settings
from kinoswarm_model.data.data_manifest import (
    MANIFEST_NAME,
    Clip,
    DataCluster,
    DataFile,
    DataManifest,
)
from kinoswarm_model.data.shards import make_shard, write_shard
from kinoswarm_model.data.text import TextBatch
from kinoswarm_network.blob_store import BlobStore
from kinoswarm_network.certificate import ensure_certificate
from kinoswarm_protocol.charter import open_charter
from kinoswarm_protocol.errors import HashMismatch, LocalError
from kinoswarm_protocol.invite import read_invite


def prepared_data(folder: Path, num_clusters: int = 2) -> Path:
    """A data folder as `data prepare` leaves it, of made-up clips."""
    rng = np.random.default_rng(0)
    text = TextBatch(
        rng.normal(size=(1, 32, 384)).astype(np.float16),
        np.ones((1, 32), np.uint8),
        rng.normal(size=(1, 384)).astype(np.float16),
    )

    def file(name: str, count: int) -> DataFile:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        clips = rng.integers(0, 255, (count, 3, 4, 16, 16), dtype=np.uint8)
        write_shard(path, make_shard(clips, ["a wall"] * count, {"a wall": 0}, text))
        return DataFile(name, count, path.stat().st_size, "ab" * 32)

    clusters = [
        DataCluster(
            f"walls {index}",
            8,
            [file(f"shards/cluster-{index:02d}-shard-000.safetensors", 8)],
            file(f"heldout/cluster-{index:02d}.safetensors", 4),
        )
        for index in range(num_clusters)
    ]
    write_manifest(folder, clusters)
    return folder


def write_manifest(folder: Path, clusters: list[DataCluster]) -> None:
    """Of clips of 4 frames of 16 x 16."""
    manifest = DataManifest(
        clip=Clip(4, 16, 16, 8),
        text_encoder="all-MiniLM-L6-v2",
        text_dim=384,
        text_tokens=32,
        seed=0,
        num_sources=24,
        left_out={},
        clusters=clusters,
    )
    (folder / MANIFEST_NAME).write_bytes(msgspec_json.encode(manifest))


CONFIG = FoundingConfig(name="Walls", preset="tiny", threads=1, seed_steps=4, epsilon=(1,))
OVER_TLS = replace(CONFIG, https=True)


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory) -> SwarmFolder:
    root = tmp_path_factory.mktemp("founding")
    create_swarm(prepared_data(root / "data"), root / "swarm", OVER_TLS)
    return SwarmFolder(root / "swarm")


@pytest.fixture
def copy(founded: SwarmFolder, tmp_path: Path) -> SwarmFolder:
    """One to damage."""
    shutil.copytree(founded.root, tmp_path / "copy")
    return SwarmFolder(tmp_path / "copy")


def test_a_founded_swarm_has_a_signed_charter_and_an_invite_to_it(founded: SwarmFolder) -> None:
    invite = read_invite(founded.invite.read_text()).body
    charter = open_charter(founded.charter.read_bytes(), invite.swarm).body
    assert charter.name == invite.name == "Walls"
    assert [cluster.label for cluster in charter.clusters] == ["walls 0", "walls 1"]
    assert [cluster.objective for cluster in charter.clusters] == ["velocity", "epsilon"]
    assert charter.seed_flops > 0
    assert charter.seed_steps == 4
    assert charter.policy.target_version == 2


@pytest.mark.parametrize("cluster", ["2", "-1"])
def test_a_founder_who_names_a_cluster_that_is_not_there_is_told_before_any_training(
    tmp_path: Path, cluster: str
) -> None:
    data, out = prepared_data(tmp_path / "data"), tmp_path / "swarm"
    arguments = [str(data), "--name", "Walls", "--out", str(out), "--preset", "tiny"]
    with pytest.raises(LocalError, match=f"no cluster {cluster}: this data has 2, counted from 0"):
        CliRunner().invoke(
            app, ["create", *arguments, "--epsilon", cluster], catch_exceptions=False
        )
    assert not out.exists()


def test_secret_keys_are_readable_by_their_owner_alone(founded: SwarmFolder) -> None:
    for key in (founded.founder_key, founded.key):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_shards_and_seed_are_served_and_held_out_clips_are_not(founded: SwarmFolder) -> None:
    invite = read_invite(founded.invite.read_text()).body
    charter = open_charter(founded.charter.read_bytes(), invite.swarm).body
    store = BlobStore(founded.store)
    for cluster in charter.clusters:
        assert all(store.path_of(shard.blob) for shard in cluster.shards)
    assert store.path_of(charter.seed_checkpoint)
    public = {store.path_of(blob.blob).read_bytes() for blob in store.blobs()}
    assert founded.heldout(0).read_bytes() not in public


def test_a_storage_that_does_not_answer_is_told_before_anything_starts(
    founded: SwarmFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "heron")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "reed")
    settings = load_settings(founded.home, blobs="s3://bucket/prefix", http_port=0)
    up: list[object] = []
    with pytest.raises(ExceptionGroup) as raised:
        asyncio.run(run_coordinator(founded.root, settings, up.append))
    (error,) = raised.value.exceptions
    assert isinstance(error, LocalError)
    assert "Check the bucket's name, AWS_ENDPOINT_URL" in str(error)
    assert up == []


def test_founding_twice_says_what_to_do_instead(founded: SwarmFolder) -> None:
    with pytest.raises(LocalError, match="serve it with `kinoswarm swarm serve"):
        create_swarm(founded.root.parent / "data", founded.root, CONFIG)


def test_an_interrupted_founding_goes_on_with_the_same_keys(
    founded: SwarmFolder, copy: SwarmFolder
) -> None:
    """Stopped before the invite was written: keys, shards and seed are there already."""
    pin = read_invite(copy.invite.read_text()).body.certificate_sha256
    key, seed = copy.founder_key.read_bytes(), len(BlobStore(copy.store).blobs())
    copy.invite.unlink()
    create_swarm(founded.root.parent / "data", copy.root, OVER_TLS)
    assert copy.founder_key.read_bytes() == key
    invite = read_invite(copy.invite.read_text()).body
    assert pin == invite.certificate_sha256 == ensure_certificate(copy.certificate, "", []).sha256
    assert any(address.startswith("https://") for address in invite.addresses)
    assert len(BlobStore(copy.store).blobs()) <= seed + 1  # the charter carries its own time


def test_an_unprepared_folder_says_which_command_prepares_it(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="run `kinoswarm data prepare"):
        create_swarm(tmp_path, tmp_path / "swarm", CONFIG)


def test_an_unknown_preset_lists_the_known_ones(tmp_path: Path) -> None:
    config = FoundingConfig(name="Walls", preset="huge")
    with pytest.raises(LocalError, match="no preset 'huge'; there are: tiny, demo"):
        create_swarm(prepared_data(tmp_path / "data"), tmp_path / "swarm", config)


def start(folder: SwarmFolder, **flags: object) -> None:
    import asyncio

    settings = load_settings(folder.home, **flags)
    asyncio.run(run_coordinator(folder.root, settings, lambda serving: None))


def test_a_taken_port_is_told_before_anything_starts(founded: SwarmFolder) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(LocalError, match=f"can't listen on 127.0.0.1:{port}"):
            start(founded, http_port=port)


def test_a_folder_without_a_swarm_says_how_to_found_one(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="run `kinoswarm swarm create"):
        start(SwarmFolder(tmp_path))


def test_a_tampered_charter_stops_the_start(copy: SwarmFolder) -> None:
    raw = copy.charter.read_bytes()
    copy.charter.write_bytes(raw.replace(b"walls 0", b"walls 9"))
    with pytest.raises(HashMismatch, match="it was altered or belongs to another swarm"):
        start(copy, http_port=0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("http_port = 70000", "http_port = 70000: .*less than or equal to 65535"),
        ('threads = "many"', "threads = 'many'"),
        ("colour = 1", "colour = 1: Extra inputs are not permitted"),
        ("= what", "is not TOML"),
    ],
)
def test_a_bad_setting_is_named_with_its_value(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "settings.toml").write_text(text)
    with pytest.raises(LocalError, match=message):
        load_settings(tmp_path)


def test_flags_win_over_environment_over_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "settings.toml").write_text("threads = 2\nhttp_port = 1111\nidle_s = 0.25\n")
    monkeypatch.setenv("KINOSWARM_COORDINATOR_THREADS", "3")
    monkeypatch.setenv("KINOSWARM_COORDINATOR_HTTP_PORT", "2222")
    settings = load_settings(tmp_path, http_port=3333, device=None)
    assert (settings.http_port, settings.threads, settings.idle_s) == (3333, 3, 0.25)


def test_the_service_loads_neither_torch_nor_hivemind() -> None:
    code = (
        "import json, sys; import kinoswarm_coordinator.serve, kinoswarm_coordinator.founding; "
        "print(json.dumps([n for n in ('torch', 'hivemind', 'diffusers') if n in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert json.loads(done.stdout) == []


@pytest.mark.parametrize(
    ("hosts", "listen", "page"),
    [
        ((), ["/ip4/127.0.0.1/tcp/7"], "127.0.0.1"),
        (("127.0.0.1", "localhost"), ["/ip4/127.0.0.1/tcp/7"], "127.0.0.1"),
        (("203.0.113.7",), ["/ip4/0.0.0.0/tcp/7", "/ip6/::/tcp/7"], "0.0.0.0"),
        (("2001:db8::7", "example.org"), ["/ip4/0.0.0.0/tcp/7", "/ip6/::/tcp/7"], "::"),
    ],
)
def test_a_coordinator_listens_where_the_founder_said_that_it_is(
    hosts: tuple[str, ...], listen: list[str], page: str
) -> None:
    assert listening(hosts, 7) == (listen, page)
