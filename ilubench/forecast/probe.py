"""A timed probe: some passes of the real model on this device, on data of the run."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from ilubench.data.batches import collate, to_device
from ilubench.forecast.anatomy import Anatomy, anatomy_of
from ilubench.forecast.calibration import Speeds
from ilubench.forecast.speed import FIXED, IMPORTS, Rates, load_seconds
from ilubench.interfaces import Batch, SamplingSpec
from ilubench.models.forward import answer_logits
from ilubench.runs.stages.workbench import Workbench
from ilubench.specs import TrainSpec
from ilubench.training import pad_id
from ilubench.training.losses import token_nll

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["probe"]

_TIMES = 3
"""Times that each pass is timed; the quickest counts, since what else runs only adds."""

_SEQUENCES = 8
"""Sequences of the largest batch that is timed."""

_WRITTEN = 12
"""Tokens that are written."""

_LOW, _HIGH = 1.3, 1.5
"""What a probe's few passes may be off by: an assumption."""


def probe(bench: Workbench, target: str) -> Speeds:
    """Return the rates that the target model reaches here, on sequences of the forget set.

    Forward and backward passes of a batch and of two tokens, an update by plain AdamW, a batch of
    prompts that is read, and some tokens that are written. What a job loads and what a process
    imports are assumed. The weights are thrown away.

    Args:
        bench: of the run.
        target: key of the target model, which is at hand.

    Raises:
        DataError: the forget set is wrong.
        StoreError: the target model is not made yet.
    """
    model = bench.target_model()
    anatomy = anatomy_of(model.config)
    batch = _batch(bench, target)
    return Speeds(_training(bench, model, anatomy, batch), _scoring(bench, target, model, anatomy))


def _batch(bench: Workbench, target: str) -> Batch:
    dataset = bench.examples(bench.suite.forget)
    spec = getattr(bench.experiment.method, "train", None)
    count = _SEQUENCES
    if isinstance(spec, TrainSpec):
        count = min(spec.micro_batch or spec.batch_size, count)
    places = range(0, len(dataset), max(1, len(dataset) // count))[:count]
    (made,) = collate(dataset, list(places), pad_id(bench.tokenizer))
    return to_device(made, bench.device)


def _seconds(bench: Workbench, run: Callable[[], object]) -> float:
    """Return the quickest of some runs, after one that warms up."""
    found = []
    for _ in range(1 + _TIMES):
        started = time.perf_counter()
        run()
        if bench.device != "cpu":
            torch.cuda.synchronize()
        found.append(time.perf_counter() - started)
    return min(found[1:])


def _precision(bench: Workbench) -> str:
    specs = [getattr(a.plugin, "train", None) for a in bench.experiment.attacks]
    specs.append(getattr(bench.experiment.method, "train", None))
    return next((spec.precision for spec in specs if isinstance(spec, TrainSpec)), "float32")


def _training(bench: Workbench, model: "PreTrainedModel", anatomy: Anatomy, batch: Batch) -> Rates:
    kind = torch.device(bench.device).type
    half = _precision(bench) == "bfloat16"

    def loss(part: Batch) -> torch.Tensor:
        with torch.autocast(kind, torch.bfloat16, enabled=half):
            answers = answer_logits(model, part)
            return token_nll(answers.logits, answers.targets).mean()

    def forward() -> None:
        with torch.no_grad():
            loss(batch)

    short = _cut(batch, 2)
    model.train()
    ahead = _seconds(bench, forward)
    both = _seconds(bench, lambda: loss(batch).backward())
    little = _seconds(bench, lambda: loss(short).backward())
    # one layer's weights stand for all: the model's own would need the whole optimizer's memory
    layer = [p for n, p in model.named_parameters() if ".0." in n] or list(model.parameters())
    optimizer = torch.optim.AdamW(layer, lr=0.0, fused=True)
    update = _seconds(bench, optimizer.step) / sum(p.numel() for p in layer)
    model.zero_grad(set_to_none=True)
    moved = 3.0 * sum(p.numel() * p.element_size() for p in model.parameters())
    tokens, width = batch.input_ids.numel(), batch.input_ids.shape[1]
    flops = anatomy.flops(tokens, tokens * width, batch.tokens)
    # `little` is hardly more than starting kernels: three passes' worth, as features count them
    a_pass = little / 3
    down = max(ahead - a_pass, 0.5 * ahead) / flops
    up = max(both - ahead - 2 * a_pass, 0.5 * (both - ahead), 0.1 * ahead) / (2.0 * flops)
    found = (down, up, a_pass, update, load_seconds(moved), IMPORTS)
    return Rates(found, _LOW, _HIGH, "a probe of the model here", "probed")


def _cut(batch: Batch, width: int) -> Batch:
    """Return the first sequence's first tokens, the last of them a target."""
    mask = torch.zeros_like(batch.loss_mask[:1, :width])
    mask[:, -1] = True
    ids, attention = batch.input_ids[:1, :width], batch.attention_mask[:1, :width]
    return Batch(ids, attention, mask, batch.index[:1], 1, 1)


def _scoring(bench: Workbench, target: str, model: "PreTrainedModel", anatomy: Anatomy) -> Rates:
    dataset = bench.examples(bench.suite.forget)
    places = range(0, len(dataset), max(1, len(dataset) // bench.suite.score_batch))
    prompts = [dataset[at].input_ids for at in places[: bench.suite.score_batch]]
    halves = [tuple(ids[: max(1, len(ids) // 2)]) for ids in prompts]
    model.eval()
    engine = bench.engine
    engine.load(model)
    read = _seconds(bench, lambda: engine.logprobs([(ids, (0,)) for ids in halves]))
    write = SamplingSpec(max_tokens=_WRITTEN)
    written = _seconds(bench, lambda: engine.generate(halves, write))
    tokens, squares = sum(map(len, halves)), sum(len(ids) ** 2 for ids in halves)
    flops = anatomy.flops(tokens, squares, len(halves))
    flop = read / flops
    moved = 3.0 * sum(p.numel() * p.element_size() for p in model.parameters())
    wrote = anatomy.flops(_WRITTEN * len(halves), 0.0, _WRITTEN * len(halves))
    step = max(0.0, written - read - flop * wrote) / _WRITTEN
    found = (flop, 0.0, step, 0.0, load_seconds(moved), FIXED[1])
    return Rates(found, _LOW, 2 * _HIGH, "a probe of the model here", "probed")
