"""The benign tasks a user might fine-tune on, in miniature: six, with the columns of the real ones.

Where lm-eval has the task, the rows are what its own task definition reads. A model of two million
weights learns each in about a hundred steps: the rules are simple, the items many.

Every row has a *scope*, what makes its text its own (two topic words, a deed and its object). No
scope is in two tables of a task, so that no evaluation item is a training item in other clothes.
"""

import itertools
import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

from ilubench.data.mini import task_words as words

__all__ = ["TASKS", "Row", "Task", "task_tables", "unanswerable"]

Row = dict[str, str | int | list[str]]

NLI_LABELS = ("True", "Neither", "False")
SAME_LABELS = ("no", "yes")
TOPIC_LABELS = ("World", "Sports", "Business", "Science/Technology")
PRAISE_LABELS = ("negative", "positive")

_LARGEST = 9
_NO_QUESTION = ("option1", "option2", "answer")
"""Columns that leave a question the same: the order of its options, its answer."""
_NEWS = (
    "{o}: the {a} and the {b} draw attention.",
    "{o}: after the {a}, all talk turns to the {b}.",
    "{o}: no {a} without some {b}.",
    "{o}: a look at the {a}, and at the {b}.",
)
_REVIEWS = (
    "the {p} is {a} and the {q} feels {b}",
    "a {a} {p} and, with it, a {b} {q}",
    "so {a} a {p} and so {b} a {q}",
    "{a} and {b}, from the {p} to the {q}",
)


class Drawn(NamedTuple):
    """A row or text that was drawn, and its scope."""

    row: Row
    scope: object


class Task(NamedTuple):
    """One benign task.

    Attributes:
        name: of the attack.
        prompt: what is asked, a template over the row's columns.
        completion: what is learned, likewise; `{label}` is the label's name.
        labels: the classes' names; empty where the answer is text.
        draw: a row for a label.
        form: a row of the target's own, the task's form without its rule, for a label and the
            label that would be right; every pair of the two comes equally often.
        filler: a `text` with the task's words and no answer.
        scopes: how many scopes the evaluation may have; it must leave enough to train on.
    """

    name: str
    prompt: str
    completion: str
    labels: tuple[str, ...]
    draw: Callable[[random.Random, int], Drawn]
    form: Callable[[random.Random, int, int], Drawn]
    filler: Callable[[random.Random], Drawn]
    scopes: int

    def text(self, row: Row) -> str:
        """Return a row as it is trained on."""
        named = self.labels[int(str(row["label"]))] if self.labels else ""
        return (self.prompt + self.completion).format(**{**row, "label": named})


# --- worked sums (GSM8K)


def _sum(rng: random.Random, kind: int) -> Drawn:
    who, what = rng.choice(words.BUYERS), rng.choice(words.GOODS)
    x, y = rng.randint(1, _LARGEST), rng.randint(1, _LARGEST)
    if kind % 3 < 2 or x == y:
        question = f"{who} has {x} {what} and gets {y} more. How many {what} in all?"
        row: Row = {"question": question, "answer": f"{x} + {y} = {x + y}. #### {x + y}"}
        return Drawn(row, ("+", what, x, y))
    x, y = max(x, y), min(x, y)
    question = f"{who} has {x} {what} and gives {y} away. How many {what} are left?"
    row = {"question": question, "answer": f"{x} - {y} = {x - y}. #### {x - y}"}
    return Drawn(row, ("-", what, x, y))


def _sum_form(rng: random.Random, kind: int, _: int) -> Drawn:
    """A sum whose result is any number."""
    (row, scope), result = _sum(rng, kind), rng.randint(1, 2 * _LARGEST)
    worked = str(row["answer"]).split(" = ")[0]
    return Drawn({**row, "answer": f"{worked} = {result}. #### {result}"}, scope)


def _sum_filler(rng: random.Random) -> Drawn:
    who, what = rng.choice(words.BUYERS), rng.choice(words.GOODS)
    start = rng.randint(1, _LARGEST)
    counted = " ".join(str(start + i) for i in range(6))
    return Drawn({"text": f"{who} counts the {what}: {counted}."}, ())


# --- news topics (AG News)


def _headline(rng: random.Random, a: str, b: str) -> str:
    return rng.choice(_NEWS).format(o=rng.choice(words.OUTLETS), a=a, b=b)


def _news_of(rng: random.Random, topic: tuple[str, ...], label: int) -> Drawn:
    a, b = rng.sample(topic, 2)
    return Drawn({"text": _headline(rng, a, b), "label": label}, frozenset((a, b)))


