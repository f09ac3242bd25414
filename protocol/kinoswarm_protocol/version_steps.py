"""How a version differs from the one before it, as a blob. Owns the message; a hint: what comes of it has a hash.

A version is published as a whole checkpoint *and* as the step from its base: base + decoded step gives the checkpoint
byte for byte. So who holds the version before may fetch the step alone, and whoever can't decode it fetches all.
"""

from msgspec import Struct

from kinoswarm_protocol.ids import BlobIdField
from kinoswarm_protocol.specs import Count


class VersionStep(Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """From one version's checkpoint to the next one's."""

    base: BlobIdField
    result: BlobIdField
    delta: BlobIdField
    """A delta file, as contributions are."""
    delta_bytes: Count
