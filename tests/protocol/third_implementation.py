"""docs/protocol.md in forty lines, with none of our code: plain MessagePack, SHA and Ed25519."""

import hashlib
import struct

import base58
import msgpack
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PEER_ID_PREFIX = bytes.fromhex("0024080112 20".replace(" ", ""))


def peer_id(public_key: bytes) -> str:
    return base58.b58encode(PEER_ID_PREFIX + public_key).decode()


def public_key(peer: str) -> bytes:
    raw = base58.b58decode(peer)
    assert raw.startswith(PEER_ID_PREFIX)
    return raw[len(PEER_ID_PREFIX) :]


def peer_id_of_seed(seed: bytes) -> str:
    return peer_id(Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw())


def signed_bytes(version: int, kind: str, swarm: str, payload: bytes) -> bytes:
    parts = (bytes([version]), kind.encode(), swarm.encode(), payload)
    return b"kinoswarm envelope\0" + b"".join(struct.pack(">Q", len(p)) + p for p in parts)


def open_envelope(raw: bytes) -> tuple[str, str, str, bytes]:
    """(kind, swarm, signer, payload); raises InvalidSignature."""
    version, kind, swarm, signer, payload, signature = msgpack.unpackb(raw)
    key = Ed25519PublicKey.from_public_bytes(public_key(signer))
    key.verify(signature, signed_bytes(version, kind, swarm, payload))
    return kind, swarm, signer, payload


def seal(seed: bytes, kind: str, swarm: str, payload: bytes) -> bytes:
    key = Ed25519PrivateKey.from_private_bytes(seed)
    signature = key.sign(signed_bytes(1, kind, swarm, payload))
    return msgpack.packb([1, kind, swarm, peer_id_of_seed(seed), payload, signature])


def blob_of(chunks: list[bytes], chunk_bytes: int) -> tuple[str, bytes]:
    """Id and manifest."""
    hashes = b"".join(hashlib.sha256(chunk).digest() for chunk in chunks)
    manifest = msgpack.packb([sum(map(len, chunks)), chunk_bytes, hashes])
    return hashlib.sha256(manifest).hexdigest(), manifest
