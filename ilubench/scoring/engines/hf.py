"""The transformers engine: scores a live model on its own tensors, or a checkpoint's folder."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ilubench.errors import DivergedError, ItemError, ModelError
from ilubench.interfaces import Generation, Ids, SamplingSpec, TokenLogprobs
from ilubench.models.checkpoints import load_model
from ilubench.scoring.engines.alone import (
    generate_alone,
    logits_after,
    logprobs_alone,
    packs_rightly,
)
from ilubench.scoring.engines.batching import (
    Group,
    check_options,
    check_prompts,
    group_prompts,
    packs,
)
from ilubench.scoring.engines.forward import (
    Reading,
    State,
    Tree,
    embedding,
    lay_out,
    read_tokens,
    read_trees,
    select_rows,
)
from ilubench.scoring.engines.text import cut_at_stop, decode_text, eos_ids, has_stopped
from ilubench.scoring.engines.tokens import next_tokens, score_targets, uniforms

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["HFEngine"]

_LOGITS = 2**26
"""Logits held at once when continuations are scored (256 MB in float32)."""

_TOKENS = {"cpu": 256}
"""Tokens of several prompts that are read in one row: enough for fast matrix products, few enough
that attention, which grows with their square, stays small beside them."""

_TOKENS_ELSEWHERE = 2048

_ALIVE = 0.75
"""Rows that have ended are taken out of a batch when fewer than this share still write."""


class HFEngine:
    """Scores and generates with a transformers model.

    A prefix that prompts share is run once, and prompts are packed into rows without padding. A
    model that reads packed prompts otherwise (looked at once a configuration) gets them one by one.
    Results do not depend on the order of the prompts and come in that order. Nothing here changes a
    model that is being trained: no gradients, train/eval flags and random state are put back. A
    model whose logits are not numbers raises DivergedError: an answer read off them would look like
    one.
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
        self._packs: dict[str, bool] = {}
        self._alone = False

    def load(self, weights: PreTrainedModel | Path) -> None:
        """Replace the weights: a live model, or a checkpoint's folder.

        A live model is neither copied nor kept alive: it stays its owner's.

        Raises:
            ModelError: the folder holds no complete safetensors checkpoint.
        """
        if isinstance(weights, str | Path):
            self._model = lambda: None
            model = load_model(Path(weights), self._device, getattr(torch, self._dtype))
            self._model = lambda: model
        else:
            model = weights
            self._model = weakref.ref(model)
        config = model.config.get_text_config()
        takes = getattr(config, "max_position_embeddings", None)
        self.max_length = self._given_length or int(takes or self.tokenizer.model_max_length)
        kind = f"{type(model).__name__} {model.dtype} {model.config.to_json_string()}"
        if kind not in self._packs:
            with self._scoring(), suppress(DivergedError):  # which scoring it will raise
                self._packs[kind] = packs_rightly(model)
        self._alone = not self._packs.get(kind, True)

    # ------------------------------------------------------------------ the three calls

    def choices(self, prompts: Sequence[Ids], options: Sequence[int]) -> list[tuple[float, ...]]:
        """Return next-token log-probabilities (nats) of the ``options`` tokens, one row a prompt.

        Raises:
            DataError: an empty or too long prompt, or an option outside the vocabulary.
        """
        with self._scoring() as model:
            self._check(model, prompts)
            check_options(options, _vocabulary(model), self.tokenizer)
            rows: list[tuple[float, ...]] = [()] * len(prompts)
            for indices, logits in self._next_logits(model, prompts):
                scores = logits[:, list(options)] - logits.logsumexp(-1, keepdim=True)
                for index, row in zip(indices, scores.tolist(), strict=True):
                    rows[index] = tuple(row)
            return rows

    def logprobs(self, pairs: Sequence[tuple[Ids, Ids]]) -> list[TokenLogprobs]:
        """Return log-probabilities (nats) and argmax flags of each continuation's tokens.

        Each distinct context is run once, unless its continuations are too many for one pass.

        Raises:
            DataError: an empty context or continuation, or a pair that does not fit.
        """
        with self._scoring() as model:
            for position, (_, continuation) in enumerate(pairs):
                if not continuation:
                    raise ItemError(position, "the continuation is empty")
            # the last token is never fed to the model, so it needs no place
            self._check(model, [(*c, *rest[:-1]) if c else () for c, rest in pairs])
            self._check(model, [rest[-1:] for _, rest in pairs])
            if self._alone:
                return [logprobs_alone(model, context, rest) for context, rest in pairs]
            trees, members = _trees(pairs, self._tokens(model), _LOGITS // _vocabulary(model))
            scored: dict[int, TokenLogprobs] = {}
            for indices, reading in self._read(model, trees):
                for index, logits in zip(indices, reading.logits, strict=True):
                    scored |= _continuations(logits, members[index], pairs)
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
            if self._alone:
                return [generate_alone(model, self.tokenizer, p, sampling) for p in prompts]
            copies = sampling.n if sampling.temperature > 0 else 1
            results: list[list[Generation]] = [[] for _ in prompts]
            size = max(1, self._batch_size // copies)
            # neighbours in the plan share a prefix, or are of like length
            order = [i for group in self._plan(prompts) for i in group.members]
            for begin in range(0, len(order), size):
                indices = order[begin : begin + size]
                batch = [prompts[index] for index in indices]
                state = lay_out(
                    self._read(model, [Tree(prompt) for prompt in batch]),
                    [len(prompt) for prompt in batch],
                    sampling.max_tokens,
                )
                rows = torch.arange(len(indices), device=state.padding.device)
                most = max(1, self._batch_size // len(indices))  # more samples come in turns
                for numbers in (range(copies)[n : n + most] for n in range(0, copies, most)):
                    many = len(numbers)
                    start = (
                        select_rows(state, rows.repeat_interleave(many)) if copies > 1 else state
                    )
                    noise = None
                    if sampling.temperature > 0:
                        draws = [
                            uniforms(sampling, prompts[index], number)
                            for index in indices
                            for number in numbers
                        ]
                        noise = torch.stack(draws).to(state.padding.device)
                    written = self._decode(model, start, noise, sampling)
                    for place, index in enumerate(indices):
                        mine = written[place * many : (place + 1) * many]
                        results[index] += mine if copies == sampling.n else mine * sampling.n
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
            prompts,
            self.tokenizer,
            extra=extra,
            max_length=self.max_length,
            vocabulary=_vocabulary(model),
        )

    def _tokens(self, model: PreTrainedModel) -> int:
        return _TOKENS.get(embedding(model).device.type, _TOKENS_ELSEWHERE)

    def _plan(self, prompts: Sequence[Ids]) -> list[Group]:
        return group_prompts(prompts, share_prefix=self._share_prefix)

    def _read(
        self, model: PreTrainedModel, trees: Sequence[Tree]
    ) -> Iterator[tuple[tuple[int, ...], Reading]]:
        """Read the trees, pack by pack: (their positions, what was read of them).

        A reading is used before the next one is asked for, which may overwrite it.
        """
        tokens, fit = self._tokens(model), max(1, _LOGITS // _vocabulary(model))
        for group in self._plan([tree.stem for tree in trees]):
            cut = len(group.prefix)
            own = [Tree(trees[i].stem[cut:], trees[i].branches) for i in group.members]
            # where vocabularies are large, logits and not tokens are what there is no room for
            costs = [max(tree.size, tree.asked * tokens // fit) for tree in own]
            together = list(packs(costs, tokens, self._batch_size))
            room = max(sum(own[place].size for place in pack) for pack in together)
            prefix = read_trees(model, [Tree(group.prefix)], room=room) if cut else None
            for pack in together:
                reading = read_trees(model, [own[place] for place in pack], prefix)
                yield tuple(group.members[place] for place in pack), reading

    def _next_logits(
        self, model: PreTrainedModel, prompts: Sequence[Ids]
    ) -> Iterator[tuple[Sequence[int], torch.Tensor]]:
        """Yield positions of prompts and the logits of their next tokens, float32 [N, V]."""
        if self._alone:
            for position, prompt in enumerate(prompts):
                yield [position], logits_after(model, prompt)[-1:]
            return
        for indices, reading in self._read(model, [Tree(prompt) for prompt in prompts]):
            yield indices, torch.cat(reading.logits)

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
        ends = eos_ids(self.tokenizer, model.config) | set(sampling.stop_ids)
        rows = list(range(len(state.padding)))
        written: list[list[int]] = [[] for _ in rows]
        ended: set[int] = set()
        for place in range(sampling.max_tokens):
            draws = noise[rows, place] if noise is not None else None
            tokens = next_tokens(state.logits, draws, sampling.temperature)
            for row, token in zip(rows, tokens, strict=True):
                if row in ended:
                    continue
                if token not in ends:
                    written[row].append(token)
                if token in ends or has_stopped(self.tokenizer, written[row], sampling.stop):
                    ended.add(row)
            if len(ended) == len(written) or place + 1 == sampling.max_tokens:
                break
            going = [at for at, row in enumerate(rows) if row not in ended]
            if len(going) < _ALIVE * len(rows):
                state = select_rows(state, torch.tensor(going, device=state.padding.device))
                rows, tokens = [rows[at] for at in going], [tokens[at] for at in going]
            read_tokens(model, state, tokens)
        return [
            Generation(tuple(ids), cut_at_stop(decode_text(self.tokenizer, ids), sampling.stop))
            for ids in written
        ]


def _vocabulary(model: PreTrainedModel) -> int:
    return int(embedding(model).shape[0])


def _trees(
    pairs: Sequence[tuple[Ids, Ids]], tokens: int, logits: int
) -> tuple[list[Tree], list[list[int]]]:
    """Put continuations of the same context together.

    Args:
        pairs: contexts and continuations.
        tokens: of the continuations of a tree; more of them make another tree of the same context.
        logits: rows of logits that a tree may need, unless it has one continuation.

    Returns:
        The trees, and the positions in ``pairs`` of each tree's continuations.
    """
    of_context: dict[tuple[int, ...], list[int]] = {}
    for position, (context, _) in enumerate(pairs):
        of_context.setdefault(tuple(context), []).append(position)
    trees, members = [], []
    for context, positions in of_context.items():
        sizes = [len(pairs[position][1]) for position in positions]
        for pack in packs(sizes, min(tokens, logits), len(positions)):
            mine = [positions[place] for place in pack]
            rests = [tuple(pairs[position][1][:-1]) for position in mine]
            trees.append(Tree(context, tuple(filter(None, rests))))
            members.append(mine)
    return trees, members


def _continuations(
    logits: torch.Tensor, members: Sequence[int], pairs: Sequence[tuple[Ids, Ids]]
) -> dict[int, TokenLogprobs]:
    """Score one tree's continuations: their first tokens under the stem's logits, and so on.

    Args:
        logits: of the tree, [1 + tokens in branches, V].
        members: positions in ``pairs``.
        pairs: all contexts and continuations.
    """
    places: list[int] = []
    targets: list[int] = []
    used = 1
    for position in members:
        rest = pairs[position][1]
        places += [0, *range(used, used + len(rest) - 1)]
        targets += rest
        used += len(rest) - 1
    values, greedy = score_targets(logits, places, targets)
    found, begin = {}, 0
    for position in members:
        end = begin + len(pairs[position][1])
        found[position] = TokenLogprobs(tuple(values[begin:end]), tuple(greedy[begin:end]))
        begin = end
    return found
