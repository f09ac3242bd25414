"""Pages of the newest snapshot, rendered once however many ask. Owns this cache."""

from collections.abc import Callable

from fastapi.responses import HTMLResponse, Response

from kinoswarm_coordinator.web.snapshots import Snapshot, Snapshots


class Rendered:
    """Answers with a page by its name; whatever belongs to an older snapshot is forgotten."""

    def __init__(self, snapshots: Snapshots) -> None:
        self._snapshots = snapshots
        self._of: Snapshot | None = None
        self._pages: dict[str, bytes] = {}

    def once(self, name: str, render: Callable[[Snapshot], str]) -> Response:
        """The page `name` of the newest snapshot."""
        newest = self._snapshots.newest()
        if newest is not self._of:
            self._of, self._pages = newest, {}
        if name not in self._pages:
            self._pages[name] = render(newest).encode()
        return HTMLResponse(self._pages[name], headers={"Cache-Control": "no-store"})
