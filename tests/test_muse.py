"""VerbMem: hand-made cases, and an independent slow implementation."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ilubench.engine.hf import HFEngine
from ilubench.errors import DataError, UsageError
from ilubench.interfaces import Generation, Item, PromptAttack, Row, SamplingSpec, ScoreContext
from ilubench.scorers.muse import VerbMem
from ilubench.specs import Estimator
from ilubench.tokenizers import build_tokenizer

TEXT = "the quick brown fox jumps over a lazy dog and runs running home , then sleeps . Again !"


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer([TEXT, " " + TEXT, *TEXT.split()])


def _context(rows: Mapping[str, Sequence[Row]], *, publish: bool = False) -> ScoreContext:
    return ScoreContext(rows=lambda role: rows[role], publish_text=lambda _role: publish)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Recites(HFEngine):
    """Writes what it was given for each prompt, in order."""

    def __init__(self, tokenizer: Any, texts: Sequence[str]) -> None:
        super().__init__(tokenizer)
        self.texts = texts
        self.prompts: Sequence[Sequence[int]] = ()
        self.sampling = SamplingSpec()

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: SamplingSpec
    ) -> list[list[Generation]]:
        self.prompts, self.sampling = prompts, sampling
        return [[Generation((), text)] for text in self.texts]


def _score(tokenizer: Any, gt: str, written: str, **settings: Any) -> float:
    rows: dict[str, Sequence[Row]] = {"d": [{"prompt": "the quick", "gt": gt}]}
    bound = VerbMem(data="d", **settings).build(tokenizer, _context(rows))
    (score,) = bound.score(Recites(tokenizer, [written]))
    assert score.metric == "verbmem"
    return score.value


def test_f1_not_recall(tokenizer: PreTrainedTokenizerFast) -> None:
    # all 3 words of the reference are there (recall 1), among 6 (precision 1/2): F1 = 2/3
    gt, written = "brown fox jumps", "brown fox jumps over a lazy"
    assert _score(tokenizer, gt, written) == pytest.approx(2 / 3)
    assert _score(tokenizer, gt, gt) == 1.0
    assert _score(tokenizer, gt, "") == 0.0


def test_longest_common_subsequence(tokenizer: PreTrainedTokenizerFast) -> None:
    # "brown jumps" is in order, "fox" is not: 2 of 3 on both sides
    assert _score(tokenizer, "brown fox jumps", "fox brown jumps") == pytest.approx(2 / 3)


def test_words_are_not_stemmed(tokenizer: PreTrainedTokenizerFast) -> None:
    assert _score(tokenizer, "runs", "running") == 0.0


def test_bos_is_one_of_the_reference_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    # 4 ids of the reference are BOS and three words
    gt = "brown fox jumps over a"
    assert _score(tokenizer, gt, "brown fox jumps", max_tokens=4) == 1.0
    assert _score(tokenizer, gt, "brown fox jumps over", max_tokens=4) == pytest.approx(6 / 7)


def test_what_is_asked(tokenizer: PreTrainedTokenizerFast) -> None:
    rows: list[Row] = [
        {"prompt": "the quick brown ", "gt": "fox", "id": "a"},
        {"prompt": "a lazy", "gt": "dog"},
    ]
    scorer = VerbMem(data="d")
    assert dict(scorer.metrics()) == {"verbmem": Estimator()}
    assert scorer.roles() == ("d",)
    engine = Recites(tokenizer, ["fox", "cat"])
    bound = scorer.build(tokenizer, _context({"d": rows}))
    scores = bound.score(engine)
    assert engine.sampling == SamplingSpec(max_tokens=128)
    assert list(engine.prompts) == [tokenizer.encode(row["prompt"]) for row in rows]
    assert all(prompt[0] == tokenizer.bos_token_id for prompt in engine.prompts)
    assert scores[0].item == "a"
    assert len(scores[1].item) == 16
    assert [score.text for score in scores] == ["", ""]
    open_ = scorer.build(tokenizer, _context({"d": rows}, publish=True))
    assert [score.text for score in open_.score(engine)] == ["fox", "cat"]
    first = VerbMem(data="d", limit=1).build(tokenizer, _context({"d": rows}))
    assert len(first.score(Recites(tokenizer, ["fox"]))) == 1


def test_refusals(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(DataError, match="no rows"):
        VerbMem(data="d").build(tokenizer, _context({"d": []}))
    with pytest.raises(DataError, match="column 'gt' is missing"):
        VerbMem(data="d").build(tokenizer, _context({"d": [{"prompt": "a"}]}))

    class Same(PromptAttack):
        def rewrite(self, item: Item) -> Sequence[Item]:
            return [item]

        def reduce(self, scores: Sequence[float]) -> float:
            return scores[0]

    bound = VerbMem(data="d").build(tokenizer, _context({"d": [{"prompt": "a", "gt": "dog"}]}))
    with pytest.raises(UsageError, match="Same"):
        bound.score(Recites(tokenizer, [""]), Same())


# ------------------------------------------------------------------ an independent implementation


def _slow_rouge_l(reference: str, written: str) -> float:
    one, two = (re.findall(r"[a-z0-9]+", text.lower()) for text in (reference, written))
    table = [[0] * (len(two) + 1) for _ in range(len(one) + 1)]
    for i, left in enumerate(one):
        for j, right in enumerate(two):
            longer = max(table[i][j + 1], table[i + 1][j])
            table[i + 1][j + 1] = table[i][j] + 1 if left == right else longer
    common = table[-1][-1]
    return 2 * common / (len(one) + len(two)) if common else 0.0


def _slow_verbmem(model: Any, tokenizer: Any, rows: Sequence[Row], length: int) -> list[float]:
    values = []
    for row in rows:
        ids = tokenizer(row["prompt"]).input_ids
        start = len(ids)
        for _ in range(length):
            with torch.no_grad():
                token = int(model(torch.tensor([ids])).logits[0, -1].argmax())
            if token == tokenizer.eos_token_id:
                break
            ids = [*ids, token]
        reference = tokenizer.decode(
            tokenizer(row["gt"]).input_ids[:length], skip_special_tokens=True
        )
        written = tokenizer.decode(ids[start:], skip_special_tokens=True)
        values.append(_slow_rouge_l(reference, written))
    return values


def test_equals_a_slow_implementation(tokenizer: PreTrainedTokenizerFast) -> None:
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=256,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.3,
    )
    model = LlamaForCausalLM(config)
    model.train(mode=False)
    words = TEXT.split()
    rows: list[Row] = [
        {"prompt": " ".join(words[n : n + 2 + n % 3]), "gt": " ".join(words[n + 2 :] * 3)}
        for n in range(12)
    ]
    engine = HFEngine(tokenizer, batch_size=5)
    engine.load(model)
    bound = VerbMem(data="d", max_tokens=24).build(tokenizer, _context({"d": rows}))
    values = [score.value for score in bound.score(engine)]
    assert values == pytest.approx(_slow_verbmem(model, tokenizer, rows, 24))
    assert len({round(value, 3) for value in values}) > 3
