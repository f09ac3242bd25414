"""A real S3-compatible store on this machine: SeaweedFS from its wheel, with keys and one bucket."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from obstore.exceptions import BaseError
from obstore.store import S3Store

KEYS = {"AWS_ACCESS_KEY_ID": "heron", "AWS_SECRET_ACCESS_KEY": "reed-bed-at-dawn"}
BUCKET = "swarm"
_PORTS = ("master.port", "volume.port", "filer.port", "s3.port")
_START_S = 60.0
_POLL_S = 0.1


@dataclass
class S3Server:
    """Its address. Stopping and starting it keeps what it holds."""

    folder: Path
    ports: dict[str, int]
    process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.ports['s3.port']}"

    @property
    def environment(self) -> dict[str, str]:
        return {**KEYS, "AWS_ENDPOINT_URL": self.endpoint, "AWS_REGION": "us-east-1"}

    def objects(self, prefix: str) -> S3Store:
        """The raw objects under s3://<bucket>/<prefix>, for tests that damage them."""
        return S3Store(
            BUCKET,
            prefix=prefix,
            endpoint=self.endpoint,
            region="us-east-1",
            access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
            secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
            client_options={"allow_http": True},
        )

    def start(self) -> None:
        identity = {
            "name": "swarm",
            "credentials": [
                {"accessKey": KEYS["AWS_ACCESS_KEY_ID"], "secretKey": KEYS["AWS_SECRET_ACCESS_KEY"]}
            ],
            "actions": ["Admin", "Read", "Write", "List"],
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "s3.json"
        config.write_text(json.dumps({"identities": [identity]}))
        program = shutil.which("weed", path=str(Path(sys.executable).parent)) or "weed"
        options = {
            "dir": self.folder,
            "ip": "127.0.0.1",
            "s3.config": config,
            "master.telemetry": "false",
            "master.volumeSizeLimitMB": 64,
            "volume.max": 20,
            "s3.port.iceberg": 0,  # off: their usual ports may be somebody's
            "s3.port.lance": 0,
            **self.ports,
            **{f"{name}.grpc": port for name, port in zip(self.ports, free_ports(4), strict=True)},
        }
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    program,
                    "server",
                    "-s3",
                    *(f"-{name}={value}" for name, value in options.items()),
                ],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env={**os.environ, "HOME": str(self.folder)},
            )
        self._wait_until_up()

    def stop(self) -> None:
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.wait()

    def _wait_until_up(self) -> None:
        """Until an object can be written: the parts of it come up one after another."""
        deadline = time.monotonic() + _START_S
        bucket = f"http://127.0.0.1:{self.ports['filer.port']}/buckets/{BUCKET}/"
        while True:
            try:
                httpx.post(bucket, timeout=1.0)
                self.objects("ready").put("probe", b"1")
                return
            except (httpx.HTTPError, BaseError, FileNotFoundError):
                runs = self.process is not None and self.process.poll() is None
                if not runs or time.monotonic() > deadline:
                    raise AssertionError((self.folder / "log").read_text()[-2_000:]) from None
                time.sleep(_POLL_S)


def free_ports(number: int) -> list[int]:
    """Ports that nobody has now; the server says so when somebody took one in between."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


@contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    server = S3Server(folder, dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True)))
    try:
        server.start()
        yield server
    finally:
        server.stop()
