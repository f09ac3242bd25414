"""The charter in force, as it lies in a coordinator's home. Owns that file; signing and following it are others' work.

HOME/amended.bin   the charter with its amendments, and the founder's DHT record of exactly this chain: one atomic write
HOME/charter/      the same as separate files, made anew from it, because blobs are made from files
"""

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta, Struct

from kinoswarm_coordinator.home import SwarmFolder
from kinoswarm_network.blob_store import BlobStore
from kinoswarm_network.durable import write_atomic
from kinoswarm_protocol.charter_chain import CharterChain, OpenedChain, chain_of, open_chain
from kinoswarm_protocol.codec import decode, encode
from kinoswarm_protocol.errors import MalformedBytes
from kinoswarm_protocol.ids import BlobId, SwarmId
from kinoswarm_protocol.keys import KeyPair
from kinoswarm_protocol.limits import CHUNK_BYTES, MAX_CHAIN_BYTES, MAX_RECORD_BYTES
from kinoswarm_protocol.manifest import encode_manifest, manifest_of
from kinoswarm_protocol.records import CharterRecord, seal_record

_MAX_FILE_BYTES = MAX_CHAIN_BYTES + 2 * MAX_RECORD_BYTES


class CharterFile(Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """What the founder signs at once."""

    chain: Annotated[bytes, Meta(max_length=MAX_CHAIN_BYTES)]
    record: Annotated[bytes, Meta(max_length=MAX_RECORD_BYTES)] = b""
    """The founder's record for the DHT; empty in a swarm that was founded without one."""


@dataclass(frozen=True)
class InForce:
    """The charter as amended, and its parts as blobs of the store."""

    chain: OpenedChain
    record: bytes
    charter_blob: BlobId
    amendment_blobs: tuple[BlobId, ...]
    chain_blob: BlobId
    """All of it in one, which the founder's record names."""

    @property
    def blobs(self) -> frozenset[BlobId]:
        """Everything that a node may ask for about the charter."""
        return frozenset([self.charter_blob, self.chain_blob, *self.amendment_blobs])


def write_charter_file(
    folder: SwarmFolder, founder: KeyPair, chain: OpenedChain, now_ms: int
) -> None:
    """Put a chain in force, with the founder's record of where it lies."""
    chunks = [chain.raw[at : at + CHUNK_BYTES] for at in range(0, len(chain.raw), CHUNK_BYTES)]
    blob, _ = encode_manifest(manifest_of(chunks))
    body = CharterRecord(number=chain.number, blob=blob)
    record = seal_record(founder, chain.swarm, body, now_ms).value
    write_atomic(folder.amended, encode(CharterFile(chain=chain.raw, record=record)))


def read_chain(folder: SwarmFolder, swarm: SwarmId) -> tuple[OpenedChain, bytes]:
    """The chain and the founder's record.

    Raises the errors of open_chain, and MalformedBytes for added clusters: experts of a running swarm are fixed.
    """
    founding = open_chain(chain_of(folder.charter.read_bytes()), swarm)
    if not folder.amended.is_file():
        return founding, b""
    with folder.amended.open("rb") as file:
        found = decode(file.read(_MAX_FILE_BYTES + 1), CharterFile, _MAX_FILE_BYTES)
    chain = open_chain(found.chain, swarm)
    if any(opened.body.added_clusters for opened in chain.amendments):
        raise MalformedBytes(
            "an amendment adds clusters to a running swarm, which this version can't; found a new swarm for them"
        )
    return chain, found.record


def serve_chain(folder: SwarmFolder, chain: OpenedChain, record: bytes) -> InForce:
    """Put the charter, each amendment and the whole chain into the store."""
    store = BlobStore(folder.store)
    folder.charter_blobs.mkdir(exist_ok=True)
    parts = decode(chain.raw, CharterChain, MAX_CHAIN_BYTES)

    def stored(name: str, raw: bytes) -> BlobId:
        path = folder.charter_blobs / name
        write_atomic(path, raw, mode=0o644)
        return store.add_file(path)

    whole = stored("chain.bin", chain.raw)
    amendments = tuple(
        stored(f"amendment-{number}.bin", raw)
        for number, raw in enumerate(parts.amendments, start=1)
    )
    return InForce(chain, record, store.add_file(folder.charter), amendments, whole)
