"""What a method's training asks for: its passes over the forget, retain and benign batches.

Counted as `ilubench.stages.cost.Passes` counts what finished jobs did: at the layers, positions
with padding, a pass through a quarter of the layers as a quarter of one. A method that is not known
here is taken for one forward and one backward pass over each of its batches, and said to be so.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

from ilubench.data import Stream
from ilubench.forecast.anatomy import Anatomy
from ilubench.forecast.lengths import Group, Lengths, group, in_order, joined
from ilubench.forecast.work import Work
from ilubench.identity import seed_for
from ilubench.interfaces import Method
from ilubench.methods.dpo import DPO
from ilubench.methods.elm import ELM
from ilubench.methods.idk import IDK
from ilubench.methods.ilu import FORGET, ILU
from ilubench.methods.lat import LAT
from ilubench.methods.npo import NPO
from ilubench.methods.rmu import RMU
from ilubench.methods.rr import RR
from ilubench.methods.sam import SAM
from ilubench.methods.tar import TAR
from ilubench.methods.task_vector import TaskVector
from ilubench.methods.terms import ForgetRetain
from ilubench.methods.undo import UNDO
from ilubench.specs import TrainSpec
from ilubench.training import LossMethod

__all__ = ["MethodWork", "Setting", "fine_tuning", "method_work"]

_REFUSAL = 8
"""Tokens of a refusal or context, where no tokenizer says how many there are."""


@dataclass(frozen=True)
class Setting:
    """What a method works with.

    Attributes:
        anatomy: of the model.
        forget: its training sequences.
        retain: likewise.
        environments: likewise, by name.
        seed: of the job.
        tokens: text -> how many tokens it has.
    """

    anatomy: Anatomy
    forget: Lengths
    retain: Lengths
    environments: Mapping[str, Lengths]
    seed: int
    tokens: Callable[[str], int] = lambda _: _REFUSAL


@dataclass(frozen=True)
class MethodWork:
    """A method's training.

    Attributes:
        work: of the whole job.
        trained: parameters that it changes.
        copies: of the trained weights that it keeps besides, on the device.
        largest: positions of the micro-batches whose activations are held at once.
        longest: answers in them.
        known: False where the passes are a guess.
    """

    work: Work = field(default_factory=Work)
    trained: int = 0
    copies: float = 0.0
    largest: int = 0
    longest: int = 0
    known: bool = True


@dataclass(frozen=True)
class _Batches:
    forget: Group
    retain: Group
    environments: Mapping[str, Group]


@dataclass(frozen=True)
class _Depth:
    """Shares of the layers that a pass runs through, forwards and backwards, and of the head."""

    forward: float = 1.0
    backward: float = 1.0
    head: float = 1.0


def _run(
    made: Group, forward: float = 1.0, backward: float = 1.0, depth: _Depth | None = None
) -> Work:
    """Return so many forward and backward passes over batches."""
    at = depth or _Depth()
    down, up = forward * at.forward, backward * at.backward
    return Work(
        forward_passes=made.batches * down,
        backward_passes=made.batches * up,
        forward_tokens=made.tokens * down,
        backward_tokens=made.tokens * up,
        forward_squares=made.squares * down,
        backward_squares=made.squares * up,
        forward_answers=made.answers * forward * at.head,
        backward_answers=made.answers * backward * at.head,
    )


def fine_tuning(
    anatomy: Anatomy, lengths: Lengths, spec: TrainSpec, stream: tuple[int, str]
) -> tuple[Work, Group]:
    """Return the work of plain fine-tuning of all weights, and its batches."""
    steps = spec.total_steps(len(lengths))
    made = group(lengths, stream, steps, spec.batch_size, spec.micro_batch)
    return _run(made) + Work(steps=steps, updated=steps * anatomy.parameters), made


def method_work(method: Method, setting: Setting) -> MethodWork:
    """Return what a method's training asks for."""
    if not method.trains:
        return MethodWork()
    if isinstance(method, TaskVector):
        return _task_vector(method, setting)
    if isinstance(method, UNDO):
        return _undo(method, setting)
    if isinstance(method, TAR):
        return _tar(method, setting)
    if isinstance(method, LossMethod):
        return _loss_method(method, setting)
    return _unknown(method, setting)


# --------------------------------------------------------------------------- loss methods


def _batches(method: LossMethod, setting: Setting, steps: int) -> _Batches:
    spec, seed = method.train, setting.seed
    count, micro = spec.batch_size, spec.micro_batch
    return _Batches(
        group(setting.forget, (seed, "forget"), steps, count, micro),
        group(setting.retain, (seed, "retain"), steps, count, micro),
        {
            name: group(
                setting.environments[name], (seed, f"environment {name}"), steps, asked, micro
            )
            for name, asked in method.environment_batches().items()
        },
    )


