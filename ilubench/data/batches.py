"""Rows -> training examples -> batches; which items a step sees depends on (seed, step) alone."""

import bisect
import dataclasses
import itertools
import math
import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from ilubench.data.chat import encode_chat, encode_prompt
from ilubench.data.rows import Tables, render_pair
from ilubench.data.seeds import seed_for
from ilubench.data.values import row_name
from ilubench.data.vocabulary import unknown_token
from ilubench.errors import DataError, ModelError
from ilubench.interfaces import Batch, Chat, Dataset, Example, Ids
from ilubench.specs import DataSource

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = [
    "PASS",
    "Blocks",
    "Stream",
    "check_targets",
    "collate",
    "encode_pair",
    "group_lengths",
    "to_device",
    "tokenize_roles",
]

PASS = 64
"""Tokens of padding that one more pass through the model must save. On a CPU a pass costs as much
as some 30 tokens, at 2e6 weights as at 1e8; on a GPU more, the smaller the model the more."""

_MASKS_CHECKED = 32
"""Rows of a role whose loss mask is checked against the prompt's own tokens: what is wrong with a
template or a tokenizer is wrong in every row, and each check tokenises the prompt once more."""


def encode_pair(
    tokenizer: "PreTrainedTokenizerBase", prompt: str, completion: str, chat: Chat | None = None
) -> tuple[list[int], list[bool]]:
    """Tokenise prompt and completion together; return ids and loss mask, both of length T.

    A token is a target when it ends behind the prompt, so that a token merged across the
    boundary counts as the answer's. With an empty prompt all tokens but the first are targets.
    The end-of-sequence token is appended, and is a target; the tokenizer itself appends nothing.

    In a chat, `encode_chat` decides.

    Raises:
        DataError: a turn of a chat is blank.
        ModelError: the tokenizer has no chat template, or one that cannot be used.
    """
    if chat is not None:
        return encode_chat(tokenizer, prompt, completion, chat)
    encoded = tokenizer(prompt + completion, return_offsets_mapping=True, verbose=False)
    ids: list[int] = list(encoded["input_ids"])
    mask = [end > len(prompt) for _, end in encoded["offset_mapping"]]
    end_id = tokenizer.eos_token_id
    if end_id is not None:
        if not ids or ids[-1] != end_id:
            ids.append(end_id)
            mask.append(True)
        mask[-1] = True
    if mask:
        mask[0] = False
    return ids, mask


def _fit(
    ids: list[int], mask: list[bool], source: DataSource, length: int, name: str
) -> list[tuple[list[int], list[bool]]]:
    if len(ids) <= length:
        return [(ids, mask)]
    if source.overlong == "truncate":
        return [(ids[:length], mask[:length])]
    if source.overlong == "windows":
        width = math.ceil(len(ids) / math.ceil(len(ids) / length))  # windows of like lengths
        starts = range(0, len(ids) - 1, width)
        parts = [(ids[s : s + width], [False, *mask[s + 1 : s + width]]) for s in starts]
        return [part for part in parts if any(part[1])]
    others = "overlong=windows or overlong=truncate" if any(mask[:length]) else "overlong=windows"
    raise DataError(
        f"{name} has {len(ids)} tokens, over the limit of {length}; raise max_length, "
        f"or set {others} for this role"
    )


def tokenize_roles(
    tables: Tables,
    roles: Sequence[str],
    tokenizer: "PreTrainedTokenizerBase",
    max_length: int,
    rows: int | None = None,
) -> list[Example]:
    """Return the roles' rows as training examples, one role after the other.

    Args:
        tables: of the roles.
        roles: which, in order.
        tokenizer: that reads them.
        max_length: tokens of an example, unless the role says less.
        rows: of the model's embedding; None: the model is made for the tokenizer.

    Raises:
        DataError: a row is too long, has no target token, or a token that the model does not know.
        ModelError: the tokenizer has no end-of-sequence token.
    """
    if tokenizer.eos_token_id is None:
        name = tokenizer.name_or_path or "the model's tokenizer"
        problem = "has no end-of-sequence token, so that no text would end"
        remedy = "set eos_token in its tokenizer_config.json"
        raise ModelError(f"data.{', '.join(roles)}: {name} {problem}; {remedy}")
    found: list[Example] = []
    for role in roles:
        source, gated, chat = tables.source(role), tables.gated(role), tables.chat(role)
        length = min(max_length, source.max_length or max_length)
        for place, row in enumerate(tables.rows(role)):
            prompt, completion = render_pair(row, source, role)
            encoded = encode_pair(tokenizer, prompt, completion, chat)
            if rows is not None and (problem := unknown_token(encoded[0], rows, tokenizer)):
                raise DataError(f"{row_name(role, row)}: {problem}")
            if place < _MASKS_CHECKED:
                alone = encode_prompt(tokenizer, prompt, chat) if prompt else []
                check_mask(tokenizer, alone, encoded, row_name(role, row), gated=gated)
            parts = _fit(*encoded, source, length, row_name(role, row))
            end = tokenizer.eos_token_id
            if not _learned([encoded], end):
                problem = "its whole text is a single token"
                raise DataError(f"{row_name(role, row)} has no token to learn: {problem}")
            if not _learned(parts, end):
                given = encoded[1].index(True)
                field = f"data.{role}" if length < max_length else "suite"
                raise DataError(
                    f"{row_name(role, row)}: its prompt alone has {given} tokens, and "
                    f"{field}.max_length={length} leaves nothing of its completion; raise it"
                )
            found.extend(
                Example(f"{role}/{row['id']}/{part}", tuple(ids), tuple(mask))
                for part, (ids, mask) in enumerate(parts)
            )
    if not found:
        raise DataError(f"no training items in {', '.join(roles) or 'no role'}")
    return found


