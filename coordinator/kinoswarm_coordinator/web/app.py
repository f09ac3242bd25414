"""The HTTP application: puts routes, error documents, bounds and headers together. Holds no state of its own."""

import time
from collections.abc import Callable

from fastapi import FastAPI

from kinoswarm_coordinator.web.api_routes import api_routes
from kinoswarm_coordinator.web.api_schema import describe
from kinoswarm_coordinator.web.bounds import Bounds
from kinoswarm_coordinator.web.headers import SecurityHeaders
from kinoswarm_coordinator.web.network_routes import network_routes
from kinoswarm_coordinator.web.page_routes import page_routes, pages_of
from kinoswarm_coordinator.web.plain_routes import plain_routes
from kinoswarm_coordinator.web.problems import add_handlers
from kinoswarm_coordinator.web.snapshots import Snapshots
from kinoswarm_coordinator.web.sources import WebSources
from kinoswarm_coordinator.web.traffic_count import TrafficCount
from kinoswarm_coordinator.web.try_routes import TryCounter, try_api, try_pages
from kinoswarm_coordinator.web.upload_routes import upload_routes
from kinoswarm_network.rate_limit import RateLimit


def create_app(
    sources: WebSources,
    clock: Callable[[], float] = time.monotonic,
    limit: RateLimit | None = None,
    control_limit: RateLimit | None = None,
) -> FastAPI:
    """The application over these sources. `clock` counts seconds; only differences matter.

    `limit` bounds how often one address may ask for pages and API, `control_limit` how often the nodes behind one
    address may ask for anything but blobs; None is no bound.
    """
    # FastAPI's own documentation pages load scripts from elsewhere; the schema itself is at /openapi.json.
    app = FastAPI(title="Kinoswarm", version="1", docs_url=None, redoc_url=None)
    add_handlers(app)
    app.add_middleware(Bounds, limit=limit, control_limit=control_limit, clock=clock)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(TrafficCount, presence=sources.service.presence)
    snapshots = Snapshots(sources, clock)
    app.include_router(network_routes(sources))
    app.include_router(upload_routes(sources.uploads))
    app.include_router(api_routes(sources, snapshots))
    app.include_router(plain_routes(sources, snapshots))
    pages = pages_of(sources)
    app.include_router(page_routes(sources, snapshots, pages))
    if sources.desk is not None:
        limit_of_wishes = RateLimit(sources.tries_per_hour / 3600, sources.tries_per_hour)
        counter = TryCounter(desk=sources.desk, limit=limit_of_wishes, clock=clock)
        app.include_router(try_api(counter))
        app.include_router(try_pages(counter, pages, snapshots))
    describe(app)
    return app
