"""A suite's scorers: what each reads and measures, and the words that score a model with them."""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from ilubench.errors import UsageError
from ilubench.experiments.experiment import create_scorers
from ilubench.experiments.roles import file_words
from ilubench.experiments.suites import read_suite
from ilubench.interfaces import Scorer
from ilubench.records.markdown import cell, table
from ilubench.specs import DataSource, SuiteSpec
from ilubench.specs.overrides import Override

__all__ = ["SuiteScorers", "scorers_text", "suite_scorers"]


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
        measured = spec.chance_measured_by is not None
        return spec.label, None if measured else spec.chance_level, spec.direction

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


def scorers_text(found: SuiteScorers) -> str:
    """Return a suite's scorers as a Markdown table, and how to score a model with one of them."""
    head = ["scorer", "kind", "reads", "columns", "metric", "chance", "knows more"]
    rows = []
    for name, scorer in found.scorers.items():
        columns = scorer.columns()
        roles = [f"{role} ({_place(found.suite.data.get(role))})" for role in scorer.roles()]
        own = [", ".join(columns.get(role, ())) or "?" for role in scorer.roles()]
        stated = [(metric, *found.stated(name, metric)) for metric in scorer.metrics()]
        metrics = [f"{metric} ({label})" if label else metric for metric, label, *_ in stated]
        chances = ["?" if chance is None else f"{chance:g}" for *_, chance, _ in stated]
        more = [direction or "?" for *_, direction in stated]
        parts = map("; ".join, (roles, own, metrics, chances, more))
        rows.append([cell(one) for one in (name, found.suite.scorers[name].use, *parts)])
    name, scorer = next(iter(found.scorers.items()))
    hint = f"ilubench score MODEL suite={found.suite.name} scorers={name}"
    reads = f"{hint} reads no more than {', '.join(scorer.roles())}"
    files = f"from files of your own: {file_words(scorer.roles())}"
    title = f"Scorers of suite {found.suite.name}"
    return "\n\n".join([cell(title), table(head, rows), cell(reads), cell(files)])


# --- inside ---


def _place(source: DataSource | None) -> str:
    """Return where a role's rows come from, in short."""
    if source is None:
        return "not in the suite"
    part = "/".join(filter(None, (source.subset, source.split))) if source.hub else ""
    chat = "as a chat" if source.chat else ""
    return " ".join(filter(None, (source.hub or source.path or source.generated, part, chat)))