def _loss_method(method: LossMethod, setting: Setting) -> MethodWork:
    steps = method.train.total_steps(len(setting.forget))
    made = _batches(method, setting, steps)
    trained = setting.anatomy.trained(method.trainable)
    work, known = _backward(method, made, setting)
    work += _prepare(method, setting) + Work(steps=steps, updated=steps * trained)
    groups = (made.forget, made.retain, *made.environments.values())
    together = groups[:2] if isinstance(method, ForgetRetain) else groups[:1]
    held = max(sum(g.largest for g in together), *(g.largest for g in groups))
    longest = max(sum(g.longest for g in together), *(g.longest for g in groups))
    return MethodWork(work, trained, _copies(method), held, longest, known)


def _backward(method: LossMethod, made: _Batches, setting: Setting) -> tuple[Work, bool]:
    """Return the passes of all steps, and whether they are known."""
    if isinstance(method, ILU):
        work, known = _backward(method.base, made, setting)
        return work + _penalties(method, made), known
    if isinstance(method, SAM):
        base = method.base
        if method.terms == "all" or not isinstance(base, ForgetRetain):
            work, known = _backward(base, made, setting)
            return work.times(2), known
        return _forget(base, made, setting).times(2) + _retain(base, made, setting), True
    if isinstance(method, LAT):
        base = method.base
        work, known = _backward(base, made, setting)
        return work + _adversary(method, made, setting), known
    if isinstance(method, ForgetRetain):
        known = type(method).__module__.startswith("ilubench.methods.")
        return _forget(method, made, setting) + _retain(method, made, setting), known
    work = _run(made.forget) + _run(made.retain)
    for benign in made.environments.values():
        work += _run(benign)
    return work, False


def _layers(method: RMU | RR, setting: Setting) -> _Depth:
    count = setting.anatomy.layers
    highest = method.layer if isinstance(method, RMU) else max(method.layers)
    lowest = setting.anatomy.lowest(method.trainable)
    return _Depth((highest + 1) / count, (highest + 1 - min(lowest, highest)) / count, 0.0)


def _forget(method: ForgetRetain, made: _Batches, setting: Setting) -> Work:
    """Return the forget term's passes."""
    if isinstance(method, RMU):
        return _run(made.forget, depth=_layers(method, setting))
    if isinstance(method, RR):
        return _run(made.forget, 2.0, 1.0, _layers(method, setting))
    if isinstance(method, DPO | IDK):
        refusals = _refusals(method, setting)
        return refusals + _run(made.forget) if isinstance(method, DPO) else refusals
    if isinstance(method, ELM):
        spec = method.train
        steps = spec.total_steps(len(setting.forget))

        def around(beside: Lengths) -> Group:
            stream = (setting.seed, "forget")
            return group(setting.forget, stream, steps, spec.batch_size, spec.micro_batch, beside)

        longer = around(_longer(setting.forget, setting.tokens(method.novice)))
        behind = around(_longer(setting.forget, setting.tokens(method.expert)))
        total = _run(made.forget, 2.0, 1.0) + _run(longer, 1.0, 0.0) + _run(behind, 1.0, 0.0)
        if not method.fluency:
            return total
        return total + _run(around(_fluent(method, setting)))
    return _run(made.forget)


def _retain(method: ForgetRetain, made: _Batches, setting: Setting) -> Work:
    """Return the retain term's passes."""
    if not method.gamma:
        return Work()
    if isinstance(method, RMU):
        depth = _layers(method, setting)
        return _run(made.retain, 2.0, 1.0, depth)
    if isinstance(method, RR):
        depth = _layers(method, setting)
        if method.retain_layers == "all":
            depth = _Depth(1.0, 1.0 - setting.anatomy.lowest(method.trainable) / _count(setting), 0)
        return _run(made.retain, 2.0, 1.0, depth)
    if isinstance(method, ELM) or (isinstance(method, NPO) and method.retain == "kl"):
        return _run(made.retain, 2.0, 1.0)
    return _run(made.retain)


def _count(setting: Setting) -> int:
    return setting.anatomy.layers


def _refused(method: DPO | IDK, setting: Setting) -> Lengths:
    """Return the refusals in the forget items' places; none where an item has no prompt."""
    colon = setting.tokens(":")  # behind one, as `ilubench.methods.refusals` encodes them
    told = [1 + setting.tokens(f": {text}") - colon for text in method.refusals]
    rng = random.Random(seed_for(setting.seed, "refusals"))
    asked = setting.forget
    answers = tuple(rng.choice(told) for _ in asked.prompts)
    pairs = zip(asked.prompts, answers, strict=True)
    return replace(
        asked, tokens=tuple(n + answer if n > 1 else 0 for n, answer in pairs), answers=answers
    )


