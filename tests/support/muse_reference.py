"""MUSE's metrics once more, slowly: one prompt at a time, no cache, no batch, own ROUGE-L.

Only the model, the tokenizer and the rows are shared with what is tested. Every new token costs a
forward pass over the whole sequence.
"""

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from doubles import SENTENCES, make_tokenizer
from places import MINI_TARGET
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from ilubench.data.mini.generator import MiniWorld
from ilubench.interfaces import Row
from ilubench.models.checkpoints import load_model
from ilubench.models.tokenizers import load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    Rows = Sequence[Row]

TIE = 1e-3
"""Where the two best logits are nearer than this, a batch may choose the other."""


@dataclass(frozen=True)
class Written:
    """A greedy continuation, and the smallest gap between the two best logits on its way."""

    ids: tuple[int, ...]
    text: str
    gap: float


@dataclass(frozen=True)
class Slow:
    """A model asked one prompt at a time."""

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"

    def logits(self, ids: Sequence[int]) -> torch.Tensor:
        """Return the logits after each token, [T, V]."""
        with torch.no_grad():
            out = self.model(input_ids=torch.tensor([list(ids)]), use_cache=False)
        return cast("torch.Tensor", out.logits[0])

    def encode(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=True, verbose=False).input_ids)

    def decode(self, ids: Sequence[int]) -> str:
        text = str(self.tokenizer.decode(list(ids), skip_special_tokens=True))
        text = re.sub(r" ([.?!,])", r"\1", text).replace(" ' ", "'")
        return re.sub(r" (n't|'m|'s|'ve|'re)", r"\1", text)

    def write(self, prompt: str, length: int) -> Written:
        ids = self.encode(prompt)
        start, gap = len(ids), float("inf")
        while len(ids) < start + length:
            best = self.logits(ids)[-1].topk(2)
            gap = min(gap, float(best.values[0] - best.values[1]))
            token = int(best.indices[0])
            if token == self.tokenizer.eos_token_id:
                break
            ids.append(token)
        return Written(tuple(ids[start:]), self.decode(ids[start:]), gap)

    def shortfall(self, prompt: str, ids: Sequence[int]) -> float:
        """Return how far the worst of the tokens is behind the likeliest at its place, in nats."""
        before = self.encode(prompt)
        scores = self.logits([*before, *ids])[len(before) - 1 : -1].log_softmax(-1)
        chosen = scores.gather(-1, torch.tensor([list(ids)]).T).squeeze(-1)
        return float((scores.max(-1).values - chosen).max())

    def reference(self, gt: str, length: int) -> str:
        return self.decode(self.encode(gt)[:length])

    def lowest(self, text: str, share: float = 0.4) -> float:
        """Return the Min-K% score: minus the mean of the lowest log-probabilities."""
        ids = self.encode(text)
        scores = self.logits(ids).log_softmax(-1)
        found = sorted(float(scores[at, ids[at + 1]]) for at in range(len(ids) - 1))
        kept = found[: int(share * len(found))]
        return -sum(kept) / len(kept)


def rouge_l(reference: str, written: str) -> float:
    """Return the F1 of the longest common subsequence of words."""
    one, two = (re.findall(r"[a-z0-9]+", text.lower()) for text in (reference, written))
    table = [[0] * (len(two) + 1) for _ in range(len(one) + 1)]
    for i, left in enumerate(one):
        for j, right in enumerate(two):
            longer = max(table[i][j + 1], table[i + 1][j])
            table[i + 1][j + 1] = table[i][j] + 1 if left == right else longer
    common = table[-1][-1]
    return 2 * common / (len(one) + len(two)) if common else 0.0


def knowmem_prompt(question: str, pairs: "Rows") -> str:
    shown = [f"Question: {pair['question']}\nAnswer: {pair['answer']}\n\n" for pair in pairs]
    return "".join([*shown, f"Question: {question}\nAnswer: "])


def cut(text: str) -> str:
    for end in ("\n\n", "\nQuestion", "Question:"):
        text = text.split(end, maxsplit=1)[0]
    return text


# --------------------------------------------------------------------------- models


