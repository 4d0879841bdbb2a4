"""A job's stage, carried out."""

from collections.abc import Callable, Mapping

from ilubench.interfaces import Progress
from ilubench.records.store import Artifact
from ilubench.runs.jobs import Job, Stage
from ilubench.runs.stages.attack import run_attack
from ilubench.runs.stages.score import run_score
from ilubench.runs.stages.target import make_target
from ilubench.runs.stages.unlearn import run_unlearn
from ilubench.runs.stages.workbench import Workbench

__all__ = ["do"]

_STAGES: Mapping[Stage, Callable[[Workbench, Job, Progress], Artifact]] = {
    "target": make_target,
    "unlearn": run_unlearn,
    "score": run_score,
    "attack": run_attack,
}


def do(bench: Workbench, job: Job, progress: Progress) -> Artifact:
    """Do one job in this process, alone or as one of the job's ranks."""
    return _STAGES[job.stage](bench, job, progress)
