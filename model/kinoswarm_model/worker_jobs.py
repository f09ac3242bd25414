"""Which function computes which job, and how its errors become a JobFailed. Owns the table; torch is imported late.

Every runner is `run(job, report) -> Done`.
"""

import importlib
import sys
import traceback
from collections.abc import Callable
from typing import Any

from kinoswarm_model.jobs import (
    CompareJob,
    Done,
    EvaluateJob,
    GenerateJob,
    Job,
    JobDone,
    JobFailed,
    JobProgress,
    MergeJob,
    RebuildJob,
    ReleaseJob,
    RouteJob,
    SampleJob,
    SelfTestJob,
    TrainJob,
)
from kinoswarm_protocol.errors import Code, KinoswarmError, RemoteError

Report = Callable[[JobProgress], None]
_MAX_SENTENCE = 400

_MODULE_BY_JOB: dict[type[Any], str] = {
    TrainJob: "kinoswarm_model.segment",
    EvaluateJob: "kinoswarm_model.evaluate_job",
    CompareJob: "kinoswarm_model.compare_job",
    MergeJob: "kinoswarm_model.merge_job",
    RebuildJob: "kinoswarm_model.version_steps",
    RouteJob: "kinoswarm_model.route_job",
    ReleaseJob: "kinoswarm_model.release_job",
    GenerateJob: "kinoswarm_model.generate_job",
    SampleJob: "kinoswarm_model.sample_job",
    SelfTestJob: "kinoswarm_model.self_test_job",
}


def answer(job: Job, report: Report) -> JobDone | JobFailed:
    """Compute a job. Whatever goes wrong inside becomes a JobFailed: the worker stays usable for the next job."""
    try:
        return JobDone(job_id=job.job_id, done=compute(job, report))
    except KinoswarmError as error:
        return failed(job.job_id, error)
    except Exception as error:  # noqa: BLE001  the task loop's one broad except: logged, reported, next job
        traceback.print_exc(file=sys.stderr)
        return failed(job.job_id, error)


def compute(job: Job, report: Report) -> Done:
    """Run a job on the threads it names. Raises whatever its runner raises."""
    import torch

    torch.set_num_threads(job.threads)
    torch.set_flush_denormal(True)
    runner = importlib.import_module(_MODULE_BY_JOB[type(job)])
    done: Done = runner.run(job, report)
    return done


def failed(job_id: str, error: BaseException) -> JobFailed:
    """What a service is told about an error."""
    from kinoswarm_model.training import OutOfMemory, is_out_of_memory

    code = error.code if isinstance(error, RemoteError) else Code.WORK_FAILED
    known = isinstance(error, KinoswarmError)
    sentence = str(error) if known else f"{type(error).__name__}: {error}"
    return JobFailed(
        job_id=job_id,
        code=str(code),
        sentence=sentence[:_MAX_SENTENCE],
        out_of_memory=isinstance(error, OutOfMemory) or is_out_of_memory(error),
    )
