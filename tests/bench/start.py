"""What a small scoring task costs from the command line: lm-eval against ours, start to end.

    python tests/bench/start.py [--times N] [--items N]

Both score the same random tiny Llama on the same four-option questions, each in a process of its
own, in turn; seconds are of the processor (of all threads), since a start that waits for its turn
is not slower. Ours begins with an empty store each time. The floor is what neither can leave out:
importing torch, loading the model through transformers and one forward pass of each item.

The ratio is that of the medians of one run; nothing is tested.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from ilubench.testing.tiny import make_tokenizer, tiny_llama

GOAL = 0.5

FLOOR = """
import json, sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained("model", dtype=torch.float32)
tokenizer = AutoTokenizer.from_pretrained("model")
with torch.inference_mode():
    for line in open("rows.jsonl"):
        model(torch.tensor([tokenizer.encode(json.loads(line)["question"])]))
"""

TASK = {
    "task": "start",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": "rows.jsonl"},
    "test_split": "train",
    "output_type": "multiple_choice",
    "doc_to_text": "Question: {{question}}\nAnswer:",
    "doc_to_choice": "choices",
    "doc_to_target": "answer",
    "metric_list": [{"metric": "acc"}],
}

OURS = ["ilubench", "score", "model", "task=tasks/start.yaml", "data=rows.jsonl", "device=cpu"]
THEIRS = [
    *("lm_eval", "--model", "hf", "--model_args", "pretrained=model,dtype=float32"),
    *("--tasks", "start", "--include_path", "tasks", "--device", "cpu", "--batch_size", "32"),
]


def seconds(folder: Path, words: list[str]) -> float:
    """Return the processor's seconds of one process."""
    shutil.rmtree(folder / "runs", ignore_errors=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(folder / "cache")}
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def prepare(folder: Path, items: int) -> None:
    tokenizer = make_tokenizer()
    tiny_llama(len(tokenizer)).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    (folder / "tasks").mkdir()
    (folder / "tasks" / "start.yaml").write_text(yaml.safe_dump(TASK))
    choices = ["one", "two", "three", "four"]
    rows = [
        {"question": f"how many of {n}?", "choices": choices, "answer": n % 4} for n in range(items)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--items", type=int, default=10)
    given = parser.parse_args()
    ways = {"ours": ["-m", *OURS], "lm-eval": ["-m", *THEIRS], "floor": ["-c", FLOOR]}
    found: dict[str, list[float]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as name:
        prepare(Path(name), given.items)
        for number in range(given.times + 1):
            for way, words in ways.items():
                took = seconds(Path(name), words)
                if number:  # the first warms the disk's cache, and compiles modules
                    found[way].append(took)
    median = {way: statistics.median(times) for way, times in found.items()}
    for way, times in found.items():
        print(f"{way:8} {median[way]:6.2f} s of the processor [{min(times):.2f}, {max(times):.2f}]")
    ratios = [a / b for a in found["ours"] for b in found["lm-eval"]]
    print(
        f"ours / lm-eval {median['ours'] / median['lm-eval']:.2f} [{min(ratios):.2f}, "
        f"{max(ratios):.2f}], goal <= {GOAL}; ours / floor {median['ours'] / median['floor']:.2f}"
    )


if __name__ == "__main__":
    main()
