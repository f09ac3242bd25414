"""What the golden vectors are made of: one small document of every kind, with fixed keys and times.

    python -m protocol.golden_samples      writes tests/protocol/golden/vectors.json anew (run it in tests/)

A change of the vectors is a change of the protocol: say so in docs/protocol.md and CHANGELOG.md.
"""

import json
from pathlib import Path

import msgpack
from protocol.samples import ACCOUNT, BLOB, COORDINATOR, FOUNDER, NODE, charter, invite

from kinoswarm_network.stream_frames import AskChunk, AskHave, AskManifest, Goodbye, No, Sending
from kinoswarm_protocol.accounts import delegate, revoke
from kinoswarm_protocol.admin import ADMIN, AdminRequest, PauseSwarm
from kinoswarm_protocol.charter import CHARTER
from kinoswarm_protocol.codec import encode, frame
from kinoswarm_protocol.envelope import peek_payload, seal
from kinoswarm_protocol.ids import LeaseId, swarm_id_of
from kinoswarm_protocol.invite import INVITE, write_invite
from kinoswarm_protocol.limits import MAX_CHARTER_BYTES
from kinoswarm_protocol.log_head import LOG_HEAD, LogHead, Mark
from kinoswarm_protocol.manifest import encode_manifest, manifest_of
from kinoswarm_protocol.messages import (
    CONTRIBUTION,
    LEASE,
    RELEASE,
    REPLY,
    REQUEST,
    VERDICT,
    AssignedSamples,
    Contribution,
    DeltaJudgement,
    EvaluateOrder,
    EvaluateOutcome,
    ExpertRef,
    Hello,
    Lease,
    LeaseGrant,
    Lookup,
    LossShift,
    Machine,
    NoWork,
    ProviderHint,
    PullLease,
    ReleaseFile,
    ReleaseManifest,
    Reply,
    Request,
    TrainOrder,
    TrainOutcome,
    Verdict,
)
from kinoswarm_protocol.provenance import PROVENANCE, Provenance
from kinoswarm_protocol.records import (
    NodeRecord,
    ReleaseRecord,
    WitnessRecord,
    hash_of_key,
    seal_record,
)
from kinoswarm_protocol.snapshot import SNAPSHOT, SiteSnapshot, SnapshotFile
from kinoswarm_protocol.specs import ModeSpec
from kinoswarm_protocol.version_steps import VersionStep

KEYS = (("founder", FOUNDER), ("coordinator", COORDINATOR), ("node", NODE), ("account", ACCOUNT))
FILE = Path(__file__).parent / "golden" / "vectors.json"
NOW_MS = 1_790_000_000_000
LEASE_ID = LeaseId("0123456789abcdef" * 2)
RAW_CHARTER = seal(FOUNDER, CHARTER, "", charter())
SWARM = swarm_id_of(peek_payload(RAW_CHARTER, MAX_CHARTER_BYTES))
CHUNKS = [b"a" * 16, b"b" * 16, b"c" * 5]


