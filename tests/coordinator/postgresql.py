"""A real PostgreSQL of the test's own: in a temporary folder, over a Unix socket, ended after the run."""

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

_DEBIAN = Path("/usr/lib/postgresql")
_SETTINGS = "-c listen_addresses='' -c unix_socket_directories='{}' -c shared_buffers=4MB -c max_connections=30"


@dataclass
class Server:
    """A running server, and databases on it."""

    folder: Path
    made: int = field(default=0)

    def new_database(self) -> str:
        """The URL of an empty database."""
        from sqlalchemy import create_engine, text

        self.made += 1
        name = f"swarm{self.made}"
        engine = create_engine(self.url("postgres"), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f"create database {name}"))
        engine.dispose()
        return self.url(name)

    def url(self, name: str) -> str:
        return f"postgresql+psycopg://postgres@/{name}?host={self.folder}"


def drop_tables(url: str) -> None:
    """Leave a database as if no log had been in it: quicker than a new database."""
    from kinoswarm_coordinator.database import engine_of
    from kinoswarm_coordinator.sql_log import _METADATA

    engine = engine_of(url)
    _METADATA.drop_all(engine)
    engine.dispose()


def programs() -> Path | None:
    """Where initdb and pg_ctl are; Debian keeps them out of the path."""
    found = shutil.which("pg_ctl")
    if found:
        return Path(found).resolve().parent
    versions = sorted(_DEBIAN.glob("*/bin/pg_ctl")) if _DEBIAN.is_dir() else []
    return versions[-1].parent if versions else None


@contextlib.contextmanager
def running_server() -> Iterator[Server]:
    """Start a server, or skip the test where PostgreSQL is not installed."""
    bin_folder = programs()
    if bin_folder is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    pytest.importorskip(
        "psycopg", reason="the driver is missing: pip install kinoswarm[postgresql]"
    )
    folder = Path(tempfile.mkdtemp(prefix="kinoswarm-pg-"))
    data = folder / "data"
    folder.chmod(0o755)
    user = _user_that_may_run_it(folder)
    settings = _SETTINGS.format(folder)
    try:
        _run(
            user,
            [bin_folder / "initdb", "-D", data, "-A", "trust", "-U", "postgres", "-E", "UTF8"],
        )
        control = [bin_folder / "pg_ctl", "-D", data, "-w", "-l", folder / "server.log"]
        _run(user, [*control, "-o", settings, "start"])
        try:
            yield Server(folder)
        finally:
            _run(user, [*control, "-m", "immediate", "stop"])
    finally:
        shutil.rmtree(folder)


def _user_that_may_run_it(folder: Path) -> str | None:
    """PostgreSQL refuses to run as root: as its package's user then."""
    if os.geteuid() != 0:
        return None
    owner = pwd.getpwnam("postgres")
    os.chown(folder, owner.pw_uid, owner.pw_gid)
    return owner.pw_name


def _run(user: str | None, words: list[object]) -> None:
    done = subprocess.run(
        [str(word) for word in words],
        user=user,
        group=user,
        extra_groups=[] if user else None,
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if "start" not in words else subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
        timeout=120,
        text=True,
    )
    assert done.returncode == 0, done.stdout
