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
from ilubench.interfaces.discovery import create_plugin
from ilubench.scoring.scorers.muse import VerbMem
from ilubench.specs import PluginRef

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TRAIN: dict[str, JsonValue] = {
    "lr": 1e-3,
    "steps": 5,
    "batch_size": 4,
    "micro_batch": 2,
    "warmup_steps": 2,
}
VOCABULARY = 300
ILU: dict[str, JsonValue] = {
    "base": {"use": "npo", "settings": {"train": {**TRAIN}}},
    "weight": 0.5,
    "environments": ["gsm8k", "agnews"],
    "environment_batch": 3,
}

GOLDEN: dict[str, tuple[str, dict[str, JsonValue], tuple[float, ...]]] = {
    "npo": ("npo", {"train": TRAIN}, (19.7966166, 20.0212584, 14.5182605, 10.5483708, 11.5801783)),
    "npo, mean": (
        "npo",
        {"train": TRAIN, "reduction": "mean"},
        (19.7966166, 19.8616438, 18.1965857, 18.0739393, 15.7459650),
    ),
    "ilu": ("ilu", ILU, (21.2696774, 20.6534390, 15.3339979, 11.8057866, 11.7848405)),
    "ilu, cross_entropy": (
        "ilu",
        {**ILU, "penalty": "cross_entropy"},
        (26.1906434, 26.0325242, 20.5038351, 16.8980311, 17.1563720),
    ),
    "npo, batch_mean, kl": (
        "npo",
        {"train": TRAIN, "reduction": "batch_mean", "retain": "kl"},
        (13.8629432, 13.8602151, 12.9625158, 12.3030625, 11.6251176),
    ),
    "ilu, elementwise": (
        "ilu",
        {**ILU, "predictor": "elementwise"},
        (19.8576330, 20.0583726, 14.5822619, 10.6069245, 11.6305020),
    ),
    "ilu, params, split": (
        "ilu",
        {**ILU, "predictor": "params", "estimator": "split"},
        (21.9317767, 20.7404350, 18.8401924, 19.3462005, 13.9305482),
    ),
    "ilu, grad_norm": (
        "ilu",
        {**ILU, "penalty": "grad_norm", "weight": 0.01},
        (21.2344879, 21.7566642, 16.2268954, 12.7781279, 12.6902033),
    ),
    "graddiff": (
        "graddiff",
        {"train": TRAIN},
        (0.0381701, -0.1917022, -1.5772600, -2.3172541, -3.6455321),
    ),
    "simnpo": (
        "simnpo",
        {"train": TRAIN},
        (14.8119535, 14.5826602, 13.3252726, 13.0405436, 11.4002261),
    ),
    "rmu": (
        "rmu",
        {"train": TRAIN, "layer": 1},
        (2.0612558, 2.0828218, 2.2836736, 6.4488056, 6.5000043),
    ),
    "rmu, relative": (
        "rmu",
        {"train": TRAIN, "layer": 1, "scale": "relative"},
        (67.0241966, 66.4183006, 66.1460838, 68.5534554, 70.2714424),
    ),
    "rr": (
        "rr",
        {"train": TRAIN, "layers": [0, 1]},
        (9.9963059, 9.4574547, 10.3816480, 17.2623720, 20.1558126),
    ),
    "lat": (
        "lat",
        {"base": {"use": "npo", "settings": {"train": TRAIN}}, "layers": [0], "inner_steps": 3},
        (38.5950203, 37.6268520, 29.1580629, 22.8295679, 18.3214846),
    ),
    "dpo": (
        "dpo",
        {"train": TRAIN, "refusals": ["x y z"]},
        (12.8651452, 12.3190131, 8.8776805, 7.1682336, 6.3675346),
    ),
    "idk": (
        "idk",
        {"train": TRAIN, "refusals": ["x y z"]},
        (9.2448959, 9.0532634, 7.4000483, 7.3322361, 8.1515486),
    ),
    "sam": (
        "sam",
        {"base": {"use": "npo", "settings": {"train": TRAIN}}, "rho": 0.1},
        (26.4551365, 25.5536842, 19.4395871, 14.0246117, 14.5793480),
    ),
    "task_vector": (
        "task_vector",
        {"train": TRAIN},
        (6.2608559, 5.8907237, 5.0228329, 4.3086272, 4.2080516),
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_losses(name: str, context: Callable[..., Context]) -> None:
    """A method's loss at each of five steps of a fixed model on fixed data."""
    use, settings, expected = GOLDEN[name]
    method: Method = create_plugin("methods", PluginRef(use=use, settings=settings))
    recorder = StepRecorder()
    data = unlearn_data(VOCABULARY, environments=("gsm8k", "agnews"))
    method.unlearn(tiny_llama(VOCABULARY), data, context(log=recorder))
    losses = recorder.losses
    advice = f"{type(method).__name__} behaves differently: raise its version, then note {losses}"
    assert losses == pytest.approx(expected, rel=1e-4), advice
    assert type(method).version == 1, "behaviour is the same: why another version?"


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