def _refusals(method: DPO | IDK, setting: Setting) -> Work:
    spec, refused = method.train, _refused(method, setting)
    steps = spec.total_steps(len(refused))
    stream = (setting.seed, "forget")
    return _run(group(setting.forget, stream, steps, spec.batch_size, spec.micro_batch, refused))


def _longer(lengths: Lengths, by: int) -> Lengths:
    return replace(lengths, tokens=tuple(n + by for n in lengths.tokens))


def _penalties(method: ILU, made: _Batches) -> Work:
    """Return the passes of ILU's environments: one of each kind, or two where G must be known."""
    one_pass = method.predictor == "logits" and method.estimator == "plain"
    plain = method.penalty == "cross_entropy" or (method.penalty == "irm" and one_pass)
    total = Work()
    for name in method.environments:
        benign = made.forget if name == FORGET else made.environments[name]
        if plain:
            total += _run(benign)
        elif method.penalty == "irm" and method.predictor != "params":
            total += _run(benign, 2.0, 1.0)
        else:
            total += _run(benign, 2.0, 5.0 if method.estimator == "split" else 3.0)
    return total


def _adversary(method: LAT, made: _Batches, setting: Setting) -> Work:
    """Return the passes of LAT's inner steps; gradients end at the lowest perturbed layer."""
    above = (_count(setting) - 1 - min(method.layers)) / _count(setting)
    base = method.base
    depth = _Depth(1.0, above)
    if method.target == "base" and isinstance(base, RMU | RR):
        whole = _layers(base, setting)
        reached = max(0.0, whole.forward - (min(method.layers) + 1) / _count(setting))
        depth = _Depth(whole.forward, reached, 0.0)
    return _run(made.forget, method.inner_steps, method.inner_steps, depth)


def _prepare(method: LossMethod, setting: Setting) -> Work:
    """Return the passes before the first step: what is computed once from the original model."""
    if isinstance(method, ILU | SAM | LAT):
        return _prepare(method.base, setting)
    spec = method.train
    size = spec.micro_batch or spec.batch_size
    relative = isinstance(method, RMU) and method.scale == "relative"
    if isinstance(method, NPO):
        return _run(_seen(setting, spec, size), 1.0, 0.0)
    if isinstance(method, DPO):
        refused = _seen(setting, spec, size, _refused(method, setting))
        return _run(_seen(setting, spec, size), 1.0, 0.0) + _run(refused, 1.0, 0.0)
    if isinstance(method, ELM) and method.fluency:
        return _written_on(method, setting, size)
    if relative:
        depth = _layers(cast("RMU", method), setting)
        return _run(in_order(setting.forget, size), 1.0, 0.0, depth)
    return Work()


def _seen(setting: Setting, spec: TrainSpec, size: int, run: Lengths | None = None) -> Group:
    """Return the batches of a reference pass, over the forget items that training will see.

    Args:
        setting: of the method.
        spec: of its training.
        size: sequences at once.
        run: what is run in the items' place.
    """
    lengths = setting.forget
    order = Stream(len(lengths), setting.seed, "forget")
    seen: set[int] = set()
    for step in range(spec.total_steps(len(lengths))):
        if len(seen) == len(lengths):
            break
        seen |= set(order.step(step, spec.batch_size))
    return in_order((run or lengths).some(sorted(seen)), size)


