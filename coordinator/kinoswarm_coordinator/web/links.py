"""Where a page's links lead: routes of this server, or files of a copy on any static host. Owns both forms; pure."""

from dataclasses import dataclass

from kinoswarm_coordinator.web.assets import Assets


@dataclass(frozen=True)
class Links:
    """Links as seen from one page. `up` is "" on the server, and the way to the top from a page of a copy ("../..")."""

    assets: Assets
    up: str | None = None

    def link(self, path: str) -> str:
        """Another page: `nodes`, `clusters/3`, or "" for the overview."""
        if self.up is None:
            return f"/{path}"
        return f"{self.up}/{path}/index.html" if path else f"{self.up}/index.html"

    def file(self, path: str) -> str:
        """A file by its address on the server, e.g. `/releases/1/samples/sample-00.mp4`."""
        return path if self.up is None else f"{self.up}{path}"

    def asset(self, name: str) -> str:
        """One of the page's own files."""
        return self.file(self.assets.address(name))


def up_from(path: str) -> str:
    """The way from the folder of a page of a copy to its top: "." for the overview, "../.." for `clusters/3`."""
    return "/".join([".."] * (path.count("/") + 1)) if path else "."
