"""From generated ids to text, alike for every engine."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ilubench.interfaces import Ids, SamplingSpec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["cut_at_stop", "decode_text", "eos_ids", "has_stopped", "sample_seed"]


def decode_text(tokenizer: PreTrainedTokenizerBase, ids: Ids) -> str:
    """Return the text of ids, special tokens skipped."""
    return str(
        tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    )


def cut_at_stop(text: str, stop: Sequence[str]) -> str:
    """Return the text before the first stop string."""
    found = [place for place in (text.find(string) for string in stop) if place >= 0]
    return text[: min(found)] if found else text


def has_stopped(tokenizer: PreTrainedTokenizerBase, ids: Ids, stop: Sequence[str]) -> bool:
    """Whether the text of ids holds a stop string; looked at after each token."""
    if not stop:
        return False
    # a stop string ends within the last token, so a few tokens more than its letters suffice
    text = decode_text(tokenizer, ids[-(max(map(len, stop)) + 8) :])
    return any(string in text for string in stop) and any(
        string in decode_text(tokenizer, ids) for string in stop
    )


def eos_ids(tokenizer: PreTrainedTokenizerBase, config: Any) -> frozenset[int]:  # noqa: ANN401
    """Return the ids that end a sequence: the tokenizer's and the model configuration's."""
    ids: set[int] = set()
    for given in (tokenizer.eos_token_id, config.get_text_config().eos_token_id):
        if given is not None:
            ids.update([given] if isinstance(given, int) else given)
    return frozenset(ids)


def sample_seed(sampling: SamplingSpec, prompt: Ids, number: int) -> int:
    """Return the seed of one sample, a function of seed, prompt and number only; in [0, 2^63)."""
    name = f"{sampling.seed}:{number}:{','.join(map(str, prompt))}"
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1
