"""Prompt attacks on a scorer's items: rewritten row by row, asked, and reduced to one score."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from ilubench.errors import CannotApplyError
from ilubench.interfaces import BoundPromptAttack, Item, Row, SampleScore

__all__ = ["ask_rewritten", "refuse_sampling"]

Ask: TypeAlias = Callable[[Sequence[Row], Mapping[str, str]], list[SampleScore]]
"""(rows, id -> text before it) -> their scores: one an item and metric, several where sampled."""


def ask_rewritten(
    attack: BoundPromptAttack,
    rows: Sequence[Row],
    items: Sequence[str],
    ask: Ask,
    item_of: Callable[[str], str] = str,
) -> list[SampleScore]:
    """Return the scores of the items as an attack asks them, one an item and metric.

    What is asked goes in rounds: the k-th has the k-th rewriting of each item, under the item's
    id and in the items' order, so that a scorer asks its rows as it always does. Where an item has
    fewer rewritings its last one is asked again, and does not count. Texts and options are kept
    where one rewriting was asked.

    Args:
        attack: rewrites and reduces.
        rows: the scorer's items.
        items: their ids.
        ask: scores rows.
        item_of: name of a score's item -> the id in ``items``.

    Raises:
        DataError: the attack asks nothing in an item's place.
    """
    pairs = zip(items, rows, strict=True)
    asked = {name: attack.rewrite(Item(name, {**row, "id": name})) for name, row in pairs}
    found: dict[tuple[str, str], list[SampleScore]] = {}
    for number in range(max(map(len, asked.values()))):
        now = {name: own[min(number, len(own) - 1)] for name, own in asked.items()}
        before = {name: one.before for name, one in now.items()}
        for score in ask([{**one.fields, "id": name} for name, one in now.items()], before):
            if number < len(asked[item_of(score.item)]):
                found.setdefault((score.metric, score.item), []).append(score)
    return [_reduced(attack, scores) for scores in found.values()]


def _reduced(attack: BoundPromptAttack, scores: Sequence[SampleScore]) -> SampleScore:
    first, value = scores[0], attack.reduce([score.value for score in scores])
    if len(scores) == 1:
        return replace(first, value=value)
    return replace(first, value=value, choices=(), text="")


def refuse_sampling(scorer: str, attack: BoundPromptAttack) -> None:
    """Refuse an attack that samples, in a scorer that does not generate, or greedily only.

    Raises:
        CannotApplyError: it samples.
    """
    if attack.plugin.sampling() is not None:
        problem = f"{scorer} cannot apply the prompt attack {attack.name}, which samples texts"
        raise CannotApplyError(problem)
