"""Routes that answer HEAD wherever they answer GET, as download managers and link checkers ask. Owns nothing else."""

from fastapi.routing import APIRoute
from starlette.routing import Match
from starlette.types import Receive, Scope, Send


class HeadRoute(APIRoute):
    """FastAPI's route knows the methods that were named only; the server leaves the body out, a file is not even read.

    HEAD is not named, so that the schema states each operation once.
    """

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """As for the GET that the HEAD stands for."""
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        return super().matches(scope)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Like any GET, whose response sees that only its headers are wanted."""
        if scope["method"] == "HEAD" and self.methods and "GET" in self.methods:
            await self.app(scope, receive, send)
        else:
            await super().handle(scope, receive, send)
