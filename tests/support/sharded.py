"""Trainings as one process does them, and as the ranks of a sharded model do: the same code."""

import multiprocessing
import pickle
import tempfile
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from cases import VOCABULARY, data_for, make
from doubles import make_context, make_tokenizer, random_examples, tiny_llama
from torch import distributed
from transformers import PreTrainedModel

from ilubench.attacks.finetune import FineTune
from ilubench.interfaces import Batch, Context
from ilubench.models.forward import answer_logits
from ilubench.models.sharding import join_ranks, shard_model, together, whole_model
from ilubench.records.store import FolderState
from ilubench.specs import MemorySpec, PackSpec, RecipeSpec, TokenizerSpec, TrainSpec
from ilubench.training import pretrain


@dataclass
class Trained:
    """What a training left: its steps' metrics, what was seen on the way, its last weights."""

    steps: list[dict[str, float]] = field(default_factory=list)
    seen: list[torch.Tensor] = field(default_factory=list)
    weights: dict[str, torch.Tensor] = field(default_factory=dict)


def _method(name: str, **train: Any) -> Callable[..., None]:
    def run(model: PreTrainedModel, context: Context, found: Trained) -> None:
        del found
        method = make(name, clip=1.0, **train)
        method.unlearn(model, data_for(method), context)

    return run


def _fine_tune(
    *, stop: int = 0, memory: MemorySpec | None = None, **train: Any
) -> Callable[..., None]:
    """Fine-tune; what the model says is looked at on the way, where it would be scored."""

    def run(model: PreTrainedModel, context: Context, found: Trained) -> None:
        dataset = random_examples(11, VOCABULARY, 5)
        settings = {"lr": 1e-3, "steps": 8, "batch_size": 5, "clip": 1.0, **train}
        attack = FineTune(train=TrainSpec.model_validate(settings), each_epoch=False)
        own = replace(context, memory=memory or MemorySpec())
        for checkpoint in attack.tamper(model, {"train": dataset}, own):
            with whole_model(checkpoint.model) as whole:
                if whole is not None:
                    found.seen.append(_answers(whole))
            if stop and checkpoint.step == stop:
                return

    return run


def _answers(model: PreTrainedModel) -> torch.Tensor:
    ids = torch.arange(3, 15).view(2, 6)
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[:, 0] = False
    batch = Batch(ids, torch.ones_like(ids), mask, torch.arange(2), 2, 10)
    with torch.no_grad():
        return answer_logits(model, batch).logits.float()


def _pretrain(model: PreTrainedModel, context: Context, found: Trained) -> None:
    del found
    train = TrainSpec(lr=1e-3, steps=4, warmup_steps=2)
    tokenizer = TokenizerSpec(kind="word", text=("text",))
    pack = (PackSpec(share=0.5, length=16, batch_size=5), PackSpec(share=0.5, length=24))
    recipe = RecipeSpec(config={}, tokenizer=tokenizer, text=("text",), pack=pack, train=train)
    pretrain(model, random_examples(30, VOCABULARY, 6), recipe, context)


TRAININGS: dict[str, Callable[..., None]] = {
    **{name: _method(name) for name in ("graddiff", "npo-batch_mean", "simnpo", "rmu")},
    **{name: _method(name) for name in ("rmu-targets", "ilu-batch_mean", "ilu-rmu")},
    **{name: _method(name) for name in ("ilu-forget", "ilu-control")},
    "rmu-one": _method("rmu", micro_batch=1),
    "finetune": _fine_tune(),
    "finetune-small": _fine_tune(micro_batch=1, memory=MemorySpec(checkpointing=True)),
    "finetune-tied": _fine_tune(weight_decay=0.1),
    "finetune-killed": _fine_tune(stop=4, save_every_s=0),
    "finetune-bfloat16": _fine_tune(memory=MemorySpec(update="master"), save_every_s=0),
    "pretrain": _pretrain,
}


def train(name: str, folder: Path, *, device: str = "") -> Trained:
    """Do one training; with a device, the model is divided among the ranks that work together."""
    found = Trained()
    model = tiny_llama(VOCABULARY, tied=name.endswith("tied"))
    if name.endswith("bfloat16"):
        torch.nn.Module.to(model, torch.bfloat16)
    if device:
        shard_model(model, device)

    def log(_step: int, metrics: Any) -> None:
        found.steps.append(dict(metrics))

    context = make_context(make_tokenizer(), log=log, state=FolderState(folder))
    TRAININGS[name.partition(":")[0]](model, context, found)
    with whole_model(model) as whole:
        if whole is not None:
            named = whole.named_parameters()
            found.weights = {one: p.detach().float().clone() for one, p in named}
    return found


def in_ranks(asked: Sequence[tuple[int, str, Path]]) -> list[Trained]:
    """Do trainings in so many ranks each, one after the other, in the same processes."""
    most = max(count for count, *_ in asked)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "transformers.models.llama.modeling_llama"])
    found = []
    with tempfile.TemporaryDirectory() as meeting:
        mine, theirs = context.Pipe()
        processes = [
            context.Process(target=_rank, args=(rank, asked, Path(meeting), theirs))
            for rank in range(most)
        ]
        for process in processes:
            process.start()
        theirs.close()
        try:
            for count, name, _ in asked:
                answer = pickle.loads(mine.recv_bytes())
                assert isinstance(answer, Trained), f"{count} ranks, {name}: {answer}"
                found.append(answer)
        finally:
            for process in processes:
                process.kill()
                process.join()
    return found


def _rank(
    rank: int, asked: Sequence[tuple[int, str, Path]], meeting: Path, answers: Connection
) -> None:
    torch.set_num_threads(1)
    before = 0
    for place, (count, name, folder) in enumerate(asked):
        if rank >= count:
            continue
        if count != before:
            if before:
                distributed.destroy_process_group()
            join_ranks(rank, count, "cpu", meeting / str(place))
            before = count
        try:
            with together():
                found = train(name, folder, device="cpu")
        except Exception:
            answers.send_bytes(pickle.dumps(traceback.format_exc()))
            raise
        if rank == 0:
            answers.send_bytes(pickle.dumps(found))
