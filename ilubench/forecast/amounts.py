"""What a job amounts to: steps, tokens in each, tokens that are scored. Nothing here has a speed.

Rows that are at hand are looked at, else their size is as the suite states it. Nothing is fetched.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ilubench.data.chat import encode_chat
from ilubench.data.rows import render_template
from ilubench.errors import AccessError, DataError, IlubenchError
from ilubench.experiments.experiment import Attack, environment_role
from ilubench.experiments.method_settings import made_by_recipe
from ilubench.interfaces import Chat, Method, PromptAttack, Row, Scorer, WeightAttack
from ilubench.runs.jobs import Job
from ilubench.specs import DataSource, LoraSpec, RecipeSpec, TrainSpec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ilubench.attacks.sweep import Sweep
    from ilubench.runs.stages.workbench import Workbench

__all__ = ["CHECKPOINTS", "Amount", "Amounts"]

CHECKPOINTS = 5
"""Of an attack that does not say how many it has."""

_SAMPLE = 1000
"""Rows of a role that are looked at; of more, so many at equal distances stand for all."""

_CHARACTERS = 4.0
"""Characters a token, where there is no tokenizer yet."""

_WRITTEN = 256
"""Tokens that lm-eval lets a model write where a task does not say."""


@dataclass(frozen=True)
class Amount:
    """What a job amounts to.

    Attributes:
        steps: of the optimizer.
        batch: sequences of the main batch of a step.
        step_tokens: tokens of all batches of a step.
        held: tokens that are back-propagated together at most, on each device.
        trainable: patterns of the parameters that change; none: all of them.
        lora: the adapters that are trained instead of the parameters.
        precision: that products of the training are computed in.
        checkpoints: that are scored; 0 where nothing is, or where an attack does not say.
        read: tokens that are read at a checkpoint.
        written: tokens that are written at a checkpoint, one after the other: those of a batch
            count once.
    """

    steps: int = 0
    batch: int = 1
    step_tokens: float = 0.0
    held: int = 0
    trainable: tuple[str, ...] = ()
    lora: LoraSpec | None = None
    precision: str = ""
    checkpoints: int = 0
    read: float = 0.0
    written: float = 0.0


@dataclass(frozen=True)
class _Size:
    """Training sequences: how many, their mean and largest length in tokens."""

    items: int
    mean: float
    longest: int


class Amounts:
    """The amounts of a run's jobs, each role looked at once.

    Args:
        bench: of the run.

    Attributes:
        stated: roles whose sizes are the suite's, since their rows are not at hand.
    """

    def __init__(self, bench: "Workbench") -> None:
        """Nothing is read before it is asked for."""
        self._bench, self._suite = bench, bench.suite
        self._devices = bench.experiment.run.devices_per_job
        self._sizes: dict[str, _Size] = {}
        self._scored: dict[tuple[str, int], tuple[float, float]] = {}
        self.stated: set[str] = set()

    @cached_property
    def _tokenizer(self) -> "PreTrainedTokenizerBase | None":
        try:
            return self._bench.tokenizer
        except IlubenchError:
            return None  # not at hand, or not made yet

    def of(self, job: Job) -> Amount:
        """Return what a job amounts to.

        Raises:
            DataError: data that are at hand are wrong; or they are not, and no size is stated.
        """
        if job.stage == "target":
            recipe = self._suite.target.recipe
            return self._by_recipe(recipe) if recipe is not None else Amount()
        if job.stage == "unlearn":
            assert job.method is not None
            method = self._bench.method(job.method)
            made = made_by_recipe(self._suite, method)
            return self._unlearning(method) if made is None else self._by_recipe(made)
        attack = self._bench.attack(job.attack) if job.attack else None
        if attack is not None and isinstance(attack.plugin, PromptAttack):
            read, written = self._prompted(attack.plugin)
            return Amount(checkpoints=1, read=read, written=written)
        read, written = self._suite_scored()
        if attack is None:
            return Amount(checkpoints=1, read=read, written=written)
        return self._attack(attack, read, written)

    # ----------------------------------------------------------------- kinds of jobs

    def _unlearning(self, method: Method) -> Amount:
        from ilubench.training import LossMethod

        spec = getattr(method, "train", None)
        if not method.trains or not isinstance(spec, TrainSpec):
            return Amount()
        forget, retain = self._size(self._suite.forget), self._size(self._suite.retain)
        batches = [(spec.batch_size, forget), (spec.batch_size, retain)]
        counts: Mapping[str, int] = getattr(method, "environment_batches", dict)()
        for name in method.environment_names():
            size = self._size((environment_role(self._suite, name),))
            batches.append((counts.get(name, spec.batch_size), size))
        held = [self._micro(spec, spec.batch_size) * _longest(method, forget, retain)]
        held += [self._micro(spec, n) * size.longest for n, size in batches[2:]]
        own = Amount(
            spec.total_steps(forget.items),
            spec.batch_size,
            sum(count * size.mean for count, size in batches),
            max(held),
            tuple(getattr(method, "trainable", ())),
            getattr(method, "lora", None),
            spec.precision,
        )
        base = getattr(method, "base", None)
        if not isinstance(base, Method) or isinstance(method, LossMethod):
            return own
        first = self._unlearning(base)  # a loop of its own comes after the base's
        steps = own.steps + first.steps
        tokens = own.steps * own.step_tokens + first.steps * first.step_tokens
        return replace(own, steps=steps, step_tokens=tokens / steps)

    def _attack(self, attack: Attack, read: float, written: float) -> Amount:
        from ilubench.attacks.sweep import Sweep

        for one in (*attack.links.values(), attack):
            self._check_course(one)
        assert isinstance(attack.plugin, WeightAttack)
        if isinstance(attack.plugin, Sweep):
            return replace(self._trials(attack, attack.plugin), read=read, written=written)
        items = self._size(attack.reads(self._suite).values()).items
        count = len(attack.plugin.checkpoints(items))
        if count:  # before the attack only its own task is scored
            read, written = (part * (count - 1) / count for part in (read, written))
        if attack.fa is not None:
            own = self._asked(f"{attack.name}/fa", attack.fa, attack)
            read, written = read + own[0], written + own[1]
        parts = [self._tampering(one) for one in (*attack.links.values(), attack)]
        trained = _one_after_another([part for part in parts if part.steps])
        return replace(trained, checkpoints=count, read=read, written=written)

    def _check_course(self, attack: Attack) -> None:
        """Refuse settings that do not go with the number of training examples."""
        assert isinstance(attack.plugin, WeightAttack)
        trained = attack.trained(self._suite)
        with attack.naming():
            attack.plugin.check_examples({r: self._size(n).items for r, n in trained.items()})

    def _tampering(self, attack: Attack) -> Amount:
        spec = getattr(attack.plugin, "train", None)
        if not isinstance(spec, TrainSpec):
            return Amount()
        size = self._size(attack.reads(self._suite).values())
        items = min(size.items, getattr(attack.plugin, "examples", None) or size.items)
        return Amount(
            steps=spec.total_steps(items),
            batch=spec.batch_size,
            step_tokens=spec.batch_size * size.mean,
            held=self._micro(spec, spec.batch_size) * size.longest,
            lora=getattr(attack.plugin, "lora", None),
            precision=spec.precision,
        )

    def _trials(self, attack: Attack, plugin: "Sweep") -> Amount:
        """Every set and batch size is taken to be tried as often as another."""
        sizes = [self._size(names) for names in attack.trained(self._suite).values()]
        largest = max(plugin.batch_sizes)
        held = min(plugin.micro_batch or largest, largest) * max(size.longest for size in sizes)
        each = sum(map(plugin.steps, plugin.batch_sizes)) / len(plugin.batch_sizes)
        sequences = plugin.sequences / each
        return Amount(
            steps=round(plugin.trials * each),
            batch=round(sequences),
            step_tokens=sequences * sum(size.mean for size in sizes) / len(sizes),
            held=held,
            precision="float32",
            checkpoints=plugin.trials,
        )

    def _by_recipe(self, recipe: RecipeSpec) -> Amount:
        if not recipe.pack:
            size, spec = self._size(recipe.text), recipe.train
            return Amount(
                spec.total_steps(size.items),
                spec.batch_size,
                spec.batch_size * size.mean,
                self._micro(spec, spec.batch_size) * size.longest,
                precision=spec.precision,
            )
        return Amount(
            recipe.train.total_steps(0),
            recipe.pack[0].batch_size,
            sum(phase.share * phase.batch_size * phase.length for phase in recipe.pack),
            max(self._micro(recipe.train, p.batch_size) * p.length for p in recipe.pack),
            precision=recipe.train.precision,
        )

    def _micro(self, spec: TrainSpec, batch: int) -> int:
        """Sequences of a batch that a device holds at once."""
        part = math.ceil(batch / self._devices)
        return min(spec.micro_batch or part, part)

    # ----------------------------------------------------------------- training data

    def _size(self, roles: Iterable[str]) -> _Size:
        parts = [self._of_role(role) for role in roles]
        items = sum(part.items for part in parts)
        mean = sum(part.items * part.mean for part in parts) / max(1, items)
        return _Size(items, mean, max((part.longest for part in parts), default=0))

    def _of_role(self, role: str) -> _Size:
        if role not in self._sizes:
            source = self._bench.tables.source(role)
            limit = min(self._suite.max_length, source.max_length or self._suite.max_length)
            try:
                rows = self._bench.tables.rows(role)
            except AccessError as error:
                count, mean = self._stated(source, role, error)
                tokens = [mean]
            else:
                count, some = len(rows), _evenly(rows)
                tokens = [self._tokens(row, source, role) for row in some] or [0.0]
            cut = [math.ceil(n / limit) if source.overlong == "windows" else 1 for n in tokens]
            whole = tokens if source.overlong == "windows" else [min(n, limit) for n in tokens]
            self._sizes[role] = _Size(
                round(count * sum(cut) / len(cut)),
                sum(whole) / max(1, sum(cut)),
                math.ceil(min(limit, max(tokens))),
            )
        return self._sizes[role]

    def _tokens(self, row: Row, source: DataSource, role: str) -> float:
        prompt, completion = (
            render_template(template, row, source, role)
            for template in (source.prompt, source.completion)
        )
        text, chat = prompt + completion, Chat.of(source, role)
        if self._tokenizer is None:
            return len(text) / _CHARACTERS + 1
        if chat is not None:
            return len(encode_chat(self._tokenizer, prompt, completion, chat)[0])
        return len(self._tokenizer(text, add_special_tokens=False)["input_ids"]) + 1

    def _stated(self, source: DataSource, role: str, error: AccessError) -> tuple[int, float]:
        """Return rows and mean tokens as stated, of a role or of what its generator is given."""
        self.stated.add(role)
        if source.about is None and source.generated:
            # what a generator makes of rows is taken to be as many and as long
            made = source.generated.partition(".")[0]
            given = self._suite.all_generators()[made].inputs
            source = next((one for one in given.values() if one.about is not None), source)
        about = source.about
        if about is None:
            raise DataError(
                f"data.{role} is not at hand ({error}), and its size is not stated: data.{role}."
                "about has `rows` and `tokens`"
            ) from error
        rows = max(1, about.rows - source.offset)
        return min(rows, source.limit or rows), about.tokens

    # ----------------------------------------------------------------- scoring

    def _suite_scored(self) -> tuple[float, float]:
        parts = [self._asked(name, one) for name, one in self._bench.experiment.scorers.items()]
        return sum(part[0] for part in parts), sum(part[1] for part in parts)

    def _prompted(self, plugin: PromptAttack) -> tuple[float, float]:
        """Tokens that are read and written as a prompt attack asks; what it shows is not counted.

        Samples go with the scorers that have text written.
        """
        sampling, ways = plugin.sampling(), plugin.ways()
        samples = 1 if sampling is None else sampling.n
        scorers = self._bench.experiment.scorers.items()
        parts = [self._asked(name, one, samples=samples) for name, one in scorers]
        parts = [part for part in parts if sampling is None or part[1]]
        return ways * sum(part[0] for part in parts), ways * sum(part[1] for part in parts)

    def _asked(
        self, name: str, scorer: Scorer, owner: Attack | None = None, samples: int = 1
    ) -> tuple[float, float]:
        """Return the tokens that a scorer has read and written at a checkpoint."""
        if (name, samples) not in self._scored:
            read = written = 0.0
            shots, most = _asks(scorer)
            limit = getattr(scorer, "limit", None)
            for role in scorer.item_roles():
                rows, tokens = self._row_size(owner.role(role, self._suite) if owner else role)
                items = min(rows, limit) if isinstance(limit, int) else rows
                read += items * tokens * (1 + shots)
                written += math.ceil(items * samples / self._suite.score_batch) * most
            self._scored[name, samples] = read, written
        return self._scored[name, samples]

    def _row_size(self, role: str) -> tuple[int, float]:
        try:
            rows = self._bench.tables.rows(role)
        except AccessError as error:
            return self._stated(self._bench.tables.source(role), role, error)
        some = _evenly(rows)
        return len(rows), sum(map(_characters, some)) / max(1, len(some)) / _CHARACTERS


def _one_after_another(parts: Sequence[Amount]) -> Amount:
    """Return what several trainings of a job amount to together."""
    if len(parts) < 2:
        return parts[0] if parts else Amount()
    steps = sum(part.steps for part in parts)
    adapters = [part.lora for part in parts if part.lora is not None]
    return replace(
        parts[0],
        steps=steps,
        step_tokens=sum(part.steps * part.step_tokens for part in parts) / steps,
        held=max(part.held for part in parts),
        lora=max(adapters, key=lambda a: a.rank) if len(adapters) == len(parts) else None,
    )


def _asks(scorer: Scorer) -> tuple[int, int]:
    """Return the examples that a scorer shows with each item, and tokens that it lets write."""
    from ilubench.scoring.scorers.lm_eval import LmEval
    from ilubench.scoring.scorers.task_files import task_facts

    if not isinstance(scorer, LmEval):
        most = getattr(scorer, "max_tokens", 0)
        return 0, most if isinstance(most, int) else 0
    task = task_facts(scorer.task).members[0]
    shots = task.num_fewshot if scorer.num_fewshot is None else scorer.num_fewshot
    if task.config.get("output_type") != "generate_until":
        return shots, 0
    settings = task.config.get("generation_kwargs")
    told = settings.get("max_gen_toks") if isinstance(settings, dict) else None
    return shots, told if isinstance(told, int) else _WRITTEN


def _evenly(rows: list[Row]) -> list[Row]:
    if len(rows) <= _SAMPLE:
        return rows
    return [rows[place * len(rows) // _SAMPLE] for place in range(_SAMPLE)]


def _characters(value: Any) -> int:  # noqa: ANN401
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_characters, value.values()))
    return sum(map(_characters, value)) if isinstance(value, list | tuple) else 0


def _longest(method: Method, forget: _Size, retain: _Size) -> int:
    """Tokens of a forget and a retain sequence that are kept for the way back together."""
    from ilubench.methods.terms import ForgetRetain
    from ilubench.training import LossMethod

    inner: object = method
    while isinstance(inner, LossMethod):
        if isinstance(inner, ForgetRetain):  # the terms run one after the other
            return max(inner.forget_passes * forget.longest, retain.longest)
        inner = getattr(inner, "base", None)
    return forget.longest + retain.longest
