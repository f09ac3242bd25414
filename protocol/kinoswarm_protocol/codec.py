"""MessagePack in and out, bounded, and JSON in: the one place that turns foreign bytes into types."""

from collections.abc import Hashable
from functools import cache
from typing import Any, TypeVar, cast

import msgspec

from kinoswarm_protocol.errors import LimitExceeded, MalformedBytes

T = TypeVar("T")

_BROKEN = (msgspec.DecodeError, RecursionError, OverflowError, UnicodeDecodeError)
_ENCODER = msgspec.msgpack.Encoder()
_PREFIX_BYTES = 4


@cache
def _decoder(kind: Hashable) -> "msgspec.msgpack.Decoder[Any]":
    return msgspec.msgpack.Decoder(cast("type[Any]", kind))


def encode(value: object) -> bytes:
    """MessagePack bytes of a Struct or builtin; equal values give equal bytes."""
    return _ENCODER.encode(value)


def decode(raw: bytes, kind: type[T], max_bytes: int) -> T:
    """Decode untrusted bytes. Raises LimitExceeded before looking inside, MalformedBytes otherwise."""
    if len(raw) > max_bytes:
        raise LimitExceeded(f"{_name(kind)}: {len(raw)} bytes, at most {max_bytes}")
    try:
        value: T = _decoder(cast(Hashable, kind)).decode(raw)
    except _BROKEN as error:
        raise MalformedBytes(f"{_name(kind)}: {error}") from error
    return value


def decode_json(raw: bytes, kind: type[T]) -> T:
    """Decode JSON that a person, another program or a power cut may have changed; the caller bounds its length.

    Raises MalformedBytes, also for text that is not UTF-8 and for nesting that exhausts the stack.
    """
    try:
        return msgspec.json.decode(raw, type=kind)
    except _BROKEN as error:
        raise MalformedBytes(f"{_name(kind)}: {error}") from error


def frame(payload: bytes) -> bytes:
    """A length-prefixed frame: 4 bytes big-endian, then the payload."""
    return len(payload).to_bytes(_PREFIX_BYTES, "big") + payload


def frame_length(prefix: bytes, max_bytes: int) -> int:
    """The length that a frame's 4-byte prefix declares; raises LimitExceeded before anything is allocated."""
    if len(prefix) != _PREFIX_BYTES:
        raise MalformedBytes(f"frame prefix: expected {_PREFIX_BYTES} bytes, got {len(prefix)}")
    length = int.from_bytes(prefix, "big")
    if length > max_bytes:
        raise LimitExceeded(f"frame of {length} bytes announced, at most {max_bytes}")
    return length


def _name(kind: object) -> str:
    return getattr(kind, "__name__", str(kind))
