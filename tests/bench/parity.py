"""Scores of a model folder, item by item, against plain transformers asked one prompt at a time.

    python tests/bench/parity.py MODEL ROWS [--items 20] [--engine hf|vllm]

MODEL is a folder with weights and tokenizer, for instance a real model of `ilubench convert`; ROWS
are JSON Lines {question, answer, perturbed_answer: [wrong ones]}, as TOFU's. For each of four
scorers: the largest difference of an item's score in float32, and the seconds of both. By hand
every prompt and every option is a forward pass of its own, and `generate` writes without a batch.
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rouge_score.rouge_scorer import RougeScorer
from transformers import AutoModelForCausalLM, AutoTokenizer

from ilubench.interfaces import Row, SampleScore, ScoreContext
from ilubench.interfaces.discovery import create_plugin
from ilubench.models.checkpoints import load_model
from ilubench.models.tokenizers import load_tokenizer
from ilubench.scoring.engines.hf import HFEngine
from ilubench.specs import PluginRef

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ilubench.interfaces import Engine

WRITTEN = 32
"""Tokens that a model may write."""

SCORERS: Mapping[str, Mapping[str, Any]] = {
    "answer_nll": {
        "data": "d",
        "prompt": "Question: {question}\nAnswer:",
        "completion": " {answer}",
    },
    "lm_eval": {"task": "mini_mc", "data": "d"},
    "verbmem": {"data": "d", "max_tokens": WRITTEN},
    "knowmem": {"data": "d", "icl": "shown", "max_tokens": WRITTEN},
}


class Plain:
    """The model as transformers loads and runs it."""

    def __init__(self, folder: Path, shown: Sequence[Row]) -> None:
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.shown = shown

    def logprobs(self, prompt: str, rest: str) -> torch.Tensor:
        """Return the log-probability of each token behind the prompt."""
        start = len(self.tokenizer(prompt).input_ids)
        ids = self.tokenizer(prompt + rest, return_tensors="pt").input_ids
        with torch.no_grad():
            scores = self.model(ids).logits[0, start - 1 : -1].log_softmax(-1)
        found: torch.Tensor = scores.gather(-1, ids[0, start:, None]).squeeze(-1)
        return found

    def write(self, prompt: str) -> str:
        """Return a greedy continuation."""
        given = self.tokenizer(prompt, return_tensors="pt")
        with torch.no_grad():
            made = self.model.generate(**given, max_new_tokens=WRITTEN, do_sample=False)
        return self.text(made[0, given.input_ids.shape[1] :])

    def text(self, ids: Any) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    def answer_nll(self, row: Row) -> float:
        prompt = f"Question: {row['question']}\nAnswer:"
        return -float(self.logprobs(prompt, f" {row['answer']}").mean())

    def lm_eval(self, row: Row) -> float:
        prompt = f"Question: {row['question']}\nAnswer:"
        choices: Any = row["choices"]
        sums = [float(self.logprobs(prompt, f" {choice}").sum()) for choice in choices]
        return float(sums.index(max(sums)) == row["answer_place"])

    def verbmem(self, row: Row) -> float:
        told = self.tokenizer(row["gt"]).input_ids[:WRITTEN]
        return rouge(self.text(told), self.write(str(row["prompt"])))

    def knowmem(self, row: Row) -> float:
        pairs = "".join(f"Question: {s['question']}\nAnswer: {s['answer']}\n\n" for s in self.shown)
        written = self.write(f"{pairs}Question: {row['question']}\nAnswer: ")
        for end in ("\n\n", "\nQuestion", "Question:"):
            written = written.split(end)[0]
        return rouge(str(row["answer"]), written)


def rouge(reference: str, written: str) -> float:
    return float(RougeScorer(["rougeL"]).score(reference, written)["rougeL"].fmeasure)


def read(path: Path, items: int) -> list[dict[str, Any]]:
    """Return rows of every scorer's columns; the right option's place differs from row to row."""
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()[:items]):
        row = json.loads(line)
        choices = [*row["perturbed_answer"][:3]]
        choices.insert(number % 4, row["answer"])
        told = {"id": f"r{number}", "question": row["question"], "answer": row["answer"]}
        of_text = {"prompt": f"Question: {row['question']}\nAnswer:", "gt": row["answer"]}
        found.append({**told, **of_text, "choices": choices, "answer_place": number % 4})
    return found


def rows_for(scorer: str, rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    if scorer == "lm_eval":
        return [{**row, "answer": row["answer_place"]} for row in rows]
    return [dict(row) for row in rows]


def engine_of(name: str, tokenizer: "PreTrainedTokenizerBase") -> "Engine":
    if name == "vllm":
        from ilubench.scoring.engines.vllm import VllmEngine

        return VllmEngine(tokenizer, batch_size=16)
    return HFEngine(tokenizer, batch_size=16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--items", type=int, default=20)
    parser.add_argument("--engine", choices=("hf", "vllm"), default="hf")
    given = parser.parse_args()
    *rows, one, two = read(given.rows, given.items + 2)
    shown: list[Row] = [one, two]
    plain, tokenizer = Plain(given.model, shown), load_tokenizer(given.model)
    begun = time.perf_counter()
    engine, model = (
        engine_of(given.engine, tokenizer),
        load_model(given.model, "cpu", torch.float32),
    )
    engine.load(model)
    print(f"engine {given.engine}: {time.perf_counter() - begun:.1f} s to start")
    for use, settings in SCORERS.items():
        kept: dict[str, Sequence[Row]] = {"d": rows_for(use, rows), "shown": shown}
        context = ScoreContext(kept.__getitem__, lambda _: False)
        scorer: Any = create_plugin("scorers", PluginRef(use=use, settings=dict(settings)))
        begun = time.perf_counter()
        scores = list(scorer.build(tokenizer, context).score(engine))
        took = time.perf_counter() - begun
        by_item = {one.item: one.value for one in scores if isinstance(one, SampleScore)}
        ask: Callable[[Row], float] = getattr(plain, use)
        begun = time.perf_counter()
        by_hand = {str(row["id"]): ask(row) for row in rows}
        alone = time.perf_counter() - begun
        if set(by_item) != set(by_hand):
            raise SystemExit(f"{use}: other items: {sorted(set(by_item) ^ set(by_hand))[:4]}")
        apart = {item: abs(by_item[item] - value) for item, value in by_hand.items()}
        print(
            f"  {use:10} {len(rows)} items, mean {sum(by_item.values()) / len(rows):.4f}: largest "
            f"difference {max(apart.values()):.1e}; {took:.1f} s, by hand {alone:.1f} s "
            f"(by hand / {given.engine} {alone / took:.2f})",
            flush=True,
        )
    close = getattr(engine, "close", None)
    if close is not None:
        close()


if __name__ == "__main__":
    main()
