"""Counts the bytes that nodes move over HTTP(S). Plain ASGI; owns the counting and nothing else."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kinoswarm_coordinator.presence import Presence

_NODES_PREFIX = "/kinoswarm/"


class TrafficCount:
    """Adds the bodies of the nodes' own routes to the presence; pages and API are not the swarm's traffic."""

    def __init__(self, app: ASGIApp, presence: Presence) -> None:
        self._app = app
        self._presence = presence

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(_NODES_PREFIX):
            await self._app(scope, receive, send)
            return

        async def counted_receive() -> Message:
            message = await receive()
            self._presence.http_bytes_down += len(message.get("body", b""))
            return message

        async def counted_send(message: Message) -> None:
            self._presence.http_bytes_up += len(message.get("body", b""))
            await send(message)

        await self._app(scope, counted_receive, counted_send)
