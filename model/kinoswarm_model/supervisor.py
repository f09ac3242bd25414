"""Starts, feeds and ends a worker process. Owns its life; free of torch, for asyncio services.

One job at a time; a dead worker is started again by the next job. Cancelling `run` kills the worker at once, because
memory must be given back and a job can't be stopped otherwise; resume points make that cheap.
"""

import asyncio
import os
import signal
import sys
from asyncio import StreamReader
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

import msgspec

from kinoswarm_model import worker_group
from kinoswarm_model.confinement import WorkerLimits
from kinoswarm_model.jobs import (
    MAX_JOB_FRAME,
    Done,
    Event,
    Job,
    JobDone,
    JobFailed,
    JobProgress,
    WorkerReady,
)
from kinoswarm_protocol import codec
from kinoswarm_protocol.errors import LocalError, RemoteError
from kinoswarm_protocol.limits import WORKER_START_TIMEOUT_S

_PREFIX_BYTES = 4
_STOP_GRACE_S = 5.0
_PULSE_S = 0.5
"""A worker that may compute a share of the time is stopped and continued by signals at this rhythm."""

_MAX_LOG_BYTES = 4 * 1024 * 1024
_KEPT_VARIABLES = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "TEMP",
    "SYSTEMROOT",
    "PYTHONPATH",
    "LD_LIBRARY_PATH",
    "VIRTUAL_ENV",
    "CUDA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "ATEN_CPU_CAPABILITY",
)
_SET_VARIABLES = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONUNBUFFERED": "1",
    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # as NVML counts cards, or the governor would watch another one
}


class WorkerError(LocalError):
    """The worker could not do a job and says why; it is ready for the next one."""

    def __init__(self, code: str, sentence: str, out_of_memory: bool) -> None:
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence
        self.out_of_memory = out_of_memory


class WorkerDied(LocalError):
    """The worker process ended in the middle of a job, or could not be started; the same job again resumes it."""


