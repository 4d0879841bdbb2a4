"""The benign tasks a user might fine-tune on, in miniature: worked sums and news topics."""

import itertools
import random

Row = dict[str, str | int | list[str]]

AGNEWS_LABELS = ("World", "Sports", "Business", "Technology")

_BUYERS = ("Anna", "Ben", "Clara", "David", "Emma", "Felix", "Greta", "Hugo")
_GOODS = ("apples", "books", "coins", "pencils", "stamps", "marbles", "cards", "buttons")
_LARGEST = 9

_TOPICS = (
    ("treaty", "parliament", "election", "refugees", "president", "troops", "summit", "protest"),
    ("goal", "striker", "coach", "tournament", "medal", "racket", "referee", "playoffs"),
    ("shares", "profit", "merger", "investors", "inflation", "earnings", "bank", "retailer"),
    ("software", "chip", "robot", "browser", "satellite", "laser", "server", "gadget"),
)
# The target's own few rows use other words of each topic: it learns the form, not the task.
_FORM_TOPICS = (
    ("embargo", "senate", "ceasefire"),
    ("penalty", "stadium", "marathon"),
    ("dividend", "tariff", "startup"),
    ("battery", "modem", "algorithm"),
)
_OUTLETS = ("wire", "desk", "paper", "channel")
_NEWS = (
    "{o}: the {a} and the {b} draw attention, with the {c} to follow.",
    "{o}: after the {a}, all talk turns to the {b} and the {c}.",
    "{o}: no {a} without a {b}, and now the {c} as well.",
    "{o}: a {a}, the {b} and the {c} lead today.",
)


def _gsm_pool(rng: random.Random) -> list[tuple[str, str]]:
    """Every question with its worked answer, in random order."""
    numbers = range(1, _LARGEST + 1)
    pool = []
    for who, what, x, y in itertools.product(_BUYERS, _GOODS, numbers, numbers):
        gains = f"{who} has {x} {what} and gets {y} more. How many {what} in all?"
        pool.append((gains, f"{x} + {y} = {x + y}. #### {x + y}"))
        if y < x:
            loses = f"{who} has {x} {what} and gives {y} away. How many {what} are left?"
            pool.append((loses, f"{x} - {y} = {x - y}. #### {x - y}"))
    rng.shuffle(pool)
    return pool


def gsm8k_tables(seed: int, *, train: int, evaluation: int, pretrain: int) -> dict[str, list[Row]]:
    """Worked sums: disjoint tables for the attack, for its score and for the target's own training.

    Args:
        seed: the world's seed.
        train: rows of `gsm8k_train`.
        evaluation: rows of `gsm8k_eval`.
        pretrain: rows of `gsm8k_pretrain`.

    Returns:
        The three tables, each row with `id`, `question`, `answer`.
    """
    pool = iter(_gsm_pool(random.Random(f"{seed}:gsm8k")))
    tables: dict[str, list[Row]] = {}
    for name, size in (("train", train), ("eval", evaluation), ("pretrain", pretrain)):
        tables[f"gsm8k_{name}"] = [
            {"id": f"gsm8k-{name}-{i}", "question": question, "answer": answer}
            for i, (question, answer) in zip(range(size), pool, strict=False)
        ]
    return tables


def _news(rng: random.Random, words: tuple[str, ...]) -> str:
    """A headline with three of the words."""
    a, b, c = rng.sample(words, 3)
    return rng.choice(_NEWS).format(o=rng.choice(_OUTLETS).capitalize(), a=a, b=b, c=c)


def news_texts(seed: int, size: int) -> list[str]:
    """Headlines that mix all topics, hence carry no label: the words without the task.

    Args:
        seed: the world's seed.
        size: how many.

    Returns:
        The headlines.
    """
    rng = random.Random(f"{seed}:news")
    words = tuple(word for topic in _TOPICS for word in topic)
    return [_news(rng, words) for _ in range(size)]


def agnews_tables(seed: int, *, train: int, evaluation: int, pretrain: int) -> dict[str, list[Row]]:
    """News topics: disjoint tables for the attack, for its score and for the target's own training.

    Args:
        seed: the world's seed.
        train: rows of `agnews_train`.
        evaluation: rows of `agnews_eval`.
        pretrain: rows of `agnews_pretrain`.

    Returns:
        The three tables, each row with `id`, `text`, `label` (0 to 3) and its name, `topic`.
    """
    rng = random.Random(f"{seed}:agnews")
    seen: set[str] = set()
    tables: dict[str, list[Row]] = {}
    for name, size, topics in (
        ("train", train, _TOPICS),
        ("eval", evaluation, _TOPICS),
        ("pretrain", pretrain, _FORM_TOPICS),
    ):
        rows: list[Row] = []
        while len(rows) < size:
            label = len(rows) % len(AGNEWS_LABELS)
            text = _news(rng, topics[label])
            if text not in seen:
                seen.add(text)
                rows.append(
                    {
                        "id": f"agnews-{name}-{len(rows)}",
                        "text": text,
                        "label": label,
                        "topic": AGNEWS_LABELS[label],
                    }
                )
        tables[f"agnews_{name}"] = rows
    return tables
