"""A run's forecast: hours, memory and disk of its open jobs, each with where it is from.

A job's time is the median of finished jobs of its kind; else a probe's; else that of finished jobs
of other methods or attacks; else arithmetic over a card's data sheet.
"""

import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ilubench.errors import AccessError, DataError, IlubenchError
from ilubench.forecast.amounts import Amount, Amounts
from ilubench.forecast.devices import Card, card_of
from ilubench.forecast.finished import Finished, finished_jobs, took_finished
from ilubench.forecast.formula import load_seconds, took_assumed
from ilubench.forecast.memory import Fit, Peak, Shape, fit_cards, peak_memory, shape_of
from ilubench.forecast.took import ORIGINS, Origin, Took
from ilubench.runs.jobs import Job

if TYPE_CHECKING:
    from ilubench.forecast.probe import Probed
    from ilubench.runs.plan import Plan
    from ilubench.runs.stages.workbench import Workbench

__all__ = ["Forecast", "JobCost", "estimate_costs", "expected_seconds", "kind_of"]

_WORDS = 2000
"""Size of a vocabulary of words, which a recipe's tokenizer does not say before it is made."""


@dataclass(frozen=True)
class JobCost:
    """An open job's forecast.

    Attributes:
        job: which.
        amount: what it amounts to.
        took: its seconds; None where nothing tells.
        peak: memory.
    """

    job: Job
    amount: Amount
    took: Took | None
    peak: Peak


@dataclass(frozen=True)
class Forecast:
    """What the open jobs of a run will cost.

    Attributes:
        device: `cpu`, or a card's name.
        jobs: the open ones.
        peak: of the job that takes most memory; None where none is open.
        held: bytes that a probe held on a GPU at most; 0 without one.
        copy: bytes of a copy of the weights, which some methods keep besides.
        fits: whether they fit cards of the table.
        disk: bytes that stay.
        scratch: bytes of a job's saved state, while it runs.
        free: bytes free where results go.
        stated: what is as the suite states it, approximate, since it is not at hand.
    """

    device: str
    jobs: tuple[JobCost, ...]
    peak: Peak | None
    held: float
    copy: float
    fits: tuple[Fit, ...]
    disk: float
    scratch: float
    free: int
    stated: tuple[str, ...]

    @property
    def total(self) -> tuple[float, float, float] | None:
        """Seconds of all jobs, at least and at most; None where one is not known."""
        told = [job.took for job in self.jobs if job.took is not None]
        if len(told) < len(self.jobs):
            return None
        return sum(t.seconds for t in told), sum(t.low for t in told), sum(t.high for t in told)

    @property
    def origins(self) -> dict[Origin, int]:
        """Where times are from -> how many jobs', the surest first."""
        told = [job.took.origin for job in self.jobs if job.took is not None]
        return {origin: told.count(origin) for origin in ORIGINS if origin in told}

    @property
    def stages(self) -> dict[str, tuple[int, float | None]]:
        """Stage -> its open jobs, and their seconds if all are known."""
        found: dict[str, tuple[int, float | None]] = {}
        for stage in dict.fromkeys(job.job.stage for job in self.jobs):
            mine = [job.took for job in self.jobs if job.job.stage == stage]
            known = [took.seconds for took in mine if took is not None]
            found[stage] = len(mine), sum(known) if len(known) == len(mine) else None
        return found


def kind_of(job: Job) -> tuple[str, str]:
    """Return a job's stage, and the name of its method or attack; empty for others."""
    name = job.method.use if job.stage == "unlearn" and job.method is not None else job.attack
    return job.stage, name


def expected_seconds(plan: "Plan") -> dict[str, float]:
    """Return the seconds of a plan's open jobs, of those of which something tells."""
    done = [job.key for job in plan.jobs if plan.is_done(job)]
    try:
        found = estimate_costs(plan.bench, plan.jobs, done)
    except IlubenchError:  # what is wrong shows where it is read
        return {}
    return {cost.job.key: cost.took.seconds for cost in found.jobs if cost.took is not None}