class WorkerSupervisor:
    """One worker process, started when needed."""

    def __init__(
        self,
        log_path: Path,
        *,
        python: str = sys.executable,
        env: Mapping[str, str] | None = None,
        limits: WorkerLimits | None = None,
    ) -> None:
        """`env` adds to or overrides the few variables that a worker inherits."""
        self._limits = limits or WorkerLimits()
        self.confined: list[str] = []
        self._log_path = log_path
        self._python = python
        self._env = dict(env or {})
        self._process: Process | None = None
        self._busy = asyncio.Lock()
        self._share = 1.0
        self._pulse: asyncio.Task[None] | None = None
        self.devices: list[str] = []

    @property
    def pid(self) -> int | None:
        """Process id of the running worker."""
        return self._process.pid if self._process and self._process.returncode is None else None

    async def start(self) -> None:
        """Start the worker unless it runs. Raises WorkerDied when it does not become ready in time."""
        if self.pid is not None:
            return
        self._process = await self._spawn()
        try:
            async with asyncio.timeout(WORKER_START_TIMEOUT_S):
                event = await self._event(self._process)
        except TimeoutError as error:
            await self.kill()
            raise WorkerDied(
                f"the worker was not ready within {WORKER_START_TIMEOUT_S:.0f} s; see {self._log_path}"
            ) from error
        if not isinstance(event, WorkerReady):
            await self.kill()
            raise WorkerDied(f"the worker began with {type(event).__name__}; see {self._log_path}")
        self.devices, self.confined = event.devices, event.confined
        self.limit(self._share)

    def limit(self, share: float) -> None:
        """Let the worker compute only this share of the time, from now on; 1 is always. Its memory stays."""
        self._share = share
        self._end_pulse()
        if self.pid is not None and share < 1.0:
            self._pulse = asyncio.get_running_loop().create_task(_pulse(self.pid, share))

    def _end_pulse(self) -> None:
        """Leave the worker running, not stopped."""
        if self._pulse is not None:
            self._pulse.cancel()
            self._pulse = None
            if self.pid is not None:
                worker_group.resume(self.pid)

    async def run(self, job: Job, on_progress: Callable[[JobProgress], None]) -> Done:
        """Do one job; others wait. Raises WorkerError or WorkerDied. Cancelling it kills the worker."""
        async with self._busy:
            try:
                await self.start()
                return await self._converse(job, on_progress)
            except (asyncio.CancelledError, WorkerDied):
                await self.kill()
                raise

    async def stop(self) -> None:
        """End an idle worker by closing its input; kill it if it lingers, or at once when this is cancelled.

        It is given up from the start: a job that comes while it still ends gets a worker of its own.
        """
        self._end_pulse()
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            async with asyncio.timeout(_STOP_GRACE_S):
                await process.wait()
        except (TimeoutError, asyncio.CancelledError) as error:
            worker_group.kill(process.pid)
            if isinstance(error, asyncio.CancelledError):
                raise
            await process.wait()

    async def kill(self) -> None:
        """End the worker and its children at once."""
        self._end_pulse()
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            worker_group.kill(process.pid)
        await process.wait()
        self._process = None

    async def _converse(self, job: Job, on_progress: Callable[[JobProgress], None]) -> Done:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        try:
            process.stdin.write(codec.frame(codec.encode(job)))
            await process.stdin.drain()
        except ConnectionError as error:
            raise await self._died() from error
        while True:
            event = await self._event(process)
            if isinstance(event, WorkerReady) or event.job_id != job.job_id:
                raise WorkerDied(f"the worker answered another question; see {self._log_path}")
            if isinstance(event, JobProgress):
                on_progress(event)
            elif isinstance(event, JobDone):
                return event.done
            elif isinstance(event, JobFailed):
                raise WorkerError(event.code, event.sentence, event.out_of_memory)

    async def _event(self, process: Process) -> Event:
        assert process.stdout is not None
        try:
            payload = await _read_frame(process.stdout)
            return codec.decode(payload, cast("type[Any]", Event), MAX_JOB_FRAME)  # type: ignore[no-any-return]
        except (asyncio.IncompleteReadError, ConnectionError, RemoteError) as error:
            raise await self._died() from error

    async def _died(self) -> WorkerDied:
        how = await _how_it_ended(self._process)
        return WorkerDied(
            f"the worker process ended in the middle of its work{how}; its log is {self._log_path}"
        )

    async def _spawn(self) -> Process:
        self._log_path.parent.mkdir(parents=True, exist_ok=True)
        large = self._log_path.exists() and self._log_path.stat().st_size > _MAX_LOG_BYTES
        with self._log_path.open("wb" if large else "ab") as log:
            try:
                return await self._begin(log)
            except OSError as error:
                # No memory or no process left, or a Python that is being upgraded.
                raise WorkerDied(
                    f"the worker could not be started: {self._python}: {error.strerror or error}"
                ) from error

    async def _begin(self, log: BinaryIO) -> Process:
        return await asyncio.create_subprocess_exec(
            self._python,
            "-P",  # no module of the folder that it happens to be started in
            "-m",
            "kinoswarm_model.worker",
            str(os.getpid()),
            msgspec.json.encode(self._limits).decode(),
            stdin=PIPE,
            stdout=PIPE,
            stderr=log,
            env=worker_environment(os.environ) | self._env,
            start_new_session=True,
        )


def worker_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The few variables that a worker inherits; no tokens, no keys."""
    kept = {name: environment[name] for name in _KEPT_VARIABLES if name in environment}
    return kept | _SET_VARIABLES


async def _how_it_ended(process: Process | None) -> str:
    """In words, once the system knows; empty when it does not within a moment."""
    if process is None:
        return ""
    try:
        async with asyncio.timeout(_STOP_GRACE_S):
            code = await process.wait()
    except TimeoutError:
        return ""
    if code >= 0:
        return f" (exit code {code})"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    memory = ", as the system does when memory runs out" if name == "SIGKILL" else ""
    return f" (by {name}{memory})"


async def _read_frame(reader: StreamReader) -> bytes:
    prefix = await reader.readexactly(_PREFIX_BYTES)
    return await reader.readexactly(codec.frame_length(prefix, MAX_JOB_FRAME))


async def _pulse(pid: int, share: float) -> None:
    """Stop and continue a worker for ever, so that it computes `share` of the time."""
    while True:
        await asyncio.sleep(share * _PULSE_S)
        worker_group.suspend(pid)
        await asyncio.sleep((1.0 - share) * _PULSE_S)
        worker_group.resume(pid)
