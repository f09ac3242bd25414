"""Keys and PeerIds."""

import base58
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinoswarm_protocol.errors import BadSignature, MalformedBytes
from kinoswarm_protocol.keys import KeyPair, peer_id_of, public_key_of, verify

# RFC 8032, section 7.1, test 1.
RFC_SEED = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
RFC_PUBLIC = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")


def test_public_key_is_the_one_of_rfc_8032() -> None:
    assert KeyPair(RFC_SEED).public_key == RFC_PUBLIC


def test_peer_id_is_the_identity_multihash_of_the_libp2p_public_key() -> None:
    raw = base58.b58decode(KeyPair(RFC_SEED).peer_id)
    assert raw == bytes.fromhex("002408011220") + RFC_PUBLIC


@given(st.binary(min_size=32, max_size=32))
def test_peer_id_round_trips_to_the_public_key(public_key: bytes) -> None:
    assert public_key_of(peer_id_of(public_key)) == public_key


@given(st.text(max_size=100))
def test_any_other_text_is_refused_as_malformed(text: str) -> None:
    try:
        key = public_key_of(text)
    except MalformedBytes:
        return
    assert peer_id_of(key) == text


def test_a_signature_of_another_key_is_refused() -> None:
    key, other = KeyPair(RFC_SEED), KeyPair(bytes(32))
    verify(key.peer_id, b"message", key.sign(b"message"))
    with pytest.raises(BadSignature, match="does not belong to"):
        verify(key.peer_id, b"message", other.sign(b"message"))


def test_the_secret_never_shows_in_a_representation() -> None:
    assert RFC_SEED.hex() not in repr(KeyPair(RFC_SEED))
    assert repr(RFC_SEED) not in repr(KeyPair(RFC_SEED))


def test_a_seed_of_the_wrong_length_says_so() -> None:
    with pytest.raises(MalformedBytes, match="expected 32 bytes, got 31"):
        KeyPair(bytes(31))
