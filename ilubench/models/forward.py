"""Models: made from a configuration, and run to the answer positions."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, TypeVar, cast

import torch
from pydantic import JsonValue
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from ilubench.errors import IlubenchError, ModelError
from ilubench.interfaces import Batch
from ilubench.models.configuration import recipe_config, refuse_unaffordable, wrong_setting
from ilubench.models.quiet import quiet

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

__all__ = [
    "LOGITS",
    "Answers",
    "TokenFunction",
    "TokenValues",
    "answer_logits",
    "answer_states",
    "architecture_name",
    "body_inputs",
    "evaluate_only",
    "has_layers",
    "initialise_model",
    "model_layers",
    "outline_model",
    "parameter_sizes",
    "probe_head",
    "state_logits",
    "token_values",
    "within",
]

LOGITS = 2**26
"""Logits that `token_values` makes at once: 256 MiB in float32, of which a loss and its gradient
hold some five copies. 2,097 positions of a vocabulary of 32,000, 523 of one of 128,256."""

TokenFunction: TypeAlias = Callable[..., torch.Tensor]
"""(logits [n, V], targets int64 [n], further tensors of n rows) -> float32 [n]: a value a token,
which depends on that token's row only. It may be called again during the backward pass."""

T = TypeVar("T")

_CAUSAL = frozenset(
    (
        "gemma",
        "gemma2",
        "gpt_neox",
        "llama",
        "mistral",
        "olmo2",
        "opt",
        "phi",
        "phi3",
        "qwen2",
        "qwen3",
    )
)
"""Families whose real tokens get the same states without a mask of the padding behind them.

Not among them though they look back only: gpt2, which then warns, and mixtures of experts, which
sort the padding in with the tokens, so that sums come in another order.
"""


def architecture_name(config: "PretrainedConfig") -> str:
    """Return the name of the class that a configuration's causal language model has."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    named = config.architectures or [
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type, config.model_type)
    ]
    return str(named[0])


def initialise_model(
    config: Mapping[str, JsonValue], vocabulary: int, seed: int
) -> "PreTrainedModel":
    """Return a model of a given configuration with seeded random weights, float32, on the CPU.

    Raises:
        ModelError: transformers does not accept the configuration.
    """
    with quiet():
        from transformers import AutoModelForCausalLM

    if "vocab_size" in config:
        raise ModelError("recipe.config: vocab_size is the tokenizer's; leave it out")
    made = recipe_config({**config, "vocab_size": vocabulary})
    refuse_unaffordable(sum(parameter_sizes(made).values()), "recipe.config")
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = AutoModelForCausalLM.from_config(made, dtype=torch.float32)
    except torch.OutOfMemoryError:
        raise  # no fault of the settings
    except Exception as error:
        # whatever a model's own class raises of settings that do not go together
        settings = {**config, "vocab_size": vocabulary}
        raise ModelError(f"recipe.config: {wrong_setting(settings)}") from error
    return cast("PreTrainedModel", model)


def parameter_sizes(config: "PretrainedConfig") -> dict[str, int]:
    """Return parameter -> its number of weights; none is made."""
    return {name: parameter.numel() for name, parameter in outline_model(config).named_parameters()}


def has_layers(config: "PretrainedConfig") -> bool:
    """Whether a model's layers can be told; none is made."""
    return bool(model_layers(outline_model(config)))


def outline_model(config: "PretrainedConfig") -> "PreTrainedModel":
    """Return the model that a configuration describes, without weights."""
    with quiet(), torch.random.fork_rng(devices=[]), torch.device("meta"):
        from transformers import AutoModelForCausalLM

        return cast("PreTrainedModel", AutoModelForCausalLM.from_config(config))


def model_layers(model: "PreTrainedModel") -> list[torch.nn.Module]:
    """Return the model's layers, none where they cannot be told."""
    count = getattr(model.config, "num_hidden_layers", None)
    for found in model.base_model.children():
        if isinstance(found, torch.nn.ModuleList) and len(found) == count:
            return list(found)
    return []


# --------------------------------------------------------------------------- forward


