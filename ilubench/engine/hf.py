"""The transformers engine: scores a live model on its own tensors, or a checkpoint's folder."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ilubench.engine.batching import Group, check_prompts, plan
from ilubench.engine.forward import State, embedding, extend, prefill, run_prefix, select
from ilubench.engine.text import cut, eos_ids, has_stopped, plain, sample_seed
from ilubench.errors import DataError, DivergedError, ItemError, ModelError
from ilubench.interfaces import Generation, Ids, SamplingSpec, TokenLogprobs
from ilubench.models import load_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["HFEngine"]

_LOGITS = 2**26
"""Logits held at once when continuations are scored (256 MB in float32)."""


class HFEngine:
    """Scores and generates with a transformers model.

    Prompts are batched by length and left-padded; a prefix that prompts share is run once. Results
    do not depend on the order of the prompts and come in that order. Nothing here changes a model
    that is being trained: no gradients, train/eval flags and random state are put back. A model
    whose logits are not numbers raises DivergedError: an answer read off them would look like one.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        batch_size: int = 32,
        max_length: int | None = None,
        dtype: str = "float32",
        device: str = "cpu",
        share_prefix: bool = True,
    ) -> None:
        """Prepare; a model comes with :meth:`load`.

        Args:
            tokenizer: decodes what is generated and names the end-of-sequence token.
            batch_size: sequences at once.
            max_length: tokens that a sequence may have; by default what the model takes.
            dtype: of checkpoints loaded from a folder (live models keep theirs).
            device: of checkpoints loaded from a folder.
            share_prefix: False runs every prompt whole (for comparison).
        """
        if batch_size < 1:
            raise ValueError("batch_size must be at least 1")
        self.tokenizer = tokenizer
        self.max_length = max_length or int(tokenizer.model_max_length)
        self._given_length = max_length
        self._batch_size = batch_size
        self._dtype, self._device = dtype, device
        self._share_prefix = share_prefix
        self._model: Callable[[], PreTrainedModel | None] = lambda: None

    def load(self, weights: PreTrainedModel | Path) -> None:
        """Replace the weights: a live model, or a checkpoint's folder.

        A live model is neither copied nor kept alive: it stays its owner's.

        Raises:
            ModelError: the folder holds no complete safetensors checkpoint.
        """
        if isinstance(weights, str | Path):
            self._model = lambda: None
            model = _read(Path(weights), self._dtype, self._device)
            self._model = lambda: model
        else:
            model = weights
            self._model = weakref.ref(model)
        config = model.config.get_text_config()
        takes = getattr(config, "max_position_embeddings", None)
        self.max_length = self._given_length or int(takes or self.tokenizer.model_max_length)

    # ------------------------------------------------------------------ the three calls

    def choices(self, prompts: Sequence[Ids], options: Sequence[int]) -> list[tuple[float, ...]]:
        """Return next-token log-probabilities (nats) of the ``options`` tokens, one row a prompt.

        Raises:
            DataError: an empty or too long prompt, or an option outside the vocabulary.
        """
        with self._scoring() as model:
            self._check(model, prompts)
            if not options or max(options) >= _vocabulary(model) or min(options) < 0:
                raise DataError(f"the options {list(options)} are not ids of the vocabulary")
            rows: list[tuple[float, ...]] = [()] * len(prompts)
            for indices, state in self._prefilled(model, prompts):
                scores = state.logits[:, list(options)] - state.logits.logsumexp(-1, keepdim=True)
                for index, row in zip(indices, scores.tolist(), strict=True):
                    rows[index] = tuple(row)
            return rows

    def logprobs(self, pairs: Sequence[tuple[Ids, Ids]]) -> list[TokenLogprobs]:
        """Return log-probabilities (nats) and argmax flags of each continuation's tokens.

        Each distinct context is run once, however many continuations it has.

        Raises:
            DataError: an empty context or continuation, or a pair that does not fit.
        """
        with self._scoring() as model:
            for position, (_, continuation) in enumerate(pairs):
                if not continuation:
                    raise ItemError(position, "the continuation is empty")
            # the last token is never fed to the model, so it needs no place
            self._check(model, [(*context, *rest[:-1]) for context, rest in pairs if context])
            self._check(model, [context for context, _ in pairs])
            self._check(model, [rest[-1:] for _, rest in pairs])
            of_context: dict[tuple[int, ...], list[int]] = {}
            for position, (context, _) in enumerate(pairs):
                of_context.setdefault(tuple(context), []).append(position)
            contexts = list(of_context)
            scored: dict[int, TokenLogprobs] = {}
            for indices, state in self._prefilled(model, contexts):
                members = [
                    (row, position)
                    for row, index in enumerate(indices)
                    for position in of_context[contexts[index]]
                ]
                scored |= self._continuations(model, state, members, pairs)
            return [scored[position] for position in range(len(pairs))]

    def generate(self, prompts: Sequence[Ids], sampling: SamplingSpec) -> list[list[Generation]]:
        """Return ``sampling.n`` continuations a prompt, without the end-of-sequence token.

        A sample depends on the seed, its number and its prompt, not on the batch that it ran in.
        The checkpoint's own generation settings are ignored. Text ends before the first stop
        string; ``ids`` may reach past its start.

        Raises:
            DataError: an empty prompt, or one that does not fit together with ``max_tokens``.
        """
        with self._scoring() as model:
            self._check(model, prompts, extra=sampling.max_tokens)
            copies = sampling.n if sampling.temperature > 0 else 1
            results: list[list[Generation]] = [[] for _ in prompts]
            size = max(1, self._batch_size // copies)
            for indices, state in self._prefilled(model, prompts, size):
                rows = torch.arange(len(indices), device=state.mask.device)
                start = select(state, rows.repeat_interleave(copies)) if copies > 1 else state
                noise = None
                if sampling.temperature > 0:
                    draws = [
                        _uniforms(sampling, prompts[index], number)
                        for index in indices
                        for number in range(copies)
                    ]
                    noise = torch.stack(draws).to(state.mask.device)
                written = self._decode(model, start, noise, sampling)
                for place, index in enumerate(indices):
                    mine = written[place * copies : (place + 1) * copies]
                    results[index] = mine if copies == sampling.n else mine * sampling.n
            return results

    def close(self) -> None:
        """Let go of the weights."""
        self._model = lambda: None

    # ------------------------------------------------------------------ inside

    @contextmanager
    def _scoring(self) -> Iterator[PreTrainedModel]:
        """Lend the model in eval mode; put back train flags and random state."""
        model = self._model()
        if model is None:
            raise ModelError("no weights are loaded, or the live model is gone; call load()")
        device = embedding(model).device
        training = [module for module in model.modules() if module.training]
        devices = [device.index or 0] if device.type == "cuda" else []
        # not inference_mode: a buffer that a model renews in forward would be lost to autograd
        with torch.random.fork_rng(devices), torch.no_grad():
            try:
                for module in training:
                    module.training = False
                yield model
            finally:
                for module in training:
                    module.training = True

    def _check(self, model: PreTrainedModel, prompts: Sequence[Ids], *, extra: int = 0) -> None:
        check_prompts(
            prompts, extra=extra, max_length=self.max_length, vocabulary=_vocabulary(model)
        )

    def _prefilled(
        self, model: PreTrainedModel, prompts: Sequence[Ids], size: int | None = None
    ) -> Iterator[tuple[tuple[int, ...], State]]:
        """Run the prompts, batch by batch: (their positions, the state after them)."""
        groups: list[Group] = plan(
            prompts, size or self._batch_size, share_prefix=self._share_prefix
        )
        for group in groups:
            prefix = run_prefix(model, group.prefix) if group.prefix else None
            cut = len(group.prefix) if prefix else 0
            for indices in group.batches:
                state = prefill(model, [prompts[index][cut:] for index in indices], prefix)
                if state.logits.isnan().any():
                    raise DivergedError("the model's logits are not numbers; its weights diverged")
                yield indices, state

    def _continuations(
        self,
        model: PreTrainedModel,
        state: State,
        members: Sequence[tuple[int, int]],
        pairs: Sequence[tuple[Ids, Ids]],
    ) -> dict[int, TokenLogprobs]:
        """Score the continuations of one batch of contexts.

        Args:
            model: the model.
            state: after the contexts.
            members: (row in the state, position in ``pairs``).
            pairs: all contexts and continuations.
        """
        rows = [row for row, _ in members]
        firsts = torch.tensor([[pairs[position][1][0]] for _, position in members])
        values, greedy = _score(state.logits[rows].unsqueeze(1), firsts)
        found = {
            position: (value, flag)
            for (_, position), value, flag in zip(members, values, greedy, strict=True)
        }
        longer = [member for member in members if len(pairs[member[1]][1]) > 1]
        longer.sort(key=lambda member: (-len(pairs[member[1]][1]), member[1]))
        while longer:
            width = len(pairs[longer[0][1]][1]) - 1
            fit = max(1, _LOGITS // (width * _vocabulary(model)))
            chunk, longer = (
                longer[: min(fit, self._batch_size)],
                longer[min(fit, self._batch_size) :],
            )
            rests = [list(pairs[position][1]) for _, position in chunk]
            device = state.mask.device
            branch = select(state, torch.tensor([row for row, _ in chunk], device=device))
            logits = extend(model, branch, [rest[:-1] for rest in rests])
            padded = [rest[1:] + [0] * (width + 1 - len(rest)) for rest in rests]
            values, greedy = _score(logits, torch.tensor(padded))
            for (_, position), rest, value, flag in zip(chunk, rests, values, greedy, strict=True):
                keep = len(rest) - 1
                head = found[position]
                found[position] = (head[0] + value[:keep], head[1] + flag[:keep])
        return {
            position: TokenLogprobs(tuple(value), tuple(flag))
            for position, (value, flag) in found.items()
        }

    def _decode(
        self,
        model: PreTrainedModel,
        state: State,
        noise: torch.Tensor | None,
        sampling: SamplingSpec,
    ) -> list[Generation]:
        """Write token by token; rows that have ended leave the batch.

        Args:
            model: the model.
            state: after the prompts, B rows.
            noise: uniform draws [B, max_tokens] in float64; None is greedy.
            sampling: length, temperature, stop strings.
        """
        ends = eos_ids(self.tokenizer, model.config)
        written: list[list[int]] = [[] for _ in range(len(state.mask))]
        alive = list(range(len(written)))
        for step in range(sampling.max_tokens):
            draws = noise[alive, step] if noise is not None else None
            tokens = _next(state.logits, draws, sampling.temperature)
            going = []
            for place, (row, token) in enumerate(zip(alive, tokens, strict=True)):
                if token in ends:
                    continue
                written[row].append(token)
                if not has_stopped(self.tokenizer, written[row], sampling.stop):
                    going.append(place)
            if not going or step + 1 == sampling.max_tokens:
                break
            if len(going) < len(alive):
                state = select(state, torch.tensor(going, device=state.mask.device))
            alive = [alive[place] for place in going]
            state.logits = extend(model, state, [[tokens[place]] for place in going])[:, -1]
        return [
            Generation(tuple(ids), cut(plain(self.tokenizer, ids), sampling.stop))
            for ids in written
        ]


def _read(folder: Path, dtype: str, device: str) -> PreTrainedModel:
    with torch.random.fork_rng([]):
        return load_model(folder, device, getattr(torch, dtype))


def _vocabulary(model: PreTrainedModel) -> int:
    return int(embedding(model).shape[0])


def _score(
    logits: torch.Tensor, targets: torch.Tensor
) -> tuple[list[list[float]], list[list[bool]]]:
    """Return log-probabilities and argmax flags of ``targets`` [B, C] under logits [B, C, V]."""
    targets = targets.to(logits.device)
    chosen = logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    values = chosen - logits.logsumexp(-1)
    return values.tolist(), (logits.argmax(-1) == targets).tolist()


def _uniforms(sampling: SamplingSpec, prompt: Ids, number: int) -> torch.Tensor:
    """Return the draws of one sample, a function of seed, prompt and number only."""
    generator = torch.Generator().manual_seed(sample_seed(sampling, prompt, number))
    return torch.rand(sampling.max_tokens, generator=generator, dtype=torch.float64)


def _next(logits: torch.Tensor, draws: torch.Tensor | None, temperature: float) -> list[int]:
    """Return the next token of each row: the argmax, or by inverting the distribution at a draw."""
    if draws is None:
        best: list[int] = logits.argmax(-1).tolist()
        return best
    mass = torch.softmax(logits.double() / temperature, dim=-1).cumsum(-1)
    places = torch.searchsorted(mass, (draws * mass[:, -1]).unsqueeze(-1), right=True)
    drawn: list[int] = places.squeeze(-1).clamp(max=logits.shape[-1] - 1).tolist()
    return drawn
