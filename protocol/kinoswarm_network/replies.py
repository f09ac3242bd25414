"""The asking side of a reply on a stream: its head, then exactly the bytes that it announces. Owns their bound."""

from kinoswarm_network.stream_frames import No, read_reply_head, refused
from kinoswarm_network.streams import Stream
from kinoswarm_protocol.errors import MalformedBytes
from kinoswarm_protocol.limits import MAX_BLOB_FRAME


async def receive_reply(stream: Stream, max_bytes: int, timeout_s: float) -> bytes:
    """The bytes of one reply. Raises Refused when the peer says no, MalformedBytes when it announces too much."""
    head = read_reply_head(await stream.receive(2 * MAX_BLOB_FRAME, timeout_s))
    if isinstance(head, No):
        raise refused(head)
    if head.size_bytes > max_bytes:
        raise MalformedBytes(
            f"{stream.peer} announces {head.size_bytes} bytes where at most {max_bytes} were asked for"
        )
    return await stream.receive_raw(head.size_bytes, timeout_s)
