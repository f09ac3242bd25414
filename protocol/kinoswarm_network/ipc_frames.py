"""Frames between a service and its network process: calls, answers, failures, progress. Owns what surrounds a body.

Length-prefixed MessagePack. Either side may call the other; every frame carries its call's id.
"""

from typing import Annotated, Literal, cast

from msgspec import Meta, Raw, Struct

from kinoswarm_network.ipc import Body, Bytes
from kinoswarm_protocol.codec import decode, encode
from kinoswarm_protocol.errors import (
    BadSignature,
    Code,
    HashMismatch,
    KinoswarmError,
    LimitExceeded,
    LocalError,
    MalformedBytes,
    Refused,
    RemoteError,
    Unreachable,
    VersionMismatch,
)
from kinoswarm_protocol.limits import MAX_IPC_FRAME


class _Frame(Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    pass


CallId = Annotated[int, Meta(ge=0, le=2**53)]
ErrorName = Literal[
    "local", "malformed", "limit", "signature", "hash", "version", "unreachable", "refused"
]


class Call(_Frame, frozen=True, kw_only=True, tag="call"):
    """The body is decoded apart, so that one call which breaks a bound fails alone."""

    call: CallId
    body: Raw


class Answer(_Frame, frozen=True, kw_only=True, tag="answer"):
    call: CallId
    body: Raw


class Failed(_Frame, frozen=True, kw_only=True, tag="failed"):
    call: CallId
    error: ErrorName
    code: Code
    sentence: str


class Progress(_Frame, frozen=True, kw_only=True, tag="progress"):
    """How far a call is, in bytes."""

    call: CallId
    done: Bytes
    total: Bytes


class Cancel(_Frame, frozen=True, kw_only=True, tag="cancel"):
    """The caller no longer wants the answer."""

    call: CallId


Frame = Call | Answer | Failed | Progress | Cancel


def pack(body: Body) -> Raw:
    """A body as it lies in a frame."""
    return Raw(encode(body))


def unpack(raw: Raw) -> Body:
    """The body of a frame; raises MalformedBytes when it breaks its type's bounds."""
    return decode(bytes(raw), cast("type[Body]", Body), MAX_IPC_FRAME)


_NAME_BY_ERROR: dict[type[KinoswarmError], ErrorName] = {
    LocalError: "local",
    MalformedBytes: "malformed",
    LimitExceeded: "limit",
    BadSignature: "signature",
    HashMismatch: "hash",
    VersionMismatch: "version",
    Unreachable: "unreachable",
    Refused: "refused",
}
_ERROR_BY_NAME = {name: error for error, name in _NAME_BY_ERROR.items()}


def failure(call: int, error: KinoswarmError) -> Failed:
    """The frame that carries `error` to the other side."""
    kind = next((kind for kind in type(error).__mro__ if kind in _NAME_BY_ERROR), Refused)
    code = error.code if isinstance(error, RemoteError) else Code.NOT_PERMITTED
    return Failed(call=call, error=_NAME_BY_ERROR[kind], code=code, sentence=str(error)[:4_096])


def error_of(failed: Failed) -> KinoswarmError:
    """The error that a frame carries, as the same type that was raised on the other side."""
    if failed.error == "refused":
        return Refused(failed.code, failed.sentence)
    return _ERROR_BY_NAME[failed.error](failed.sentence)
