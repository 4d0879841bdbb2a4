"""Which items an attack that trains on some of them leaves to score."""

from ilubench.errors import SpecError, did_you_mean
from ilubench.experiments.experiment import Attack, Experiment

__all__ = ["scored_items"]


def scored_items(experiment: Experiment, attack: Attack) -> dict[str, frozenset[str]]:
    """Return scorer -> ids of its items whose rows are as the attack's `only` says.

    Raises:
        SpecError: no such scorer or column, a scorer that measures utility, or no item is left.
    """
    return {
        scorer: _ids(experiment, attack, scorer, dict(wanted))
        for scorer, wanted in attack.only.items()
    }


# --- inside ---


def _ids(
    experiment: Experiment, attack: Attack, name: str, wanted: dict[str, object]
) -> frozenset[str]:
    def refuse(problem: str, remedy: str) -> SpecError:
        where = f"attack {attack.name}"
        return SpecError(problem, where=where, field=f"only.{name}", remedy=remedy)

    suite, scorers, tables = experiment.suite, experiment.scorers, experiment.tables
    if name not in scorers:
        raise refuse(f"the suite has no scorer {name!r}", did_you_mean(name, scorers))
    if name in {metric.scorer for metric in suite.utility}:
        raise refuse("the scorer measures utility, which counts whole", "leave it out")
    rows = [row for role in scorers[name].item_roles() for row in tables.rows(role)]
    columns = {column for row in rows for column in row}
    for column in wanted:
        if column not in columns:
            raise refuse(f"its rows have no column {column!r}", did_you_mean(column, columns))
    kept = [row for row in rows if all(row[column] == value for column, value in wanted.items())]
    if not kept:
        told = ", ".join(f"{column} {value!r}" for column, value in wanted.items())
        raise refuse(f"none of its {len(rows)} items has {told}", "give a value that some have")
    return frozenset(str(row["id"]) for row in kept)
