"""The one PostgreSQL that tests of the coordinator share."""

from collections.abc import Iterator

import pytest
from coordinator.postgresql import Server, running_server


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[Server]:
    with running_server() as server:
        yield server


@pytest.fixture
def postgresql_url(postgresql_server: Server) -> str:
    """An empty database."""
    return postgresql_server.new_database()
