"""What every attack on weights must hold to, as a pytest class that an author subclasses."""

import math
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from transformers import PreTrainedModel

from ilubench.errors import JobError
from ilubench.interfaces import Checkpoint, Dataset, WeightAttack
from ilubench.interfaces.courses import Course
from ilubench.models.checkpoints import apply_changes, load_model, save_changes, save_model
from ilubench.records.keys import file_sha256
from ilubench.records.store import FolderState
from ilubench.testing.checks import (
    PluginContract,
    require,
    require_finite_steps,
    require_finite_weights,
    require_same_traces,
    skip,
    some,
    unlike,
)
from ilubench.testing.facts import facts, known_model
from ilubench.testing.guards import DeclaredOnly, no_network, one_thread, read_traces
from ilubench.testing.job import StepRecorder, make_context
from ilubench.testing.tiny import differing, make_tokenizer, tiny_llama, weights
from ilubench.training import seed_everything

__all__ = ["AttackContract"]

Weights = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class _Point:
    """A checkpoint, and what the model was then."""

    checkpoint: Checkpoint
    weights: dict[str, torch.Tensor]
    kinds: tuple[object, ...]

    @property
    def name(self) -> str:
        return self.checkpoint.name


@dataclass(frozen=True)
class _Job:
    """An attack to run on the facts; two are the same job when their settings are."""

    kind: type[WeightAttack]
    settings: str
    attack: WeightAttack = field(compare=False)
    data: Mapping[str, Dataset] = field(compare=False)

    def points(
        self,
        model: PreTrainedModel | None = None,
        *,
        noise: int = 0,
        stop_at: str = "",
        data: Mapping[str, Dataset] | None = None,
        **context: Any,  # noqa: ANN401
    ) -> Iterator[_Point]:
        """Yield the course on ``model``, else on the known model, as a run takes it.

        Args:
            model: to be attacked.
            noise: what scoring leaves in the global random states.
            stop_at: the checkpoint at which the run is killed, before it is scored.
            data: instead of the job's own.
            context: fields of it.
        """
        model = model or known_model()
        made = make_context(make_tokenizer(), **context)
        seed_everything(made.seed)
        given = {role: list(rows) for role, rows in self.data.items()} if data is None else data
        with one_thread(), closing(_course(self.attack, model, given, made)) as course:
            for checkpoint in course:
                if checkpoint.name == stop_at:
                    return
                yield _Point(checkpoint, weights(checkpoint.model), _kinds(checkpoint.model))
                seed_everything(noise)

    def run(self, model: PreTrainedModel | None = None, **how: Any) -> list[_Point]:  # noqa: ANN401
        """Return the whole course."""
        return list(self.points(model, **how))


def _course(attack: WeightAttack, *given: Any) -> Any:  # noqa: ANN401
    """The generator that `tamper` is, whatever iterator it returns."""
    yield from attack.tamper(*given)


def _kinds(model: torch.nn.Module) -> tuple[object, ...]:
    """The classes of a model's modules, and shape and type of its tensors."""
    tensors = {name: (tuple(t.shape), str(t.dtype)) for name, t in model.state_dict().items()}
    return {n: type(part).__name__ for n, part in model.named_modules()}, tensors


@dataclass(frozen=True)
class _Seen:
    """All that is looked at of one run by several tests."""

    points: list[_Point]
    start: dict[str, torch.Tensor]
    kinds: tuple[object, ...]
    log: StepRecorder
    tried: list[str]
    data: DeclaredOnly[Dataset]
    data_kept: bool
    before: dict[str, object]
    after: dict[str, object]
    stored: tuple[dict[str, str], dict[str, str]]


