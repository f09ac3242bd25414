"""Real worker processes: one after another job, kill -9 in mid-job, the end of the service, stray prints."""

import asyncio
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import torch
from model.samples import tiny_model, write_tiny_shard

from kinoswarm_model import devices
from kinoswarm_model.jobs import (
    JobProgress,
    ReleaseJob,
    TrainDone,
    TrainJob,
)
from kinoswarm_model.supervisor import (
    WorkerDied,
    WorkerError,
    WorkerSupervisor,
    worker_environment,
)
from kinoswarm_protocol import codec

MODEL = tiny_model()


def ignore(progress: JobProgress) -> None:
    pass


def train_job(folder: Path, work: str, steps: int = 12) -> TrainJob:
    shard = folder / "shard.safetensors"
    if not shard.exists():
        write_tiny_shard(shard)
    return TrainJob(
        job_id=work,
        model=MODEL,
        work_dir=str(folder / work),
        shard_paths=[str(shard)],
        steps=steps,
        batch_size=4,
        seed=2,
        resume_every_s=0.0,
        steps_per_progress=1,
    )


def gone(pid: int) -> bool:
    """Whether a process has ended (a zombie has)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return True
    return state in "ZX"


def test_killed_worker_is_restarted_and_the_job_ends_as_if_nothing_had_happened(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        supervisor = WorkerSupervisor(tmp_path / "worker.log")
        whole = await supervisor.run(train_job(tmp_path, "whole"), ignore)
        first_pid = supervisor.pid
        assert first_pid is not None
        seen: list[int] = []

        def kill_in_mid_job(progress: JobProgress) -> None:
            seen.append(progress.step)
            if progress.step == 5 and seen.count(5) == 1:
                os.kill(first_pid, signal.SIGKILL)

        job = train_job(tmp_path, "killed")
        with pytest.raises(WorkerDied, match="log"):
            await supervisor.run(job, kill_in_mid_job)
        assert supervisor.pid is None
        done = await supervisor.run(job, kill_in_mid_job)
        assert supervisor.pid not in (None, first_pid)
        assert 1 not in seen[seen.index(5) + 1 :], "it began again instead of resuming"
        assert isinstance(done, TrainDone)
        assert isinstance(whole, TrainDone)
        assert Path(done.output_path).read_bytes() == Path(whole.output_path).read_bytes()
        await supervisor.stop()
        assert supervisor.pid is None

    asyncio.run(scenario())


def test_failed_job_says_why_and_the_same_worker_takes_the_next(tmp_path: Path) -> None:
    async def scenario() -> None:
        supervisor = WorkerSupervisor(tmp_path / "worker.log")
        bad = msgspec.structs.replace(train_job(tmp_path, "bad"), shard_paths=["/nowhere"])
        with pytest.raises(WorkerError) as caught:
            await supervisor.run(bad, ignore)
        assert caught.value.code == "work_failed"
        assert "/nowhere" in caught.value.sentence
        assert not caught.value.out_of_memory
        pid = supervisor.pid
        await supervisor.run(train_job(tmp_path, "good", steps=2), ignore)
        assert supervisor.pid == pid
        await supervisor.kill()
        assert supervisor.pid is None

    asyncio.run(scenario())


def test_cancelled_job_gives_its_memory_back_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        supervisor = WorkerSupervisor(tmp_path / "worker.log")
        begun = asyncio.Event()
        job = train_job(tmp_path, "long", steps=100_000)
        task = asyncio.create_task(supervisor.run(job, lambda progress: begun.set()))
        await begun.wait()
        pid = supervisor.pid
        assert pid is not None
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert gone(pid)

    asyncio.run(scenario())


SERVICE = """
import asyncio, os, sys
from pathlib import Path
import msgspec
from kinoswarm_model.jobs import TrainJob
from kinoswarm_model.supervisor import WorkerSupervisor
folder = Path(sys.argv[1])
job = msgspec.msgpack.decode((folder / "job.bin").read_bytes(), type=TrainJob)
async def main():
    supervisor = WorkerSupervisor(folder / "worker.log")
    def progress(p):
        print(supervisor.pid, flush=True)
    await supervisor.run(job, progress)
