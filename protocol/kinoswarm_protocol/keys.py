"""Ed25519 keys and libp2p PeerIds. Owns the mapping between the two; where a key file lies is a shell's business.

A PeerId of an Ed25519 key is the base58 of an identity multihash over the libp2p protobuf of the public key
(libp2p specs, "Peer Ids and Keys"), so it embeds the key and a signature can be checked from the id alone.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import base58
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from kinoswarm_protocol.errors import BadSignature, MalformedBytes
from kinoswarm_protocol.ids import PeerId

_MULTIHASH_PREFIX = bytes([0x00, 0x24])  # identity hash, 36 bytes
_PUBLIC_PROTOBUF_PREFIX = bytes([0x08, 0x01, 0x12, 0x20])  # type Ed25519, 32 bytes follow
_PRIVATE_PROTOBUF_PREFIX = bytes([0x08, 0x01, 0x12, 0x40])  # type Ed25519, 64 bytes follow

PUBLIC_KEY_BYTES = 32
SEED_BYTES = 32
SIGNATURE_BYTES = 64


@dataclass(frozen=True)
class KeyPair:
    """One Ed25519 key. `seed` is the 32-byte secret; never log it."""

    seed: bytes

    def __post_init__(self) -> None:
        if len(self.seed) != SEED_BYTES:
            raise MalformedBytes(f"key seed: expected {SEED_BYTES} bytes, got {len(self.seed)}")

    def __repr__(self) -> str:
        return f"KeyPair({self.peer_id})"

    @cached_property
    def _private(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.seed)

    @cached_property
    def public_key(self) -> bytes:
        """The 32 raw public bytes."""
        return self._private.public_key().public_bytes_raw()

    @cached_property
    def peer_id(self) -> PeerId:
        """This key's id on the network."""
        return peer_id_of(self.public_key)

    def sign(self, message: bytes) -> bytes:
        """The 64-byte signature over `message`."""
        return self._private.sign(message)

    def libp2p_private_key(self) -> bytes:
        """The libp2p protobuf PrivateKey(Ed25519, seed + public) that p2pd reads as its identity file."""
        return _PRIVATE_PROTOBUF_PREFIX + self.seed + self.public_key


def peer_id_of(public_key: bytes) -> PeerId:
    """The PeerId that embeds `public_key` (32 bytes)."""
    if len(public_key) != PUBLIC_KEY_BYTES:
        raise MalformedBytes(
            f"public key: expected {PUBLIC_KEY_BYTES} bytes, got {len(public_key)}"
        )
    raw = _MULTIHASH_PREFIX + _PUBLIC_PROTOBUF_PREFIX + public_key
    return PeerId(base58.b58encode(raw).decode())


def public_key_of(peer_id: str) -> bytes:
    """The 32 public bytes inside an Ed25519 PeerId; raises MalformedBytes for any other text."""
    if len(peer_id) > 64:
        raise MalformedBytes(f"PeerId: expected 52 characters, got {len(peer_id)}")
    try:
        raw = base58.b58decode(peer_id)
    except ValueError as error:
        raise MalformedBytes(f"PeerId {peer_id!r} is not base58") from error
    prefix = _MULTIHASH_PREFIX + _PUBLIC_PROTOBUF_PREFIX
    if not raw.startswith(prefix) or len(raw) != len(prefix) + PUBLIC_KEY_BYTES:
        raise MalformedBytes(f"PeerId {peer_id!r} does not embed an Ed25519 key (12D3Koo…)")
    return bytes(raw[len(prefix) :])


@lru_cache(maxsize=16_384)  # the same few thousand peers sign again and again
def _public_of(peer_id: str) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(public_key_of(peer_id))


def verify(peer_id: str, message: bytes, signature: bytes) -> None:
    """Raise BadSignature unless `signature` over `message` was made by the key inside `peer_id`."""
    try:
        _public_of(peer_id).verify(signature, message)
    except (InvalidSignature, ValueError) as error:
        raise BadSignature(f"the signature does not belong to {peer_id}") from error