def _learned(parts: Sequence[tuple[list[int], list[bool]]], end: int | None) -> int:
    """Count the targets of an item's parts; that the text ends behind the last is not counted."""
    if not parts:
        return 0
    ids, mask = parts[-1]
    return sum(sum(mask) for _, mask in parts) - (ids[-1:] == [end] and mask[-1])


def check_mask(
    tokenizer: "PreTrainedTokenizerBase",
    prompt: Ids,
    encoded: tuple[Ids, Sequence[bool]],
    name: str,
    *,
    gated: bool,
) -> None:
    """Refuse a loss mask that is on the prompt or on padding.

    The tokens with which the prompt's own encoding begins are the prompt's, except its last: a
    tokenizer may merge it with the completion, whose it then is.

    Args:
        tokenizer: that encoded it.
        prompt: the tokens of what must not be learned, encoded alone.
        encoded: ids and loss mask of prompt and completion, each of length T.
        name: of the item.
        gated: whether its text must not be shown.

    Raises:
        DataError: a token of the prompt, or padding, is a target.
    """
    ids, mask = encoded
    for place, (own, token) in enumerate(zip(prompt[:-1], ids, strict=False)):
        if own != token:
            break
        if mask[place]:
            shown = "of gated text" if gated else repr(tokenizer.decode([token]))
            raise DataError(
                f"{name}: token {place + 1} ({shown}) is the prompt's and a target; "
                "the loss is on the completion only"
            )
    pad = tokenizer.pad_token_id
    if pad in (tokenizer.eos_token_id, tokenizer.unk_token_id):
        return  # then it also stands for something that is learned
    if any(target and token == pad for token, target in zip(ids, mask, strict=True)):
        raise DataError(f"{name}: padding ({tokenizer.pad_token!r}) is a target; leave it out")


class Stream:
    """An endless, seeded order over a data set: every item once an epoch.

    Args:
        size: number of items.
        seed: of the order.
        name: of the stream, so that forget and retain sets are shuffled independently.
    """

    def __init__(self, size: int, seed: int, name: str) -> None:
        """Nothing is shuffled before it is asked for."""
        if size < 1:
            raise DataError(f"the {name} set is empty")
        self._size, self._seed, self._name = size, seed, name
        self._epoch, self._order = -1, [0]

    def _at(self, position: int) -> int:
        epoch, offset = divmod(position, self._size)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, list(range(self._size))
            random.Random(seed_for(self._seed, self._name, str(epoch))).shuffle(self._order)
        return self._order[offset]

    def step(self, step: int, count: int) -> list[int]:
        """Return the indices of the ``count`` items of optimizer step ``step`` (from 0)."""
        return [self._at(step * count + place) for place in range(count)]


def group_lengths(lengths: Sequence[Sequence[int]], micro: int) -> list[list[int]]:
    """Return how many sequences of a step go through the model together, as lengths go up.

    Groups of ``micro`` are cut in two where that saves most padding, so long as it saves more than
    the passes cost (`PASS`): a rule of the lengths alone, so that a step is the same everywhere.

    Args:
        lengths: of the sequences of each data set that the step takes from.
        micro: sequences at once, at most.

    Returns:
        For each data set the sizes of its groups; as many for each if the data sets are of one
        size.
    """
    ordered = [sorted(own) for own in lengths]
    bounds = [[*range(0, len(own), micro), len(own)] for own in ordered]
    while True:
        cuts = [_best_cut(own, at) for own, at in zip(ordered, bounds, strict=True)]
        if sum(saved for saved, _ in cuts) < PASS * len(cuts):
            return [[end - start for start, end in itertools.pairwise(at)] for at in bounds]
        for at, (_, place) in zip(bounds, cuts, strict=True):
            bisect.insort(at, place)


