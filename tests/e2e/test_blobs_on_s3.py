"""`kinoswarm swarm serve --blobs s3://…`: a coordinator whose disk is gone serves every blob from a real S3 store."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from coordinator.test_starting import CONFIG, prepared_data
from e2e.processes import SHARED_MACHINE
from e2e.s3_server import S3Server, s3_server

from kinoswarm_coordinator.founding import create_swarm
from kinoswarm_coordinator.home import SwarmFolder
from kinoswarm_network.blob_store import BlobStore
from kinoswarm_network.object_shelf import ObjectShelf
from kinoswarm_protocol.charter import open_charter
from kinoswarm_protocol.invite import read_invite

pytestmark = pytest.mark.e2e
LIMIT_S = 120.0
URL = "s3://swarm/films"


@contextmanager
def serving(folder: SwarmFolder, server: S3Server) -> Iterator[str]:
    """The address of the coordinator's page; Ctrl-C ends it."""
    command = [sys.executable, "-m", "kinoswarm_cli.main", "swarm", "serve", str(folder.root)]
    with subprocess.Popen(
        [*command, "--blobs", URL, "--http-port", "0", "--json"],
        stdout=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            **SHARED_MACHINE,
            **server.environment,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "KINOSWARM_COORDINATOR_LISTEN": '["/ip4/127.0.0.1/tcp/0"]',
        },
    ) as process:
        try:
            assert process.stdout
            yield json.loads(process.stdout.readline())["page"].rstrip("/")
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(LIMIT_S)


def wait_until_shelved(shelf: ObjectShelf, blobs: set[str]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not blobs <= shelf.names():
        assert time.monotonic() < deadline, "not everything came to the storage"
        time.sleep(0.2)


def test_a_coordinator_that_lost_its_disk_serves_every_blob_from_the_storage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = SwarmFolder(tmp_path / "swarm")
    create_swarm(prepared_data(tmp_path / "data"), folder.root, CONFIG)
    invite = read_invite(folder.invite.read_text()).body
    seed = open_charter(folder.charter.read_bytes(), invite.swarm).body.seed_checkpoint
    before = BlobStore(folder.store)
    path = before.path_of(seed)
    assert path is not None
    data = path.read_bytes()
    with s3_server(tmp_path / "s3") as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        with serving(folder, server):
            wait_until_shelved(ObjectShelf(URL), {stored.blob for stored in before.blobs()})
        shutil.rmtree(folder.store)
        with serving(folder, server) as page:
            blob_url = f"{page}/kinoswarm/1/blobs/{seed}"
            patient = httpx.HTTPTransport(retries=8)  # the page is told a moment before it answers
            with httpx.Client(transport=patient, timeout=LIMIT_S) as client:
                part = client.get(blob_url, headers={"Range": "bytes=1000-1999"})
                assert (part.status_code, part.content) == (206, data[1000:2000])
                assert client.get(blob_url).content == data
                assert client.get(f"{blob_url}/manifest").status_code == 200