def envelopes() -> dict[str, bytes]:
    """One signed envelope of every kind."""
    order = TrainOrder(
        cluster=0,
        lineage=0,
        base_version=3,
        base=BLOB,
        mode=ModeSpec(name="full"),
        steps=600,
        batch_size=16,
        seed=2**62 + 1,
    )
    lease = Lease(
        lease_id=LEASE_ID,
        node=NODE.peer_id,
        issued_at_ms=NOW_MS,
        deadline_ms=NOW_MS + 3_600_000,
        order=order,
    )
    outcome = TrainOutcome(
        delta=BLOB,
        delta_bytes=1_234_567,
        samples=9_600,
        steps=600,
        loss_first=0.5,
        loss_last=0.25,
        delta_norm=1.5,
        seconds=1_200.0,
        flops=1e15,
    )
    hello = Hello(
        pseudonym="quiet-otter",
        program_version="0.1.0",
        machine=Machine(device="CPU (x86_64)", memory_gib=16.0, seconds_per_step=0.5),
        addresses=[],
    )
    return {
        "charter": RAW_CHARTER,
        "invite": seal(FOUNDER, INVITE, SWARM, invite()),
        "request hello": seal(NODE, REQUEST, SWARM, Request(request_id="1" * 32, body=hello)),
        "request lookup": seal(
            NODE, REQUEST, SWARM, Request(request_id="2" * 32, body=Lookup(key="release"))
        ),
        "request pull": seal(
            NODE,
            REQUEST,
            SWARM,
            Request(
                request_id="3" * 32,
                body=PullLease(
                    modes=[ModeSpec(name="full")],
                    clusters_on_disk=[0],
                    seconds_per_step=2.5,
                    helper=True,
                ),
            ),
        ),
        "reply no_work": seal(
            COORDINATOR,
            REPLY,
            SWARM,
            Reply(
                request_id="1" * 32,
                time_ms=NOW_MS,
                body=NoWork(code="no_work", sentence="come again", retry_after_s=30.0),
            ),
        ),
        "reply lease": seal(
            COORDINATOR,
            REPLY,
            SWARM,
            Reply(request_id="1" * 32, time_ms=NOW_MS, body=_grant(lease)),
        ),
        "lease": seal(COORDINATOR, LEASE, SWARM, lease),
        "contribution": seal(
            NODE,
            CONTRIBUTION,
            SWARM,
            Contribution(
                lease_id=LEASE_ID, node=NODE.peer_id, finished_at_ms=NOW_MS, outcome=outcome
            ),
        ),
        "verdict": seal(
            COORDINATOR,
            VERDICT,
            SWARM,
            Verdict(
                lease_id=LEASE_ID,
                node=NODE.peer_id,
                state="accepted",
                code="accepted",
                sentence="held-out loss fell by 1.84%, from 0.5312",
                decided_at_ms=NOW_MS,
            ),
        ),
        "release": seal(COORDINATOR, RELEASE, SWARM, _release()),
        "record/release": seal_record(
            COORDINATOR, SWARM, ReleaseRecord(version=2, blob=BLOB), NOW_MS
        ).value,
        "record/node": seal_record(
            NODE,
            SWARM,
            NodeRecord(
                pseudonym="quiet-otter",
                device="CPU (x86_64)",
                state="training",
                cluster=0,
                program_version="0.1.0",
            ),
            NOW_MS,
        ).value,
        "admin": seal(
            COORDINATOR,
            ADMIN,
            SWARM,
            AdminRequest(
                request_id="3" * 32, at_ms=NOW_MS, action=PauseSwarm(sentence="data is mended")
            ),
        ),
        "delegation": delegate(ACCOUNT, NODE.peer_id, "otters", NOW_MS, 86_400_000),
        "revocation": revoke(NODE, ACCOUNT.peer_id, NODE.peer_id, NOW_MS),
        "snapshot": seal(
            COORDINATOR,
            SNAPSHOT,
            SWARM,
            SiteSnapshot(NOW_MS, [SnapshotFile("index.html", 5, "ef" * 32)]),
        ),
        "log_head": seal(
            COORDINATOR,
            LOG_HEAD,
            SWARM,
            LogHead(
                seq=70,
                hash="ef" * 32,
                epoch=3,
                at_ms=NOW_MS,
                marks=[Mark(seq=64, hash="ab" * 32)],
            ),
        ),
        "record/witness": seal_record(
            NODE,
            SWARM,
            WitnessRecord(
                head=seal(
                    COORDINATOR,
                    LOG_HEAD,
                    SWARM,
                    LogHead(seq=12, hash="ef" * 32, epoch=3, at_ms=NOW_MS),
                )
            ),
            NOW_MS,
        ).value,
        "lease of an evaluation": seal(
            COORDINATOR,
            LEASE,
            SWARM,
            Lease(
                lease_id="2" * 32,
                node=COORDINATOR.peer_id,
                issued_at_ms=NOW_MS,
                deadline_ms=NOW_MS + 1_800_000,
                order=EvaluateOrder(
                    cluster=0,
                    base_version=3,
                    base=BLOB,
                    deltas=[BLOB],
                    pairs=64,
                    seed=7,
                    assigned=[AssignedSamples(seed=9, steps=600, batch_size=16)],
                    foreign=1,
                    probes=16,
                ),
            ),
        ),
        "contribution of an evaluation": seal(
            COORDINATOR,
            CONTRIBUTION,
            SWARM,
            Contribution(
                lease_id="2" * 32,
                node=COORDINATOR.peer_id,
                finished_at_ms=NOW_MS,
                outcome=EvaluateOutcome(
                    judgements=[
                        DeltaJudgement(
                            delta=BLOB,
                            code="accepted",
                            problem="",
                            norm=1.5,
                            base_loss=0.5,
                            difference=-0.25,
                            standard_error=0.125,
                            on_assigned=LossShift(difference=-0.5, standard_error=0.25),
                            on_foreign=LossShift(difference=0.25, standard_error=0.125),
                        )
                    ],
                    flops=1e9,
                ),
            ),
        ),
        "provenance": seal(
            COORDINATOR,
            PROVENANCE,
            SWARM,
            Provenance(
                clip_sha256="ab" * 32,
                clip_bytes=5,
                release=2,
                release_table=BLOB,
                prompt="a hall",
                seed=7,
                guidance=1.5,
                top_k=1,
                expert_by_step=[0, 0, 1],
                made_at_ms=NOW_MS,
            ),
        ),
    }


