"""Several machines, one name: an account's key says which machines count for it. Owns these documents and their checks.

Both sides must want it: the account signs the delegation, and only the machine itself can present it, in its signed
hello. The documents name no swarm, so that one delegation holds wherever the machine takes part.
"""

from msgspec import Struct

from kinoswarm_protocol.envelope import Kind, Opened, open_envelope, seal
from kinoswarm_protocol.errors import BadSignature, LimitExceeded, MalformedBytes
from kinoswarm_protocol.ids import PeerId, PeerIdField
from kinoswarm_protocol.keys import KeyPair
from kinoswarm_protocol.limits import MAX_ACCOUNT_BYTES, RECORD_CLOCK_TOLERANCE_MS
from kinoswarm_protocol.specs import Count, Name

MAX_DELEGATION_MS = 2 * 366 * 86_400_000
"""A forgotten delegation ends some day: two years at most."""


class _Statement(Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    account: PeerIdField
    machine: PeerIdField
    serial: Count
    """Milliseconds since 1970 when it was signed: of two statements the later counts, with no counter to back up."""


class Delegation(_Statement, frozen=True, kw_only=True):
    """Signed by the account: what this machine earns from `not_before_ms` until `expires_at_ms` counts for it."""

    name: Name
    """What pages call the account; of several the latest counts."""
    not_before_ms: Count
    expires_at_ms: Count


class Revocation(_Statement, frozen=True, kw_only=True):
    """Signed by the account or by the machine: no delegation up to this serial holds any more."""


DELEGATION: Kind[Delegation] = Kind("delegation", Delegation, MAX_ACCOUNT_BYTES)
REVOCATION: Kind[Revocation] = Kind("revocation", Revocation, MAX_ACCOUNT_BYTES)


def delegate(account: KeyPair, machine: PeerId, name: str, now_ms: int, lasts_ms: int) -> bytes:
    """A signed delegation from now on. Raises MalformedBytes for a name or a length out of bounds."""
    if not 0 < lasts_ms <= MAX_DELEGATION_MS:
        raise MalformedBytes(
            f"a delegation lasts between a moment and two years, not {lasts_ms / 86_400_000:.0f} days"
        )
    body = Delegation(
        account=account.peer_id,
        machine=machine,
        serial=now_ms,
        name=name,
        not_before_ms=now_ms,
        expires_at_ms=now_ms + lasts_ms,
    )
    return seal(account, DELEGATION, "", body)


def revoke(key: KeyPair, account: PeerId, machine: PeerId, now_ms: int) -> bytes:
    """A signed revocation of everything until now; `key` is the account's or the machine's."""
    return seal(key, REVOCATION, "", Revocation(account=account, machine=machine, serial=now_ms))


def open_delegation(raw: bytes, machine: PeerId) -> Opened[Delegation]:
    """Check that an account really delegated `machine`; whether it holds now is for `why_not_at`.

    Raises BadSignature when it is another machine's or not signed by its account, LimitExceeded when it was made for
    too long, and the errors of open_envelope.
    """
    opened = open_envelope(raw, DELEGATION, "")
    body = opened.body
    if opened.signer != body.account:
        raise BadSignature(f"the delegation names account {body.account}, who did not sign it")
    if body.machine != machine:
        raise BadSignature(f"the delegation is for machine {body.machine}, not for {machine}")
    if body.account == machine:
        raise MalformedBytes("a machine is no account of itself: make an account key of its own")
    if not 0 < body.expires_at_ms - body.not_before_ms <= MAX_DELEGATION_MS:
        raise LimitExceeded("the delegation was made for no time, or for more than two years")
    return opened


def open_revocation(raw: bytes) -> Opened[Revocation]:
    """Check that the account or the machine said so. Raises BadSignature and the errors of open_envelope."""
    opened = open_envelope(raw, REVOCATION, "")
    if opened.signer not in (opened.body.account, opened.body.machine):
        raise BadSignature(
            f"the revocation is signed by {opened.signer}, who is neither of the two"
        )
    return opened


def why_not_at(delegation: Delegation, now_ms: int) -> str:
    """Why a delegation does not hold at this moment, in words; empty when it does. Clocks may differ a little."""
    if now_ms + RECORD_CLOCK_TOLERANCE_MS < delegation.not_before_ms:
        return "this machine's account delegation is dated in the future; check the clocks"
    if now_ms >= delegation.expires_at_ms:
        return "this machine's account delegation has expired; ask its owner for a new one"
    return ""
