"""What a run needs from elsewhere: models and data sets of a hub, cached or not, gated or not."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ilubench.data.hub import Listing, Repository, cached, listing, part_files
from ilubench.data.hub.models import TOKENIZER, tokenizer_files
from ilubench.data.rows import hub_repository as hub_data
from ilubench.errors import AccessError, ModelError
from ilubench.experiments.experiment import Experiment
from ilubench.forecast.needs import needed_models, needed_places
from ilubench.models.checkpoints import hub_repository as hub_model
from ilubench.models.checkpoints import needed_files
from ilubench.specs import DataSource, ModelSource

__all__ = ["Source", "list_sources"]


@dataclass(frozen=True)
class Source:
    """Something on a hub.

    Attributes:
        field: `data.<role>`, `suite.target.model`, `suite.target.tokenizer`; those of the same
            files are one.
        name: its id.
        revision: as the suite says.
        commit: what that stood for when it was cached; empty where it is not.
        part: subset and split of a data set; empty for a model.
        license: as the suite or the hub says; empty where neither does.
        gated: whether terms must be accepted on its page.
        cached: whether all files are here.
        bytes: of the download, known or stated; None where neither.
    """

    field: tuple[str, ...]
    name: str
    revision: str
    commit: str
    part: str
    license: str
    gated: bool
    cached: bool
    bytes: int | None


def list_sources(*experiments: Experiment) -> tuple[Source, ...]:
    """Return what runs read from a hub, without asking it; call this offline."""
    found: dict[tuple[str, str, str], Source] = {}
    for source in _all(*experiments):
        same = found.get((source.name, source.revision, source.part))
        before = same.field if same else ()
        fields = tuple(dict.fromkeys((*before, *source.field)))
        merged = Source(
            fields,
            source.name,
            source.revision,
            source.commit,
            source.part,
            source.license or (same.license if same else ""),
            source.gated or bool(same and same.gated),
            source.cached,
            source.bytes,
        )
        found[source.name, source.revision, source.part] = merged
    return tuple(found.values())


def _all(*experiments: Experiment) -> Iterator[Source]:
    for field, model in needed_models(*experiments):
        if isinstance(model, ModelSource) and model.hub:
            yield _model(model, field, tokenizer_files if field == TOKENIZER else needed_files)
    for place, source in sorted(needed_places(*experiments).items()):
        if source.hub:
            yield _data(source, place)


def _model(
    source: ModelSource, field: str, files: Callable[[Repository, Listing], tuple[str, ...]]
) -> Source:
    repository = hub_model(source, field)
    about = source.about.bytes if source.about is not None else None

    def needs(found: Listing) -> tuple[str, ...]:
        return files(repository, found)

    held = _held(repository, needs)
    return _source(repository, field, "", (source.license, source.gated, about), held)


def _data(source: DataSource, place: str) -> Source:
    repository = hub_data(source, place)

    def needs(found: Listing) -> tuple[str, ...]:
        return part_files(repository, found, source.subset, source.split, source.files)

    about = source.about.bytes if source.about is not None else None
    part = "/".join(name for name in (source.subset, source.split) if name)
    told = (source.license, source.gated, about)
    return _source(repository, f"data.{place}", part, told, _held(repository, needs))


def _held(repository: Repository, needs: object) -> tuple[Listing, bool, int] | None:
    """Return what is known of a repository, whether its files are cached, and their bytes."""
    assert callable(needs)
    try:
        found = listing(repository)
        names: tuple[str, ...] = needs(found)
    except (AccessError, ModelError):
        return None
    here = cached(repository, found, names)
    return found, len(here) == len(names), found.size(names)


def _source(
    repository: Repository,
    field: str,
    part: str,
    told: tuple[str, bool, int | None],
    held: tuple[Listing, bool, int] | None,
) -> Source:
    licence, gated, about = told
    found = held[0] if held is not None else None
    return Source(
        (field,),
        repository.name,
        repository.revision,
        found.commit if found is not None else "",
        part,
        licence or (found.license if found is not None else ""),
        gated or bool(found and found.gated),
        held is not None and held[1],
        (held[2] or about) if held is not None else about,
    )
