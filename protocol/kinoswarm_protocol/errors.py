"""Every error the project raises on purpose. Owns the tree and the wire codes; must not import anything of ours.

KinoswarmError
├── LocalError               this machine, this user's input or configuration is wrong; the text says what to do
└── RemoteError              a peer, or bytes that came from elsewhere, are wrong; carries a wire code
    ├── MalformedBytes       could not be decoded into the expected type
    ├── LimitExceeded        longer, larger or more than limits.py allows
    ├── BadSignature         the signature or the signer is wrong
    ├── HashMismatch         the bytes are not what their name says
    ├── VersionMismatch      the peer speaks another protocol version
    ├── Unreachable          nobody answered in time
    └── Refused              the peer understood and said no, with its code and sentence
"""

from enum import StrEnum


class Code(StrEnum):
    """Wire codes of refusals and verdicts. A code is for programs, the sentence beside it for people."""

    MALFORMED = "malformed"
    OVERSIZE = "oversize"
    UNKNOWN_KIND = "unknown_kind"
    BAD_SIGNATURE = "bad_signature"
    HASH_MISMATCH = "hash_mismatch"
    VERSION_MISMATCH = "version_mismatch"
    UNREACHABLE = "unreachable"
    WRONG_SWARM = "wrong_swarm"
    NOT_PERMITTED = "not_permitted"
    NOT_FOUND = "not_found"
    RATE_LIMITED = "rate_limited"
    UNKNOWN_LEASE = "unknown_lease"
    LEASE_EXPIRED = "lease_expired"
    LEASE_USED = "lease_used"
    LEASE_FOREIGN = "lease_foreign"
    STALE_BASE = "stale_base"
    BLOB_UNAVAILABLE = "blob_unavailable"
    BAD_TENSORS = "bad_tensors"
    NOT_FINITE = "not_finite"
    NORM_OUT_OF_BAND = "norm_out_of_band"
    WORSE_ON_HELDOUT = "worse_on_heldout"
    COPIED = "copied"
    AUDIT_MISMATCH = "audit_mismatch"
    SET_ASIDE = "set_aside"
    WORK_FAILED = "work_failed"
    ACCEPTED = "accepted"
    OVERLOADED = "overloaded"


class KinoswarmError(Exception):
    """Base of all errors that are part of a contract."""


class LocalError(KinoswarmError):
    """Something on this machine or asked by this user is wrong; the message says what to do."""


class RemoteError(KinoswarmError):
    """A peer or foreign bytes are wrong. `code` travels on the wire."""

    code: Code = Code.MALFORMED


class MalformedBytes(RemoteError):
    code = Code.MALFORMED


class LimitExceeded(RemoteError):
    code = Code.OVERSIZE


class BadSignature(RemoteError):
    code = Code.BAD_SIGNATURE


class HashMismatch(RemoteError):
    code = Code.HASH_MISMATCH


class VersionMismatch(RemoteError):
    code = Code.VERSION_MISMATCH


class Unreachable(RemoteError):
    code = Code.UNREACHABLE


class Refused(RemoteError):
    """A peer said no. `code` is the peer's code, the text is the peer's sentence."""

    def __init__(self, code: Code, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code
