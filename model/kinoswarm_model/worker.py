"""The worker process: jobs as frames on standard input, events as frames on standard output. Owns only this loop.

Libraries print; so the real standard output is kept for frames and descriptor 1 is pointed at standard error. The
process confines itself as its service says, and ends with its service: when standard input ends, and on Linux by a
parent-death signal.
"""

import os
import queue
import sys
import threading
from typing import Any, BinaryIO, cast

import msgspec

from kinoswarm_model.confinement import WorkerLimits, confine, confine_gpu
from kinoswarm_model.jobs import MAX_JOB_FRAME, Event, Job, JobProgress, WorkerReady
from kinoswarm_model.left_out import hide
from kinoswarm_model.parent_death import die_with_parent
from kinoswarm_protocol import codec
from kinoswarm_protocol.errors import RemoteError

_PREFIX_BYTES = 4
_BAD_FRAME_EXIT = 3


def main() -> None:
    """Serve jobs until standard input ends."""
    hide()
    limits = _limits(sys.argv[2] if len(sys.argv) > 2 else "{}")
    confined = confine(limits)
    die_with_parent(int(sys.argv[1]) if len(sys.argv) > 1 else None)
    frames_out = _keep_standard_output()
    jobs: queue.Queue[Job] = queue.Queue()
    threading.Thread(target=_read_jobs, args=(sys.stdin.buffer, jobs), daemon=True).start()
    from kinoswarm_model.devices import device_names
    from kinoswarm_model.worker_jobs import answer

    confine_gpu(limits)
    ready = WorkerReady(pid=os.getpid(), devices=device_names(), confined=confined)
    send(frames_out, ready)

    def report(progress: JobProgress) -> None:
        send(frames_out, progress)

    while True:
        send(frames_out, answer(jobs.get(), report))


def _limits(text: str) -> WorkerLimits:
    """From the service's command line."""
    return msgspec.json.decode(text, type=WorkerLimits)


def send(out: BinaryIO, event: Event) -> None:
    """Write one event as a frame."""
    out.write(codec.frame(codec.encode(event)))
    out.flush()


def read_frame(source: BinaryIO, max_bytes: int) -> bytes | None:
    """One frame's payload, or None at the end of the stream, also in mid-frame."""
    prefix = source.read(_PREFIX_BYTES)
    if len(prefix) < _PREFIX_BYTES:
        return None
    length = codec.frame_length(prefix, max_bytes)
    payload = source.read(length)
    return payload if len(payload) == length else None


def _read_jobs(source: BinaryIO, jobs: "queue.Queue[Job]") -> None:
    """Runs on its own thread, so that the end of the service is noticed in the middle of a job."""
    kind = cast("type[Any]", Job)
    try:
        while (payload := read_frame(source, MAX_JOB_FRAME)) is not None:
            jobs.put(codec.decode(payload, kind, MAX_JOB_FRAME))
    except RemoteError as error:
        print(f"worker: unreadable job: {error}", file=sys.stderr)  # noqa: T201  the log is stderr
        os._exit(_BAD_FRAME_EXIT)
    os._exit(0)


def _keep_standard_output() -> BinaryIO:
    kept = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(kept, "wb")


if __name__ == "__main__":
    main()
