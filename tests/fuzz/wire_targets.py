"""Readers of what peers, coordinators and strangers send: frames, envelopes, records, chains, invites, manifests."""

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any, cast

from fuzz.target import Target
from protocol.golden_samples import FILE, RAW_CHARTER, SWARM
from protocol.samples import BLOB, COORDINATOR, FOUNDER, NODE

from kinoswarm_network import ipc_frames
from kinoswarm_network.multiaddresses import parse_address
from kinoswarm_network.stream_frames import read_ask, read_reply_head
from kinoswarm_protocol import accounts, admin, log_head, messages, provenance, snapshot
from kinoswarm_protocol import charter as charters
from kinoswarm_protocol import invite as invites
from kinoswarm_protocol.charter_chain import chain_of, lengthen, open_chain
from kinoswarm_protocol.codec import decode, encode, frame, frame_length
from kinoswarm_protocol.envelope import Envelope, Kind, open_envelope, peek_payload, seal
from kinoswarm_protocol.ids import BlobId
from kinoswarm_protocol.limits import MAX_IPC_FRAME, MAX_RECORD_BYTES
from kinoswarm_protocol.manifest import BlobManifest, decode_manifest, encode_manifest, manifest_of
from kinoswarm_protocol.records import Authority, open_record, plain_key_of
from kinoswarm_protocol.uploads import Gap, UploadState, read_upload_state

KINDS: tuple[Kind[Any], ...] = (
    messages.REQUEST,
    messages.REPLY,
    messages.LEASE,
    messages.CONTRIBUTION,
    messages.VERDICT,
    messages.RELEASE,
    charters.CHARTER,
    charters.AMENDMENT,
    invites.INVITE,
    accounts.DELEGATION,
    accounts.REVOCATION,
    admin.ADMIN,
    log_head.LOG_HEAD,
    provenance.PROVENANCE,
    snapshot.SNAPSHOT,
)
_AUTHORITY = Authority(SWARM, FOUNDER.peer_id, frozenset({COORDINATOR.peer_id}))
_BLOB = manifest_of([b"a" * 16, b"b" * 16, b"c" * 5], chunk_bytes=16)
_CLIP = b"clip!"
_CHAIN = chain_of(RAW_CHARTER)


def _vectors() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FILE.read_text())
    return found


def _envelopes() -> list[bytes]:
    return [bytes.fromhex(entry["hex"]) for entry in _vectors()["envelopes"].values()]


def _frames() -> list[bytes]:
    return [bytes.fromhex(text)[4:] for text in _vectors()["frames"].values()]


def _payloads() -> list[bytes]:
    """A byte that says the kind, then a payload of it."""
    found = []
    for raw in _envelopes():
        envelope = decode(raw, Envelope, len(raw))
        for number, kind in enumerate(KINDS):
            if kind.name == envelope.kind:
                found.append(bytes([number]) + envelope.payload)
    return found


def _sealed(raw: bytes) -> tuple[Kind[Any], Any]:
    """What is behind a signature: somebody with a key signs whatever bytes were made up."""
    kind = KINDS[raw[0] % len(KINDS)] if raw else KINDS[0]
    body = decode(raw[1:], kind.type, kind.max_bytes)
    return kind, open_envelope(seal(NODE, kind, SWARM, body), kind, SWARM).body


def _sealed_again(value: tuple[Kind[Any], Any]) -> bytes:
    kind, body = value
    return bytes([KINDS.index(kind)]) + encode(body)


def _record(raw: bytes) -> bytes:
    plain_key_of(raw)
    return open_record(raw, _AUTHORITY).raw


def _prefixed(raw: bytes) -> bytes:
    length = frame_length(raw[:4], 2_048)
    return raw[4 : 4 + length]


def _manifest(raw: bytes) -> BlobManifest:
    """As from a peer that may choose the blob's name too."""
    return decode_manifest(BlobId(hashlib.sha256(raw).hexdigest()), raw)


def _ipc(raw: bytes) -> Any:
    found: Any = decode(raw, cast("type[Any]", ipc_frames.Frame), MAX_IPC_FRAME)
    return ipc_frames.unpack(found.body) if isinstance(found, ipc_frames.Call) else found


