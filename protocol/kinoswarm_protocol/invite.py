"""Invites: a short founder-signed text that leads to a swarm. Owns its form; fetching one is a shell's job."""

import base64
import binascii
import re
from typing import Annotated

from msgspec import Meta, Struct

from kinoswarm_protocol.charter import Addresses, Licences
from kinoswarm_protocol.codec import decode
from kinoswarm_protocol.envelope import Envelope, Kind, Opened, open_envelope, seal
from kinoswarm_protocol.errors import BadSignature, LimitExceeded, MalformedBytes
from kinoswarm_protocol.ids import PeerIdField, SwarmId, SwarmIdField
from kinoswarm_protocol.keys import KeyPair
from kinoswarm_protocol.limits import MAX_INVITE_BYTES, MAX_SENTENCE
from kinoswarm_protocol.specs import Name

PREFIX = "kinoswarm1:"


class Invite(Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """What a volunteer needs to find and judge a swarm before joining."""

    swarm: SwarmIdField
    name: Name
    founder: PeerIdField
    coordinators: Annotated[list[PeerIdField], Meta(min_length=1, max_length=16)]
    addresses: Addresses
    """Multiaddresses ending in /p2p/<id>, and http(s) URLs of coordinators."""
    licences: Licences
    content_note: Annotated[str, Meta(max_length=MAX_SENTENCE)]
    certificate_sha256: Annotated[str, Meta(max_length=64)] = ""
    """Pin of the coordinator's own TLS certificate; empty when a public CA vouches."""


INVITE: Kind[Invite] = Kind("invite", Invite, MAX_INVITE_BYTES)


def write_invite(key: KeyPair, invite: Invite) -> str:
    """The invite as one line of text, signed by the founder."""
    raw = seal(key, INVITE, invite.swarm, invite)
    return PREFIX + base64.urlsafe_b64encode(raw).decode().rstrip("=")


def read_invite(text: str) -> Opened[Invite]:
    """An invite from text that a person pasted: line breaks and spaces inside are forgiven.

    Raises MalformedBytes, LimitExceeded or BadSignature with a sentence that says what to do.
    """
    compact = re.sub(r"[\s>]+", "", text)
    if len(compact) > 2 * MAX_INVITE_BYTES:
        raise LimitExceeded(
            f"an invite has at most {2 * MAX_INVITE_BYTES} characters, this has {len(compact)}"
        )
    if not compact.startswith(PREFIX):
        raise MalformedBytes(
            f"an invite starts with {PREFIX!r}; this starts with {compact[:16]!r}. Copy the whole line again"
        )
    raw = _unbase64(compact.removeprefix(PREFIX))
    try:
        swarm = SwarmId(decode(raw, Envelope, MAX_INVITE_BYTES).swarm)
        opened = open_envelope(raw, INVITE, swarm)
    except (MalformedBytes, BadSignature) as error:
        hint = "the invite was altered or is incomplete; ask for it again"
        raise type(error)(f"{hint} ({error})") from error
    if opened.signer != opened.body.founder or opened.body.swarm != swarm:
        raise BadSignature(
            "the invite is not signed by the founder that it names; ask for it again"
        )
    return opened


def _unbase64(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise MalformedBytes(
            "the invite holds characters that do not belong there; copy the whole line again"
        ) from error