def within(model: "PreTrainedModel", function: Callable[[], T]) -> T:
    """Run what calls parts of a model; all it returns that has a gradient are tensors, or lists.

    A sharded model gathers its weights when it is called itself: so this becomes a call of it.

    Args:
        model: sharded (see `ilubench.models.sharding`) or not.
        function: calls the model's body, its head or both; calls of this in each other are one.
    """
    if not hasattr(model, "_ilubench_whole") or "forward" in vars(model):
        return function()
    model.forward = function
    try:
        return cast("T", model())
    finally:
        del model.forward


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


@contextlib.contextmanager
def evaluate_only(model: "PreTrainedModel") -> Iterator[None]:
    """Put the model into eval mode and record no gradients, for a while."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


def _head_is_plain(model: "PreTrainedModel") -> bool:
    """Whether logits are head(last hidden state): looked at once a model.

    The head is made to give known, large logits: a cap or a scale shows at any size of the
    weights. What the head was given is compared with the body's output.
    """
    if not hasattr(model, "_ilubench_plain_head"):
        probe_head(model)
    return bool(model._ilubench_plain_head)


def probe_head(model: "PreTrainedModel") -> None:
    """Look at how logits are made, before a model is sharded: it runs parts of the model alone."""
    object.__setattr__(model, "_ilubench_plain_head", _is_plain(model))


def _is_plain(model: "PreTrainedModel") -> bool:
    head = model.get_output_embeddings()
    if head is None or model.base_model is model:
        return False
    given: list[torch.Tensor] = []

    def known_logits(
        _head: torch.nn.Module, inputs: tuple[torch.Tensor, ...], logits: torch.Tensor
    ) -> torch.Tensor:
        given.append(inputs[0])
        return torch.linspace(-100.0, 100.0, logits.shape[-1]).to(logits).expand_as(logits)

    handle = head.register_forward_hook(known_logits)
    try:
        # no dropout: nothing random is drawn here
        with evaluate_only(model), torch.autocast(model.device.type, enabled=False):
            ids = torch.tensor([[0, 1]], device=model.device)
            logits = model(input_ids=ids, use_cache=False).logits
            body = model.base_model(input_ids=ids, use_cache=False).last_hidden_state.float()
    finally:
        handle.remove()
    if len(given) != 1 or given[0].shape != body.shape or not body.isfinite().all():
        return False
    expected = torch.linspace(-100.0, 100.0, logits.shape[-1]).to(logits).expand_as(logits)
    near = torch.allclose(given[0].float(), body, rtol=1e-3, atol=1e-3 * float(body.abs().max()))
    return near and torch.equal(logits, expected)


def body_inputs(model: "PreTrainedModel", batch: Batch) -> dict[str, torch.Tensor]:
    """Return what a forward is given of a batch.

    Attention that looks back only never meets the padding on the right. So the known families get
    no mask, and can use the quicker kernels that take none; what they compute at padding is of no
    use either way.

    Args:
        model: a causal language model.
        batch: right-padded.
    """
    if model.config.model_type in _CAUSAL:
        return {"input_ids": batch.input_ids}
    return {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}


def answer_states(model: "PreTrainedModel", batch: Batch) -> torch.Tensor:
    """Run the model's body; return what its head turns into the logits of the target tokens.

    Args:
        model: a causal language model.
        batch: right-padded, on the model's device.

    Returns:
        [N, H]: last hidden states. [N, V], the logits themselves, where they are more than a head
        makes of these (scaled, capped).
    """
    predicts = batch.loss_mask[:, 1:]
    inputs = body_inputs(model, batch)

    def body() -> torch.Tensor:
        states = model.base_model(**inputs, use_cache=False).last_hidden_state
        return cast("torch.Tensor", states[:, :-1][predicts])

    if _head_is_plain(model):
        return within(model, body)
    states = model(**inputs, use_cache=False).logits
    return cast("torch.Tensor", states[:, :-1][predicts])


def state_logits(
    model: "PreTrainedModel",
    states: torch.Tensor,
    weights: Mapping[str, torch.Tensor] | None = None,
) -> torch.Tensor:
    """Return the logits of some positions of `answer_states`: [n, V].

    Args:
        model: a causal language model.
        states: [n, H], or the logits themselves (see `answer_states`).
        weights: of the head, by name, in place of its own.
    """
    if not _head_is_plain(model):
        return states
    head = cast("torch.nn.Module", model.get_output_embeddings())
    if weights:
        return cast("torch.Tensor", functional_call(head, dict(weights), (states,)))
    return cast("torch.Tensor", head(states))


def _targets(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the target tokens and the rows that they belong to: int64 [N] each."""
    predicts = batch.loss_mask[:, 1:]
    rows, _ = predicts.nonzero(as_tuple=True)
    return batch.input_ids[:, 1:][predicts], rows


