"""A charter with its amendments, as one file: checked from the founder's signatures alone, wherever it came from.

Owns the order and the links: none can be left out, put in between or changed without being noticed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta, Struct, structs

from kinoswarm_protocol.charter import (
    AMENDMENT,
    Amendment,
    Charter,
    amend,
    open_charter,
)
from kinoswarm_protocol.codec import decode, encode
from kinoswarm_protocol.envelope import Opened, open_envelope, peek_payload, seal
from kinoswarm_protocol.errors import HashMismatch, LocalError
from kinoswarm_protocol.ids import PeerId, SwarmId, sha256_hex, swarm_id_of
from kinoswarm_protocol.keys import KeyPair
from kinoswarm_protocol.limits import MAX_AMENDMENTS, MAX_CHAIN_BYTES, MAX_CHARTER_BYTES

_Raw = Annotated[bytes, Meta(max_length=MAX_CHARTER_BYTES + 1024)]


class CharterChain(Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """The envelopes, oldest first."""

    charter: _Raw
    amendments: Annotated[list[_Raw], Meta(max_length=MAX_AMENDMENTS)] = []


@dataclass(frozen=True)
class OpenedChain:
    """A chain whose every signature and link holds."""

    swarm: SwarmId
    raw: bytes
    charter: Charter
    """As it is in force: the founding charter with every change."""
    amendments: tuple[Opened[Amendment], ...]

    @property
    def number(self) -> int:
        """How many amendments there are."""
        return len(self.amendments)


def open_chain(raw: bytes, swarm: SwarmId | None = None) -> OpenedChain:
    """Check a chain against the swarm's id; without one the charter's own hash is taken, and the asker must compare it.

    Raises HashMismatch, BadSignature, MalformedBytes, LimitExceeded or VersionMismatch.
    """
    chain = decode(raw, CharterChain, MAX_CHAIN_BYTES)
    found = swarm or swarm_id_of(peek_payload(chain.charter, MAX_CHARTER_BYTES))
    founding = open_charter(chain.charter, found).body
    previous = chain.charter
    amendments = []
    for raw_amendment in chain.amendments:
        amendments.append(open_amendment(raw_amendment, previous, founding, found))
        previous = raw_amendment
    charter = amend(founding, [opened.body for opened in amendments])
    return OpenedChain(found, raw, charter, tuple(amendments))


def open_amendment(
    raw: bytes, previous: bytes, charter: Charter, swarm: SwarmId
) -> Opened[Amendment]:
    """Check an amendment against the founder and the document before it. Raises the errors of open_chain."""
    opened = open_envelope(raw, AMENDMENT, swarm, charter.founder)
    if opened.body.previous_sha256 != _digest(previous):
        raise HashMismatch(
            f"amendment {opened.body.number} does not follow the one before it; one is missing or altered"
        )
    return opened


def coordinators_ever(chain: OpenedChain) -> frozenset[PeerId]:
    """Every key that was a coordinator's at some time: what it signed then stays signed."""
    raw = decode(chain.raw, CharterChain, MAX_CHAIN_BYTES).charter
    named = [open_charter(raw, chain.swarm).body.coordinators]
    named += [opened.body.coordinators or [] for opened in chain.amendments]
    return frozenset(peer for peers in named for peer in peers)


def chain_of(charter_raw: bytes, amendments: Sequence[bytes] = ()) -> bytes:
    """A chain's bytes; `open_chain` checks it."""
    return encode(CharterChain(charter=charter_raw, amendments=list(amendments)))


def lengthen(founder: KeyPair, before: OpenedChain, change: Amendment) -> OpenedChain:
    """Sign `change` as the next amendment: its number and link are filled in here.

    Raises LocalError for another key than the founder's or too many amendments, MalformedBytes for a field out of
    bounds.
    """
    if founder.peer_id != before.charter.founder:
        raise LocalError(
            f"this key is {founder.peer_id}; amendments are signed by the founder, {before.charter.founder}"
        )
    if before.number >= MAX_AMENDMENTS:
        raise LocalError(f"a charter takes {MAX_AMENDMENTS} amendments at most")
    chain = decode(before.raw, CharterChain, MAX_CHAIN_BYTES)
    previous = chain.amendments[-1] if chain.amendments else chain.charter
    linked = structs.replace(change, number=before.number + 1, previous_sha256=_digest(previous))
    raw = seal(founder, AMENDMENT, before.swarm, linked)
    return open_chain(chain_of(chain.charter, [*chain.amendments, raw]), before.swarm)


def _digest(envelope: bytes) -> str:
    return sha256_hex(peek_payload(envelope, MAX_CHARTER_BYTES))
