"""Rows with the columns that the six benign data sets have on the hub."""

import json
from collections.abc import Sequence
from pathlib import Path

from ilubench.interfaces import Row

GLUE = {"idx": 0}


ROWS: dict[str, list[Row]] = {
    "gsm8k": [
        {"question": f"Anna has {n} apples and eats one.", "answer": f"{n} - 1\n#### {n - 1}"}
        for n in range(1, 9)
    ],
    "agnews": [{"text": f"News {n} of the day", "label": n % 4} for n in range(8)],
    "sst2": [{"sentence": f"a charming film {n} ", "label": n % 2, **GLUE} for n in range(8)],
    "qqp": [
        {"question1": f"What is {n}?", "question2": "Why {braces}?", "label": n % 2, **GLUE}
        for n in range(8)
    ],
    "mnli": [
        {"premise": f"He has {n}.", "hypothesis": ending, "label": n % 3, **GLUE}
        for n, ending in enumerate(("He has.", "He has", " He has not. ", "He has? ", "He. "))
    ],
    "winogrande": [
        {"sentence": sentence, "option1": "Ann", "option2": "the trophy", "answer": "12"[n % 2]}
        for n, sentence in enumerate(
            ("Bob thanked _ for it.", "It did not fit since _ was big.", "_ , he said.", "A _'s b.")
        )
    ],
}


def lines(path: Path, rows: Sequence[Row]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
