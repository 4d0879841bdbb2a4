"""What happens inside a worker: jobs, one after the other, with what they share kept."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue

from ilubench.errors import DataError, UsageError
from ilubench.runs.executors.base import Ended, end_of
from ilubench.runs.executors.child import Call, Told
from ilubench.runs.jobs import Job
from ilubench.runs.loading import collection_paused

if TYPE_CHECKING:
    from ilubench.runs.stages.workbench import Workbench

__all__ = ["Worker"]


class Worker:
    """Keeps imports, engine and bound scorers from job to job.

    Args:
        config: of the run, as `config.yaml` holds it.
        tell: sends how far a job is to the process that shows it.
    """

    def __init__(self, config: Mapping[str, JsonValue], tell: Callable[[Call], None]) -> None:
        """Load what the first job will need, so far as it is there already."""
        self._config, self._tell = config, tell
        with suppress(Exception), collection_paused():  # the job that needs it says what is wrong
            self._bench.suite_scorers()

    @cached_property
    def _bench(self) -> "Workbench":
        from ilubench.experiments.experiment import restore_experiment
        from ilubench.runs.stages.workbench import make_bench

        return make_bench(restore_experiment(self._config, Path("config.yaml")))

    def carry_out(self, job: Job, threads: int = 0) -> Ended:
        """Carry out a job and return how it ended, as any process can read it.

        Args:
            job: what is to be done.
            threads: of sums on a CPU; 0 leaves it as it is.
        """
        import torch

        if threads:
            torch.set_num_threads(threads)
        return _portable(end_of(job, self._do))

    def _do(self, job: Job) -> None:
        from ilubench.runs.carry_out import carry_out

        carry_out(self._bench, job, Told(self._tell))

    def close(self) -> None:
        """Stop the engine."""
        if "_bench" in vars(self):
            self._bench.close()


def _portable(ended: Ended) -> Ended:
    """Give an error a class that any process can make: a plugin's own may not be known there."""
    for kind in (UsageError, DataError):
        if isinstance(ended.wrong_input, kind):
            return replace(ended, wrong_input=kind(str(ended.wrong_input)))
    return ended
