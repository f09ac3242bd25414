"""Types of single fields that several messages have. Owns their bounds."""

from typing import Annotated

from msgspec import Meta

from kinoswarm_protocol.limits import (
    MAX_ACCOUNT_BYTES,
    MAX_CLUSTERS,
    MAX_CONTROL_FRAME,
    MAX_COPIES,
    MAX_LINEAGES,
    MAX_PROMPT,
    MAX_SENTENCE,
)

ClusterIndex = Annotated[int, Meta(ge=0, lt=MAX_CLUSTERS)]
Lineage = Annotated[int, Meta(ge=0, lt=MAX_LINEAGES)]
Place = Annotated[int, Meta(ge=0, lt=MAX_COPIES)]
Version = Annotated[int, Meta(ge=0, le=2**31)]
Steps = Annotated[int, Meta(ge=1, le=10_000_000)]
Seed = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Sentence = Annotated[str, Meta(max_length=MAX_SENTENCE)]
RequestId = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}$", max_length=32)]
RawEnvelope = Annotated[bytes, Meta(max_length=MAX_CONTROL_FRAME)]
AccountEnvelope = Annotated[bytes, Meta(max_length=2 * MAX_ACCOUNT_BYTES)]
Loss = Annotated[float, Meta(ge=-1e12, le=1e12)]
Prompt = Annotated[str, Meta(min_length=1, max_length=MAX_PROMPT)]