asyncio.run(main())
"""


def test_worker_does_not_outlive_its_service(tmp_path: Path) -> None:
    job = train_job(tmp_path, "orphan", steps=100_000)
    (tmp_path / "job.bin").write_bytes(codec.encode(job))
    service = subprocess.Popen(
        [sys.executable, "-c", SERVICE, str(tmp_path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert service.stdout is not None
    worker_pid = int(service.stdout.readline())
    assert not gone(worker_pid)
    watch = os.pidfd_open(worker_pid)
    service.kill()
    service.wait()
    service.stdout.close()
    import select

    ended, _, _ = select.select([watch], [], [], 20)
    os.close(watch)
    assert ended, "the worker still runs"


def test_prints_of_libraries_do_not_reach_the_frames(tmp_path: Path) -> None:
    code = (
        "import os, kinoswarm_model.worker as w\n"
        "out = w._keep_standard_output()\n"
        "print('stray', flush=True); os.system('echo stray')\n"
        "out.write(b'frame'); out.flush()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
    )
    assert done.stdout == b"frame"
    assert done.stderr.count(b"stray") == 2


def test_unreadable_job_ends_the_worker_with_a_reason(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "kinoswarm_model.worker"],
        input=codec.frame(b"\xc1 not a job"),
        capture_output=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 3
    assert b"unreadable job" in done.stderr


def test_release_job_is_dispatched_like_the_others() -> None:
    from kinoswarm_model.worker_jobs import _MODULE_BY_JOB

    assert _MODULE_BY_JOB[ReleaseJob] == "kinoswarm_model.release_job"


def test_worker_inherits_few_variables_and_no_secrets() -> None:
    found = worker_environment({"PATH": "/bin", "AWS_SECRET_ACCESS_KEY": "x", "HOME": "/h"})
    assert found["PATH"] == "/bin"
    assert "AWS_SECRET_ACCESS_KEY" not in found
    assert found["HF_HUB_OFFLINE"] == "1"
    assert found["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID", "as the governor counts them"


def test_of_several_cards_the_largest_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = [8 * 10**9, 24 * 10**9, 24 * 10**9 + 7]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(sizes))
    monkeypatch.setattr(devices, "_card_bytes", lambda index: sizes[index])
    assert devices.device_names()[:3] == ["cuda:1", "cuda:2", "cuda:0"]


def test_services_import_neither_torch_nor_diffusers() -> None:
    code = (
        "import sys, kinoswarm_model.supervisor, kinoswarm_model.jobs, kinoswarm_model.presets\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'hivemind', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr.decode()


LINGERING_WORKER = """#!{python}
import os, sys
sys.path[:0] = {path!r}
from kinoswarm_model.jobs import WorkerReady
from kinoswarm_protocol import codec
sys.stdout.buffer.write(codec.frame(codec.encode(WorkerReady(pid=os.getpid(), devices=["cpu"]))))
sys.stdout.buffer.flush()
sys.stdin.buffer.read()
print("input ended", file=sys.stderr, flush=True)
while True:
    os.read(os.pipe()[0], 1)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_job_that_comes_while_an_idle_worker_still_ends_gets_a_worker_of_its_own(
    tmp_path: Path,
) -> None:
    program = tmp_path / "worker"
    program.write_text(LINGERING_WORKER.format(python=sys.executable, path=sys.path))
    program.chmod(0o755)

    async def scenario() -> tuple[int | None, int | None]:
        supervisor = WorkerSupervisor(tmp_path / "log", python=str(program))
        await supervisor.start()
        ending = supervisor.pid
        stopping = asyncio.create_task(supervisor.stop())
        while "input ended" not in (tmp_path / "log").read_text():
            await asyncio.to_thread(select.select, [], [], [], 0.02)
        stopping.cancel()
        await asyncio.wait({stopping})
        await supervisor.start()
        fresh = supervisor.pid
        while not gone(ending or 0):
            await asyncio.to_thread(select.select, [], [], [], 0.02)
        assert not gone(fresh or 0)
        await supervisor.kill()
        return ending, fresh

    ending, fresh = asyncio.run(scenario())
    assert ending != fresh
    assert gone(ending or 0)


BURNING_WORKER = """#!{python}
import os, sys
sys.path[:0] = {path!r}
from kinoswarm_model.jobs import WorkerReady
from kinoswarm_protocol import codec
sys.stdout.buffer.write(codec.frame(codec.encode(WorkerReady(pid=os.getpid(), devices=["cpu"]))))
sys.stdout.buffer.flush()
while True:
    pass
"""


def cpu_seconds(pid: int) -> float:
    user, system = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_share_is_kept_changed_and_does_not_keep_the_worker_from_being_killed(
    tmp_path: Path,
) -> None:
    program = tmp_path / "worker"
    program.write_text(BURNING_WORKER.format(python=sys.executable, path=sys.path))
    program.chmod(0o755)

    async def scenario() -> tuple[float, float, int]:
        supervisor = WorkerSupervisor(tmp_path / "log", python=str(program))
        supervisor.limit(0.2)
        await supervisor.start()
        pid = supervisor.pid
        assert pid is not None
        spent = []
        for share in (0.2, 0.8):
            supervisor.limit(share)
            before = cpu_seconds(pid)
            await asyncio.to_thread(select.select, [], [], [], 1.5)
            spent.append(cpu_seconds(pid) - before)
        supervisor.limit(0.0)
        await supervisor.kill()
        return spent[0], spent[1], pid

    little, much, pid = asyncio.run(scenario())
    assert little < 0.75, "a fifth of 1.5 s, with room for a busy machine"
    assert little < much
    assert gone(pid)


def test_a_worker_that_can_not_be_started_is_one_that_died(tmp_path: Path) -> None:
    """The machine may have no memory for it now, and an upgrade may be replacing Python: it is tried again."""
    supervisor = WorkerSupervisor(tmp_path / "worker.log", python=str(tmp_path / "python"))
    with pytest.raises(WorkerDied, match=r"could not be started: .*No such file"):
        asyncio.run(supervisor.run(train_job(tmp_path, "work"), ignore))
    assert supervisor.pid is None
