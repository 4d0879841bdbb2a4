"""What every method must hold to, as a pytest class that an author subclasses."""

import fnmatch
import math
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import torch
from transformers import PreTrainedModel

from ilubench.data.batches import collate
from ilubench.interfaces import Method, StepBatch, UnlearnBatch, UnlearnData
from ilubench.models.checkpoints import apply_changes, load_model, save_changes, save_model
from ilubench.records.store import FolderState
from ilubench.testing.facts import facts, known, known_model
from ilubench.testing.guards import DeclaredOnly, no_network, one_thread, traces
from ilubench.testing.job import StepRecorder, make_context
from ilubench.testing.tiny import differing, make_tokenizer, weights
from ilubench.training import LossMethod, trainable_only

__all__ = ["MethodContract"]


class MethodContract:
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

    def _data(self, method: Method) -> UnlearnData:
        data = facts(environments=method.environment_names(), prompts=self.prompts)
        if not method.trains:  # as in a run: it gets nothing that it says it does not need
            return UnlearnData((), (), data.environments)
        return UnlearnData(tuple(data.forget), tuple(data.retain), data.environments)

    def _run(
        self,
        method: Method,
        model: PreTrainedModel | None = None,
        *,
        data: UnlearnData | None = None,
        **context: Any,  # noqa: ANN401
    ) -> PreTrainedModel:
        """Return the model that the method makes of ``model``, else of the known model."""
        model = model or known_model(prompts=self.prompts)
        with one_thread():
            made = make_context(make_tokenizer(), **context)
            return method.unlearn(model, data or self._data(method), made)

    # ------------------------------------------------------------------ settings

    def test_it_is_described(self) -> None:
        """`ilubench ls methods` shows the first line of its docstring."""
        kind = type(self.make())
        _require(
            bool((kind.__dict__.get("__doc__") or "").strip()),
            f"{kind.__name__} has no docstring; say in its first line what it does",
        )
        _require(kind.version >= 1, f"{kind.__name__}.version is {kind.version}; count from 1")

    def test_its_settings_survive_a_round_trip(self) -> None:
        """Settings are written into a run's record and read again."""
        method = self.make()
        kind = type(method)
        for way, again in (
            ("model_dump", kind.model_validate(method.model_dump(mode="json"))),
            ("model_dump_json", kind.model_validate_json(method.model_dump_json())),
        ):
            _require(
                again == method,
                f"{way} and back gives another {kind.__name__}: {_unlike(method, again)}; "
                "give each field a type that JSON can hold",
            )
        strict = kind.model_config.get("frozen") and kind.model_config.get("extra") == "forbid"
        _require(
            bool(strict),
            f"{kind.__name__}'s model_config must keep frozen=True and extra='forbid', so that a "
            "misspelt setting is an error",
        )

    # ------------------------------------------------------------------ results

    def test_the_seed_determines_the_result(self) -> None:
        """The same seed gives the same bits, another seed others (the same if not `seeded`)."""
        method = self.make()
        found = []
        for noise, seed in ((1, 7), (2, 7), (3, 8)):
            torch.manual_seed(noise)
            found.append(weights(self._run(method, seed=seed)))
        first, repeated, other = found
        unlike = differing(first, repeated)
        _require(
            not unlike,
            f"two runs with one seed differ in {_some(unlike)}; take randomness that is drawn "
            "before or between steps from a generator seeded with context.seed",
        )
        if method.seeded:
            _require(
                bool(differing(first, other)),
                "two seeds give the same weights; use context.seed, or declare seeded = False",
            )
        else:
            _require(
                not differing(first, other),
                "two seeds give different weights, but the method declares seeded = False",
            )

    def test_its_numbers_are_finite(self) -> None:
        """Every step reports a finite `loss`; no weight becomes infinite or NaN."""
        method, log = self.make(), StepRecorder()
        model = self._run(method, log=log)
        _require(
            bool(log.steps) or not method.trains,
            "no step was reported; call context.log(step, {'loss': ...}) after each one",
        )
        for step, metrics in log.steps:
            _require("loss" in metrics, f"step {step} reports no 'loss'; it has {sorted(metrics)}")
            bad = {name: value for name, value in metrics.items() if not math.isfinite(value)}
            _require(not bad, f"step {step} reports {bad}; guard the logarithm or the division")
        broken = [n for n, p in model.state_dict().items() if not bool(torch.isfinite(p).all())]
        _require(not broken, f"not finite afterwards: {_some(broken)}")

    def test_it_keeps_what_is_retained(self) -> None:
        """The model still knows the retain set."""
        data = facts(prompts=self.prompts)
        before = known(known_model(prompts=self.prompts), data.retain)
        after = known(self._run(self.make()), data.retain)
        _require(
            after >= self.keeps * before,
            f"of the retain set the model knew {before:.3f} and knows {after:.3f} afterwards, "
            f"less than {self.keeps:g} of it; lower the lr, raise the weight of the retain term, "
            "or set `keeps` lower if that is the method's nature",
        )

    def test_it_forgets(self) -> None:
        """The model knows no more of the forget set than before: the loss has the right sign."""
        method = self.make()
        if not (self.forgets and method.trains):
            _skip("it does not claim to forget in a short training")
        forget = facts(prompts=self.prompts).forget
        before = known(known_model(prompts=self.prompts), forget)
        after = known(self._run(method), forget)
        _require(
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
            changed = differing(before, weights(self._run(tried)))
            strays = [n for n in changed if not (_match(n, patterns) and _match(n, self.changes))]
            _require(
                not strays,
                f"{_some(strays)} changed, outside the declared {[*patterns]}; change only "
                "parameters with requires_grad inside trainable_only(model, self.trainable)",
            )
            _require(
                bool(changed) or not method.trains,
                "no weight changed; a method that does not train declares trains = False",
            )

    # ------------------------------------------------------------------ a run's demands

    def test_its_result_can_be_stored_and_loaded(self, tmp_path: Path) -> None:
        """What is written of the unlearned model makes the same model again, bit for bit."""
        base = tmp_path / "target"
        save_model(known_model(prompts=self.prompts), make_tokenizer(), base, "float32")
        model = self._run(self.make(), load_model(base, "cpu"))
        save_changes(model, base, tmp_path / "changes")
        again = load_model(base, "cpu")
        apply_changes(again, tmp_path / "changes")
        unlike = differing(weights(model), weights(again))
        _require(
            not unlike,
            f"{_some(unlike)} came back with other values; keep the model's tensors and their "
            "dtype, and put what else is needed into them",
        )

    def test_killed_and_resumed_it_ends_the_same(self, tmp_path: Path) -> None:
        """A job that is killed twice and resumed ends with the bits of one that was not."""
        method, log = self.make(), StepRecorder()
        unbroken = weights(self._run(method, log=log, state=_state(tmp_path / "unbroken")))
        if not log.steps:
            _skip("it takes no steps")
        third = max(1, len(log.steps) // 3)
        for _ in range(2):
            stopped = False
            try:
                self._run(
                    method,
                    log=StepRecorder(kill_after=third),
                    state=_state(tmp_path / "killed"),
                )
            except KeyboardInterrupt:
                stopped = True
            _require(
                stopped, "it went on after KeyboardInterrupt; catch Exception, not BaseException"
            )
        resumed = weights(self._run(method, state=_state(tmp_path / "killed")))
        unlike = differing(unbroken, resumed)
        _require(
            not unlike,
            f"after a kill {_some(unlike)} differ; save all that the next step needs with "
            "context.state, and let a step's data and randomness depend on (seed, step) alone",
        )

    def test_it_needs_no_network(self) -> None:
        """Runs are repeated on machines without a network."""
        with no_network() as tried:
            self._run(self.make())
        _require(
            not tried, f"it tried to reach {tried[:3]}; whatever it needs comes with its package"
        )

    def test_it_reads_only_the_data_that_it_declares(self) -> None:
        """Attacks on declared environments count as seen; so nothing else may be looked at."""
        method = self.make()
        names = method.environment_names()
        _require(len(set(names)) == len(names), f"environment_names() repeats a name: {names}")
        data = self._data(method)
        environments = DeclaredOnly(data.environments)
        before = (data.forget, data.retain, {n: tuple(d) for n, d in data.environments.items()})
        self._run(method, data=UnlearnData(data.forget, data.retain, environments))
        asked = sorted(environments.undeclared)
        _require(not asked, f"it asked for {asked}, which environment_names() does not declare")
        unread = sorted(set(names) - environments.read)
        _require(
            not unread,
            f"it declares {unread} and never reads them; attacks on these would count as seen "
            "for nothing",
        )
        after = (data.forget, data.retain, {n: tuple(d) for n, d in data.environments.items()})
        _require(before == after, "it changed the data it was given; work on a copy")

    def test_it_leaves_the_rest_as_it_was(self) -> None:
        """No hook, no gradient, no buffer, no global setting is left changed."""
        model = known_model(prompts=self.prompts)
        before = traces(model)
        after = traces(self._run(self.make(), model))
        for what, value in before.items():
            _require(
                after[what] == value,
                f"{what}: other than before ({_unlike(value, after[what])}); put it back, in a "
                "`finally` where it can fail",
            )

    # ------------------------------------------------------------------ precision and batches

    def test_it_works_on_weights_in_bfloat16(self) -> None:
        """Suites of large models have such weights; they stay of that type, and finite."""
        model, log = known_model(prompts=self.prompts), StepRecorder()
        module: torch.nn.Module = model
        module.to(torch.bfloat16)
        made = self._run(self.make(), model, log=log)
        kinds = {str(p.dtype) for p in made.parameters()}
        _require(kinds == {"torch.bfloat16"}, f"of bfloat16 weights it made {sorted(kinds)}")
        _require(all(map(math.isfinite, log.losses)), f"losses not finite: {log.losses}")
        broken = [n for n, p in made.named_parameters() if not bool(torch.isfinite(p).all())]
        _require(not broken, f"not finite afterwards: {_some(broken)}")

    def test_it_works_under_autocast_to_bfloat16(self) -> None:
        """`train.precision=bfloat16` computes in bfloat16 and keeps the weights' own type."""
        method, log = self.make(), StepRecorder()
        if "train" not in type(method).model_fields:
            _skip("it has no field `train`")
        model = self._run(_with(method, train={"precision": "bfloat16"}), log=log)
        kinds = {str(p.dtype) for p in model.parameters()}
        _require(kinds == {"torch.float32"}, f"of float32 weights it made {sorted(kinds)}")
        _require(all(map(math.isfinite, log.losses)), f"losses not finite: {log.losses}")

    def test_micro_batches_add_up(self) -> None:
        """A step in pieces has the gradient of the step as a whole (`train.micro_batch`)."""
        method = self.make()
        if not isinstance(method, LossMethod):
            _skip("it has a loop of its own")
        whole = self._gradients(method, None)
        size = max((float(gradient.norm()) for gradient in whole.values()), default=0.0)
        _require(size > 0, "the loss has no gradient; is it computed from the model's output?")
        for micro in (1, 3):
            parts = self._gradients(method, micro)
            worst = max(float((parts[name] - whole[name]).norm()) for name in whole) / size
            _require(
                worst < 1e-3,
                f"with micro_batch={micro} the gradient is off by {worst:.1%}; divide sums by the "
                "global batch's .tokens or .sequences, not by the micro-batch's own numbers, or "
                "override `backward`",
            )

    def _gradients(self, method: LossMethod, micro: int | None) -> dict[str, torch.Tensor]:
        """Return the gradients of one step, in micro-batches, a little off the known model."""
        model, data = known_model(prompts=self.prompts), self._data(method)
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


def _state(folder: Path) -> FolderState:
    folder.mkdir(exist_ok=True)
    return FolderState(folder)


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


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown


def _unlike(left: Any, right: Any) -> str:  # noqa: ANN401
    """Say where two values, by name if they have names, differ."""
    pairs = [
        part if isinstance(part, dict) else getattr(part, "__dict__", None)
        for part in (left, right)
    ]
    if pairs[0] is None or pairs[1] is None:
        return f"{left} became {right}"
    one, other = pairs
    assert one is not None
    assert other is not None
    names = [name for name in {**one, **other} if one.get(name) != other.get(name)]
    return "; ".join(f"{n}: {one.get(n)} became {other.get(n)}"[:200] for n in names[:3])


def _require(holds: bool, problem: str) -> None:
    """Fail with the problem as the last line; pytest shows no frame of ours."""
    __tracebackhide__ = True
    if not holds:
        raise AssertionError(problem)


def _skip(reason: str) -> NoReturn:
    import pytest

    __tracebackhide__ = True
    pytest.skip(reason)
