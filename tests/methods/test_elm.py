"""ELM: its contexts, its target distribution, what it writes on."""

from typing import Any

import pytest
import torch
from cases import Making, Tensor, data, fresh
from doubles import make_context
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from ilubench.data.batches import collate
from ilubench.errors import DataError
from ilubench.interfaces import Dataset, Example
from ilubench.interfaces import UnlearnData as Data
from ilubench.methods.elm import ELM
from ilubench.models.forward import answer_logits
from ilubench.models.tokenizers import build_tokenizer
from ilubench.specs import TrainSpec
from ilubench.testing import facts, known_model, make_tokenizer

CONTEXTS: dict[str, Any] = {"novice": "three apples:", "expert": "The miller counts:"}


def make(**settings: Any) -> ELM:
    train = TrainSpec(lr=1e-3, steps=2, batch_size=4)
    return ELM.model_validate({"train": train, **CONTEXTS, **settings})


def known() -> Data:
    """Return the facts, each begun by BOS: what a suite's tokenizer does."""
    begin = make_tokenizer().bos_token_id
    forget = [
        Example(item.id, (begin, *item.input_ids), (False, *item.loss_mask))
        for item in facts().forget
    ]
    return Data(forget, facts().retain)


def predicted(context: str, ids: tuple[int, ...]) -> Tensor:
    """Return what the original model expects behind a context and a text: float64 [V]."""
    before = make_tokenizer()(context, add_special_tokens=False)["input_ids"]
    model, whole = known_model(), torch.tensor([[*ids[:1], *before, *ids[1:]]])
    with torch.no_grad():
        logits = model(input_ids=whole).logits[0, -1]
    return functional.softmax(logits.double(), dim=-1)


def mixed(ids: tuple[int, ...], eta: float) -> Tensor:
    plain, novice, expert = (predicted(text, ids) for text in ("", *CONTEXTS.values()))
    found = plain.log() + eta * (novice.log() - expert.log())
    return (found - found.max()).exp() / (found - found.max()).exp().sum()


# ------------------------------------------------------------------------------- contexts


def test_a_context_stands_behind_the_beginning_of_the_text(context: Making) -> None:
    contrast = make().prepare(known_model(), known(), context()).contrast
    tokenizer = context().tokenizer
    item = known().forget[0]
    assert item.input_ids[0] == tokenizer.bos_token_id
    found = contrast.behind(contrast.novice, item)
    assert (
        tokenizer.decode(list(found.input_ids)) == "<s>three apples:What does Ada grow? plums.</s>"
    )
    learned = [token for token, m in zip(found.input_ids, found.loss_mask, strict=True) if m]
    assert tokenizer.decode(learned) == " plums.</s>"
    bare = Example("bare", (40, 41, 42), (False, True, True))
    behind = contrast.behind((7, 8), bare)
    assert behind.input_ids == (7, 8, 40, 41, 42)
    assert behind.loss_mask == (False, False, False, True, True)
    assert contrast.behind((), item) == item


@pytest.mark.parametrize("setting", ["novice", "expert"])
def test_words_that_the_tokenizer_does_not_know(setting: str) -> None:
    known = build_tokenizer(["no report", "a report"])
    settings = {"novice": "no report", "expert": "a report"}
    ctx = make_context(known)
    make(**settings).prepare(fresh(), data(), ctx)
    for text in ("no idea", ""):
        with pytest.raises(DataError, match=rf"context '{text}'; set method\.{setting} to words"):
            make(**{**settings, setting: text}).prepare(fresh(), data(), ctx)


@pytest.mark.parametrize("setting", ["novice", "expert"])
def test_items_that_do_not_fit_behind_a_context(context: Making, setting: str) -> None:
    method = make(**{setting: "apples " * 120})
    with pytest.raises(DataError, match=rf"'grow/Ada' has \d+ .* the model takes 128; .*{setting}"):
        method.prepare(known_model(), known(), context())
    short = make(fluency=1.0, fluency_tokens=115)
    with pytest.raises(DataError, match="the model takes 128"):
        short.prepare(known_model(), known(), context())
    make(fluency_tokens=115).prepare(known_model(), known(), context())


def test_the_default_contexts_can_be_used(context: Making) -> None:
    method = ELM(train=TrainSpec(lr=1e-3, steps=1))
    prepared = method.prepare(known_model(), known(), context())
    texts = [context().tokenizer.decode(list(ids)) for ids in (prepared.contrast.novice, ())]
    assert texts == [method.novice, ""]


# ------------------------------------------------------------------------------- the target


@pytest.mark.parametrize("eta", [0.0, 1.5])
def test_the_target(context: Making, eta: float) -> None:
    forget: Dataset = known().forget
    contrast = make(eta=eta).prepare(known_model(), known(), context()).contrast
    with torch.no_grad():
        found = contrast.log_target(known_model(), forget, (2, 5)).exp()
    expected = [
        mixed(forget[index].input_ids[:place], eta)
        for index in (2, 5)
        for place, target in enumerate(forget[index].loss_mask)
        if target
    ]
    torch.testing.assert_close(found.double(), torch.stack(expected), rtol=1e-3, atol=1e-6)


def test_targets_stand_where_the_predictions_do(context: Making) -> None:
    """With eta = 0 the target is the original's own prediction, row by row."""
    prepared = make(eta=0.0).prepare(fresh(), data(), context())
    (batch,) = collate(data().forget, [8, 3, 3, 0, 5], 0)
    with torch.no_grad():
        target = prepared.contrast.log_target(fresh(), prepared.forget, batch.index.tolist())
        own = functional.log_softmax(answer_logits(fresh(), batch).logits, dim=-1)
    torch.testing.assert_close(target, own, rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------------------- fluency


def test_what_is_written_on(context: Making, tokenizer: PreTrainedTokenizerBase) -> None:
    """A large eta leaves one token: that of the largest ratio."""
    text = (tokenizer.bos_token_id, *tokenizer("The old mill and the river")["input_ids"])
    plain = Example("plain", text, (False, *(True for _ in text[1:])))
    found = Data([known().forget[3], plain], known().retain)
    method = make(eta=3000.0, fluency=1.0, fluency_tokens=4)
    fluent = method.prepare(known_model(), found, context()).fluent
    prompt = found.forget[0].loss_mask.index(True)
    beginnings = [found.forget[0].input_ids[:prompt], text[: (len(text) + 1) // 2]]
    for item, ids in zip(fluent, beginnings, strict=True):
        expected = ids
        for _ in range(4):
            expected = (*expected, int(mixed(expected, 3000.0).argmax()))
        assert item.input_ids == expected
        assert item.loss_mask == (*(False for _ in ids), *[True] * 4)


def test_writing_on_follows_the_chances_and_the_seed(context: Making) -> None:
    item = known().forget[0]
    found = Data([item] * 200, known().retain)
    train = {"lr": 1e-3, "steps": 1, "batch_size": 100}
    method = make(eta=1.0, fluency=1.0, fluency_tokens=1, train=train)
    first, again, other = (
        [one.input_ids[-1] for one in method.prepare(known_model(), found, context(seed=s)).fluent]
        for s in (7, 7, 8)
    )
    assert first == again
    assert first != other
    chances = mixed(item.input_ids[: item.loss_mask.index(True)], 1.0)
    likeliest = int(chances.argmax())
    share = float(chances[likeliest])
    assert 0.05 < share < 0.995
    assert first.count(likeliest) / 200 == pytest.approx(share, abs=0.1)
