"""Tokens that a tokenizer gives and a model does not know."""

from typing import TYPE_CHECKING

from ilubench.interfaces import Ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["unknown_token"]


def unknown_token(ids: Ids, rows: int, tokenizer: "PreTrainedTokenizerBase") -> str:
    """Say which token of a text has no row in a model's embedding; empty when all have one.

    Args:
        ids: of the text.
        rows: of the embedding.
        tokenizer: that made the ids.
    """
    if not ids or (max(ids) < rows and min(ids) >= 0):
        return ""
    number = next(number for number in ids if not 0 <= number < rows)
    token = tokenizer.convert_ids_to_tokens(number) if 0 <= number < len(tokenizer) else None
    named = f"the token {token!r} (id {number})" if token is not None else f"the id {number}"
    remedy = "resize its embeddings, or give the model's own tokenizer"
    return f"it has {named}, and the model has {rows} embedding rows; {remedy}"