def answer_logits(model: "PreTrainedModel", batch: Batch) -> Answers:
    """Run the model; compute logits only where a target token is predicted.

    They are N times V numbers, which at a large vocabulary is more than the model: `token_values`
    never holds them all.

    Args:
        model: a causal language model.
        batch: right-padded, on the model's device.
    """
    targets, rows = _targets(batch)
    logits = _whole_call(model, lambda: state_logits(model, answer_states(model, batch)))
    return Answers(logits, targets, rows, len(batch.input_ids))


@dataclass(frozen=True)
class TokenValues:
    """A number for each target token.

    Attributes:
        values: float32 [N].
        targets: int64 [N].
        sequence: int64 [N], row of the batch that each token belongs to.
        count: number of rows B.
    """

    values: torch.Tensor
    targets: torch.Tensor
    sequence: torch.Tensor
    count: int


def token_values(
    model: "PreTrainedModel",
    batch: Batch,
    function: TokenFunction,
    *,
    beside: tuple[torch.Tensor, ...] = (),
    chunk: int | None = None,
) -> TokenValues:
    """Run the model; return a function of each target token's logits, chunk by chunk.

    Beyond `LOGITS` logits the positions are cut into chunks: head and function run on one chunk
    after the other, and again during the backward pass, so that no [N, V] tensor ever exists.
    Values and gradients are those of ``function(answer_logits(...))`` up to the order of sums. A
    hook on the head must stay until the backward pass is through. Differentiated twice
    (``create_graph``) they are right as well, but then each chunk's logits stay; and where the
    logits are more than the head's output they are all made, and cut for the function only.

    Args:
        model: a causal language model.
        batch: right-padded, on the model's device.
        function: for instance `ilubench.training.losses.token_nll`.
        beside: further tensors of N rows in the order of the target tokens, cut alike and given to
            the function; gradients flow into those that require them.
        chunk: positions at once; by default as many as `LOGITS` allows.

    Raises:
        IlubenchError: a tensor beside has not N rows.
    """
    targets, rows = _targets(batch)
    for tensor in beside:
        if len(tensor) != len(targets):
            problem = f"a tensor beside has {len(tensor)} rows, the batch {len(targets)}"
            raise IlubenchError(f"token_values: {problem} target tokens")
    size = chunk or max(1, LOGITS // model.config.get_text_config().vocab_size)

    def value(states: torch.Tensor, *more: torch.Tensor) -> torch.Tensor:
        return function(state_logits(model, states), *more)

    def values() -> torch.Tensor:
        given = (answer_states(model, batch), targets, *beside)
        if len(targets) <= size:
            return value(*given)
        pieces = zip(*(tensor.split(size) for tensor in given), strict=True)
        return torch.cat([_recomputed(value, *piece) for piece in pieces])

    return TokenValues(_whole_call(model, values), targets, rows, len(batch.input_ids))


def _whole_call(model: "PreTrainedModel", function: Callable[[], T]) -> T:
    """Run body and head; a model whose logits are more than the head's is called as it is."""
    return within(model, function) if _head_is_plain(model) else function()


def _recomputed(function: TokenFunction, *given: torch.Tensor) -> torch.Tensor:
    """Return a function's value; what its gradient needs is computed again when it is needed."""
    kind = given[0].device.type

    def alone(*given: torch.Tensor) -> torch.Tensor:
        # A cached half-precision copy of the head would sum the chunks' gradients in its own type.
        with torch.autocast(
            kind,
            torch.get_autocast_dtype(kind),
            enabled=torch.is_autocast_enabled(kind),
            cache_enabled=False,
        ):
            return function(*given)

    if not torch.is_grad_enabled():
        return alone(*given)
    return cast(
        "torch.Tensor", checkpoint(alone, *given, use_reentrant=False, preserve_rng_state=False)
    )
