"""Self-signed certificates, for servers at home that no CA vouches for. Owns their files and their fingerprints."""

import datetime
import hashlib
import ipaddress
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from kinoswarm_network.durable import write_atomic

_DAYS = 3650
_BORN = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
"""Fixed, so that a wrong clock at home can't make a certificate that is not valid yet."""


class Certificate(NamedTuple):
    path: Path
    key_path: Path
    fingerprint: str
    """SHA-256 of the certificate, in pairs of digits, as browsers show it."""

    @property
    def sha256(self) -> str:
        """The same as plain lower-case digits, as an invite carries it."""
        return self.fingerprint.replace(":", "").lower()


def certificate_at(path: Path) -> Certificate | None:
    """The certificate in `path`, with its key beside it; None when either is missing."""
    key_path = path.with_suffix(".key")
    if not (path.exists() and key_path.exists()):
        return None
    return Certificate(path, key_path, fingerprint_of(path.read_bytes()))


def ensure_certificate(path: Path, common_name: str, hosts: Sequence[str]) -> Certificate:
    """The certificate in `path`, for these addresses and names; made when there is none yet."""
    found = certificate_at(path)
    if found is not None:
        return found
    key_path = path.with_suffix(".key")
    _make(path, key_path, common_name, hosts)
    return Certificate(path, key_path, fingerprint_of(path.read_bytes()))


def fingerprint_of(pem: bytes) -> str:
    """As a browser shows it."""
    digest = hashlib.sha256(
        x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)
    ).hexdigest()
    return ":".join(digest[index : index + 2].upper() for index in range(0, len(digest), 2))


def _named(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _make(path: Path, key_path: Path, common_name: str, hosts: Sequence[str]) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    address = x509.SubjectAlternativeName([_named(host) for host in hosts])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_BORN)
        .not_valid_after(_BORN + datetime.timedelta(days=_DAYS))
        .add_extension(address, critical=False)
        .sign(key, hashes.SHA256())
    )
    pem_key = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    write_atomic(key_path, pem_key)
    write_atomic(path, certificate.public_bytes(serialization.Encoding.PEM))
