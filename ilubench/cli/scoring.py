"""The command that scores a checkpoint as it is: with a suite's scorers, or tasks of lm-eval."""

from pathlib import Path
from typing import Annotated

import typer

from ilubench.cli.completion import complete_words
from ilubench.cli.guard import COMPLETE, FAILED_JOBS
from ilubench.cli.running import model_source
from ilubench.cli.words import Config, Json, Model, console, overrides_of

__all__ = ["score"]

Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...",
        help="e.g. suite=mini scorers=forget_mc, or task=FILE data=FILE",
        autocompletion=complete_words,
    ),
]


def score(
    model: Model,
    words: Words = None,
    config: Config = None,
    as_json: Json = False,
) -> int:
    """Score a checkpoint with a suite's scorers or tasks of lm-eval; nothing is unlearned.

    suite=NAME scorers=A,B asks some of a suite's scorers; task=FILE data=FILE a task in lm-eval's
    format on rows of your own; task=NAME one of lm-eval's own, on the data set that it names.
    `ilubench ls scorers suite=NAME` says what a suite's scorers read.
    """
    import json

    from ilubench.errors import UsageError
    from ilubench.runs.loading import collection_paused

    with collection_paused():
        from ilubench.reports.score_report import score_json, score_report
        from ilubench.runs.pipeline import run
        from ilubench.runs.progress import make_reporter
        from ilubench.runs.scoring import resolve_scoring

    for word in words or ():
        if "=" not in word and Path(word).is_file():
            key = "task" if word.endswith((".yaml", ".yml")) else "data"
            raise UsageError(f"{word!r} is a file, and not said what for; write {key}={word}")
    if words and "=" not in words[0]:
        raise UsageError(f"cannot read {words[0]!r}; write scorers={words[0]} or task={words[0]}")
    experiment = resolve_scoring(overrides_of(words, config), model_source(model))
    with make_reporter(console()) as shown:
        result = run(experiment, shown)
    if as_json:
        typer.echo(json.dumps(score_json(result), indent=1))
    else:
        console(stderr=False).print(score_report(result, model))
    return FAILED_JOBS if result.record.failures else COMPLETE