def _best_cut(lengths: Sequence[int], bounds: Sequence[int]) -> tuple[float, int]:
    """The padding that one more cut saves at most, and the place of that cut."""
    return max(
        (
            ((place - start) * (lengths[end - 1] - lengths[place - 1]), place)
            for start, end in itertools.pairwise(bounds)
            for place in range(start + 1, end)
        ),
        default=(-math.inf, 0),
    )


def collate(
    dataset: Dataset,
    indices: Sequence[int],
    pad: int,
    *,
    micro: int | Sequence[int] | None = None,
) -> list[Batch]:
    """Return one step's global batch as micro-batches of like lengths, right-padded.

    Args:
        dataset: the examples.
        indices: the step's items.
        pad: padding token id.
        micro: sequences at once: a number, or one for each micro-batch; all, when None.

    Raises:
        DataError: an example's first token is a target, or none is.
    """
    order = sorted(indices, key=lambda index: (len(dataset[index].input_ids), index))
    size = micro or len(order)
    sizes = itertools.repeat(size) if isinstance(size, int) else iter(size)
    tokens = sum(sum(dataset[index].loss_mask) for index in order)
    batches = []
    left = iter(order)
    while chosen := list(itertools.islice(left, next(sizes, 0))):
        width = max(len(dataset[index].input_ids) for index in chosen)
        ids = torch.full((len(chosen), width), pad, dtype=torch.long)
        attention = torch.zeros((len(chosen), width), dtype=torch.long)
        loss = torch.zeros((len(chosen), width), dtype=torch.bool)
        for place, index in enumerate(chosen):
            item = dataset[index]
            length = len(item.input_ids)
            ids[place, :length] = torch.tensor(item.input_ids)
            attention[place, :length] = 1
            loss[place, :length] = torch.tensor(item.loss_mask)
        batches.append(Batch(ids, attention, loss, torch.tensor(chosen), len(order), tokens))
        check_targets(batches[-1], dataset)
    return batches


def check_targets(batch: Batch, dataset: Dataset) -> None:
    """Refuse a batch whose loss would be on what nothing predicts, or on nothing.

    Args:
        batch: on the CPU.
        dataset: its examples, named in errors.

    Raises:
        DataError: padding or a first token is a target, or a sequence has no target.
    """
    faults = {
        "padding is a target": (batch.loss_mask & (batch.attention_mask == 0)).any(1),
        "the first token is a target, and nothing predicts it": batch.loss_mask[:, 0],
        "no token is a target": ~batch.loss_mask.any(1),
    }
    for problem, found in faults.items():
        if found.any():
            index = int(batch.index[int(found.nonzero()[0])])
            raise DataError(f"training item {dataset[index].id!r}: {problem}")


def to_device(batch: Batch, device: torch.device | str) -> Batch:
    """Return the batch with its tensors on ``device`` (the index stays)."""
    return dataclasses.replace(
        batch,
        input_ids=batch.input_ids.to(device),
        attention_mask=batch.attention_mask.to(device),
        loss_mask=batch.loss_mask.to(device),
    )


class Blocks:
    """Packed pre-training text: per epoch, documents shuffled, joined and cut into blocks.

    Args:
        documents: tokenised documents.
        length: tokens a block; what does not fill the last block is left out that epoch.
        seed: of the order.
    """

    def __init__(self, documents: Dataset, length: int, seed: int) -> None:
        """Raises DataError when the text does not fill one block."""
        self._documents, self._length, self._seed = documents, length, seed
        self.per_epoch = sum(len(document.input_ids) for document in documents) // length
        if self.per_epoch < 1:
            raise DataError(
                f"the training text does not fill one block of {length} tokens; give more text, "
                "or a smaller `length` in `pack`"
            )
        self._cache: Mapping[int, torch.Tensor] = {}

    def _epoch(self, epoch: int) -> torch.Tensor:
        if epoch not in self._cache:
            order = list(range(len(self._documents)))
            random.Random(seed_for(self._seed, "blocks", str(epoch))).shuffle(order)
            joined = [token for index in order for token in self._documents[index].input_ids]
            used = torch.tensor(joined[: self.per_epoch * self._length])
            self._cache = {epoch: used.view(self.per_epoch, self._length)}
        return self._cache[epoch]

    def step(self, step: int, count: int) -> torch.Tensor:
        """Return the blocks of optimizer step ``step``: int64 [count, length]."""
        rows = []
        for position in range(step * count, (step + 1) * count):
            epoch, row = divmod(position, self.per_epoch)
            rows.append(self._epoch(epoch)[row])
        return torch.stack(rows)
