"""Models: made from a configuration, and run to the answer positions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from pydantic import JsonValue

from ilubench.errors import ModelError, did_you_mean
from ilubench.interfaces import Batch

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

__all__ = ["Answers", "answer_logits", "architecture", "initialise", "recipe_config"]


def recipe_config(settings: Mapping[str, JsonValue]) -> "PretrainedConfig":
    """Return the configuration that a recipe spells out.

    Raises:
        ModelError: transformers does not accept it.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import CONFIG_MAPPING, AutoConfig

    given: dict[str, Any] = dict(settings)
    model_type = str(given.pop("model_type", ""))
    if model_type not in CONFIG_MAPPING:
        remedy = did_you_mean(model_type, CONFIG_MAPPING)
        raise ModelError(f"recipe.config: unknown model_type {model_type!r}; {remedy}")
    try:
        return AutoConfig.for_model(model_type, **given)
    except (ValueError, TypeError, KeyError, StrictDataclassError) as error:
        problem = " ".join(str(error).split())
        raise ModelError(f"recipe.config: {problem}") from error


def architecture(config: "PretrainedConfig") -> str:
    """Return the name of the class that a configuration's causal language model has."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    named = config.architectures or [
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type, config.model_type)
    ]
    return str(named[0])


def initialise(config: Mapping[str, JsonValue], vocabulary: int, seed: int) -> "PreTrainedModel":
    """Return a model of a given configuration with seeded random weights, float32, on the CPU.

    Raises:
        ModelError: transformers does not accept the configuration.
    """
    from transformers import AutoModelForCausalLM

    if "vocab_size" in config:
        raise ModelError("recipe.config: vocab_size is the tokenizer's; leave it out")
    made = recipe_config({**config, "vocab_size": vocabulary})
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = AutoModelForCausalLM.from_config(made, dtype=torch.float32)
    except (ValueError, TypeError, KeyError) as error:
        problem = " ".join(str(error).split())
        raise ModelError(f"recipe.config: {problem}") from error
    return cast("PreTrainedModel", model)


# --------------------------------------------------------------------------- forward


@dataclass(frozen=True)
class Answers:
    """Logits at the positions that predict target tokens.

    Attributes:
        logits: [N, V].
        targets: int64 [N].
        sequence: int64 [N], row of the batch that each token belongs to.
        count: number of rows B.
    """

    logits: torch.Tensor
    targets: torch.Tensor
    sequence: torch.Tensor
    count: int


def _head_is_plain(model: "PreTrainedModel") -> bool:
    """Whether logits are head(last hidden state): looked at once a model.

    The head is made to give known, large logits: a cap or a scale shows at any size of the
    weights. What the head was given is compared with the body's output.
    """
    known = getattr(model, "_ilubench_plain_head", None)
    if known is None:
        known = _probe_head(model)
        object.__setattr__(model, "_ilubench_plain_head", known)
    return bool(known)


def _probe_head(model: "PreTrainedModel") -> bool:
    head = model.get_output_embeddings()
    if head is None or model.base_model is model:
        return False
    given: list[torch.Tensor] = []

    def known_logits(
        _head: torch.nn.Module, inputs: tuple[torch.Tensor, ...], logits: torch.Tensor
    ) -> torch.Tensor:
        given.append(inputs[0])
        return torch.linspace(-100.0, 100.0, logits.shape[-1]).to(logits).expand_as(logits)

    training = model.training
    handle = head.register_forward_hook(known_logits)
    try:
        with torch.no_grad(), torch.autocast(model.device.type, enabled=False):
            ids = torch.tensor([[0, 1]], device=model.device)
            model.eval()  # no dropout: nothing random is drawn here
            logits = model(input_ids=ids, use_cache=False).logits
            body = model.base_model(input_ids=ids, use_cache=False).last_hidden_state.float()
    finally:
        handle.remove()
        model.train(training)
    if len(given) != 1 or given[0].shape != body.shape:
        return False
    expected = torch.linspace(-100.0, 100.0, logits.shape[-1]).to(logits).expand_as(logits)
    near = torch.allclose(given[0].float(), body, rtol=1e-3, atol=1e-3 * float(body.abs().max()))
    return near and torch.equal(logits, expected)


def answer_logits(model: "PreTrainedModel", batch: Batch) -> Answers:
    """Run the model; compute logits only where a target token is predicted.

    Args:
        model: a causal language model.
        batch: right-padded, on the model's device.
    """
    predicts = batch.loss_mask[:, 1:]
    targets = batch.input_ids[:, 1:][predicts]
    rows, _ = predicts.nonzero(as_tuple=True)
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    if _head_is_plain(model):
        hidden = model.base_model(**inputs, use_cache=False).last_hidden_state
        head = cast("torch.nn.Module", model.get_output_embeddings())
        logits = head(hidden[:, :-1][predicts])
    else:
        logits = model(**inputs, use_cache=False).logits[:, :-1][predicts]
    return Answers(logits, targets, rows, len(batch.input_ids))