def _ipc_samples() -> list[bytes]:
    calls = [
        ipc_frames.Call(call=1, body=ipc_frames.Raw(encode(["lookup", "release"]))),
        ipc_frames.Progress(call=1, done=3, total=5),
        ipc_frames.Cancel(call=2),
    ]
    return [encode(call) for call in calls]


def _chain_samples() -> list[bytes]:
    change = charters.Amendment(
        number=1, previous_sha256="0" * 64, created_at_ms=5, notice="a note"
    )
    return [_CHAIN, lengthen(FOUNDER, open_chain(_CHAIN), change).raw]


def _snapshots() -> list[bytes]:
    files = [
        snapshot.SnapshotFile(
            snapshot.CHARTER_NAME, len(_CHAIN), hashlib.sha256(_CHAIN).hexdigest()
        )
    ]
    body = snapshot.SiteSnapshot(1, files)
    return [seal(COORDINATOR, snapshot.SNAPSHOT, SWARM, body), *_envelopes()]


def _clip_notes() -> list[bytes]:
    note = provenance.Provenance(
        clip_sha256=hashlib.sha256(_CLIP).hexdigest(),
        clip_bytes=len(_CLIP),
        release=2,
        release_table=BLOB,
        prompt="a hall",
        seed=7,
        guidance=1.5,
        top_k=1,
        expert_by_step=[0, 0, 1],
        made_at_ms=1,
    )
    return [seal(COORDINATOR, provenance.PROVENANCE, SWARM, note), *_envelopes()]


def _text(read: Callable[[str], Any]) -> Callable[[bytes], Any]:
    return lambda raw: read(raw.decode(errors="surrogateescape"))


def _addresses() -> Sequence[bytes]:
    return [
        f"/ip4/203.0.113.7/tcp/4001/p2p/{NODE.peer_id}".encode(),
        f"/dns/example.org/udp/4001/quic-v1/p2p/{NODE.peer_id}".encode(),
        f"/ip6/2001:db8::1/tcp/4001/p2p/{FOUNDER.peer_id}/p2p-circuit/p2p/{NODE.peer_id}".encode(),
        b"https://example.org/",
    ]


WIRE: dict[str, Target] = {
    "frames": Target(_prefixed, lambda: [frame(b"payload"), frame(b"")], frame),
    "envelopes": Target(lambda raw: peek_payload(raw, MAX_RECORD_BYTES), _envelopes, None),
    "payloads": Target(_sealed, _payloads, _sealed_again, max_bytes=16_384),
    "records": Target(_record, _envelopes, lambda raw: raw),
    "charter_chains": Target(open_chain, _chain_samples),
    "delegations": Target(
        lambda raw: accounts.open_delegation(raw, NODE.peer_id).raw, _envelopes, lambda raw: raw
    ),
    "revocations": Target(
        lambda raw: accounts.open_revocation(raw).raw, _envelopes, lambda raw: raw
    ),
    "invites": Target(
        _text(invites.read_invite), lambda: [_vectors()["invite_text"].encode()], None
    ),
    "snapshots": Target(lambda raw: snapshot.open_snapshot(raw, _CHAIN, SWARM), _snapshots),
    "clip_notes": Target(lambda raw: provenance.open_provenance(raw, _CLIP, SWARM), _clip_notes),
    "blob_manifests": Target(
        _manifest,
        lambda: [encode_manifest(_BLOB)[1]],
        lambda manifest: encode_manifest(manifest)[1],
    ),
    "upload_states": Target(
        lambda raw: read_upload_state(raw, _BLOB),
        lambda: [
            encode(UploadState(False, True, [Gap(0, 2)])),
            encode(UploadState(True, True, [])),
        ],
        encode,
    ),
    "asks": Target(read_ask, _frames, encode),
    "reply_heads": Target(read_reply_head, _frames, encode),
    "ipc_frames": Target(_ipc, _ipc_samples),
    "addresses": Target(_text(parse_address), _addresses),
}
