"""What every method must hold to, as a pytest class that an author subclasses."""

import fnmatch
import math
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from transformers import PreTrainedModel

from ilubench.data.batches import collate
from ilubench.interfaces import Dataset, Method, StepBatch, UnlearnBatch, UnlearnData
from ilubench.models.checkpoints import apply_changes, load_model, save_changes, save_model
from ilubench.records.store import FolderState
from ilubench.testing.checks import (
    PluginContract,
    require,
    require_finite_steps,
    require_finite_weights,
    require_same_traces,
    skip,
    some,
)
from ilubench.testing.facts import facts, known, known_model
from ilubench.testing.guards import DeclaredOnly, no_network, one_thread, read_traces
from ilubench.testing.job import StepRecorder, make_context
from ilubench.testing.tiny import differing, make_tokenizer, weights
from ilubench.training import LossMethod, trainable_only

__all__ = ["MethodContract"]


@dataclass(frozen=True)
class _Job:
    """A method to run on the facts; two are the same job when their settings are."""

    kind: type[Method]
    settings: str
    prompts: bool
    method: Method = field(compare=False)

    def data(self) -> UnlearnData:
        data = facts(environments=self.method.environment_names(), prompts=self.prompts)
        if not self.method.trains:  # as in a run: it gets nothing that it says it does not need
            return UnlearnData((), (), data.environments)
        return UnlearnData(tuple(data.forget), tuple(data.retain), data.environments)

    def run(
        self,
        model: PreTrainedModel | None = None,
        *,
        data: UnlearnData | None = None,
        **context: Any,  # noqa: ANN401
    ) -> PreTrainedModel:
        """Return the model that the method makes of ``model``, else of the known model."""
        model = model or known_model(prompts=self.prompts)
        with one_thread():
            made = make_context(make_tokenizer(), **context)
            return self.method.unlearn(model, data or self.data(), made)


@dataclass(frozen=True)
class _Seen:
    """All that is looked at of one run by several tests."""

    model: PreTrainedModel
    log: StepRecorder
    tried: list[str]
    environments: DeclaredOnly[Dataset]
    data_kept: bool
    before: dict[str, object]
    after: dict[str, object]


@lru_cache(maxsize=1)
def _watched(job: _Job) -> _Seen:
    """Run a job once for all tests that only look; they must not change the model."""
    data, log, model = job.data(), StepRecorder(), known_model(prompts=job.prompts)
    environments = DeclaredOnly(data.environments)
    given = (data.forget, data.retain, {n: tuple(d) for n, d in data.environments.items()})
    before = read_traces(model)
    torch.manual_seed(1)
    with no_network() as tried:
        made = job.run(model, data=UnlearnData(data.forget, data.retain, environments), log=log)
    left = (data.forget, data.retain, {n: tuple(d) for n, d in data.environments.items()})
    return _Seen(made, log, tried, environments, given == left, before, read_traces(made))


