"""Trackers: where a job's losses and scores are shown while it runs, each by its own library."""

import contextvars
import importlib.util
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from pydantic import JsonValue

from ilubench.errors import UsageError

__all__ = ["TRACKERS", "Told", "TrackedRun", "check_tracker"]

PROJECT = "ilubench"


@dataclass(frozen=True)
class Told:
    """What a tracker is told of a job when its run is opened.

    Attributes:
        group: the row that the job is of; the grid, where it is of several.
        name: of the job.
        config: its settings.
        out: folder of results, for trackers that write files.
        id: by which the tracker knows the run from before; empty for a new one.
    """

    group: str
    name: str
    config: Mapping[str, JsonValue]
    out: Path
    id: str = ""


class TrackedRun(Protocol):
    """A job in a tracker; made with a :class:`Told`, which opens its run or goes on with it.

    Attributes:
        id: by which the tracker finds it again.
    """

    id: str

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Show values at a step; steps need not ascend."""

    def close(self, *, failed: bool) -> None:
        """End the run."""


class _Wandb:
    def __init__(self, told: Told) -> None:
        wandb: Any = import_module("wandb")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            dir=told.out,
            group=told.group,
            name=told.name,
            config=dict(told.config),
            id=told.id or None,
            resume="allow",
            reinit="create_new",  # jobs run side by side
            settings=wandb.Settings(console="off", silent=True),
        )
        self._run.define_metric("*", step_metric="step")  # its own steps must ascend
        self.id: str = self._run.id

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({"step": step, **values})

    def close(self, *, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


class _Mlflow:
    def __init__(self, told: Told) -> None:
        mlflow: Any = import_module("mlflow")
        self._client = mlflow.MlflowClient()
        self.id = told.id
        if told.id:
            self._client.update_run(told.id, status="RUNNING")
            return
        asked = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        known = self._client.get_experiment_by_name(asked)
        place = known.experiment_id if known else self._client.create_experiment(asked)
        tags = {"group": told.group}
        self.id = self._client.create_run(place, run_name=told.name, tags=tags).info.run_id
        for key, value in told.config.items():
            self._client.log_param(self.id, key, _text(value)[:6000])  # its limit

    def log(self, step: int, values: Mapping[str, float]) -> None:
        entities: Any = import_module("mlflow.entities")
        now = int(time.time() * 1000)
        metrics = [entities.Metric(name, value, now, step) for name, value in values.items()]
        self._client.log_batch(self.id, metrics=metrics)

    def close(self, *, failed: bool) -> None:
        self._client.set_terminated(self.id, "FAILED" if failed else "FINISHED")


class _Trackio:
    def __init__(self, told: Told) -> None:
        trackio: Any = import_module("trackio")
        name = told.id or told.name
        how: dict[str, Any] = {"resume": "allow" if told.id else "never", "embed": False}
        how |= {"auto_log_cpu": False, "auto_log_gpu": False}
        # in a context of its own, else it ends the run of the job beside this one
        self._run = contextvars.Context().run(
            trackio.init, PROJECT, name, told.group, config=dict(told.config), **how
        )
        self.id: str = self._run.name

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self, *, failed: bool) -> None:
        del failed  # it has no word for it
        self._run.finish()


class _Tensorboard:
    def __init__(self, told: Told) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.id = told.id or f"{told.group}/{told.name.replace('/', '_')}"  # a method may be a file
        self._writer: Any = SummaryWriter(told.out / "tensorboard" / self.id)
        if not told.id:
            lines = (f"- {key}: {_text(value)}" for key, value in told.config.items())
            self._writer.add_text("config", "\n".join(lines))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self, *, failed: bool) -> None:
        del failed  # it has no word for it
        self._writer.close()


TRACKERS: Mapping[str, Callable[[Told], TrackedRun]] = {
    "wandb": _Wandb,
    "mlflow": _Mlflow,
    "trackio": _Trackio,
    "tensorboard": _Tensorboard,
}
"""By the name of the package that each needs, and of the extra that brings it."""


def check_tracker(name: str) -> None:
    """Refuse a tracker that is not installed; `none` is no tracker.

    Raises:
        UsageError: says how to install it.
    """
    if name != "none" and importlib.util.find_spec(name) is None:
        remedy = f"pip install 'ilubench[{name}]'"
        raise UsageError(f"track={name} needs the package {name}: {remedy}")


def _text(value: JsonValue) -> str:
    return value if isinstance(value, str) else json.dumps(value)