def _grant(lease: Lease) -> LeaseGrant:
    step = VersionStep(base="cd" * 32, result=BLOB, delta="ef" * 32, delta_bytes=345_678)
    hint = ProviderHint(peer=COORDINATOR.peer_id, addresses=["/ip4/203.0.113.7/tcp/4001"])
    raw = seal(COORDINATOR, LEASE, SWARM, lease)
    return LeaseGrant(lease=raw, providers=[hint], steps=[step])


def _release() -> ReleaseManifest:
    return ReleaseManifest(
        version=2,
        swarm_name="Test swarm",
        created_at_ms=NOW_MS,
        experts=[ExpertRef(cluster=0, lineage=0, version=3, checkpoint=BLOB)],
        files=[ReleaseFile(path="model_index.json", blob=BLOB, size_bytes=347)],
        router_accuracy=[],
        share_by_expert=[1.0],
        charter_sha256=SWARM,
    )


def vectors() -> dict[str, object]:
    """Everything that a third implementation compares itself with."""
    blob, manifest = encode_manifest(manifest_of(CHUNKS, chunk_bytes=16))
    return {
        "keys": {name: {"seed": key.seed.hex(), "peer_id": key.peer_id} for name, key in KEYS},
        "swarm": SWARM,
        "envelopes": {
            name: {"hex": raw.hex(), "payload": _plain(msgpack.unpackb(raw)[4])}
            for name, raw in envelopes().items()
        },
        "invite_text": write_invite(FOUNDER, invite()),
        "blob": {
            "chunks": [chunk.hex() for chunk in CHUNKS],
            "manifest": manifest.hex(),
            "id": blob,
        },
        "frames": {
            "ask manifest": frame(encode(AskManifest(blob=BLOB))).hex(),
            "ask chunk": frame(encode(AskChunk(blob=BLOB, index=7))).hex(),
            "ask have": frame(encode(AskHave(blob=BLOB))).hex(),
            "goodbye": frame(encode(Goodbye())).hex(),
            "sending": frame(encode(Sending(size_bytes=1_048_576))).hex(),
            "no": frame(encode(No(code="not_found", sentence="not here"))).hex(),
        },
        "dht_key_hashes": {
            key: hash_of_key(key).hex() for key in ("release", "charter", "expert/0/0", "nodes/3")
        },
    }


def _plain(payload: bytes) -> object:
    """The payload as plain MessagePack reads it, bytes as hex."""
    return _readable(msgpack.unpackb(payload))


def _readable(value: object) -> object:
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    if isinstance(value, list):
        return [_readable(item) for item in value]
    if isinstance(value, dict):
        return {key: _readable(item) for key, item in value.items()}
    return value


if __name__ == "__main__":
    FILE.write_text(json.dumps(vectors(), indent=1, ensure_ascii=False) + "\n")
