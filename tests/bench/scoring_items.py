"""The items and checkpoints of the scoring benchmark, and the arithmetic that they cost."""

import json
import random
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml

from ilubench.interfaces import Row
from ilubench.models.forward import initialise_model
from ilubench.models.quiet import quiet
from ilubench.models.tokenizers import build_tokenizer
from ilubench.scoring.engines.batching import common_prefix

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SHOTS = {"long": 5, "short": 2}
NEW = 128
LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": False,
    "initializer_range": 0.1,  # with the usual .02 all tokens are near ties
}


# ------------------------------------------------------------------ items


@dataclass(frozen=True)
class Workload:
    """The same items as lm-eval tasks and as rows.

    Attributes:
        folder: holds the tasks' files, `questions.yaml` and `continuations.yaml`.
        rows: task -> its rows.
        tokenizer: every word is a token.
    """

    folder: Path
    rows: Mapping[str, Sequence[Row]]
    tokenizer: "PreTrainedTokenizerBase"

    def part(self, questions: float, continuations: float) -> "Workload":
        """Return the same with a share of each task's items, at least one."""
        shares = {"questions": questions, "continuations": continuations}
        rows = {n: kept[: max(1, round(shares[n] * len(kept)))] for n, kept in self.rows.items()}
        return Workload(self.folder, rows, self.tokenizer)


def _question(rng: random.Random, words: Sequence[str]) -> dict[str, Any]:
    return {
        "question": " ".join(rng.choices(words, k=rng.randrange(30, 51))) + "?",
        "choices": [" ".join(rng.choices(words, k=3)) for _ in range(4)],
        "answer": rng.randrange(4),
    }


def make_workload(folder: Path, shots: int, questions: int, passages: int) -> Workload:
    rng = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = sorted({"".join(rng.choices(letters, k=6)) for _ in range(2000)})
    shown = [_question(rng, words) for _ in range(shots)]
    rows: dict[str, list[Row]] = {
        "questions": [{"id": f"q{n}", **_question(rng, words)} for n in range(questions)],
        "continuations": [
            {"id": f"p{n}", "text": " ".join(rng.choices(words, k=127)), "rest": "none"}
            for n in range(passages)
        ],
    }
    options = "".join(f"\n{letter}. {{{{choices[{n}]}}}}" for n, letter in enumerate("ABCD"))
    tasks: dict[str, dict[str, Any]] = {
        "questions": {
            "output_type": "multiple_choice",
            "description": " ".join(rng.choices(words, k=20)) + "\n\n",
            "num_fewshot": shots,
            "fewshot_config": {"sampler": "first_n", "samples": shown},
            "doc_to_text": "{{question}}" + options + "\nAnswer:",
            "doc_to_choice": ["A", "B", "C", "D"],
            "doc_to_target": "answer",
            "metric_list": [{"metric": "acc", "aggregation": "mean"}],
        },
        "continuations": {
            "output_type": "generate_until",
            "num_fewshot": 0,
            "doc_to_text": "{{text}}",
            "doc_to_target": "{{rest}}",
            "generation_kwargs": {"until": ["\n\n"], "do_sample": False, "max_gen_toks": NEW},
            "metric_list": [{"metric": "exact_match", "aggregation": "mean"}],
        },
    }
    for name, task in tasks.items():
        data = folder / f"{name}.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows[name]), encoding="utf-8")
        source = {
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(data)}, "cache_dir": str(folder)},
            "test_split": "test",
        }
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(source | task), encoding="utf-8")
    covered = " A B C D\nA. B. C. D.\nAnswer: ?\n\n" + " ".join(words)
    tokenizer = build_tokenizer([covered, *words])
    tokenizer.model_max_length = LLAMA["max_position_embeddings"]
    return Workload(folder, rows, tokenizer)


def make_checkpoint(workload: Workload, number: int) -> "PreTrainedModel":
    """Return the live model; its folder is what the fresh backends load."""
    tokenizer = workload.tokenizer
    special = {f"{n}_token_id": getattr(tokenizer, f"{n}_token_id") for n in ("bos", "eos", "pad")}
    model = initialise_model(LLAMA | special, len(tokenizer), number)
    model.train(mode=False)
    folder = checkpoint_folder(workload, number)
    with quiet():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return model


def checkpoint_folder(workload: Workload, number: int) -> Path:
    return workload.folder / f"checkpoint-{number}"


# ------------------------------------------------------------------ the floor


def floor_seconds(workload: Workload, model: "PreTrainedModel") -> tuple[float, str]:
    """Return the arithmetic's seconds a checkpoint, and how they come about."""
    shots = yaml.safe_load((workload.folder / "questions.yaml").read_text())["num_fewshot"]
    prompts = prompt_ids(workload)
    shared = common_prefix(prompts["questions"])
    own = [len(prompt) - len(shared) for prompt in prompts["questions"]]
    weights = [p for n, p in model.named_parameters() if p.dim() == 2 and "embed" not in n]
    layers = sum(p.numel() for p in weights if p.shape[0] != len(workload.tokenizer))
    head = len(workload.tokenizer) * LLAMA["hidden_size"]
    tokens = len(shared) + sum(own)
    written = len(prompts["continuations"]) * (NEW - 1)
    read = sum(map(len, prompts["continuations"]))
    pair = 4 * LLAMA["hidden_size"] * LLAMA["num_hidden_layers"]
    pairs = len(shared) ** 2 / 2 + sum(n * (len(shared) + n / 2) for n in own)
    pairs += sum((len(p) + NEW) ** 2 / 2 for p in prompts["continuations"])
    answers = len(own) + len(prompts["continuations"]) + written  # positions that need the head
    work = 2 * layers * (tokens + read + written) + 2 * head * answers + pair * pairs
    speed = matrix_speed(weights)
    note = (
        f"{shots} examples: {len(shared)} shared tokens, {statistics.mean(own):.0f} own "
        f"[{min(own)}, {max(own)}]; {work / 1e9:.0f} GFLOP at {speed / 1e9:.0f} GFLOP/s"
    )
    return work / speed, note


def prompt_ids(workload: Workload) -> dict[str, list[list[int]]]:
    """Return the prompts' tokens as lm-eval renders them."""
    from lm_eval.tasks import TaskManager  # type: ignore[import-untyped, unused-ignore]

    manager = TaskManager(include_path=str(workload.folder), include_defaults=False)
    found = {}
    for name, task in manager.load(list(workload.rows))["tasks"].items():
        task.build_all_requests(limit=len(workload.rows[name]))
        texts = {instance.doc_id: instance.args[0] for instance in task.instances}
        found[name] = [list(workload.tokenizer.encode(text)) for text in texts.values()]
    return found


def matrix_speed(weights: Sequence[torch.Tensor], rows: int = 1024) -> float:
    """Return FLOP/s of torch.mm over the model's own shapes, the fastest of 30: a floor's speed."""
    inputs = [torch.randn(rows, weight.shape[1]) for weight in weights]
    seconds = []
    with torch.no_grad():
        for _ in range(31):
            begin = time.perf_counter()
            for value, weight in zip(inputs, weights, strict=True):
                torch.mm(value, weight.t())
            seconds.append(time.perf_counter() - begin)
    return 2 * rows * sum(weight.numel() for weight in weights) / min(seconds[1:])
