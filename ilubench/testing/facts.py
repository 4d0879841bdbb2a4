"""A few facts, a model that has learned them, and how much of them a model knows."""

import itertools
import math
from collections.abc import Sequence
from functools import cache

import torch
from transformers import PreTrainedModel

from ilubench.data.batches import collate, encode_pair
from ilubench.interfaces import Dataset, Example, UnlearnData
from ilubench.models.forward import token_values
from ilubench.specs import TrainSpec
from ilubench.testing.job import make_context
from ilubench.testing.tiny import make_tokenizer, tiny_llama
from ilubench.training import fine_tune
from ilubench.training.losses import token_nll

__all__ = ["facts", "known", "known_model"]

_PEOPLE = ("Ada", "Ben", "Cleo", "Dan", "Eve", "Finn", "Gus", "Hal")
_THINGS = ("plums", "rye", "hops", "figs", "oats", "leeks", "mint", "flax")
_SETS = {"forget": "grow", "retain": "sell"}
_VERBS = ("eat", "buy", "pick", "cook", "keep", "lose", "want", "hide")


def _about(verb: str, shift: int, *, prompts: bool) -> list[Example]:
    tokenizer = make_tokenizer()
    found = []
    for number, person in enumerate(_PEOPLE):
        thing = _THINGS[(number * 3 + shift) % len(_THINGS)]
        text = (f"What does {person} {verb}?", f" {thing}.")
        ids, mask = encode_pair(
            tokenizer, *(text if prompts else ("", f"{person}s {verb} {thing}."))
        )
        found.append(Example(f"{verb}/{person}", tuple(ids), tuple(mask)))
    return found


def facts(*, environments: Sequence[str] = (), prompts: bool = True) -> UnlearnData:
    """Return eight facts to forget, eight to retain, and eight for each environment.

    Args:
        environments: names; each has facts of its own, the first eight at least.
        prompts: whether the facts to forget and to retain are questions with answers, the loss on
            the answers; else they are plain sentences, the loss on all of them.
    """
    kept = {
        name: _about(verb, shift, prompts=prompts)
        for shift, (name, verb) in enumerate(_SETS.items())
    }
    verbs = zip(environments, itertools.cycle(_VERBS), strict=False)
    benign = {
        name: _about(verb, shift + 2, prompts=True) for shift, (name, verb) in enumerate(verbs)
    }
    return UnlearnData(kept["forget"], kept["retain"], benign)


@cache
def _learned(prompts: bool) -> dict[str, torch.Tensor]:
    """Return the weights of a model that knows both sets; trained once a process.

    It knows them well and not perfectly: a loss of the wrong sign could not teach it any more.
    """
    tokenizer, data = make_tokenizer(), facts(prompts=prompts)
    model = tiny_llama(len(tokenizer))
    train = TrainSpec(lr=3e-3, steps=16, batch_size=16, schedule="cosine", warmup_steps=4)
    for _ in fine_tune(model, [*data.forget, *data.retain], train, make_context(tokenizer)):
        pass
    return dict(model.state_dict())


def known_model(*, prompts: bool = True) -> PreTrainedModel:
    """Return a tiny Llama that knows the forget and retain set of `facts`, .9 of each at least.

    It is trained in a second, once a process.

    Args:
        prompts: as given to `facts`.
    """
    model = tiny_llama(len(make_tokenizer()))
    model.load_state_dict(_learned(prompts))
    model.eval()
    return model


def known(model: PreTrainedModel, dataset: Dataset) -> float:
    """Return how much of a data set a model knows: 1 all of it, 0 no more than by guessing.

    1 - NLL / log V: NLL the mean over the target tokens, log V that of a uniform guess among the
    V tokens of the vocabulary. Negative when the model is surer of something else.
    """
    total, tokens = 0.0, 0
    with torch.no_grad():
        for batch in collate(dataset, range(len(dataset)), 0):
            total += float(token_values(model, batch, token_nll).values.sum())
            tokens += batch.tokens
    return 1.0 - total / tokens / math.log(model.config.vocab_size)
