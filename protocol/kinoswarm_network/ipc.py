"""What a service and its network process ask and answer over their socket. Owns these types; does no IO."""

from typing import Annotated

from msgspec import Meta, Struct, field

from kinoswarm_protocol.ids import BlobIdField, PeerIdField, SwarmIdField
from kinoswarm_protocol.limits import (
    CHUNK_TIMEOUT_S,
    CONNECT_TIMEOUT_S,
    CONTROL_BURST,
    CONTROL_PER_S,
    MAX_ADDRESS,
    MAX_BLOB_BYTES,
    MAX_CONTROL_FRAME,
    MAX_RECORD_BYTES,
    MAX_RECORDS_PER_KEY,
    MIB,
    REJOIN_EVERY_S,
)
from kinoswarm_protocol.messages import ProviderHint
from kinoswarm_protocol.records import PlainKey, SealedRecord

Text = Annotated[str, Meta(max_length=4_096)]
Address = Annotated[str, Meta(max_length=4 * MAX_ADDRESS)]
AddressList = Annotated[list[Address], Meta(max_length=256)]
Bytes = Annotated[int, Meta(ge=0)]
Wait = Annotated[float, Meta(gt=0.0, le=3_600.0)]


class _Frame(Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    pass


class NetworkConfig(_Frame, frozen=True, kw_only=True):
    """How one network process runs. One process serves one swarm."""

    home: Text
    """Folder of this process's own files: identity, lock, sockets, log. One running process per folder."""
    swarm: SwarmIdField
    key_file: Text
    """Path of the node's key file; made when there is none."""
    founder: PeerIdField
    """Whose charter records count."""
    coordinators: Annotated[list[PeerIdField], Meta(max_length=16)]
    """Whose coordinator, expert and release records count; `NetworkClient.set_authority` changes it."""
    store: Text = ""
    """Blob folder; empty is `<home>/blobs`."""
    shelf: Text = ""
    """S3-compatible storage behind the folder, s3://BUCKET/PREFIX; empty is none."""
    log_file: Text = ""
    """Where the process writes what it says; empty is `<home>/network.log`."""
    listen: AddressList = field(default_factory=lambda: ["/ip4/0.0.0.0/tcp/0", "/ip6/::/tcp/0"])
    """Multiaddresses to listen on; port 0 is any free one. Empty listens nowhere."""
    announce: AddressList = []
    """What others are told to dial instead of `listen`, for a forwarded port; empty is off."""
    bootstrap: AddressList = []
    """Multiaddresses ending in /p2p/<id> that are tried at the start; none has to answer."""
    client_mode: bool = False
    """True for a machine that nobody can dial: it uses the DHT without being part of it."""
    relay_for_others: bool = False
    """Let strangers' circuits go through this machine, 2 minutes and 128 KiB each."""
    find_at_home: bool = False
    """Tell the local network of this node by mDNS, and meet others of the swarm there."""
    announce_blobs: bool = False
    """Tell the DHT which blobs are here, also while they still come, so that others ask this node for them."""
    nat_port_map: bool = False
    """Ask the router to forward a port (UPnP, NAT-PMP)."""
    quota_bytes: Bytes = 0
    """Disk quota of the blob store in bytes; 0 is off."""
    up_bytes_per_s: Bytes = 0
    """Rate cap for blobs that are served; 0 is off."""
    down_bytes_per_s: Bytes = 0
    """Rate cap for blobs that are fetched from peers; 0 is off."""
    month_bytes: Bytes = 0
    """Cap for blobs in both directions in a calendar month; 0 is off."""
    control_per_s: Annotated[float, Meta(ge=0.0, le=1e6)] = CONTROL_PER_S
    """Control requests a second that one peer may ask; 0 is no limit."""
    control_burst: Annotated[int, Meta(ge=1, le=10**6)] = CONTROL_BURST
    """How many of them may come at once."""
    scrub_bytes_per_s: Bytes = 4 * MIB
    """How fast stored blobs are read again to find damage, hour after hour; 0 is never."""
    rejoin_every_s: Wait = REJOIN_EVERY_S
    """How often a node whose DHT peers are all gone tries the addresses that it knows."""
    connect_timeout_s: Wait = CONNECT_TIMEOUT_S
    chunk_timeout_s: Wait = CHUNK_TIMEOUT_S
    """A provider that sends nothing for this long is given up."""


# --- what the service asks ----------------------------------------------------------------------


class Start(_Frame, frozen=True, kw_only=True, tag="start"):
    config: NetworkConfig


class Connect(_Frame, frozen=True, kw_only=True, tag="connect"):
    addresses: AddressList


class Control(_Frame, frozen=True, kw_only=True, tag="control"):
    peer: PeerIdField
    addresses: AddressList
    request: Annotated[bytes, Meta(max_length=MAX_CONTROL_FRAME)]
    timeout_s: Wait


class Announce(_Frame, frozen=True, kw_only=True, tag="announce"):
    record: SealedRecord


class LookUp(_Frame, frozen=True, kw_only=True, tag="look_up"):
    key: PlainKey


class SetAuthority(_Frame, frozen=True, kw_only=True, tag="authority"):
    founder: PeerIdField
    coordinators: Annotated[list[PeerIdField], Meta(max_length=16)]


class AddBlob(_Frame, frozen=True, kw_only=True, tag="add_blob"):
    path: Text


class FindBlob(_Frame, frozen=True, kw_only=True, tag="find_blob"):
    blob: BlobIdField


class DropBlob(_Frame, frozen=True, kw_only=True, tag="drop_blob"):
    blob: BlobIdField


class PinBlob(_Frame, frozen=True, kw_only=True, tag="pin_blob"):
    blob: BlobIdField
    pinned: bool


class FetchBlob(_Frame, frozen=True, kw_only=True, tag="fetch_blob"):
    blob: BlobIdField
    providers: Annotated[list[ProviderHint], Meta(max_length=256)]
    max_bytes: Bytes = MAX_BLOB_BYTES
    """A larger blob is refused when its manifest comes."""


class AskAddresses(_Frame, frozen=True, kw_only=True, tag="addresses"):
    pass


class AskReach(_Frame, frozen=True, kw_only=True, tag="reach"):
    pass


class AskTraffic(_Frame, frozen=True, kw_only=True, tag="traffic"):
    pass


class Stop(_Frame, frozen=True, kw_only=True, tag="stop"):
    pass


# --- what the network process asks --------------------------------------------------------------


class InboundControl(_Frame, frozen=True, kw_only=True, tag="inbound"):
    """A peer, whose id libp2p has proved, asks the service something."""

    peer: PeerIdField
    request: Annotated[bytes, Meta(max_length=MAX_CONTROL_FRAME)]
    seen_at: Annotated[str, Meta(max_length=64)]
    """The IP address that its packets come from; empty when that is not known."""


# --- answers ------------------------------------------------------------------------------------


class Ready(_Frame, frozen=True, kw_only=True, tag="ready"):
    peer: PeerIdField
    addresses: AddressList


class AddressReport(_Frame, frozen=True, kw_only=True, tag="address"):
    """What became of one address: `problem` is empty when it worked, else a sentence for the user."""

    address: Address
    peer: str
    problem: Text
    clock_ahead_ms: int | None = None
    """The peer's clock minus ours, when it told."""


class ConnectReport(_Frame, frozen=True, kw_only=True, tag="connected"):
    reports: Annotated[list[AddressReport], Meta(max_length=256)]

    @property
    def ok(self) -> bool:
        """Whether at least one address worked."""
        return any(not report.problem for report in self.reports)

    def in_words(self) -> str:
        """One line per address that failed; empty when all worked."""
        return "\n".join(
            f"{report.address}: {report.problem}" for report in self.reports if report.problem
        )


class Reply(_Frame, frozen=True, kw_only=True, tag="reply"):
    data: Annotated[bytes, Meta(max_length=MAX_CONTROL_FRAME)]


class Stored(_Frame, frozen=True, kw_only=True, tag="stored"):
    ok: bool


class Found(_Frame, frozen=True, kw_only=True, tag="found"):
    values: Annotated[
        list[Annotated[bytes, Meta(max_length=MAX_RECORD_BYTES)]],
        Meta(max_length=MAX_RECORDS_PER_KEY),
    ]


class Blob(_Frame, frozen=True, kw_only=True, tag="blob"):
    """A blob and its data file; an empty path says that it is not here."""

    blob: BlobIdField
    path: Text


class ReachReport(_Frame, frozen=True, kw_only=True, tag="reached"):
    """Whether peers could dial this node back."""

    asked: int
    """Peers that tried; 0 says nothing."""
    reached: bool
    """Whether at least one got through."""
    host: Text = ""
    """Where they see this node."""
    port: int = 0


class Traffic(_Frame, frozen=True, kw_only=True, tag="counted"):
    """Since the network process started, in bytes of blobs and control frames; overheads are not counted."""

    bytes_up: Bytes
    bytes_down: Bytes
    blobs_served: Bytes
    """Streams on which at least one chunk was served."""
    chunks_refused: Bytes
    """Chunks that peers sent and that did not have the promised hash."""
    peers: Bytes
    """Peers connected now."""
    blobs_damaged: Bytes = 0
    """Stored blobs whose bytes had changed on the disk, and that were fetched again or wait for it."""


class Done(_Frame, frozen=True, kw_only=True, tag="done"):
    pass


Body = (
    Start
    | Connect
    | Control
    | Announce
    | LookUp
    | SetAuthority
    | AddBlob
    | FindBlob
    | DropBlob
    | PinBlob
    | FetchBlob
    | AskAddresses
    | AskReach
    | AskTraffic
    | Stop
    | InboundControl
    | Ready
    | ConnectReport
    | Reply
    | Stored
    | Found
    | Blob
    | ReachReport
    | Traffic
    | Done
)
