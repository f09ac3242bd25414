"""Signing an amendment in a swarm's folder. Owns what a founder may ask for and the order of the writes.

The chain with its record is one atomic write; an invite is written after it. Killed in between, the next amendment or
`kinoswarm swarm amend --notice` writes the invite again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from msgspec import structs

from kinoswarm_coordinator.charter_file import read_chain, write_charter_file
from kinoswarm_coordinator.home import SwarmFolder
from kinoswarm_network.durable import write_atomic
from kinoswarm_network.identity import load_key, load_or_create_key
from kinoswarm_protocol.charter import Amendment, Charter, Policy, in_words
from kinoswarm_protocol.charter_chain import lengthen
from kinoswarm_protocol.errors import LocalError
from kinoswarm_protocol.ids import PeerId
from kinoswarm_protocol.invite import read_invite, write_invite
from kinoswarm_protocol.keys import KeyPair, public_key_of


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What the founder asks for; what is left out stays as it was."""

    notice: str = ""
    policy: tuple[str, ...] = ()
    """`name=value` of fields of the policy."""
    coordinators: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    rotate_key: bool = False
    """This folder's coordinator gets a new key, and the old one ends."""
    min_version: str = ""
    new_version: str = ""
    version_notes: str = ""


@dataclass(frozen=True)
class SignedAmendment:
    """What was signed."""

    number: int
    sentence: str
    invite: str


def amend_swarm(
    root: Path, changes: Changes, now_ms: int, founder_key: Path | None = None
) -> SignedAmendment:
    """Sign `changes` as the next amendment of the swarm in `root`; a running coordinator follows by itself.

    Raises LocalError when nothing is asked, for a key that is not the founder's, or a value out of bounds.
    """
    folder = SwarmFolder(root.resolve())
    folder.require_founded()
    invite = read_invite(folder.invite.read_text()).body
    founder = load_key(founder_key or folder.founder_key)
    before, _ = read_chain(folder, invite.swarm)
    change = _amendment(folder, before.charter, changes, now_ms)
    chain = lengthen(founder, before, change)
    write_charter_file(folder, founder, chain, now_ms)
    fresh = structs.replace(
        invite, coordinators=chain.charter.coordinators, addresses=chain.charter.addresses
    )
    text = write_invite(founder, fresh)
    write_atomic(folder.invite, (text + "\n").encode(), mode=0o644)
    return SignedAmendment(chain.number, in_words(chain.amendments[-1].body), text)


def _amendment(folder: SwarmFolder, charter: Charter, changes: Changes, now_ms: int) -> Amendment:
    coordinators = [_peer(typed) for typed in changes.coordinators] or None
    addresses = list(changes.addresses) or None
    if changes.rotate_key:
        coordinators, addresses = _rotated(folder, charter, coordinators, addresses)
    amendment = Amendment(
        number=1,
        previous_sha256="0" * 64,
        created_at_ms=now_ms,
        notice=changes.notice,
        policy=changed_policy(charter.policy, changes.policy) if changes.policy else None,
        coordinators=coordinators,
        addresses=addresses,
        min_version=changes.min_version or None,
        new_version=changes.new_version or None,
        version_notes=changes.version_notes,
    )
    if "changes nothing" in in_words(amendment):
        raise LocalError("an amendment needs something to change or to say; see --help")
    return amendment


def _rotated(
    folder: SwarmFolder,
    charter: Charter,
    coordinators: list[PeerId] | None,
    addresses: list[str] | None,
) -> tuple[list[PeerId], list[str]]:
    """The same coordinators and addresses with this folder's key replaced by a new one."""
    old, new = load_key(folder.key).peer_id, load_or_create_key(folder.next_key).peer_id
    kept = [peer for peer in coordinators or charter.coordinators if peer not in (old, new)]
    return [new, *kept], [address.replace(old, new) for address in addresses or charter.addresses]


def changed_policy(policy: Policy, changes: Sequence[str]) -> Policy:
    """The policy with `name=value` changes. Raises LocalError naming the field and what is allowed."""
    fields = {field.name: field for field in structs.fields(Policy)}
    found = {}
    for change in changes:
        name, _, text = change.partition("=")
        if name not in fields:
            raise LocalError(f"the policy has no {name[:40]!r}; it has: {', '.join(fields)}")
        try:
            found[name] = msgspec.convert(text, fields[name].type, strict=False)
        except msgspec.ValidationError as error:
            raise LocalError(f"the policy's {name} can't be {text[:40]!r}: {error}") from error
    return structs.replace(policy, **found)


def adopt_next_key(folder: SwarmFolder, charter: Charter) -> KeyPair:
    """The key of this folder's coordinator; one that an amendment brought into force replaces the one it ended.

    Raises LocalError when the charter names neither.
    """
    key = load_key(folder.key)
    if key.peer_id in charter.coordinators:
        return key
    if folder.next_key.exists():
        coming = load_key(folder.next_key)
        if coming.peer_id in charter.coordinators:
            folder.next_key.replace(folder.key)
            return coming
    raise LocalError(
        f"{folder.key} is not a coordinator key of this swarm's charter; an amendment may have ended it"
    )


def _peer(typed: str) -> PeerId:
    public_key_of(typed)
    return PeerId(typed)
