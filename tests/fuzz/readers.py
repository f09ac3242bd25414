"""All readers of foreign bytes, by name."""

from fuzz.file_targets import FILES
from fuzz.target import Target
from fuzz.weight_targets import WEIGHTS
from fuzz.wire_targets import WIRE

TARGETS: dict[str, Target] = {**WIRE, **WEIGHTS, **FILES}
