"""The model that the target was taught from: what it scores are measured chance levels."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ilubench.errors import SpecError
from ilubench.models.checkpoints import find_folder, folder_sha256, load_model
from ilubench.models.configuration import load_config
from ilubench.models.tokenizers import check_vocabulary
from ilubench.records.keys import digest
from ilubench.runs.stages.workbench import Workbench

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["UNTOUCHED", "check_untouched", "load_untouched", "untouched_key"]

UNTOUCHED = "suite.untouched"
"""The field that names it."""

_REMEDY = f"{UNTOUCHED} names the model that the target was taught from"


def untouched_key(bench: Workbench) -> str:
    """Return the key of the untouched model as the target's tokenizer reads for it.

    Raises:
        SpecError: nothing says which model it is.
        ModelError: it is not at hand.
    """
    return digest({"untouched": folder_sha256(_folder(bench)), "target": bench.target})


def check_untouched(bench: Workbench) -> None:
    """Raise unless the untouched model reads what the target's tokenizer writes.

    Raises:
        ModelError: it has other tokens than the target model.
    """
    folder = _folder(bench)
    bench.check_tokens(folder, _REMEDY)
    check_vocabulary(bench.tokenizer, load_config(folder), folder)


def load_untouched(bench: Workbench) -> "PreTrainedModel":
    """Load the untouched model for scoring.

    Raises:
        ModelError: it cannot be loaded, or has other tokens than the target model.
    """
    check_untouched(bench)
    return load_model(_folder(bench), bench.device, getattr(torch, bench.suite.dtype))


def _folder(bench: Workbench) -> Path:
    source, suite = bench.suite.untouched_model, bench.suite
    if source is None:
        label = next(m.label for m in suite.metrics if m.chance_measured_by is not None)
        problem = f"{label}: its chance level is the untouched model's score, and nothing says"
        problem += " which model that is"
        remedy = "name the one that the target was taught from: untouched: {hub: ORG/NAME}"
        raise SpecError(problem, where=f"suite {suite.name}", field="untouched", remedy=remedy)
    return find_folder(source, UNTOUCHED)
