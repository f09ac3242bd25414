"""Asks for signed records: the coordinator first, the DHT when it is away. Owns that order; believes nothing."""

from collections.abc import Sequence

import structlog

from kinoswarm_node.context import NodeContext
from kinoswarm_protocol.errors import RemoteError
from kinoswarm_protocol.messages import Lookup, Records

_log = structlog.get_logger("keeping")


async def look_up(node: NodeContext, key: str) -> Sequence[bytes]:
    """The records under a plain key, unchecked; none when nobody can be asked."""
    try:
        return (await node.client.ask(Lookup(key=key), Records)).records
    except RemoteError:
        pass  # the coordinator is away: that is what the DHT is for
    try:
        return await node.network.look_up(key)
    except RemoteError as error:
        _log.info("not looked up", key=key, why=str(error))
        return []
