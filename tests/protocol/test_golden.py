"""The protocol's golden vectors: our code makes exactly these bytes, and forty lines of foreign code read them."""

import base64
import hashlib
import json

import msgpack
import pytest
from protocol import describe
from protocol import golden_samples as golden
from protocol import third_implementation as third

VECTORS = json.loads(golden.FILE.read_text())
ENVELOPES = sorted(VECTORS["envelopes"])


def readable(value: object) -> object:
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    if isinstance(value, list):
        return [readable(item) for item in value]
    if isinstance(value, dict):
        return {key: readable(item) for key, item in value.items()}
    return value


def test_our_code_makes_exactly_the_golden_bytes() -> None:
    assert json.loads(json.dumps(golden.vectors())) == VECTORS


@pytest.mark.parametrize("name", ENVELOPES)
def test_plain_code_reads_every_envelope(name: str) -> None:
    vector = VECTORS["envelopes"][name]
    kind, swarm, signer, payload = third.open_envelope(bytes.fromhex(vector["hex"]))
    assert kind == name.split(" ")[0]
    named_by_hash_or_of_no_swarm = ("charter", "delegation", "revocation")
    assert swarm == ("" if name in named_by_hash_or_of_no_swarm else VECTORS["swarm"])
    assert signer in {key["peer_id"] for key in VECTORS["keys"].values()}
    assert readable(msgpack.unpackb(payload)) == vector["payload"]


@pytest.mark.parametrize("name", ENVELOPES)
def test_plain_code_writes_the_same_envelope(name: str) -> None:
    raw = bytes.fromhex(VECTORS["envelopes"][name]["hex"])
    kind, swarm, signer, payload = third.open_envelope(raw)
    seeds = {key["peer_id"]: bytes.fromhex(key["seed"]) for key in VECTORS["keys"].values()}
    assert third.seal(seeds[signer], kind, swarm, payload) == raw


def test_the_swarms_id_is_the_hash_of_the_charters_payload() -> None:
    raw = bytes.fromhex(VECTORS["envelopes"]["charter"]["hex"])
    assert hashlib.sha256(third.open_envelope(raw)[3]).hexdigest() == VECTORS["swarm"]


def test_ids_embed_their_keys() -> None:
    for key in VECTORS["keys"].values():
        assert third.peer_id_of_seed(bytes.fromhex(key["seed"])) == key["peer_id"]


def test_a_blob_is_named_by_its_manifest() -> None:
    chunks = [bytes.fromhex(chunk) for chunk in VECTORS["blob"]["chunks"]]
    blob, manifest = third.blob_of(chunks, 16)
    assert (blob, manifest.hex()) == (VECTORS["blob"]["id"], VECTORS["blob"]["manifest"])


def test_an_invite_is_an_envelope_in_base64() -> None:
    text = VECTORS["invite_text"].removeprefix("kinoswarm1:")
    raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    assert third.open_envelope(raw)[0] == "invite"


def test_frames_are_length_and_tagged_array() -> None:
    plain = {}
    for name, text in VECTORS["frames"].items():
        raw = bytes.fromhex(text)
        assert int.from_bytes(raw[:4], "big") == len(raw) - 4
        plain[name] = msgpack.unpackb(raw[4:])
    assert plain["ask chunk"] == ["chunk", "cd" * 32, 7]
    assert plain["goodbye"] == ["bye"]
    assert plain["no"] == ["no", "not_found", "not here"]


def test_the_dht_knows_keys_by_the_sha1_of_their_messagepack() -> None:
    for key, digest in VECTORS["dht_key_hashes"].items():
        assert hashlib.sha1(msgpack.packb(key)).hexdigest() == digest


def test_the_page_of_messages_is_current() -> None:
    assert describe.FILE.read_text() == describe.document()
