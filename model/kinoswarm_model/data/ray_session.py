"""Ray's life: started on this machine alone or joined as a cluster, and ended whatever happens. Owns its settings.

On one machine it listens on the loopback addresses only, asks for a token that lives as long as the run, and reports to
nobody; its files lie in a temporary folder that goes with it. Of runs that were killed, the next one clears them.
"""

import logging
import os
import re
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from kinoswarm_model.data.errors import EngineError
from kinoswarm_model.data.ray_engine import RayEngine
from kinoswarm_model.data.ray_machines import Machine

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # what matters comes as an exception
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
}
_ALONE = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # named after where it is the default: all sockets on loopback
    "RAY_AUTH_MODE": "token",
}
_OBJECT_STORE_BYTES = 1024**3
"""At most; a tenth of the memory on small machines. It bounds what is computed ahead."""
_LONGEST_FOLDER = 40
"""Letters: Ray puts Unix sockets about 65 letters deeper, and the kernel allows 107."""
_FOLDER = re.compile(r"ks-ray-(\d+)-")


@contextmanager
def ray_engine(address: str | None = None) -> Iterator[RayEngine]:
    """Ray on this machine, or the cluster at `address`.

    Raises EngineError when Ray is not installed, can't start, or no cluster answers.
    """
    if address is not None and "://" in address:
        raise EngineError(
            f"{address} is the address of a Ray client server; run this on a machine of the cluster and give HOST:PORT "
            "(or auto)"
        )
    settings = _QUIET if address else _QUIET | _ALONE | {"RAY_AUTH_TOKEN": secrets.token_hex(32)}
    # What Ray has to say about processes that died must not get into a command's --json.
    with redirect_stdout(sys.stderr), _environment(settings), _temporary_folder() as folder:
        ray = _imported()
        try:
            _connect(ray, address, folder)
            yield RayEngine(_machines(ray), one_machine=address is None)
        finally:
            ray.shutdown()


def _imported() -> Any:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise EngineError(
            f"--engine ray needs Ray Data ({error}): pip install 'kinoswarm[ray]', or leave --engine out"
        ) from error
    return ray


def _connect(ray: Any, address: str | None, folder: Path) -> None:
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address:
            ray.init(address=address, **quiet)
        else:
            ray.init(
                address="local",
                include_dashboard=False,
                object_store_memory=_object_store_bytes(),
                _temp_dir=str(folder),
                **quiet,
            )
    except (OSError, RuntimeError, ValueError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        where = f"no Ray cluster can be joined at {address}" if address else "Ray can't start here"
        raise EngineError(f"{where} ({said}); check that, or leave --engine out") from error
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False


def _machines(ray: Any) -> tuple[Machine, ...]:
    found = [
        Machine(node["NodeID"], node["NodeManagerHostname"], int(node["Resources"].get("CPU", 0)))
        for node in ray.nodes()
        if node["Alive"]
    ]
    able = tuple(machine for machine in found if machine.cpus)
    if not able:
        raise EngineError(
            "no machine of the Ray cluster offers a CPU; start Ray there with --num-cpus"
        )
    return able


def _object_store_bytes() -> int:
    import psutil

    return min(_OBJECT_STORE_BYTES, int(psutil.virtual_memory().total) // 10)


@contextmanager
def _environment(settings: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    base = Path(tempfile.gettempdir())
    if len(str(base)) > _LONGEST_FOLDER - len("/ks-ray-4194304-12345678"):
        base = Path("/tmp")  # noqa: S108 (mkdtemp makes a private folder there)
    folder = Path(tempfile.mkdtemp(prefix=f"ks-ray-{os.getpid()}-", dir=base))
    clear_left_behind(base, folder.stat().st_uid)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def clear_left_behind(base: Path, owner: int) -> None:
    """Delete our folders of runs that were killed: this user's, whose process is gone."""
    import psutil

    for folder in base.glob("ks-ray-*"):
        found = _FOLDER.match(folder.name)
        if found is None or psutil.pid_exists(int(found[1])):
            continue
        if folder.lstat().st_uid == owner:
            shutil.rmtree(folder, ignore_errors=True)
