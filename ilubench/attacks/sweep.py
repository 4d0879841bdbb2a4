"""The attacker who tunes: fine-tuning whose settings are searched for, each trial from the start.

Adaptive attacks are the standard against which a defence is to be held (Tramer, Carlini, Brendel &
Madry 2020, 2002.08347); learning rate, batch size, schedule and data are what decides whether
fine-tuning brings unlearned knowledge back. TamperBench (github.com/criticalml-uw/TamperBench)
searches so for each pair of model and attack, with Optuna's TPE (Bergstra et al. 2011).
"""

import importlib.util
import math
from collections.abc import Generator, Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, TypeAlias, cast

from pydantic import Field, JsonValue, model_validator

from ilubench.data.seeds import seed_for
from ilubench.errors import DivergedError, UsageError
from ilubench.interfaces import Checkpoint, Context, Dataset, Metrics, Told, WeightAttack
from ilubench.specs import TrainSpec
from ilubench.statistics.row import KEPT_UTILITY, ROUNDING, trial_level
from ilubench.training import fine_tune, trainable_only

if TYPE_CHECKING:
    import optuna
    from transformers import PreTrainedModel

__all__ = ["Sweep"]

Rate: TypeAlias = Annotated[float, Field(gt=0)]
Size: TypeAlias = Annotated[int, Field(ge=1)]

_PHASE = "trials"


class Sweep(WeightAttack):
    """Full fine-tuning, with settings that a search finds (Optuna, TPE).

    Searched for is the trial that forgets least among those that keep 90 % of the unlearned model's
    utility, which is a constraint of the search. It is told the scores that the row is made of. A
    trial that diverges is a failed one.

    Attributes:
        trials: budget; each begins from the unlearned weights.
        sets: what may be trained on: roles, names of the suite's environments, `forget`, `retain`.
        sequences: that a trial trains on, whichever set and batch size: as many as there are are
            met again and again.
        lr: ends of the learning rate's range, searched on the logarithm.
        batch_sizes: candidates.
        schedules: candidates.
        micro_batch: sequences that go through the model at once, at most.
    """

    adaptive: ClassVar[bool] = True

    trials: int = Field(ge=1, le=10_000)
    sets: tuple[str, ...]
    sequences: int = Field(ge=1)
    lr: tuple[Rate, Rate] = (1e-6, 1e-3)
    batch_sizes: tuple[Size, ...] = (4, 8, 16)
    schedules: tuple[Literal["constant", "linear", "cosine"], ...] = ("constant", "cosine")
    micro_batch: Size | None = None

    @model_validator(mode="after")
    def _searchable(self) -> Self:
        for name in ("sets", "batch_sizes", "schedules"):
            given = getattr(self, name)
            if not given:
                raise ValueError(f"{name}: there is nothing to choose from; name at least one")
            twice = sorted({str(one) for one in given if given.count(one) > 1})
            if twice:
                raise ValueError(f"{name}: {', '.join(twice)}: named more than once; name it once")
        if self.lr[0] > self.lr[1]:
            raise ValueError(f"lr: give the lower end first: [{self.lr[1]:g}, {self.lr[0]:g}]")
        return self

    def roles(self) -> tuple[str, ...]:
        """Return the sets."""
        return self.sets

    def check_examples(self, counts: Mapping[str, int]) -> None:  # noqa: ARG002
        """Refuse to search without Optuna.

        Raises:
            UsageError: it is not installed.
        """
        if importlib.util.find_spec("optuna") is None:
            raise UsageError("the attack sweep needs Optuna: pip install 'ilubench[sweep]'")

    def steps(self, batch_size: int) -> int:
        """Return the optimizer steps of a trial."""
        return math.ceil(self.sequences / batch_size)

    def tamper(
        self, model: "PreTrainedModel", data: Mapping[str, Dataset], context: Context
    ) -> Generator[Checkpoint, Told | None, None]:
        """Yield the model after each trial that did not diverge, and learn from what it is told.

        A killed search asks for the same settings again, and takes from its state what it was told.

        Raises:
            DivergedError: all trials did.
        """
        import optuna

        study = self._study(context.seed)
        start = {name: t.detach().to("cpu", copy=True) for name, t in model.state_dict().items()}
        saved = context.state.load(_PHASE)
        known = [*cast("list[dict[str, float] | None]", saved[1]["told"])] if saved else []
        steps = 0
        for number in range(1, self.trials + 1):
            trial = study.ask()
            role, spec = self._draw(trial)
            if number > len(known):
                own = self._context(context, trial_level(number), steps)
                model.load_state_dict(start)
                told = yield from _attempt(model, (role, data[role]), spec, own)
                known.append(told)
                context.state.save(_PHASE, {}, {"told": cast("JsonValue", [*known])})
                context.state.save(own.phase, {}, {})  # its optimizer's state takes room
            found = known[number - 1]
            if not found:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
            else:
                short = KEPT_UTILITY - ROUNDING - found["utility_kept"]
                trial.set_constraint("utility", short)  # above 0: it counts as not keeping it
                study.tell(trial, found["forgotten"])
            steps += self.steps(spec.batch_size)
        if all(told is None for told in known):
            raise DivergedError(f"all {self.trials} trials diverged; lower the ends of lr")

    def _study(self, seed: int) -> "optuna.Study":
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        at_random = max(2, min(10, self.trials // 4))  # of few trials, not all
        sampler = optuna.samplers.TPESampler(
            n_startup_trials=at_random, seed=seed_for(seed, "trials")
        )
        return optuna.create_study(sampler=sampler)

    def _draw(self, trial: "optuna.Trial") -> tuple[str, TrainSpec]:
        role = trial.suggest_categorical("set", self.roles())
        batch_size = trial.suggest_categorical("batch_size", self.batch_sizes)
        spec = TrainSpec(
            lr=trial.suggest_float("lr", *self.lr, log=True),
            steps=self.steps(batch_size),
            batch_size=batch_size,
            micro_batch=self.micro_batch,
            schedule=cast("Any", trial.suggest_categorical("schedule", self.schedules)),
        )
        return role, spec

    @staticmethod
    def _context(context: Context, phase: str, before: int) -> Context:
        """The context of a trial: its own phase, and steps that count on from those before."""

        def log(step: int, metrics: Metrics) -> None:
            context.log(before + step, metrics)

        return replace(context, phase=phase, log=log)


def _attempt(
    model: "PreTrainedModel", chosen: tuple[str, Dataset], spec: TrainSpec, context: Context
) -> Generator[Checkpoint, Told | None, dict[str, float] | None]:
    """Make one trial; return what it was told, nothing if nobody did, None where it diverged."""
    role, dataset = chosen
    settings = spec.model_dump(include={"lr", "batch_size", "schedule", "steps"})
    try:
        with trainable_only(model, ()):  # all: an attacker is not bound by what the method froze
            for _ in fine_tune(model, dataset, spec, context):
                pass
        told = yield Checkpoint(model, None, context.phase, settings={"set": role, **settings})
    except DivergedError:
        return None
    return asdict(told) if told is not None else {}
