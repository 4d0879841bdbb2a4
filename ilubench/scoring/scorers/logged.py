"""lm-eval's items: checked before they are asked, named in errors, turned into our samples."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ilubench.data.chat import Turns
from ilubench.data.values import describe_value
from ilubench.errors import CannotApplyError, DataError, ItemError
from ilubench.interfaces import Asked, Chat, SampleScore
from ilubench.scoring.scorers.rows import item_ids
from ilubench.scoring.scorers.task_files import TaskFacts
from ilubench.scoring.scorers.templates import check_answers, check_options, check_values

__all__ = [
    "check_choices",
    "check_items",
    "item_name",
    "naming_requests",
    "prompt_of",
    "render_item",
    "sample_scores",
]


def item_name(name: str, place: int, doc: Mapping[str, Any], rows: Sequence[int]) -> str:
    """Return how a message names a task's item: by its id, else by its row."""
    if doc.get("id") is not None:
        return f"{name}: item {doc['id']!r}"
    return f"{name}: row {(rows[place] if place < len(rows) else place) + 1}"


@contextmanager
def naming_requests(
    requests: Sequence[Any], numbers: Mapping[str, Sequence[int]]
) -> Iterator[None]:
    """Name task and item in an error that knows the position of a request only.

    Args:
        requests: lm-eval's, in the order that the error's position counts in.
        numbers: task name -> positions of its items in the rows of their role.
    """
    try:
        yield
    except ItemError as error:
        asked = requests[error.position]
        task = str(asked.task_name)
        name = item_name(task, int(asked.doc_id), asked.doc, numbers.get(task, ()))
        raise ItemError(error.position, error.problem, name=name) from error


def prompt_of(request: Any, before: Mapping[str, str]) -> str:  # noqa: ANN401
    """Return a request's prompt, with what a prompt attack puts before it.

    Args:
        request: lm-eval's.
        before: id of an item -> text in front of its prompt; empty without an attack.

    Raises:
        CannotApplyError: it cannot be told which item it is, or it asks without a prompt.
    """
    text = str(request.args[0])
    if not any(before.values()):
        return text
    name = request.doc.get("id")
    if name is None or not text:
        lacks = "the id of its items" if name is None else "a prompt"
        problem = f"{request.task_name} asks without {lacks}: no text can stand before it"
        raise CannotApplyError(problem)
    return before[str(name)] + text


def check_items(name: str, task: Any, rows: Sequence[int], limit: int | None) -> None:  # noqa: ANN401
    """Raise unless each item is what the task's templates mean, and can be answered either way.

    lm-eval asks whatever a template makes of a row: letters of a text for options, "None" for a
    null. It counts an item whose answer is no option (an unlabelled -1) as answered wrongly.

    Args:
        name: of the task.
        task: lm-eval's object.
        rows: positions of its items in the rows of their role.
        limit: items to look at.

    Raises:
        DataError: names the first item that does not fit.
    """
    for place, doc in enumerate(task.eval_docs):
        if limit is not None and place >= limit:
            break
        _check_item(item_name(name, place, doc, rows), task, doc)
    if task.config.num_fewshot:
        for place, doc in enumerate(task.sampler.df):
            _check_item(item_name(f"{name}: few-shot examples", place, doc, ()), task, doc)


def _check_item(where: str, task: Any, doc: Mapping[str, Any]) -> None:  # noqa: ANN401
    import jinja2

    chosen = task.OUTPUT_TYPE == "multiple_choice"
    try:
        text, target = task.doc_to_text(doc), task.doc_to_target(doc)
        options = task.doc_to_choice(doc) if chosen else []
    except (
        jinja2.TemplateError,
        LookupError,
        ValueError,
        SyntaxError,
        TypeError,
        AttributeError,
    ) as error:
        problem = f"{type(error).__name__}: {error}"
        raise DataError(f"{where} does not fit the task's template ({problem})") from error
    if chosen:
        check_choices(where, task, doc, options)
    check_values(where, task, doc, len(options))
    given = text if task.multiple_input else target
    right = given if isinstance(given, list) else [given]
    if not chosen:
        _check_targets(where, task, right)
        return
    for answer in right:
        fits = answer in (range(len(options)) if isinstance(answer, int) else options)
        fits = fits and not (isinstance(answer, bool) and len(options) > len((False, True)))
        if not fits:
            told = f"{describe_value(answer)} is none of its {len(options)} options"
            raise DataError(f"{where}: the answer {told}")
    if not isinstance(task.config.doc_to_choice, list | dict):  # else the task's file has them
        check_answers(where, list(options), right)


def check_choices(where: str, task: Any, doc: Mapping[str, Any], options: object) -> None:  # noqa: ANN401
    """Raise unless the options that a task takes from an item are a list of texts.

    Raises:
        DataError: names the place.
    """
    column = task.config.doc_to_choice
    if not isinstance(column, list | dict):  # else they are the task's own
        what = f"column {column!r}" if column in doc else "its doc_to_choice"
        check_options(where, what, options)