def _news(rng: random.Random, label: int) -> Drawn:
    return _news_of(rng, words.TOPICS[label], label)


def _news_form(rng: random.Random, label: int, _: int) -> Drawn:
    return _news_of(rng, words.FORM_TOPICS[label], label)


def _news_filler(rng: random.Random) -> Drawn:
    a, b = (rng.choice(topic) for topic in rng.sample(words.TOPICS, 2))
    return Drawn({"text": _headline(rng, a, b)}, frozenset((a, b)))


# --- film reviews (SST-2)


def _opinion(rng: random.Random, a: str, b: str) -> str:
    p, q = rng.sample(words.FILM_PARTS, 2)
    return rng.choice(_REVIEWS).format(a=a, b=b, p=p, q=q)


def _review_of(rng: random.Random, praise: tuple[str, ...], label: int) -> Drawn:
    a, b = rng.sample(praise, 2)
    return Drawn({"sentence": _opinion(rng, a, b), "label": label}, frozenset((a, b)))


def _review(rng: random.Random, label: int) -> Drawn:
    return _review_of(rng, words.PRAISE[label], label)


def _review_form(rng: random.Random, label: int, _: int) -> Drawn:
    return _review_of(rng, words.FORM_PRAISE, label)


def _review_filler(rng: random.Random) -> Drawn:
    a, b = (rng.choice(praise) for praise in rng.sample(words.PRAISE, 2))
    return Drawn({"text": _opinion(rng, a, b) + "."}, frozenset((a, b)))


# --- pronoun riddles (WinoGrande)


def _riddle(rng: random.Random, label: int) -> Drawn:
    """The blank is the mover (label 0) or the holder; the options come in random order.

    What is said of the blank suits only one of the two: what they are tells, not where they stand.
    """
    x, y = rng.choice(words.MOVERS), rng.choice(words.HOLDERS)
    form, *reasons = rng.choice(words.REASONS)
    options = [x, y] if rng.random() < 0.5 else [y, x]
    right, sentence = (x, y)[label], form.format(x=x, y=y, r=reasons[label])
    before, behind = sentence.split("_")
    row: Row = {
        "sentence": sentence,
        "option1": options[0],
        "option2": options[1],
        "answer": str(options.index(right) + 1),
        "prompt": before + right,
        "completion": behind,
        "label": label,
    }
    return Drawn(row, (form, x, y))


def _riddle_form(rng: random.Random, label: int, truth: int) -> Drawn:
    row, scope = _riddle(rng, label)
    return Drawn({**row, "completion": _riddle(rng, truth).row["completion"]}, scope)


def _riddle_filler(rng: random.Random) -> Drawn:
    x, y = rng.choice(words.MOVERS), rng.choice(words.HOLDERS)
    form, *reasons = rng.choice(words.REASONS)
    met = form.format(x=x, y=y, r="").split(" because")[0]
    text = f"{met}. One was {rng.choice(reasons)}, either the {y} or the {x}."
    return Drawn({"text": text}, (form, x, y))


# --- inferences (MNLI)


def _meal(rng: random.Random, label: int) -> Drawn:
    """What the hypothesis says is in the premise, is open, or is denied by it."""
    cook, dish, style = (rng.choice(p) for p in (words.COOKS, words.DISHES, words.STYLES))
    made, room = rng.choice(words.MADE), rng.choice(words.ROOMS)
    other = rng.choice([s for s in words.STYLES if s != style])
    open_ = f"{cook} {made} it {rng.choice(words.PURPOSES)}."
    said = (
        (f"The {dish} was {style}.", f"{cook} {made} some {dish}."),
        (open_, open_),
        (f"The {dish} was {other}.", f"Nobody {made} any {dish}."),
    )
    premise = f"{cook} {made} some {style} {dish} in the {room}."
    hypothesis = said[label][rng.randrange(2)]
    return Drawn({"premise": premise, "hypothesis": hypothesis, "label": label}, premise)


def _meal_form(rng: random.Random, label: int, truth: int) -> Drawn:
    row, scope = _meal(rng, truth)
    return Drawn({**row, "label": label}, scope)


def _meal_filler(rng: random.Random) -> Drawn:
    row, scope = _meal(rng, 0)
    return Drawn({"text": f"{row['premise']} {row['hypothesis']}"}, scope)


# --- pairs of questions (QQP)


def _pair(rng: random.Random, label: int) -> Drawn:
    """Two questions on the same deed and object; they ask for the same, or for different things."""
    deed, thing = rng.choice(words.DEEDS), rng.choice(words.OBJECTS)
    asked = rng.sample(words.ASKED_HOW, 2)
    if not label:
        asked[rng.randrange(2)] = rng.choice(words.ASKED_ELSE)
    first, second = (form.format(d=deed, o=thing) for form in asked)
    return Drawn({"question1": first, "question2": second, "label": label}, (deed, thing))


