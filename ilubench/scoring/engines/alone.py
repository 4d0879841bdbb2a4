"""One prompt at a time, read as the model itself reads it: slow, and right for every model.

And whether that is needed: :func:`packs_rightly`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ilubench.errors import ModelError
from ilubench.interfaces import Generation, Ids, SamplingSpec, TokenLogprobs
from ilubench.scoring.engines.forward import (
    Tree,
    check_numbers,
    embedding,
    lay_out,
    read_tokens,
    read_trees,
)
from ilubench.scoring.engines.text import cut_at_stop, decode_text, eos_ids, has_stopped
from ilubench.scoring.engines.tokens import next_tokens, score_targets, uniforms

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["generate_alone", "logits_after", "logprobs_alone", "packs_rightly"]

_PROBE = ((7, 31, 50), tuple(11 * number + 5 for number in range(40)), (23, 71))


def logits_after(model: PreTrainedModel, ids: Ids) -> torch.Tensor:
    """Return the logits after each token, float32 [T, V].

    Raises:
        DivergedError: logits are not numbers.
    """
    given = torch.tensor([list(ids)], device=embedding(model).device)
    logits: torch.Tensor = model(input_ids=given, use_cache=False).logits[0].float()
    check_numbers(logits)
    return logits


def logprobs_alone(model: PreTrainedModel, context: Ids, rest: Ids) -> TokenLogprobs:
    """Return log-probabilities (nats) and argmax flags of a continuation's tokens."""
    logits = logits_after(model, [*context, *rest[:-1]])[len(context) - 1 :]
    values, greedy = score_targets(logits, list(range(len(rest))), list(rest))
    return TokenLogprobs(tuple(values), tuple(greedy))


def generate_alone(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: Ids,
    sampling: SamplingSpec,
) -> list[Generation]:
    """Return ``sampling.n`` continuations of a prompt; nothing is cached between their tokens."""
    ends = eos_ids(tokenizer, model.config) | set(sampling.stop_ids)
    warm = sampling.temperature > 0
    found = []
    for number in range(sampling.n if warm else 1):
        noise = uniforms(sampling, prompt, number) if warm else None
        written: list[int] = []
        for place in range(sampling.max_tokens):
            logits = logits_after(model, [*prompt, *written])[-1:]
            draw = noise[place : place + 1].to(logits.device) if noise is not None else None
            (token,) = next_tokens(logits, draw, sampling.temperature)
            if token in ends:
                break
            written.append(token)
            if has_stopped(tokenizer, written, sampling.stop):
                break
        text = cut_at_stop(decode_text(tokenizer, written), sampling.stop)
        found.append(Generation(tuple(written), text))
    return found if warm else found * sampling.n


def packs_rightly(model: PreTrainedModel) -> bool:
    """Whether prompts in one row, and tokens after them, give what each prompt gives alone.

    Positions that a model derives from anything but its `position_ids` (ALiBi; rotary ones whose
    base depends on the batch's longest prompt), attention that it does not take from the mask, or
    a state that is no cache of keys would give wrong scores without an error.

    Raises:
        DivergedError: logits are not numbers.
    """
    config = model.config.get_text_config()
    rotary = getattr(config, "rope_parameters", None) or {}
    if str(rotary.get("rope_type", "default")) in ("dynamic", "longrope"):
        return False
    last = min(len(embedding(model)), 256)
    takes = getattr(config, "max_position_embeddings", None) or 64
    prefix, first, second = ([number % last for number in part] for part in _PROBE)
    first = first[: max(1, takes - len(prefix) - 1)]
    device = embedding(model).device

    def alone(ids: Ids) -> torch.Tensor:
        out = model(input_ids=torch.tensor([list(ids)], device=device), use_cache=False)
        return out.logits[0, -1].float()  # type: ignore[no-any-return]

    try:
        behind = read_trees(model, [Tree(prefix)], room=len(first) + len(second))
        reading = read_trees(model, [Tree(first), Tree(second)], behind)
        packed = [logits[0] for logits in reading.logits]
        lengths = [len(prefix) + len(first), len(prefix) + len(second)]
        state = lay_out(iter([((0, 1), reading)]), lengths, 1)
        read_tokens(model, state, [second[0], first[0]])
        packed += [*state.logits]
    except torch.OutOfMemoryError:
        raise
    except (ModelError, TypeError, RuntimeError, ValueError, LookupError, AttributeError):
        return False  # whatever a model's code raises that is given masks it does not know
    whole = [prefix + first, prefix + second]
    right = [*map(alone, [*whole, [*whole[0], second[0]], [*whole[1], first[0]]])]
    near = 1e-4 if model.dtype == torch.float32 else 5e-2
    return all(
        bool((ours - theirs).abs().max() <= near * theirs.abs().max())
        for ours, theirs in zip(packed, right, strict=True)
    )