def _check_targets(where: str, task: Any, right: Sequence[object]) -> None:  # noqa: ANN401
    """Raise where a right answer has nothing that the metric compares."""
    exact = task._metric_fn_list.get("exact_match")
    ignoring = task._metric_fn_kwargs.get("exact_match", {})
    for answer in right:
        if answer is None or isinstance(answer, dict):
            raise DataError(f"{where}: the answer is {describe_value(answer)}, not text")
        if not str(answer).strip():
            raise DataError(f"{where}: the answer is blank")
        if exact is None:
            continue
        # what a metric leaves out (signs, say) may be all that there is
        same = exact(references=[str(answer)], predictions=[""], **ignoring)
        if same["exact_match"]:
            raise DataError(f"{where}: of the answer, exact_match compares nothing")


def render_item(
    name: str,
    task: Any,  # noqa: ANN401
    doc: Mapping[str, Any],
    shots: int,
    chat: Chat | None = None,
) -> Asked:
    """Return what a task asks of one item, in the words of lm-eval's own requests.

    In a chat these are turns: the text that a task has begin the answer is the answer's.

    Args:
        name: of the task.
        task: lm-eval's object, without few-shot examples.
        doc: the item.
        shots: examples that the evaluation shows before it.
        chat: how it is asked as a chat; None where it is not.

    Raises:
        DataError: the item does not fit the task's templates.
    """
    import jinja2

    found: list[Turns] = []

    def number(turns: Turns, **_: object) -> str:
        found.append(turns)  # the place of a conversation stands for its text
        return str(len(found) - 1)

    def asked(prompt: str, answers: Sequence[str]) -> Asked:
        if chat is None:
            return Asked(prompt, tuple(answers), shots)
        said = {turn["role"]: turn["content"] for turn in found[int(prompt)]}
        begun = said.get("assistant", "")
        right = tuple(f"{begun}{answer}" for answer in answers)
        return Asked(said["user"], right, shots, said.get("system", ""))

    options: list[str] = []
    in_chat = {} if chat is None else {"apply_chat_template": True, "chat_template": number}
    try:
        context = task.fewshot_context(doc, 0, **in_chat, **_turned(task, doc, chat))
        target = task.doc_to_target(doc)
        if task.OUTPUT_TYPE != "multiple_choice":
            generates, begins = (
                task.OUTPUT_TYPE == "generate_until",
                chat and not task.config.gen_prefix,
            )
            between = task.config.target_delimiter if generates and not begins else ""
            right = target if isinstance(target, list) else [target]
            return asked(context, [f"{between}{answer}" for answer in right])
        options = list(task.doc_to_choice(doc))
        requests = task.construct_requests(doc, context, metadata=(name, 0, 1), **in_chat)
        texts: list[tuple[str, str]] = [request.args for request in requests[: len(options)]]
        if task.multiple_input:  # the options stand in the prompt, and one text follows
            prompt, answer = texts[task.doc_to_text(doc)]
            return asked(prompt, [answer])
    except (jinja2.TemplateError, LookupError, ValueError, TypeError, AttributeError) as error:
        where, problem = item_name(name, 0, doc, ()), f"{type(error).__name__}: {error}"
        raise DataError(f"{where} does not fit the task's template ({problem})") from error
    chosen = target if isinstance(target, list) else [target]
    right = [
        answer
        for place, (_, answer) in enumerate(texts)
        if place in chosen or options[place] in chosen
    ]
    return asked(context, right or [answer for _, answer in texts])


def _turned(task: Any, doc: Mapping[str, Any], chat: Chat | None) -> dict[str, Any]:  # noqa: ANN401
    """What lm-eval puts into a conversation besides a task's prompt."""
    if chat is None:
        return {}
    return {
        "fewshot_as_multiturn": True,
        "system_instruction": chat.system or None,
        "gen_prefix": task.doc_to_prefix(doc),
    }


def sample_scores(
    name: str, kind: str, logged: Sequence[Mapping[str, Any]], facts: TaskFacts
) -> Iterator[SampleScore]:
    """Yield the scores of one task's items, text included, in the items' order.

    Args:
        name: of the task; in a group, it is the samples' group and part of the items' names.
        kind: its `output_type`.
        logged: lm-eval's samples of the task: one an item and filter.
        facts: of the task or group.

    Raises:
        DataError: two items have the same `id`.
    """
    docs = {sample["doc_id"]: sample["doc"] for sample in logged}
    ids = dict(zip(docs, item_ids(list(docs.values()), name), strict=True))
    for sample in sorted(logged, key=lambda sample: sample["doc_id"]):
        choices, text = _answers(sample, kind)
        for metric in sample["metrics"]:
            public = facts.names.get((metric, sample["filter"]))
            if public is None:
                continue
            item = ids[sample["doc_id"]]
            yield SampleScore(
                item=f"{name}/{item}" if facts.is_group else item,
                metric=public,
                value=float(sample[metric]),
                group=name if facts.is_group else "",
                choices=choices,
                text=text,
            )


def _answers(sample: Mapping[str, Any], kind: str) -> tuple[tuple[float, ...], str]:
    """Return the options' log-probabilities, or the generated text, of a logged sample."""
    first = [answers[0] for answers in sample["resps"]]
    if kind == "multiple_choice":
        # behind the options themselves come the same without their prompts, for this one metric
        options = len(first) // 2 if "acc_mutual_info" in sample["metrics"] else len(first)
        return tuple(float(answer[0]) for answer in first[:options]), ""
    return (), str(first[0]) if kind == "generate_until" else ""
