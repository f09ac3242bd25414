"""Serves a copy as any static host would, with our headers. Owns no check: the copy was checked when it came."""

from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from kinoswarm_coordinator.web.headers import SecurityHeaders


def mirror_app(folder: Path) -> Starlette:
    """The application over the folder of a copy."""
    files = StaticFiles(directory=folder, html=True, check_dir=False, follow_symlink=False)
    return Starlette(
        routes=[Mount("/", files)],
        middleware=[
            Middleware(SecurityHeaders),
            Middleware(CORSMiddleware, allow_origins=["*"], allow_methods=["GET", "HEAD"]),
        ],
    )
