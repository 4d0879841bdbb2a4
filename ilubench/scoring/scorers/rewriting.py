"""Prompt attacks on a scorer's items: rewritten row by row, asked, and reduced to one score."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Literal, TypeAlias

from ilubench.errors import CannotApplyError, DataError
from ilubench.interfaces import BoundPromptAttack, Item, Row, SampleScore

__all__ = ["Ask", "Change", "ask_rewritten", "reframed", "refuse_sampling"]

Ask: TypeAlias = Callable[[Sequence[Item]], list[SampleScore]]
"""Items under the rows' ids -> their scores: one an item and metric, several where sampled."""

Change: TypeAlias = Literal["after", "frame", "options"]
"""What an item may say beside its columns and the text before."""

_SAID: Mapping[Change, str] = {
    "after": "begins the model's answer",
    "frame": "puts other words in the place of `Question:` and `Answer:`",
    "options": "asks the options of a multiple choice otherwise",
}
FRAME = ("Question:", "Answer:")


def ask_rewritten(
    attack: BoundPromptAttack,
    rows: Mapping[str, Row],
    ask: Ask,
    item_of: Callable[[str], str] = str,
    *,
    scorer: str = "the scorer",
    applies: Collection[Change] = (),
) -> list[SampleScore]:
    """Return the scores of the items as an attack asks them, one an item and metric.

    What is asked goes in rounds: the k-th has the k-th rewriting of each item, under the item's
    id and in the items' order, so that a scorer asks its rows as it always does. Where an item has
    fewer rewritings its last one is asked again, and does not count. Texts and options are kept
    where one rewriting was asked.

    Args:
        attack: rewrites and reduces.
        rows: id of each of the scorer's items -> its row.
        ask: scores items.
        item_of: name of a score's item -> the id in ``rows``.
        scorer: what errors call it.
        applies: what `ask` heeds beside columns and the text before.

    Raises:
        CannotApplyError: the attack asks none of the items, or asks for what `ask` does not heed.
        DataError: it asks only some of them.
    """
    items = [Item(name, {**row, "id": name}) for name, row in rows.items()]
    asked = {item.id: attack.rewrite(item) for item in items}
    _check(attack, asked, scorer, applies)
    found: dict[tuple[str, str], list[SampleScore]] = {}
    for number in range(max(map(len, asked.values()))):
        now = [
            replace(one, id=name, fields={**one.fields, "id": name})
            for name, own in asked.items()
            for one in own[: number + 1][-1:]
        ]
        for score in ask(now):
            if number < len(asked[item_of(score.item)]):
                found.setdefault((score.metric, score.item), []).append(score)
    return [_reduced(attack, scores) for scores in found.values()]


def _check(
    attack: BoundPromptAttack,
    asked: Mapping[str, Sequence[Item]],
    scorer: str,
    applies: Collection[Change],
) -> None:
    cannot = f"{scorer} cannot apply the prompt attack {attack.name}"
    lacking = [name for name, own in asked.items() if not own]
    roles = " and ".join(attack.plugin.roles())
    if len(lacking) == len(asked):
        why = f"the rows of {roles} have none" if roles else "it asks nothing in the place"
        raise CannotApplyError(f"{cannot}: {why} of its items")
    if lacking:
        told = f"of {len(lacking)} of {len(asked)} items of {scorer}, first {lacking[0]!r}"
        remedy = f"; complete the rows of {roles}, or leave all of these out" if roles else ""
        raise DataError(f"attack {attack.name}: it asks nothing in the place {told}{remedy}")
    for change, said in _SAID.items():
        wanted = any(getattr(one, change) for own in asked.values() for one in own)
        if wanted and change not in applies:
            raise CannotApplyError(f"{cannot}, which {said}")


def _reduced(attack: BoundPromptAttack, scores: Sequence[SampleScore]) -> SampleScore:
    first = scores[0]
    value = attack.reduce(first.metric, [score.value for score in scores])
    if len(scores) == 1:
        return replace(first, value=value)
    return replace(first, value=value, choices=(), text="")


def reframed(template: str, frame: tuple[str, str] | None, scorer: str) -> str:
    """Return a template with a frame's words in the place of `Question:` and `Answer:`.

    Raises:
        CannotApplyError: it has not both of them.
    """
    for own, other in zip(FRAME, frame or FRAME, strict=True):
        if frame and own not in template:
            raise CannotApplyError(f"{scorer} asks without {own!r}, for which {other!r} can stand")
        template = template.replace(own, other)
    return template


def refuse_sampling(scorer: str, attack: BoundPromptAttack) -> None:
    """Refuse an attack that samples, in a scorer that does not generate, or greedily only.

    Raises:
        CannotApplyError: it samples.
    """
    if attack.plugin.sampling() is not None:
        problem = f"{scorer} cannot apply the prompt attack {attack.name}, which samples texts"
        raise CannotApplyError(problem)
