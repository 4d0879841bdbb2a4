"""A suite's scorers: what each reads and measures, and the words that score a model with them."""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import JsonValue
from rich.console import Group
from rich.table import Table
from rich.text import Text

from ilubench.errors import UsageError
from ilubench.experiments.experiment import create_scorers
from ilubench.experiments.roles import file_words
from ilubench.experiments.suites import read_suite
from ilubench.interfaces import Scorer
from ilubench.specs import DataSource, SuiteSpec
from ilubench.specs.overrides import Override

__all__ = ["SuiteScorers", "scorers_table", "suite_scorers"]


_STATED = ("label", "chance", "direction")


@dataclass(frozen=True)
class SuiteScorers:
    """A suite, and its scorers by name."""

    suite: SuiteSpec
    scorers: dict[str, Scorer]

    def stated(self, scorer: str, metric: str) -> tuple[str | None, float | None, str | None]:
        """Return label and chance, where the suite states them, and the direction of a metric."""
        spec = self.suite.metric_of(scorer, metric)
        if spec is None:
            return None, None, self.scorers[scorer].directions().get(metric)
        return spec.label, spec.chance, spec.direction

    def as_json(self) -> list[JsonValue]:
        """Return a mapping a scorer: what it reads, from where, and its metrics."""
        return [
            {
                "name": name,
                "title": f"{self.suite.scorers[name].use} of suite {self.suite.name}",
                "use": self.suite.scorers[name].use,
                "reads": list(scorer.roles()),
                "sources": {role: _place(self.suite.data.get(role)) for role in scorer.roles()},
                "columns": {role: list(own) for role, own in scorer.columns().items()},
                "words": file_words(scorer.roles()),
                "metrics": [
                    {"metric": metric, **dict(zip(_STATED, self.stated(name, metric), strict=True))}
                    for metric in scorer.metrics()
                ],
            }
            for name, scorer in self.scorers.items()
        ]


def suite_scorers(words: Sequence[Override]) -> SuiteScorers:
    """Return the scorers of the suite that `suite=NAME` names; no row is read.

    Raises:
        UsageError: other words, or no such suite.
        PluginError: a scorer is missing or broken.
    """
    if [word.path for word in words] != [("suite",)]:
        raise UsageError("ls scorers takes a suite; write ilubench ls scorers suite=mini")
    suite, path = read_suite(words[0].text)
    return SuiteScorers(suite, create_scorers(suite, path))


def scorers_table(found: SuiteScorers) -> Group:
    """Return a suite's scorers as a table, and how to score a model with one of them."""
    table = Table(title=f"Scorers of suite {found.suite.name}", title_justify="left")
    for name in ("scorer", "kind", "reads", "columns", "metric", "chance", "knows more"):
        table.add_column(name, justify="right" if name == "chance" else "left")
    for name, scorer in found.scorers.items():
        columns = scorer.columns()
        reads = "\n".join(f"{r} ({_place(found.suite.data.get(r))})" for r in scorer.roles())
        own = "\n".join(", ".join(columns.get(role, ())) or "?" for role in scorer.roles())
        stated = [(metric, *found.stated(name, metric)) for metric in scorer.metrics()]
        table.add_row(
            name,
            found.suite.scorers[name].use,
            reads,
            own,
            "\n".join(f"{metric} ({label})" if label else metric for metric, label, *_ in stated),
            "\n".join("" if chance is None else f"{chance:g}" for *_, chance, _ in stated),
            "\n".join(direction or "" for *_, direction in stated),
        )
    name, scorer = next(iter(found.scorers.items()))
    hint = f"ilubench score MODEL suite={found.suite.name} scorers={name}"
    return Group(
        table,
        Text(f"{hint} reads no more than {', '.join(scorer.roles())}"),
        Text(f"from files of your own: {file_words(scorer.roles())}"),
    )


# --- inside ---


def _place(source: DataSource | None) -> str:
    """Return where a role's rows come from, in short."""
    if source is None:
        return "not in the suite"
    part = "/".join(filter(None, (source.subset, source.split))) if source.hub else ""
    return " ".join(filter(None, (source.hub or source.path or source.generated, part)))
