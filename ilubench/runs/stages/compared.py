"""The retrained model where a model is only scored, and compared with it."""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ilubench.errors import AccessError, ModelError
from ilubench.models.checkpoints import find_folder, load_model
from ilubench.models.configuration import load_config
from ilubench.models.tokenizers import check_vocabulary
from ilubench.runs.stages.target_key import key_of_files
from ilubench.runs.stages.workbench import Workbench

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["compared_key", "compared_model", "lacks_compared"]

FIELD = "suite.retrain.model"


def compared_key(bench: Workbench) -> str:
    """Return the key of its weights, as the tokenizer of the model that is scored reads for it.

    Empty: nothing is compared, the suite has no such weights, or they cannot be had here.

    Raises:
        ModelError: what was named is no model's folder, or has other tokens, or fewer, than the
            model that is scored.
    """
    folder = _folder(bench)
    if folder is None:
        return ""
    remedy = f"give others by {FIELD}.path=FOLDER"
    bench.check_tokens(folder, remedy)
    try:
        check_vocabulary(bench.tokenizer, load_config(folder), folder)
    except ModelError as error:
        problem = "has too few embedding rows for the tokens of the model that is scored"
        raise ModelError(f"{folder} {problem}; {remedy}") from error
    return key_of_files(folder, bench.given_tokenizer or bench.began_with)


def compared_model(bench: Workbench) -> "PreTrainedModel":
    """Load it.

    Raises:
        ModelError: it cannot be loaded.
    """
    folder = _folder(bench)
    assert folder is not None
    return load_model(folder, bench.device, getattr(torch, bench.suite.dtype))


def lacks_compared(bench: Workbench) -> str:
    """Return why its weights cannot be had; empty where they can, or nothing is compared."""
    try:
        _find(bench)
    except AccessError as error:
        return error.reason
    return ""


def _folder(bench: Workbench) -> Path | None:
    with contextlib.suppress(AccessError):  # what lacks is said beside the scores
        return _find(bench)
    return None


def _find(bench: Workbench) -> Path | None:
    experiment, retrain = bench.experiment, bench.suite.retrain
    alone = experiment.scores_only and experiment.measures_retrain
    if not alone or retrain is None or retrain.model is None:
        return None
    return find_folder(retrain.model, FIELD)
