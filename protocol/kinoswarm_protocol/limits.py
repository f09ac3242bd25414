"""Every bound and timeout that peers agree on. Owns the numbers; each says why it is that large."""

PROTOCOL_VERSION = 1

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

# --- bytes on the wire -------------------------------------------------------------------------
MAX_CONTROL_FRAME = 256 * KIB
"""One control request or reply; the largest is a lease that merges many contributions."""

MAX_CHARTER_BYTES = 4 * MIB
"""A charter names every shard (about 90 bytes each): 4 MiB is about 40,000 shards."""

MAX_AMENDMENTS = 256
"""Amendments of a charter; each is linked to the one before it and read by every node."""

MAX_CHAIN_BYTES = 2 * MAX_CHARTER_BYTES
"""A charter with all its amendments."""

MAX_ACCOUNT_BYTES = 512
"""A delegation or a revocation: two ids, a name and three numbers."""

MAX_MANIFEST_BYTES = 8 * MIB
"""A blob manifest is 32 bytes a chunk: 8 MiB describe 256 GiB."""

MAX_RECORD_BYTES = 4 * KIB
"""A DHT value; kinds have tighter bounds of their own (records.py). hivemind drops dictionary replies over 4 MiB."""

CHUNK_BYTES = 1 * MIB
"""Size of a blob's chunks; small enough that a bad one costs little, large enough to fill a home link."""

MAX_BLOB_BYTES = 256 * GIB
MAX_DELTA_RAW_BYTES = 16 * GIB
"""What a delta may decompress to, whatever its own header declares."""

MAX_SAFETENSORS_HEADER = 8 * MIB
MAX_TENSORS = 20_000
MAX_TENSOR_RANK = 8

# --- texts and lists ---------------------------------------------------------------------------
MAX_NAME = 64
MAX_SENTENCE = 500
MAX_NOTE = 4_000
MAX_PROMPT = 1_000
MAX_CLUSTERS = 4_096
MAX_LINEAGES = 2
MAX_SHARDS_PER_CLUSTER = 8_192
MAX_ADDRESSES = 16
MAX_ADDRESS = 256
MAX_CONFIG_KEYS = 64
MAX_RECORDS_PER_LOOKUP = 32
MAX_DELTAS_PER_MERGE = 256
MAX_COPIES = 8
MAX_VERSION_STEPS = 8
"""Of one work order: a contribution and its audits."""
MAX_INVITE_BYTES = 16 * KIB

# --- what may be built from a charter's config -------------------------------------------------
MAX_EXPERT_PARAMETERS = 20_000_000_000
MAX_ROUTER_PARAMETERS = 2_000_000_000
MAX_CLIP_VALUES = 512 * MIB
"""Numbers in one clip (channels x frames x height x width)."""

# --- waits, in seconds -------------------------------------------------------------------------
CONNECT_TIMEOUT_S = 10.0
CONTROL_TIMEOUT_S = 20.0
CHUNK_TIMEOUT_S = 30.0
DHT_TIMEOUT_S = 10.0
NETWORK_START_TIMEOUT_S = 60.0
"""Importing hivemind takes 3 s on an idle machine and five times that on a busy one."""

WORKER_START_TIMEOUT_S = 120.0
MAX_CLOCK_SKEW_MS = 3_000
"""hivemind refuses to bootstrap beyond this (MAX_DHT_TIME_DISCREPANCY_SECONDS)."""

# --- DHT records -------------------------------------------------------------------------------
NODE_BUCKETS = 16
"""nodes/<bucket>: a dictionary reply of 4 MiB holds about 5,000 node records, so 16 buckets hold 80,000 nodes."""

PROVIDER_BUCKETS = 4
WITNESS_BUCKETS = 16
"""witness/<bucket>: what nodes were shown of the log. A node reads one bucket a round, never all."""

MAX_PROVIDER_ADDRESSES = 4
MAX_NODE_RECORD_BYTES = 512
MAX_PROVIDER_RECORD_BYTES = 384
"""Payload of one "I serve this blob" with up to four addresses of a usual length."""

MAX_RECORDS_PER_KEY = 4_096
"""Records of one key that are kept and handed on; while a key is full, new subkeys are refused."""

MAX_KEYS_STORED = 65_536
"""Keys that one node keeps for others; those that expire first go first."""

RECORD_CLOCK_TOLERANCE_MS = 10_000
"""How far a record's dates may lie in our future: clocks may differ by MAX_CLOCK_SKEW_MS on either side."""

# --- the network process -----------------------------------------------------------------------
MAX_IPC_FRAME = 16 * MIB
"""One frame between a service and its network process; the largest is a full key of records."""

MAX_BLOB_FRAME = 1 * KIB
MAX_INBOUND_STREAMS = 128
MAX_INBOUND_STREAMS_PER_PEER = 16
"""Streams served at once; more are told "overloaded" and may come again."""

CONTROL_PER_S = 5.0
CONTROL_BURST = 50
"""Control requests of one peer that a node answers over libp2p, a second and at once: look-ups, few in a download."""

CHUNKS_IN_FLIGHT = 4
"""Chunks asked for ahead on one stream: hides the round trip without holding much memory."""

PROVIDERS_AT_ONCE = 8
PROVIDERS_LOOKED_FOR = 32
"""Of a blob, at most, in one look at the DHT."""

ACKNOWLEDGE_TIMEOUT_S = 5.0
STREAM_IDLE_TIMEOUT_S = 60.0
"""A stream whose other side asks nothing for this long is closed."""

PING_TIMEOUT_S = 5.0
DIAL_BACK_TIMEOUT_S = 5.0
DIAL_BACK_EVERY_S = 10.0
"""One address is dialled back this seldom, whoever asks."""

PEERS_THAT_DIAL_BACK = 3
"""Asked at once; one that gets through is enough."""

REJOIN_EVERY_S = 20.0
"""A node that lost all its DHT peers (a coordinator restarted, a router was off) tries again this often."""

NETWORK_STOP_TIMEOUT_S = 5.0
"""From asking the network process to end until it is killed with its process group."""
