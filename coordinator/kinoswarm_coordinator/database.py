"""Connections to the databases that can hold a log. Owns what makes them keep what they acknowledge."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, event, text
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from kinoswarm_coordinator.leadership import STUCK_TRANSACTION_S
from kinoswarm_protocol.errors import LocalError


def engine_of(url: str) -> Engine:
    """An engine for a URL. Raises LocalError when no database of that kind can be used here."""
    try:
        parsed = make_url(url)
        if parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        postgresql = parsed.get_backend_name() == "postgresql"
        options: dict[str, Any] = _POSTGRESQL if postgresql else {}
        engine = create_engine(parsed, **options)
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
        raise LocalError(
            f"database_url is no database that can be used here ({error}); expected sqlite:///FILE or "
            "postgresql://USER@HOST/NAME, the latter with `pip install kinoswarm[postgresql]`"
        ) from error
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _durable_sqlite)
    return engine


_POSTGRESQL: dict[str, Any] = {
    "pool_pre_ping": True,
    "connect_args": {
        # A dead network is noticed before a lease has run out, and not after the kernel's two hours.
        "connect_timeout": 10,
        "keepalives_idle": 5,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 15_000,
        "options": f"-c idle_in_transaction_session_timeout={STUCK_TRANSACTION_S * 1000}",
    },
}


@contextlib.contextmanager
def making_tables(engine: Engine) -> Iterator[Connection]:
    """Two coordinators that start at once make the tables one after the other."""
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("select pg_advisory_xact_lock(hashtext('kinoswarm tables'))"))
        yield connection


def refuse_forgetful(connection: Connection) -> None:
    """A server that acknowledges before it has written would lose acknowledged work."""
    if connection.dialect.name != "postgresql":
        return
    for setting in ("fsync", "synchronous_commit"):
        if connection.execute(text(f"show {setting}")).scalar_one() == "off":
            raise LocalError(
                f"PostgreSQL runs with {setting} = off and would lose acknowledged work; switch it on"
            )


def _durable_sqlite(connection: "object", record: "object") -> None:
    cursor = connection.cursor()  # type: ignore[attr-defined]
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()


def file_of(url: URL) -> Path | None:
    """The file of a SQLite database; None for a server and for memory."""
    if url.get_backend_name() != "sqlite" or not url.database or url.database == ":memory:":
        return None
    return Path(url.database.removeprefix("file:"))


def sqlite_url(path: Path) -> str:
    """The URL of a SQLite log in a file."""
    return f"sqlite:///{path}"
