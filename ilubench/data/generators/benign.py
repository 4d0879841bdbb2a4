"""Benign sets whose rows a template cannot render: WinoGrande and MNLI, in lm-eval's words.

Their prompts are cut or mended from the row's text. Training text must be what the fine-tuning
accuracy is asked with, so both generators follow lm-eval's task definitions (0.4.13).
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from ilubench.data.values import describe_value, text_in
from ilubench.errors import DataError, did_you_mean
from ilubench.interfaces import Generator, Row

__all__ = ["MnliPairs", "WinoGrandeSentences"]

_BLANK = "_"


def _text(row: Row, column: str, where: str) -> str:
    if column not in row:
        remedy = did_you_mean(column, row)
        raise DataError(f"{where}: column {column!r} is missing; {remedy}")
    text = text_in(row[column])
    if text is None:
        raise DataError(f"{where}: column {column!r} is {describe_value(row[column])}, not text")
    return text


def _filled(row: Row, where: str) -> Row:
    sentence = _text(row, "sentence", where)
    answer = str(row.get("answer"))
    if answer not in ("1", "2"):
        raise DataError(f"{where}: answer={row.get('answer')!r} is not 1 or 2; is it unlabelled?")
    before, blank, after = sentence.partition(_BLANK)
    if not blank or not after.strip():
        raise DataError(f"{where}: no text behind a blank ({_BLANK}) in {sentence!r}")
    prompt = before + _text(row, f"option{answer}", where)
    return {**row, "prompt": prompt, "completion": f" {after.strip()}"}


def _closed(row: Row, where: str) -> Row:
    hypothesis = _text(row, "hypothesis", where).strip()
    return {**row, "hypothesis": hypothesis if hypothesis.endswith(".") else f"{hypothesis}."}


class WinoGrandeSentences(Generator):
    """WinoGrande's sentences, filled with the right option and cut behind it.

    Each input ({sentence, option1, option2, answer}) gives a table of its own name, with the
    further columns `prompt` (up to and with the option) and `completion` (what is behind it).
    """

    version: ClassVar[int] = 1

    def tables(self, inputs: Mapping[str, Sequence[Row]]) -> Mapping[str, Sequence[Row]]:
        """Return a table an input.

        Raises:
            DataError: a row without a blank, text behind it, or an answer.
        """
        return {
            name: [_filled(row, f"winogrande {name} row {n}") for n, row in enumerate(rows, 1)]
            for name, rows in inputs.items()
        }


class MnliPairs(Generator):
    """MNLI's rows, their hypotheses stripped and closed with a full stop.

    Each input ({premise, hypothesis, label}) gives a table of its own name.
    """

    version: ClassVar[int] = 1

    def tables(self, inputs: Mapping[str, Sequence[Row]]) -> Mapping[str, Sequence[Row]]:
        """Return a table an input.

        Raises:
            DataError: a row without a hypothesis.
        """
        return {
            name: [_closed(row, f"mnli {name} row {n}") for n, row in enumerate(rows, 1)]
            for name, rows in inputs.items()
        }
