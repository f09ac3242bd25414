"""A coordinator's blob and control routes as a small threaded server, with faults on demand. For tests only."""

import re
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from kinoswarm_network.blob_store import BlobStore
from kinoswarm_protocol.ids import BlobId


class Routes(BaseHTTPRequestHandler):
    """What `http_client` speaks to. `server.faults` holds the names of the faults to commit."""

    protocol_version = "HTTP/1.1"
    server: "WebServer"

    def do_POST(self) -> None:
        request = self.rfile.read(int(self.headers["Content-Length"]))
        if request == b"refuse":
            self.answer(403, b"")
        elif request == b"flood":
            self.answer(200, bytes(300 * 1024))
        else:
            self.answer(200, b"somebody asked " + request)

    def do_GET(self) -> None:
        found = re.fullmatch(r"/kinoswarm/1/blobs/([0-9a-f]{64})(/manifest)?", self.path)
        if found is None or self.server.store.path_of(BlobId(found[1])) is None:
            self.answer(404, b"")
        elif found[2]:
            self.answer(200, self.server.store.manifest_bytes(BlobId(found[1])) or b"")
        else:
            self.send_range(BlobId(found[1]))

    def send_range(self, blob: BlobId) -> None:
        size = self.server.store.manifest(blob).size_bytes
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if asked is None or "ignore range" in self.server.faults:
            start, end, status = 0, size - 1, 200
        else:
            start, end, status = int(asked[1]), int(asked[2]), 206
        data = self.server.store.read_range(blob, start, end - start + 1)
        self.server.ranges.append((start, end))
        if "wrong bytes" in self.server.faults:
            data = bytes(len(data))
        if "end early" in self.server.faults:
            self.server.faults.remove("end early")
            self.answer(status, data, sent=data[: len(data) // 2])
            self.close_connection = True
        else:
            self.answer(status, data)

    def answer(self, status: int, data: bytes, sent: bytes | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data if sent is None else sent)

    def log_message(self, format: str, *args: object) -> None:
        """Tests stay quiet."""


class WebServer(ThreadingHTTPServer):
    """Serves the blobs of a store on a free port of this machine."""

    daemon_threads = False

    def __init__(self, store: BlobStore) -> None:
        super().__init__(("127.0.0.1", 0), Routes)
        self.store = store
        self.faults: set[str] = set()
        self.ranges: list[tuple[int, int]] = []
        self.scheme = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that breaks off is part of the tests."""


@contextmanager
def serving(store: BlobStore, certificate: Path | None = None) -> Iterator[WebServer]:
    """A running server; over TLS with the certificate and key in one PEM file, when given."""
    with WebServer(store) as server:
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
            server.scheme = "https"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def own_certificate(path: Path) -> str:
    """Write a self-signed certificate with its key; returns the SHA-256 that an invite carries."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a coordinator at home")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    return certificate.fingerprint(hashes.SHA256()).hex()
