"""What each job of a run asks for: training, scoring, memory and disk."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ilubench.data.seeds import seed_for
from ilubench.experiments.experiment import Attack, Experiment, environment_role
from ilubench.forecast.anatomy import Anatomy
from ilubench.forecast.inputs import Inputs
from ilubench.forecast.lengths import Group
from ilubench.forecast.memory import Load
from ilubench.forecast.passes import MethodWork, fine_tuning, method_work
from ilubench.forecast.work import Asking, Work
from ilubench.interfaces import PromptAttack, Sizes, WeightAttack
from ilubench.interfaces.discovery import create
from ilubench.runs.jobs import Job
from ilubench.specs import MemorySpec, RecipeSpec, TrainSpec
from ilubench.specs.memory import memory_per_parameter
from ilubench.training.checkpointing import LARGE

__all__ = ["Demand", "Demands"]

_CHECKPOINTS = 4
"""Checkpoints of an attack that does not say how many it has."""


@dataclass(frozen=True)
class Demand:
    """What a job asks for.

    Attributes:
        training: its training.
        asking: its scoring, all checkpoints together.
        checkpoints: scored.
        load: what it keeps in memory.
        moved: bytes of weights that it reads, hashes and writes.
        stored: bytes that stay on disk.
        scratch: bytes of its saved state, while it runs.
        known: False where its training is a guess.
    """

    training: Work
    asking: Asking
    checkpoints: float
    load: Load
    moved: float = 0.0
    stored: float = 0.0
    scratch: float = 0.0
    known: bool = True


class Demands:
    """The demands of a run's jobs, like jobs computed once.

    Args:
        experiment: the run.
        inputs: its data and model.
    """

    def __init__(self, experiment: Experiment, inputs: Inputs) -> None:
        """Nothing is computed before it is asked for."""
        self._experiment, self._inputs = experiment, inputs
        self._found: dict[tuple[str, ...], Demand] = {}

    @property
    def anatomy(self) -> Anatomy:
        """The model's."""
        return self._inputs.anatomy

    @property
    def moved(self) -> float:
        """Bytes of weights that a job reads and writes, if it changes all of them."""
        return self.anatomy.parameters * self.width * 3

    @property
    def width(self) -> float:
        """Bytes of a weight."""
        return _WIDTHS[self._experiment.suite.dtype]

    def of(self, job: Job) -> Demand:
        """Return what a job asks for.

        Raises:
            DataError: data that are at hand are wrong; or they are not, and no size is stated.
        """
        who = job.who if job.stage == "unlearn" else ""
        name = (job.stage, who, str(job.seed), job.attack)
        if name not in self._found:
            self._found[name] = self._compute(job)
        return self._found[name]

    def _compute(self, job: Job) -> Demand:
        if job.stage == "target":
            return self._target()
        if job.stage == "unlearn":
            return self._unlearn(self._of(job), job.seed)
        if job.stage == "score":
            return self._scored(self._suite_asking(), 1)
        attack = next(one for one in self._experiment.attacks if one.name == job.attack)
        if isinstance(attack.plugin, PromptAttack):
            asking = Asking()
            for name, scorer in self._experiment.scorers.items():
                asking += self._inputs.prompted(name, scorer, attack, job.seed)
            return self._scored(asking, 1)
        return self._attack(attack, job.seed)

    def _of(self, job: Job) -> Experiment:
        assert job.method is not None
        method = create("methods", job.method)
        return replace(self._experiment, method=method, method_name=job.method.use)

    # ----------------------------------------------------------------- kinds of jobs

    def _target(self) -> Demand:
        recipe = self._experiment.suite.target.recipe
        if recipe is None:
            return self._scored(Asking(), 0)
        made = _pretraining(recipe)
        total = recipe.train.total_steps(0)
        work = Work(
            total,
            total * self.anatomy.parameters,
            made.batches,
            made.batches,
            made.tokens,
            made.tokens,
            made.squares,
            made.squares,
            made.tokens,
            made.tokens,
        )
        made = replace(made, longest=made.largest)
        every = MethodWork(work, self.anatomy.parameters, 0.0, made.largest, made.longest)
        return self._trained(every, recipe.train, "float32")

    def _unlearn(self, experiment: Experiment, seed: int) -> Demand:
        method, suite = experiment.method, experiment.suite
        if not method.trains:
            return self._trained(MethodWork(), None, suite.dtype)
        environments = {
            name: self._inputs.lengths((environment_role(experiment.suite, name),))
            for name in method.environment_names()
        }
        sizes = Sizes(
            self._inputs.lengths(suite.forget),
            self._inputs.lengths(suite.retain),
            environments,
            self.anatomy.layers,
            self.anatomy.lowest,
            seed_for(seed, "unlearn"),
            self._inputs.words,
        )
        spec = getattr(method, "train", None)
        return self._trained(
            method_work(method, sizes, self.anatomy),
            spec if isinstance(spec, TrainSpec) else None,
            suite.dtype,
        )

    def _attack(self, attack: Attack, seed: int) -> Demand:
        plugin, suite = attack.plugin, self._experiment.suite
        assert isinstance(plugin, WeightAttack)
        spec: object = getattr(plugin, "train", None)
        known, checkpoints = isinstance(spec, TrainSpec), _CHECKPOINTS
        trained = MethodWork(known=known)
        if isinstance(spec, TrainSpec):
            roles = tuple(attack.role(role, suite) for role in plugin.roles())
            lengths = self._inputs.lengths(roles)
            stream = (seed_for(seed, "attack", attack.name), "train")
            trained = fine_tuning(self.anatomy, lengths, spec, stream)
            told = getattr(plugin, "checkpoints", None)
            checkpoints = len(told(len(lengths))) if callable(told) else _CHECKPOINTS
        asking = self._suite_asking().times(checkpoints - 1)
        if attack.fa is not None:
            one = self._inputs.asked(f"{attack.name}/fa", attack.fa, attack)
            asking += one.times(checkpoints)
        made_spec = spec if isinstance(spec, TrainSpec) else None
        demand = self._trained(trained, made_spec, suite.dtype)
        width = _WIDTHS[suite.dtype]
        kept = "attacked" in self._experiment.run.keep
        return replace(
            demand,
            asking=asking,
            checkpoints=checkpoints,
            load=self._load(trained, made_spec, suite.dtype, asking),
            moved=self.moved,
            stored=self.anatomy.parameters * width if kept else 0.0,
        )

    # ----------------------------------------------------------------- parts

    def _suite_asking(self) -> Asking:
        total = Asking()
        for name, scorer in self._experiment.scorers.items():
            total += self._inputs.asked(name, scorer)
        return total

    def _scored(self, asking: Asking, checkpoints: int) -> Demand:
        dtype = self._experiment.suite.dtype
        load = self._load(MethodWork(), None, dtype, asking)
        return Demand(Work(), asking, checkpoints, load, self.moved * checkpoints)

    def _trained(self, made: MethodWork, spec: TrainSpec | None, dtype: str) -> Demand:
        memory, width = self._experiment.run.memory, _WIDTHS[dtype]
        stored = made.trained * width
        each = memory_per_parameter(memory, "float32" if dtype == "float32" else "bfloat16")
        return Demand(
            _recomputed(made.work, memory, self.anatomy),
            Asking(),
            0.0,
            self._load(made, spec, dtype, Asking()),
            self.anatomy.parameters * width + 2 * stored,
            stored,
            made.trained * (width + each.master + each.moments),
            made.known,
        )

    def _load(self, made: MethodWork, spec: TrainSpec | None, dtype: str, asking: Asking) -> Load:
        items = max(1.0, asking.items)
        return Load(
            made.trained,
            made.copies,
            made.largest,
            made.longest,
            dtype,
            "bfloat16" if dtype == "bfloat16" else (spec.precision if spec else dtype),
            self._experiment.suite.score_batch,
            (asking.tokens + asking.written) / items,
            made.simulated,
        )