def _sharpen(slow: Slow) -> Slow:
    """Make a random model decided, with few near ties, and fond of newlines and `Question:`."""
    head = cast("Any", slow.model.get_output_embeddings()).weight
    with torch.no_grad():
        head.mul_(4.0)
        for text, times in (("\n", 3.0), ("Question", 2.5), (":", 1.5)):
            (token,) = slow.tokenizer.encode(text, add_special_tokens=False)
            head[token] *= times
    return slow


_SHAPE: Mapping[str, Any] = {
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def _mini() -> Slow:
    folder = MINI_TARGET
    return Slow(load_model(folder, "cpu"), load_tokenizer(folder))


def _llama(*, tied: bool, **shape: int) -> Slow:
    tokenizer = make_tokenizer()
    config = LlamaConfig(vocab_size=len(tokenizer), tie_word_embeddings=tied, **{**_SHAPE, **shape})
    return Slow(cast("PreTrainedModel", LlamaForCausalLM(config).eval()), tokenizer)


def _qwen() -> Slow:
    tokenizer = make_tokenizer()
    shape = {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1}
    config = Qwen2Config(
        vocab_size=len(tokenizer), tie_word_embeddings=False, **{**_SHAPE, **shape}
    )
    return Slow(cast("PreTrainedModel", Qwen2ForCausalLM(config).eval()), tokenizer)


_MADE: Mapping[str, Callable[[], Slow]] = {
    "mini": _mini,
    "llama-tied": lambda: _llama(
        tied=True, hidden_size=96, head_dim=48, num_attention_heads=2, num_key_value_heads=2
    ),
    "llama-grouped": lambda: _llama(
        tied=False, hidden_size=128, head_dim=32, num_attention_heads=4, num_key_value_heads=2
    ),
    "qwen2": _qwen,
}

MODELS = tuple(_MADE)


def make_model(name: str, *, sharp: bool) -> Slow:
    """Return a model by name, a random one sharpened if asked."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        made = _MADE[name]()
    return _sharpen(made) if sharp and name != "mini" else made


# --------------------------------------------------------------------------- items


def _phrases(name: str, count: int) -> list[str]:
    """Return openings of unlike lengths: passages that mini knows, else words at random."""
    rng = random.Random(name)
    words = [*" ".join(SENTENCES).split(), "zebra", "Ωmega", "x=7;", "don't", "end."]
    if name != "mini":
        return [" ".join(rng.choices(words, k=rng.randrange(1, 9))) for _ in range(count)]
    tables = MiniWorld().tables({})
    texts = [
        str(row["text"]) for half in ("forget", "retain") for row in tables[f"{half}_passages"]
    ]
    found = []
    for number in range(count):
        heard = texts[number % len(texts)].split()
        start = rng.randrange(len(heard) - 20)
        found.append(" ".join(heard[start : start + rng.randrange(3, 16)]))
    return found


def texts(name: str, count: int) -> "Rows":
    """Return texts of 10 to 150 words or so to score as they are."""
    rng = random.Random(f"texts {name}")
    parts = _phrases(name, 10 * count)
    return [
        {"text": " ".join(rng.choices(parts, k=rng.randrange(3, 13))), "id": f"t{n}"}
        for n in range(count)
    ]


def questions(name: str, count: int) -> list[str]:
    if name != "mini":
        return _phrases(f"questions {name}", count)
    return [str(row["question"]) for row in MiniWorld().tables({})["forget_qa"]][:count]


def icl_pairs(name: str) -> "Rows":
    if name != "mini":
        return [
            {"question": "how many apples?", "answer": "three"},
            {"question": "7", "answer": "a"},
        ]
    return MiniWorld().tables({})["retain_qa"][:2]


def openings(name: str, count: int) -> list[str]:
    return _phrases(name, count)


def disturbed(text: str, seed: int) -> str:
    """Return a text that shares some of another's words, never none at all."""
    rng = random.Random(seed)
    words = re.findall(r"\w+", text)
    kept = [word for word in words if rng.random() < 0.7]
    return " ".join(
        [*kept, *rng.choices(["apples", "river", "three", "old"], k=rng.randrange(1, 5))]
    )
