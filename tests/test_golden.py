"""Golden values: behaviour that changes must show as a new version.

When a test here fails because behaviour was changed on purpose, raise the `version` class variable
of the method (or scorer) that it names and put the new values here. If it fails for all methods,
the training loop, the batches or the model's forward changed: then raise the version of each.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

import pytest
from doubles import StepRecorder, tiny_llama, unlearn_data
from pydantic import JsonValue

from ilubench.interfaces import Context, Engine, Generation, Ids, Method, SamplingSpec, ScoreContext
from ilubench.plugins import create
from ilubench.scorers.muse import VerbMem
from ilubench.specs import PluginRef

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TRAIN = {"lr": 1e-3, "steps": 5, "batch_size": 4, "micro_batch": 2, "warmup_steps": 2}
VOCABULARY = 300
ILU: dict[str, JsonValue] = {
    "base": {"use": "npo", "settings": {"train": {**TRAIN}}},
    "weight": 0.5,
    "environments": ["gsm8k", "agnews"],
    "environment_batch": 3,
}

GOLDEN: dict[str, tuple[PluginRef, int, tuple[float, ...]]] = {
    "npo": (
        PluginRef(use="npo", settings={"train": TRAIN}),
        1,
        (19.7966166, 20.0212584, 14.5182605, 10.5483708, 11.5801783),
    ),
    "npo, mean": (
        PluginRef(use="npo", settings={"train": TRAIN, "reduction": "mean"}),
        1,
        (19.7966166, 19.8616438, 18.1965857, 18.0739393, 15.7459650),
    ),
    "ilu": (
        PluginRef(
            use="ilu",
            settings=ILU,
        ),
        1,
        (21.2696774, 20.6534390, 15.3339979, 11.8057866, 11.7848405),
    ),
    "ilu, cross_entropy": (
        PluginRef(
            use="ilu",
            settings={**ILU, "penalty": "cross_entropy"},
        ),
        1,
        (26.1906434, 26.0325242, 20.5038351, 16.8980311, 17.1563720),
    ),
}


def _losses(ref: PluginRef, context: Callable[..., Context]) -> tuple[Method, list[float]]:
    method: Method = create("methods", ref)
    recorder = StepRecorder()
    model = tiny_llama(VOCABULARY)
    data = unlearn_data(VOCABULARY, environments=("gsm8k", "agnews"))
    method.unlearn(model, data, context(log=recorder))
    return method, recorder.losses


@pytest.mark.parametrize("name", GOLDEN)
def test_losses(name: str, context: Callable[..., Context]) -> None:
    """A method's loss at each of five steps of a fixed model on fixed data."""
    ref, version, expected = GOLDEN[name]
    method, losses = _losses(ref, context)
    advice = f"{type(method).__name__} behaves differently: raise its version, then note {losses}"
    assert losses == pytest.approx(expected, rel=1e-4), advice
    assert type(method).version == version, "behaviour is the same: why another version?"


class Writes:
    """An engine that writes what it is told, whatever it is asked."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = texts

    def generate(self, prompts: Sequence[Ids], sampling: SamplingSpec) -> list[list[Generation]]:
        assert len(prompts) == len(self.texts)
        return [[Generation((), text)] for text in self.texts]


VERBMEM = (  # reference, written, ROUGE-L F1 by hand
    ("the old mill stands", "the old mill stands", 1.0),
    ("the old mill stands", "the mill", 2 / 3),  # precision 1, recall 1/2
    ("the old mill stands", "stands mill old the", 1 / 4),  # order counts
    ("the old mill stands", "The OLD, mill... stands!", 1.0),  # case and marks do not
    ("he counts sacks", "he counted sack", 1 / 3),  # no stemming
    ("the old mill", "", 0.0),
)


def test_verbmem(tokenizer: "PreTrainedTokenizerBase") -> None:
    rows = [{"id": str(n), "prompt": "x", "gt": case[0]} for n, case in enumerate(VERBMEM)]
    context = ScoreContext(lambda _: rows, lambda _: True)
    scorer = VerbMem(data="items")
    engine = cast("Engine", Writes([written for _, written, _ in VERBMEM]))
    values = [score.value for score in scorer.build(tokenizer, context).score(engine)]
    advice = f"VerbMem behaves differently: raise its version, then note {values}"
    assert values == pytest.approx([value for *_, value in VERBMEM], rel=1e-6), advice
    assert scorer.version == 1
