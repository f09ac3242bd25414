"""Randomness that is handed in: seeds for one purpose from a seed of the shell. Pure."""

import hashlib


def derived_seed(seed: int, purpose: str) -> int:
    """A 63-bit seed that is a function of another and a word."""
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