def estimate_costs(
    bench: "Workbench",
    jobs: Sequence[Job],
    done: Collection[str],
    card: Card | None = None,
    probed: "Probed | None" = None,
) -> Forecast:
    """Return a run's forecast; nothing is trained and nothing is fetched.

    Args:
        bench: of the run.
        jobs: of the run.
        done: keys of those that are done.
        card: plan for this one, not for the device that is here.
        probed: what a probe timed.

    Raises:
        DataError: data that are at hand are wrong; or they are not, and no size is stated.
    """
    run, suite = bench.experiment.run, bench.suite
    amounts = Amounts(bench)
    shape = _shape(bench, amounts.stated)
    here = _device_name(bench.device)
    finished = finished_jobs(Path(run.out), suite.name, here) if card is None else []
    sheet = card or card_of(here)
    kind = "cuda" if card else bench.device.partition(":")[0]
    costs = []
    for job in jobs:
        if job.key not in done:
            amount = amounts.of(job)
            took = _took(kind_of(job), amount, finished, probed)
            if took is None and sheet is not None:
                took = took_assumed(amount, shape, sheet, run.memory, run.devices_per_job)
            if took is None and job.stage == "unlearn" and not amount.steps:
                took = Took.within(load_seconds(shape), (2.0, 3.0), "assumed")
            most = peak_memory(
                amount, run.memory, shape, kind, suite.score_batch, run.devices_per_job
            )
            costs.append(JobCost(job, amount, took, most))
    wanted = [cost.amount for cost in costs]
    stay = [cost.amount for cost in costs if cost.job.stage != "attack" or "attacked" in run.keep]
    return Forecast(
        card.name if card else here,
        tuple(costs),
        max((cost.peak for cost in costs), key=lambda p: p.total, default=None),
        probed.peak if probed is not None else 0.0,
        shape.parameters * shape.width,
        fit_cards(wanted, run.memory, shape, suite.score_batch) if wanted else (),
        sum(shape.changed(amount) for amount in stay) * shape.width,
        max((shape.saved(amount, run.memory) for amount in wanted), default=0.0),
        _free(Path(run.out)),
        tuple(sorted(amounts.stated)),
    )


def _took(
    kind: tuple[str, str], amount: Amount, finished: Sequence[Finished], probed: "Probed | None"
) -> Took | None:
    told = took_finished(finished, *kind, amount)
    if probed is not None and (told is None or told.origin != "finished"):
        return probed.took(*kind, amount) or told
    return told


def _shape(bench: "Workbench", stated: set[str]) -> Shape:
    from ilubench.models.configuration import recipe_config

    suite = bench.suite
    source, recipe = suite.target.model, suite.target.recipe
    if source is None and recipe is not None and recipe.tokenizer and recipe.config:
        words = recipe.tokenizer.vocab_size if recipe.tokenizer.kind == "bpe" else _WORDS
        config = recipe_config({**recipe.config, "vocab_size": words})
        return shape_of(config, suite.dtype, suite.scored_in)
    try:
        return shape_of(bench.target_config, suite.dtype, suite.scored_in)
    except AccessError as error:
        name = "suite.target.model" if source is not None else suite.init_field("target")
        begun = source or (recipe.init if recipe is not None else None)
        about = begun.about if begun is not None else None
        if about is None:
            raise DataError(
                f"{name} is not at hand ({error}), and its size is not stated: "
                f"{name}.about has `config`"
            ) from error
        stated.add(name)
        return shape_of(recipe_config(about.config), suite.dtype, suite.scored_in)


def _device_name(device: str) -> str:
    if device == "cpu":
        return "cpu"
    import torch

    return str(torch.cuda.get_device_name(device))


def _free(out: Path) -> int:
    place = out.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free