@lru_cache(maxsize=1)
def _watched(job: _Job) -> _Seen:
    """Run a job once for all tests that only look; they must not change the weights."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_model(known_model(), make_tokenizer(), folder, "float32")
        files = _files(folder)
        model, log = load_model(folder, "cpu"), StepRecorder()
        data = DeclaredOnly[Dataset]({r: list(rows) for r, rows in job.data.items()}, "roles()")
        given = {role: tuple(rows) for role, rows in job.data.items()}
        start, kinds, before = weights(model), _kinds(model), read_traces(model)
        with no_network() as tried:
            points = job.run(model, data=data, log=log, noise=1)
        after, read = read_traces(model), set(data.read)
        left = {role: tuple(data[role]) for role in given}
        data.read = read
        stored = files, _files(folder)
    return _Seen(points, start, kinds, log, tried, data, given == left, before, after, stored)


def _files(folder: Path) -> dict[str, str]:
    return {path.name: file_sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}


class AttackContract(PluginContract):
    """Tests that hold for every attack on weights; subclass it and name yours.

        from ilubench.testing import TINY, AttackContract

        class TestMine(AttackContract):
            attack = Mine(train=TINY)

    The attack runs on a model of two layers and 96 dimensions (`known_model`), with eight facts for
    each of its roles, on the CPU, in seconds; between its checkpoints happens what happens when a
    run scores them. Its settings are used as they are: give it a short training (`TINY`). Each
    failure says what is wrong and what to do; skipped is what does not apply.

    Attributes:
        attack: the attack to test; define `make` instead when one object is not enough.
        draws: whether the seed changes the result: an order of data, noise. False: it must not.
        ordered: whether each level is stronger than the one before; False for levels that are
            no strengths.
        utility: names of scorers that measure utility, if the attack names scorers' items itself.
    """

    attack: ClassVar[WeightAttack | None] = None
    draws: ClassVar[bool] = True
    ordered: ClassVar[bool] = True
    utility: ClassVar[tuple[str, ...]] = ()

    def make(self) -> WeightAttack:
        """Return the attack to test."""
        if self.attack is None:
            name = type(self).__name__
            raise TypeError(f"{name} has no attack: write `attack = Mine(train=TINY)` in it")
        return self.attack

    def data(self) -> Mapping[str, Dataset]:
        """Return role -> its examples: facts of its own, for `forget` and `retain` these sets."""
        roles = self.make().roles()
        found = facts(environments=roles)
        return dict(found.environments) | {
            role: own
            for role, own in (("forget", found.forget), ("retain", found.retain))
            if role in roles
        }

    def _job(self) -> _Job:
        attack = self.make()
        return _Job(type(attack), attack.model_dump_json(), attack, self.data())

    def _watch(self) -> _Seen:
        return _watched(self._job())

    def _tried(self) -> list[str]:
        return self._watch().tried

    # ------------------------------------------------------------------ the course

    def test_its_checkpoints_make_a_course(self) -> None:
        """Steps or levels, in order, each once; all items of what measures utility are scored."""
        attack, points = self.make(), self._watch().points
        course = Course(type(attack).__name__, self.utility, tunes=attack.adaptive)
        require(bool(points), "it yields no checkpoint, so that nothing is scored; yield one")
        for point in points:
            try:
                course.add(point.checkpoint)
            except JobError as error:
                raise AssertionError(str(error)) from error
            items = dict(point.checkpoint.items)
            none = sorted(name for name, ids in items.items() if not ids)
            require(not none, f"{point.name} leaves no item of {none}; name some, or leave it out")
            begun = point.checkpoint.step == 0 or items == dict(points[-1].checkpoint.items)
            require(
                begun,
                f"{point.name} scores other items than {points[-1].name}, so that their scores "
                "cannot be compared; name the same along the whole course",
            )

    def test_its_course_is_the_same_for_every_model(self) -> None:
        """Methods are compared at the same points: they must not depend on the weights."""
        expected = [point.name for point in self._watch().points]
        other = tiny_llama(len(make_tokenizer()), seed=1)
        found = [point.name for point in self._job().run(other, seed=8)]
        require(
            found == expected,
            f"on another model, with another seed, it has the checkpoints {found} instead of "
            f"{expected}; let settings and the number of examples alone determine them",
        )

    def test_it_begins_with_the_unlearned_model(self) -> None:
        """What is scored at step 0 is what was given."""
        seen = self._watch()
        for point in seen.points:
            if point.checkpoint.step == 0:
                changed = differing(seen.start, point.weights)
                require(
                    not changed,
                    f"{some(changed)} changed before step 0; yield Checkpoint(model, 0) first",
                )

    def test_it_changes_the_weights(self) -> None:
        """An attack that changes nothing would show every method as robust."""
        seen = self._watch()
        last = seen.points[-1]
        require(
            bool(differing(seen.start, last.weights)),
            f"at {last.name}, its last checkpoint, no weight has changed; change the model that "
            "it is given, in place",
        )

    def test_each_level_is_stronger(self) -> None:
        """The last level counts as the attack's end, so it must be the strongest."""
        seen = self._watch()
        levels = [point for point in seen.points if point.checkpoint.level is not None]
        if not (self.ordered and len(levels) > 1):
            skip("it has no levels that are strengths")
        moved = [_distance(seen.start, point.weights) for point in levels]
        for one, other, before, after in zip(levels, levels[1:], moved, moved[1:], strict=False):
            require(
                after >= before,
                f"{other.name} moves the weights by {after:.3g}, less than {one.name} before it "
                f"({before:.3g}); yield the weakest level first, or set `ordered = False` if the "
                "levels are no strengths",
            )

    # ------------------------------------------------------------------ results

    def test_the_seed_determines_the_course(self) -> None:
        """The same seed gives the same bits, another seed others (the same if not `draws`)."""
        seen, job = self._watch(), self._job()
        self._same(seen, job.run(noise=2), "two runs with one seed")
        other = job.run(seed=8, noise=3)[-1]
        changed = bool(differing(seen.points[-1].weights, other.weights))
        if self.draws:
            remedy = "use context.seed, or set `draws = False` in the contract"
            require(changed, f"two seeds give the same weights; {remedy}")
        else:
            require(not changed, "two seeds give different weights, and `draws` is False")

    def _same(self, seen: _Seen, points: list[_Point], what: str) -> None:
        __tracebackhide__ = True
        expected = {point.name: point.weights for point in seen.points}
        for point in points:
            changed = differing(expected[point.name], point.weights)
            require(
                not changed,
                f"{what} differ at {point.name} in {some(changed)}; let a step's data and "
                "randomness depend on (context.seed, step) alone: scoring draws from the global "
                "random states, too",
            )

    def test_its_numbers_are_finite(self) -> None:
        """Every step reports a finite `loss`; no weight becomes infinite or NaN."""
        seen = self._watch()
        require_finite_steps(seen.log)
        for point in seen.points:
            require_finite_weights(point.weights, f"at {point.name}")

    def test_killed_and_resumed_it_ends_the_same(self, tmp_path: Path) -> None:
        """Killed at each checkpoint and amid its steps, then resumed, it is as if it never was."""
        seen, job = self._watch(), self._job()
        third = max(1, len(seen.log.steps) // 3)
        scored: list[_Point] = []
        for stop_at in [*(point.name for point in seen.points), ""]:
            log = StepRecorder(kill_after=third if stop_at else None)
            try:
                for point in job.points(state=FolderState(tmp_path), log=log, stop_at=stop_at):
                    scored.append(point)
            except KeyboardInterrupt:
                continue
            require(
                not stop_at or len(log.steps) < third,
                "it went on after KeyboardInterrupt; catch Exception, not BaseException",
            )
        self._same(seen, scored, "a run and one that was killed and resumed")
        lost = sorted({point.name for point in seen.points} - {point.name for point in scored})
        require(
            not lost,
            f"killed before it was scored, {some(lost)} did not come again; save no state beyond "
            "a checkpoint before it was yielded and the generator was asked for the next",
        )

    def test_its_checkpoints_are_models_like_the_given_one(self) -> None:
        """Engines read weights by name: adapters are merged, weights are kept in their type."""
        seen = self._watch()
        for point in seen.points:
            for what, was, found in zip(
                ("modules", "tensors"), seen.kinds, point.kinds, strict=True
            ):
                require(
                    found == was,
                    f"at {point.name} it has other {what} than it was given "
                    f"({unlike(was, found)}); merge what was added, and keep shape and type",
                )

    def test_its_result_can_be_stored_and_loaded(self, tmp_path: Path) -> None:
        """`keep=attacked` writes the last checkpoint; it must come back bit for bit."""
        base, changes = tmp_path / "target", tmp_path / "changes"
        save_model(known_model(), make_tokenizer(), base, "float32")
        last = self._watch().points[-1]
        save_changes(last.checkpoint.model, base, changes)
        again = load_model(base, "cpu")
        apply_changes(again, changes)
        changed = differing(last.weights, weights(again))
        require(
            not changed,
            f"{some(changed)} came back with other values than at {last.name}; do not change the "
            "model after the last checkpoint",
        )

    # ------------------------------------------------------------------ a run's demands

    def test_it_reads_only_the_data_that_it_declares(self) -> None:
        """Overlap with the evaluation is looked for in what is declared, before anything runs."""
        seen, roles = self._watch(), self.make().roles()
        require(len(set(roles)) == len(roles), f"roles() repeats a name: {roles}")
        asked = sorted(seen.data.undeclared)
        require(not asked, f"it asked for {asked}, which roles() does not declare")
        unread = sorted(set(roles) - seen.data.read)
        require(not unread, f"it declares {unread} in roles() and never reads them; leave them out")
        require(
            seen.data_kept, "it changed the data it was given, which others read; work on a copy"
        )

    def test_it_leaves_the_rest_as_it_was(self) -> None:
        """No hook, adapter, gradient, mode or global setting stays, and no stored file changes."""
        seen = self._watch()
        before, after = seen.stored
        changed = sorted(n for n in {*before, *after} if before.get(n) != after.get(n))
        require(
            not changed,
            f"{some(changed)} changed in the folder of the stored weights, which later attacks "
            "load; write through context.state",
        )
        require_same_traces(seen.before, seen.after)

    def test_it_works_on_weights_in_bfloat16(self) -> None:
        """Suites of large models have such weights; they stay of that type, and finite."""
        model, log = known_model(), StepRecorder()
        module: torch.nn.Module = model
        module.to(torch.bfloat16)
        for point in self._job().points(model, log=log):
            kinds = {str(tensor.dtype) for tensor in point.weights.values()}
            require(kinds == {"torch.bfloat16"}, f"of bfloat16 weights it made {sorted(kinds)}")
            require_finite_weights(point.weights, f"at {point.name}")
        require_finite_steps(log)


def _distance(left: Weights, right: Weights) -> float:
    return math.hypot(*(float((right[name] - left[name]).double().norm()) for name in left))