def _fluent(method: ELM, setting: Setting) -> Lengths:
    """Return ELM's carried-on texts in the forget items' places."""
    asked = setting.forget
    pairs = zip(asked.prompts, asked.tokens, strict=True)
    begun = tuple(prompt if prompt > 1 else (n + 1) // 2 for prompt, n in pairs)
    more = method.fluency_tokens
    return replace(
        asked, tokens=tuple(n + more for n in begun), answers=(more,) * len(asked), prompts=begun
    )


def _written_on(method: ELM, setting: Setting, size: int) -> Work:
    """Return the passes of sampling: three of the whole text so far for each new token."""
    begun = _fluent(method, setting).prompts
    context = setting.tokens(method.novice) + setting.tokens(method.expert)
    total = Group()
    for start in range(0, len(begun), size):
        part = begun[start : start + size]
        for new in range(method.fluency_tokens):
            width = max(part) + new + 1
            tokens, one = (3 * width + context) * len(part), (3 * width**2) * len(part)
            total = replace(
                total,
                batches=total.batches + 3,
                tokens=total.tokens + tokens,
                squares=total.squares + one,
                answers=total.answers + 3 * len(part),
            )
    return _run(total, 1.0, 0.0)


def _copies(method: LossMethod) -> float:
    """Return how many copies of the trained weights a method keeps on the device."""
    if isinstance(method, SAM):
        return 1.0 + _copies(method.base)
    if isinstance(method, ILU):
        several = float(len(method.environments) > 1)
        return several + _copies(method.base)
    if isinstance(method, LAT):
        return _copies(method.base)
    keeps = isinstance(method, RMU | RR | ELM) or (
        isinstance(method, NPO) and method.retain == "kl" and method.gamma > 0
    )
    return float(keeps)


# --------------------------------------------------------------------------- own loops


def _task_vector(method: TaskVector, setting: Setting) -> MethodWork:
    spec = method.train
    steps = spec.total_steps(len(setting.forget))
    made = group(setting.forget, (setting.seed, "train"), steps, spec.batch_size, spec.micro_batch)
    trained = setting.anatomy.trained(method.trainable)
    work = _run(made) + Work(steps=steps, updated=steps * trained)
    return MethodWork(work, trained, 0.0, made.largest, made.longest)


def _based(base: Method, trainable: tuple[str, ...], setting: Setting) -> MethodWork:
    if trainable and getattr(base, "trainable", None) == ():
        base = base.model_copy(update={"trainable": trainable})
    return method_work(base, setting)


def _undo(method: UNDO, setting: Setting) -> MethodWork:
    before = _based(method.base, method.trainable, setting)
    text = setting.retain
    if method.text == "both":
        text = joined([setting.retain, setting.forget])
    if method.tokens == "content":
        text = replace(text, answers=tuple(n - 1 for n in text.tokens))
    spec = method.train
    steps = spec.total_steps(len(text))
    made = group(text, (setting.seed, "distil"), steps, spec.batch_size, spec.micro_batch)
    trained = setting.anatomy.trained(method.trainable)
    work = _run(made, 2.0, 1.0) + Work(steps=steps, updated=steps * trained)
    return MethodWork(
        before.work + work,
        max(trained, before.trained),
        max(1.0, before.copies),
        max(made.largest, before.largest),
        max(made.longest, before.longest),
        before.known,
    )


def _tar(method: TAR, setting: Setting) -> MethodWork:
    before = _based(method.base, method.trainable, setting)
    spec, seed = method.train, setting.seed
    steps = spec.total_steps(len(setting.forget))
    size, micro = spec.batch_size, spec.micro_batch
    forget = group(setting.forget, (seed, "forget"), steps, size, micro)
    retain = group(setting.retain, (seed, "retain"), steps, size, micro)
    tampers = method.inner_steps // (method.every or method.inner_steps)
    work = _run(forget, tampers, tampers)
    if method.gamma:
        work += _run(retain, 3.0, 2.0) if method.hidden else _run(retain)
    inner_steps = steps * method.inner_steps
    drawn = len(method.inner_data)
    groups = [forget, retain]
    for name in method.inner_data:
        rows = setting.forget if name == FORGET else setting.environments[name]
        attack = (seed_for(seed, "tar", "0"), "train")
        benign = group(rows, attack, inner_steps, method.inner_batch, micro)
        groups.append(benign)
        work += _run(benign).times(1 / drawn)
    trained, everything = setting.anatomy.trained(method.trainable), setting.anatomy.parameters
    work += Work(steps=steps, updated=steps * trained + inner_steps * everything)
    kept = float(bool(method.gamma and method.hidden))
    # a copy of all weights, the attack's two moments in float32, and the held gradient
    copies = kept + 2.0 + 2.0
    return MethodWork(
        before.work + work,
        max(trained, before.trained),
        copies,
        max(before.largest, *(g.largest for g in groups)),
        max(before.longest, *(g.longest for g in groups)),
        before.known,
    )


def _unknown(method: Method, setting: Setting) -> MethodWork:
    """Return a guess: a pass over forget and retain batches, by the settings `train` if any."""
    spec: Any = getattr(method, "train", None)
    if not isinstance(spec, TrainSpec):
        return MethodWork(known=False)
    steps, seed = spec.total_steps(len(setting.forget)), setting.seed
    parts = [
        group(lengths, (seed, name), steps, spec.batch_size, spec.micro_batch)
        for name, lengths in (("forget", setting.forget), ("retain", setting.retain))
    ]
    patterns: Any = getattr(method, "trainable", ())
    trained = setting.anatomy.trained(patterns)
    work = Work(steps=steps, updated=steps * trained)
    for part in parts:
        work += _run(part)
    largest, longest = (sum(getattr(g, f) for g in parts) for f in ("largest", "longest"))
    return MethodWork(work, trained, 0.0, largest, longest, known=False)
