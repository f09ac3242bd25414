"""Counters of what was moved. Owns the numbers behind `NetworkClient.traffic`."""

from dataclasses import dataclass


@dataclass
class Counters:
    """Bytes and blobs since the start."""

    bytes_up: int = 0
    bytes_down: int = 0
    blobs_served: int = 0
    chunks_refused: int = 0
    blobs_damaged: int = 0