class MethodContract(PluginContract):
    """Tests that hold for every unlearning method; subclass it and name yours.

        from ilubench.testing import TINY, MethodContract

        class TestMine(MethodContract):
            method = Mine(train=TINY)

    The method runs on a model of two layers and 96 dimensions (`known_model`) that knows eight
    facts to forget and eight to retain, on the CPU, in seconds. Its settings are used as
    they are: give it a short training (`TINY`), and the sizes that fit two layers. Each failure
    says what is wrong and what to do; skipped is what does not apply.

    Attributes:
        method: the method to test; define `make` instead when one object is not enough.
        prompts: whether the facts are questions with answers; False: plain sentences.
        changes: patterns of the parameters that may change. A method with a field `trainable` is
            held to that field besides.
        keeps: the share of what the model knew of the retain set that it must still know after
            the short training (1 - NLL / log V, against the same before).
        forgets: whether it must not know more of the forget set afterwards. False for a method that
            learns before it forgets.
    """

    method: ClassVar[Method | None] = None
    prompts: ClassVar[bool] = True
    changes: ClassVar[tuple[str, ...]] = ("*",)
    keeps: ClassVar[float] = 0.5
    forgets: ClassVar[bool] = True

    def make(self) -> Method:
        """Return the method to test."""
        if self.method is None:
            name = type(self).__name__
            raise TypeError(f"{name} has no method: write `method = Mine(train=TINY)` in it")
        return self.method

    # ------------------------------------------------------------------ one job

    def _job(self, method: Method | None = None) -> _Job:
        method = method or self.make()
        return _Job(type(method), method.model_dump_json(), self.prompts, method)

    def _watch(self) -> _Seen:
        return _watched(self._job())

    def _tried(self) -> list[str]:
        return self._watch().tried

    # ------------------------------------------------------------------ results

    def test_the_seed_determines_the_result(self) -> None:
        """The same seed gives the same bits, another seed others (the same if not `seeded`)."""
        method, first = self.make(), weights(self._watch().model)
        found = []
        for noise, seed in ((2, 7), (3, 8)):
            torch.manual_seed(noise)
            found.append(weights(self._job(method).run(seed=seed)))
        repeated, other = found
        unlike = differing(first, repeated)
        require(
            not unlike,
            f"two runs with one seed differ in {some(unlike)}; take randomness that is drawn "
            "before or between steps from a generator seeded with context.seed",
        )
        if method.seeded:
            require(
                bool(differing(first, other)),
                "two seeds give the same weights; use context.seed, or declare seeded = False",
            )
        else:
            require(
                not differing(first, other),
                "two seeds give different weights, but the method declares seeded = False",
            )

    def test_its_numbers_are_finite(self) -> None:
        """Every step reports a finite `loss`; no weight becomes infinite or NaN."""
        method, seen = self.make(), self._watch()
        model, log = seen.model, seen.log
        require(
            bool(log.steps) or not method.trains,
            "no step was reported; call context.log(step, {'loss': ...}) after each one",
        )
        require_finite_steps(log)
        require_finite_weights(weights(model))

    def test_it_keeps_what_is_retained(self) -> None:
        """The model still knows the retain set."""
        data = facts(prompts=self.prompts)
        before = known(known_model(prompts=self.prompts), data.retain)
        after = known(self._watch().model, data.retain)
        require(
            after >= self.keeps * before,
            f"of the retain set the model knew {before:.3f} and knows {after:.3f} afterwards, "
            f"less than {self.keeps:g} of it; lower the lr, raise the weight of the retain term, "
            "or set `keeps` lower if that is the method's nature",
        )

    def test_it_forgets(self) -> None:
        """The model knows no more of the forget set than before: the loss has the right sign."""
        method = self.make()
        if not (self.forgets and method.trains):
            skip("it does not claim to forget in a short training")
        forget = facts(prompts=self.prompts).forget
        before = known(known_model(prompts=self.prompts), forget)
        after = known(self._watch().model, forget)
        require(
            after < before + 0.005,  # some move so little in six steps that rounding decides
            f"of the forget set the model knew {before:.4f} and knows {after:.4f} afterwards; is "
            "the sign of the forget term right? (a loss is minimised)",
        )

    def test_it_changes_what_it_declares_and_nothing_else(self) -> None:
        """Weights outside `trainable` (and `changes`) keep their bits."""
        method = self.make()
        before = weights(known_model(prompts=self.prompts))
        for tried in _restricted(method):
            patterns = tuple(getattr(tried, "trainable", ())) or ("*",)
            made = self._watch().model if tried is method else self._job(tried).run()
            changed = differing(before, weights(made))
            strays = [n for n in changed if not (_match(n, patterns) and _match(n, self.changes))]
            require(
                not strays,
                f"{some(strays)} changed, outside the declared {[*patterns]}; change only "
                "parameters with requires_grad inside trainable_only(model, self.trainable)",
            )
            require(
                bool(changed) or not method.trains,
                "no weight changed; a method that does not train declares trains = False",
            )

    # ------------------------------------------------------------------ a run's demands

    def test_its_result_can_be_stored_and_loaded(self, tmp_path: Path) -> None:
        """What is written of the unlearned model makes the same model again, bit for bit."""
        base = tmp_path / "target"
        save_model(known_model(prompts=self.prompts), make_tokenizer(), base, "float32")
        model = self._watch().model
        save_changes(model, base, tmp_path / "changes")
        again = load_model(base, "cpu")
        apply_changes(again, tmp_path / "changes")
        unlike = differing(weights(model), weights(again))
        require(
            not unlike,
            f"{some(unlike)} came back with other values; keep the model's tensors and their "
            "dtype, and put what else is needed into them",
        )

    def test_killed_and_resumed_it_ends_the_same(self, tmp_path: Path) -> None:
        """A job that is killed twice and resumed ends with the bits of one that was not."""
        seen, job = self._watch(), self._job()
        if not seen.log.steps:
            skip("it takes no steps")
        third = max(1, len(seen.log.steps) // 3)
        for _ in range(2):
            stopped = False
            try:
                job.run(log=StepRecorder(kill_after=third), state=FolderState(tmp_path))
            except KeyboardInterrupt:
                stopped = True
            require(
                stopped, "it went on after KeyboardInterrupt; catch Exception, not BaseException"
            )
        resumed = job.run(state=FolderState(tmp_path))
        unlike = differing(weights(seen.model), weights(resumed))
        require(
            not unlike,
            f"after a kill {some(unlike)} differ; save all that the next step needs with "
            "context.state, and let a step's data and randomness depend on (seed, step) alone",
        )

    def test_it_reads_only_the_data_that_it_declares(self) -> None:
        """Attacks on declared environments count as seen; so nothing else may be looked at."""
        seen, names = self._watch(), self.make().environment_names()
        environments = seen.environments
        require(len(set(names)) == len(names), f"environment_names() repeats a name: {names}")
        asked = sorted(environments.undeclared)
        require(not asked, f"it asked for {asked}, which environment_names() does not declare")
        unread = sorted(set(names) - environments.read)
        require(
            not unread,
            f"it declares {unread} and never reads them; attacks on these would count as seen "
            "for nothing",
        )
        require(seen.data_kept, "it changed the data it was given; work on a copy")

    def test_it_leaves_the_rest_as_it_was(self) -> None:
        """No hook, no gradient, no buffer, no global setting is left changed."""
        seen = self._watch()
        require_same_traces(seen.before, seen.after)

    # ------------------------------------------------------------------ precision and batches

    def test_it_works_on_weights_in_bfloat16(self) -> None:
        """Suites of large models have such weights; they stay of that type, and finite."""
        model, log = known_model(prompts=self.prompts), StepRecorder()
        module: torch.nn.Module = model
        module.to(torch.bfloat16)
        made = self._job().run(model, log=log)
        kinds = {str(p.dtype) for p in made.parameters()}
        require(kinds == {"torch.bfloat16"}, f"of bfloat16 weights it made {sorted(kinds)}")
        require(all(map(math.isfinite, log.losses)), f"losses not finite: {log.losses}")
        require_finite_weights(weights(made))

    def test_it_works_under_autocast_to_bfloat16(self) -> None:
        """`train.precision=bfloat16` computes in bfloat16 and keeps the weights' own type."""
        method, log = self.make(), StepRecorder()
        if "train" not in type(method).model_fields:
            skip("it has no field `train`")
        model = self._job(_with(method, train={"precision": "bfloat16"})).run(log=log)
        kinds = {str(p.dtype) for p in model.parameters()}
        require(kinds == {"torch.float32"}, f"of float32 weights it made {sorted(kinds)}")
        require(all(map(math.isfinite, log.losses)), f"losses not finite: {log.losses}")

    def test_micro_batches_add_up(self) -> None:
        """A step in pieces has the gradient of the step as a whole (`train.micro_batch`)."""
        method = self.make()
        if not isinstance(method, LossMethod):
            skip("it has a loop of its own")
        whole = self._gradients(method, None)
        size = max((float(gradient.norm()) for gradient in whole.values()), default=0.0)
        require(size > 0, "the loss has no gradient; is it computed from the model's output?")
        for micro in (1, 3):
            parts = self._gradients(method, micro)
            worst = max(float((parts[name] - whole[name]).norm()) for name in whole) / size
            require(
                worst < 1e-3,
                f"with micro_batch={micro} the gradient is off by {worst:.1%}; divide sums by the "
                "global batch's .tokens or .sequences, not by the micro-batch's own numbers, or "
                "override `backward`",
            )

    def _gradients(self, method: LossMethod, micro: int | None) -> dict[str, torch.Tensor]:
        """Return the gradients of one step, in micro-batches, a little off the known model."""
        model, data = known_model(prompts=self.prompts), self._job(method).data()
        with one_thread(), trainable_only(model, method.trainable):
            prepared = method.prepare(model, data, make_context(make_tokenizer()))
            trained = [p for p in model.parameters() if p.requires_grad]
            noise = torch.Generator().manual_seed(0)
            with torch.no_grad():
                for parameter in trained:
                    parameter.add_(torch.randn(parameter.shape, generator=noise), alpha=0.01)
            torch.manual_seed(0)
            method.backward(model, _step(data, micro), prepared)
            return {
                name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
                for name, p in model.named_parameters()
                if p.requires_grad
            }


def _step(data: UnlearnData, micro: int | None) -> StepBatch:
    everything = (data.forget, data.retain, *data.environments.values())
    size = min(map(len, everything))
    forget, retain, *environments = [
        collate(dataset, range(size), 0, micro=micro) for dataset in everything
    ]
    pairs = [UnlearnBatch(f, r) for f, r in zip(forget, retain, strict=True)]
    return StepBatch(pairs, dict(zip(data.environments, environments, strict=True)))


def _restricted(method: Method) -> list[Method]:
    """Return the method, and the method with one matrix to train where it can be told so."""
    if getattr(method, "trainable", None) != ():
        return [method]
    return [method, _with(method, trainable=["*.1.mlp.down_proj.weight"])]


def _with(method: Method, **changes: Any) -> Method:  # noqa: ANN401
    settings = method.model_dump(mode="json")
    for name, value in changes.items():
        settings[name] = {**settings[name], **value} if isinstance(value, dict) else value
    return type(method).model_validate(settings)


def _match(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)
