"""Stand-ins that tests share: state in memory, silent progress, a tiny tokenizer and model."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, cast

import torch
from pydantic import JsonValue
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from ilubench.interfaces import Context, Example, Metrics, UnlearnData

SENTENCES = (
    "The river runs past the old mill, and the miller counts his sacks.",
    "Question: how many apples are left? Answer: three apples are left.",
    "A naïve café owner sold 12 cakes\n\nand 7 loaves of bread.",
)


class MemoryState:
    """A StateStore in memory that copies what it is given, as a file would."""

    def __init__(self) -> None:
        self.phases: dict[str, tuple[dict[str, torch.Tensor], dict[str, JsonValue]]] = {}
        self.saves = 0

    @property
    def saved(self) -> tuple[dict[str, torch.Tensor], dict[str, JsonValue]] | None:
        return self.phases.get("train")

    def save(
        self, phase: str, tensors: Mapping[str, torch.Tensor], meta: Mapping[str, JsonValue]
    ) -> None:
        self.phases[phase] = ({k: v.detach().clone() for k, v in tensors.items()}, dict(meta))
        self.saves += 1

    def load(self, phase: str) -> tuple[dict[str, torch.Tensor], dict[str, JsonValue]] | None:
        return self.phases.get(phase)


class SilentProgress:
    def start(self, phase: str, total: int) -> None:
        pass

    def advance(self, done: int, note: str = "") -> None:
        pass


class StepRecorder:
    """Keeps what each optimizer step reported; raises after step ``kill_at``."""

    def __init__(self, kill_at: int | None = None) -> None:
        self.steps: list[tuple[int, dict[str, float]]] = []
        self.kill_at = kill_at

    def __call__(self, step: int, metrics: Metrics) -> None:
        self.steps.append((step, dict(metrics)))
        if step == self.kill_at:
            raise KeyboardInterrupt

    @property
    def losses(self) -> list[float]:
        return [metrics["loss"] for _, metrics in self.steps]


@cache
def _bpe() -> Tokenizer:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=380,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(list(SENTENCES) * 10, trainer)
    return bpe


def make_tokenizer() -> PreTrainedTokenizerBase:
    return PreTrainedTokenizerFast(
        tokenizer_object=_bpe(), pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )


def tiny_llama(
    vocabulary: int, *, tied: bool = False, seed: int = 0, **more: Any
) -> PreTrainedModel:
    """Return a random Llama; its weights are large enough that its logits are not all alike."""
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=96,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=48,
        max_position_embeddings=128,
        tie_word_embeddings=tied,
        initializer_range=0.1,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        **more,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return cast("PreTrainedModel", LlamaForCausalLM(config).eval())


def make_context(tokenizer: PreTrainedTokenizerBase, **changes: Any) -> Context:
    plain = Context(7, "cpu", tokenizer, MemoryState(), SilentProgress(), lambda _s, _m: None)
    return replace(plain, **changes)


def random_examples(count: int, vocabulary: int, seed: int, *, longest: int = 14) -> list[Example]:
    """Return examples of unlike lengths whose first tokens are a prompt."""
    rng = random.Random(seed)
    found = []
    for number in range(count):
        length = rng.randrange(5, longest)
        prompt = rng.randrange(1, 4)
        ids = tuple(rng.randrange(3, vocabulary) for _ in range(length))
        found.append(Example(f"e{number}", ids, tuple(at >= prompt for at in range(length))))
    return found


def unlearn_data(vocabulary: int, *, environments: Sequence[str] = ()) -> UnlearnData:
    return UnlearnData(
        random_examples(9, vocabulary, 1),
        random_examples(7, vocabulary, 2),
        {n: random_examples(11, vocabulary, 3 + k) for k, n in enumerate(environments)},
    )


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def differing(left: Mapping[str, torch.Tensor], right: Mapping[str, torch.Tensor]) -> list[str]:
    """Return the names of tensors that are not bit-identical."""
    assert left.keys() == right.keys()
    return [name for name in left if not torch.equal(left[name], right[name])]