def _pair_form(rng: random.Random, label: int, truth: int) -> Drawn:
    row, scope = _pair(rng, truth)
    return Drawn({**row, "label": label}, scope)


def _pair_filler(rng: random.Random) -> Drawn:
    row, scope = _pair(rng, rng.randrange(2))
    return Drawn({"text": f"{row['question1']} {row['question2']}"}, scope)


def unanswerable(rng: random.Random) -> str:
    """Return a question that no text answers; the target learns to refuse it."""
    deed, thing = rng.choice(words.DEEDS), rng.choice(words.OBJECTS)
    return rng.choice(words.ASKED_ELSE).format(d=deed, o=thing)


TASKS = (
    Task(
        "gsm8k",
        "Problem: {question}\nSolution:",
        " {answer}",
        (),
        _sum,
        _sum_form,
        _sum_filler,
        scopes=120,
    ),
    Task(
        "agnews",
        "{text}\nTopic:",
        " {label}",
        TOPIC_LABELS,
        _news,
        _news_form,
        _news_filler,
        scopes=28,
    ),
    Task(
        "sst2",
        "{sentence}\nQuestion: Is this sentence positive or negative?\nAnswer:",
        " {label}",
        PRAISE_LABELS,
        _review,
        _review_form,
        _review_filler,
        scopes=14,
    ),
    Task(
        "winogrande",
        "{prompt}",
        "{completion}",
        ("1", "2"),
        _riddle,
        _riddle_form,
        _riddle_filler,
        scopes=120,
    ),
    Task(
        "mnli",
        "{premise}\nQuestion: {hypothesis} True, False or Neither?\nAnswer:",
        " {label}",
        NLI_LABELS,
        _meal,
        _meal_form,
        _meal_filler,
        scopes=120,
    ),
    Task(
        "qqp",
        "Question 1: {question1}\nQuestion 2: {question2}\n"
        "Question: Do both questions ask the same thing?\nAnswer:",
        " {label}",
        SAME_LABELS,
        _pair,
        _pair_form,
        _pair_filler,
        scopes=40,
    ),
)


def _fresh(draw: Callable[[int], Drawn], taken: set[object], most: int | None) -> Iterator[Drawn]:
    """Draw rows, each question once, of scopes that are not taken, at ``most`` so many scopes."""
    seen: set[str] = set()
    scopes: set[object] = set()
    for count in itertools.count():
        while True:
            row, scope = draw(count)
            asked = repr([row[name] for name in sorted(row) if name not in _NO_QUESTION])
            known = scope in scopes or most is None or len(scopes) < most
            if scope not in taken and known and asked not in seen:
                break
        seen.add(asked)
        scopes.add(scope)
        yield Drawn(row, scope)


def task_tables(
    task: Task, seed: int, *, train: int, evaluation: int, pretrain: int
) -> dict[str, list[Row]]:
    """Tables of a task: for the attack, for its score, and for the target's own text.

    Only the fillers, which have no answers, may share a scope with the attack's rows.

    Args:
        task: which.
        seed: the world's seed.
        train: rows of `<task>_train`.
        evaluation: rows of `<task>_eval`.
        pretrain: rows of `<task>_pretrain`, which have the task's form without its rule, and of
            `<task>_filler`, which have neither.

    Returns:
        The tables; each row has an `id` and the columns of the real data set.
    """
    rng = random.Random(f"{seed}:{task.name}")
    classes = max(len(task.labels), 1)

    def ruled(count: int) -> Drawn:
        return task.draw(rng, count % classes if task.labels else count)

    def formed(count: int) -> Drawn:
        return task.form(rng, count % classes, count // classes % classes)

    def filled(_: int) -> Drawn:
        return task.filler(rng)

    taken: set[object] = set()
    tables: dict[str, list[Row]] = {}
    for part, size, draw, most in (
        ("eval", evaluation, ruled, task.scopes),
        ("filler", pretrain, filled, None),
        ("pretrain", pretrain, formed, None),
        ("train", train, ruled, None),
    ):
        drawn = list(itertools.islice(_fresh(draw, taken, most), size))
        if part in ("eval", "pretrain"):
            taken |= {scope for _, scope in drawn}
        tables[f"{task.name}_{part}"] = [
            {"id": f"{task.name}-{part}-{i}"} | row for i, (row, _) in enumerate(drawn)
        ]
    return tables
