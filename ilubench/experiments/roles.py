"""The data roles that a run reads: which, and all that are missing in one error."""

from collections.abc import Iterator, Sequence

from ilubench.errors import AccessError, DataError
from ilubench.experiments.experiment import Experiment
from ilubench.experiments.training_text import trained_roles

__all__ = ["needed_roles", "read_roles"]


def needed_roles(experiment: Experiment) -> tuple[str, ...]:
    """Return the full names of the roles that jobs read, each once."""
    suite = experiment.suite
    roles = [*trained_roles(experiment)]
    for scorer in experiment.scorers.values():
        roles += scorer.roles()
    for attack in experiment.attacks:
        if attack.fa is not None:
            roles += [attack.role(role, suite) for role in attack.fa.roles()]
    if suite.target.model is None and suite.target.recipe is not None:
        roles += [*suite.target.recipe.text, *suite.target.recipe.tokenizer.text]
    return tuple(dict.fromkeys(roles))


def read_roles(experiment: Experiment) -> None:
    """Read the rows of all roles that are needed, local files first.

    Raises:
        DataError: some cannot be read; names every one, and the words that give local files. It is
            an `AccessError` where all that is missing is a hub's.
    """
    tables = experiment.tables
    failed: dict[str, DataError] = {}
    for role in sorted(needed_roles(experiment), key=lambda role: not tables.source(role).path):
        try:
            tables.rows(role)
        except DataError as error:
            failed[role] = error
    if len(failed) > 1:
        kind = (
            AccessError if all(isinstance(e, AccessError) for e in failed.values()) else DataError
        )
        told = ". ".join(_described(experiment, failed))
        words = " ".join(dict.fromkeys(f"data.{p}=FILE" for p in _places(experiment, failed)))
        problem = f"{len(failed)} data roles cannot be read. {told}"
        raise kind(f"{problem}. Local files in their place: {words}")
    for error in failed.values():
        raise error


# --- inside ---


def _described(experiment: Experiment, failed: dict[str, DataError]) -> Iterator[str]:
    """Yield each reason once, with the roles that it is the same for."""
    alike: dict[object, list[str]] = {}
    for role, error in failed.items():
        source = experiment.tables.source(role)
        maker = (source.generated or "").split(".")[0]
        same = (type(error), source.hub, source.revision) if source.hub else maker or role
        alike.setdefault(same, []).append(role)
    for first, *others in alike.values():
        also = f" (and so are {', '.join(f'data.{role}' for role in others)})" if others else ""
        yield f"{failed[first]}{also}"


def _places(experiment: Experiment, roles: Sequence[str] | dict[str, DataError]) -> Iterator[str]:
    """Yield what `data.<place>=FILE` sets for roles: a generated one has the generator's inputs."""
    generators = experiment.suite.all_generators()
    for role in roles:
        source = experiment.tables.source(role)
        maker = (source.generated or "").split(".")[0]
        inputs = generators[maker].inputs if maker else {}
        yield from (f"{maker}.{key}" for key in inputs) if inputs else (role,)