_WIDTHS = {"float32": 4.0, "bfloat16": 2.0}


def _recomputed(work: Work, memory: MemorySpec, anatomy: Anatomy) -> Work:
    """Add the forward passes that are done again on the way back."""
    asked = memory.checkpointing
    if not (anatomy.parameters > LARGE if asked is None else asked):
        return work
    return replace(
        work,
        forward_passes=work.forward_passes + work.backward_passes,
        forward_tokens=work.forward_tokens + work.backward_tokens,
        forward_squares=work.forward_squares + work.backward_squares,
    )


def _pretraining(recipe: RecipeSpec) -> Group:
    total = recipe.train.total_steps(0)
    parts: Sequence[Group] = [
        Group(
            round(phase.share * total)
            * -(-phase.batch_size // (recipe.train.micro_batch or phase.batch_size)),
            round(phase.share * total) * phase.batch_size * phase.length,
            round(phase.share * total) * phase.batch_size * phase.length**2,
            0.0,
            min(phase.batch_size, recipe.train.micro_batch or phase.batch_size) * phase.length,
        )
        for phase in recipe.pack
    ]
    return Group(
        sum(p.batches for p in parts),
        sum(p.tokens for p in parts),
        sum(p.squares for p in parts),
        0.0,
        max(p.largest for p in parts),
    )
