"""What a prompt attack changes in lm-eval's tasks, as fields laid over their own."""

import json
import string
from collections.abc import Mapping, Sequence
from typing import Any

from ilubench.errors import CannotApplyError
from ilubench.interfaces import Item, Options
from ilubench.scoring.scorers.rewriting import reframed
from ilubench.scoring.scorers.task_files import Member, Reference

__all__ = ["asked_otherwise"]

_QUESTION, _CHOICES = "question", "choices"


def asked_otherwise(member: Member, asked: Sequence[Item]) -> dict[str, Any]:
    """Return the fields of a task that let it ask as items say.

    Args:
        member: the task.
        asked: its items; those of one round say the same.

    Raises:
        CannotApplyError: the task does not let itself be asked so.
    """
    where = f"lm_eval task {member.name}"
    said = {(item.after, item.frame, item.options) for item in asked}
    if len(said) > 1:
        raise CannotApplyError(f"{where} asks all of its items in one way")
    ((after, frame, options),) = said
    changes: dict[str, Any] = {}
    if options:
        changes |= _with_options(member, asked, options, where)
    if frame:
        template = changes.get("doc_to_text", member.config.get("doc_to_text"))
        if isinstance(template, Reference) or not isinstance(template, str):
            raise CannotApplyError(f"{where} makes its prompts by code: no word of them is changed")
        changes["doc_to_text"] = reframed(template, frame, where)
    if after:
        if member.config.get("gen_prefix"):
            raise CannotApplyError(f"{where} begins the answer itself")
        changes["gen_prefix"] = "{{ " + json.dumps(after) + " }}"  # no template, no column's name
    return changes


def _with_options(
    member: Member, asked: Sequence[Item], options: Options, where: str
) -> Mapping[str, Any]:
    config = member.config
    counts = {
        len(choices) if isinstance(choices := item.fields.get(_CHOICES), list) else 0
        for item in asked
        if isinstance(item.fields.get(_QUESTION), str)
    }
    if len(counts) != 1 or 0 in counts or config.get("doc_to_target") != "answer":
        problem = "its items are no questions with equally many choices each, and an answer"
        raise CannotApplyError(f"{where} cannot ask options otherwise: {problem}")
    if isinstance(config.get("doc_to_choice"), list) == (options == "lettered"):
        raise CannotApplyError(f"{where} asks its options {options} already")
    letters = string.ascii_uppercase[: counts.pop()]
    lines = [f"{letter}. {{{{choices[{place}]}}}}\n" for place, letter in enumerate(letters)]
    shown = "".join(lines) if options == "lettered" else ""
    return {
        "doc_to_text": f"Question: {{{{question.strip()}}}}\n{shown}Answer:",
        "doc_to_choice": list(letters) if options == "lettered" else "{{choices}}",
        "target_delimiter": " ",
    }
