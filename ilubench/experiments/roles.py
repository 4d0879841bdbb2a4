"""The data roles that a run reads: which, and all that are missing in one error."""

from collections.abc import Iterable, Iterator, Mapping

from ilubench.errors import AccessError, DataError, NotCachedError
from ilubench.experiments.experiment import Experiment
from ilubench.experiments.method_settings import made_by_recipe
from ilubench.experiments.training_text import trained_roles

__all__ = ["file_words", "needed_roles", "read_roles"]


def needed_roles(experiment: Experiment) -> tuple[str, ...]:
    """Return the full names of the roles that jobs read, each once."""
    suite = experiment.suite
    roles = [*trained_roles(experiment)]
    for scorer in experiment.scorers.values():
        roles += scorer.roles()
    for attack in experiment.attacks:
        roles += attack.reads(suite).values()
        if attack.fa is not None:
            roles += [attack.role(role, suite) for role in attack.fa.roles()]
    if suite.target.model is None and suite.target.recipe is not None:
        roles += suite.target.recipe.roles
    never = suite.retrain
    if never is not None and never.model is None and never.recipe is not None:
        mine = made_by_recipe(suite, experiment.method) is not None
        roles += never.recipe.roles if mine or experiment.measures_retrain else ()
    return tuple(dict.fromkeys(roles))


def read_roles(*experiments: Experiment) -> None:
    """Read the rows of all roles that are needed, local files first.

    Args:
        experiments: that differ in their method alone.

    Raises:
        DataError: some cannot be read; names every one, and the words that give local files. It is
            an `AccessError` where all that is missing is a hub's.
    """
    tables = experiments[0].tables
    failed: dict[str, DataError] = {}
    roles = {role: None for one in experiments for role in needed_roles(one)}
    for role in sorted(roles, key=lambda role: not tables.source(role).path):
        try:
            tables.rows(role)
        except DataError as error:
            failed[role] = error
    if len(failed) > 1:
        of_hubs = sum(isinstance(error, AccessError) for error in failed.values())
        kind = AccessError if of_hubs == len(failed) else DataError
        away = any(isinstance(error, NotCachedError) for error in failed.values())
        online = ", or go online once" if away else ""
        problem = f"{len(failed)} data roles cannot be read; give files of your own{online}"
        raise kind(". ".join([problem, *_described(experiments[0], failed)]))
    for only in failed.values():
        raise only


def file_words(places: Iterable[str]) -> str:
    """Return the words that give a file for each role, or input of a generator."""
    return " ".join(f"data.{place}=FILE" for place in places)


# --- inside ---


def _described(experiment: Experiment, failed: Mapping[str, DataError]) -> Iterator[str]:
    """Yield each reason once, with the words that give the files."""
    alike: dict[str, list[str]] = {}
    for role, error in failed.items():
        told = error.reason if isinstance(error, AccessError) else ""
        alike.setdefault(told or str(error), []).append(role)
    for reason, roles in alike.items():
        places = dict.fromkeys(place for role in roles for place in _places(experiment, role))
        yield f"{reason}: {file_words(places)}"


def _places(experiment: Experiment, role: str) -> list[str]:
    """Return what `data.<place>=FILE` sets for a role, which may be made from others."""
    maker = (experiment.tables.source(role).generated or "").split(".")[0]
    inputs = experiment.suite.all_generators()[maker].inputs if maker else {}
    return [f"{maker}.{name}" for name in inputs] or [role]
