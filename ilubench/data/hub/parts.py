"""Which files of a data set's repository belong to a subset and a split.

`datasets` knows: by the patterns in the data set's card, else by the files' names. It is asked with
an empty folder tree of the same names, so that nothing of the rows is needed for the answer, no
network, and no code of the data set can run. Then the files are read by
:func:`ilubench.data.files.read_file`, like local ones.

Why not `datasets.load_dataset(hub, ...)`: it wraps what the hub says (gated, missing and private
become one `DatasetNotFoundError`), resolves the revision itself without telling the commit, keeps
every row a second time on disk, and answers a half-filled cache in ways that differ with its
version.
"""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from ilubench.data.files import ENDINGS, is_readable
from ilubench.data.hub.refusals import OFFLINE, Repository
from ilubench.data.hub.repository import Listing, fetch
from ilubench.errors import NotCachedError, UnknownPartError, did_you_mean

__all__ = ["part_files"]

CARD = "README.md"


def part_files(
    repository: Repository,
    found: Listing,
    subset: str | None,
    split: str,
    named: Sequence[str] = (),
) -> tuple[str, ...]:
    """Return the files of a split, in their order.

    Args:
        repository: of the data set.
        found: its files.
        subset: name of a configuration; None where there is only one.
        split: name of a split.
        named: file names, the first of which that the repository has is the answer; where it has
            none, the card tells.

    Raises:
        UnknownPartError: there is no such subset or split, or its files are of an unknown kind.
        NotCachedError: nobody knows, since the hub is not asked and the cache holds only a part.
        AccessError: the card cannot be had.
    """
    try:
        return _part_files(repository, found, subset, split, named)
    except UnknownPartError as error:
        if found.certain:
            raise
        problem = "offline, and the cache holds only a part of it"
        raise repository.error(NotCachedError, problem, OFFLINE) from error


def _part_files(
    repository: Repository, found: Listing, subset: str | None, split: str, named: Sequence[str]
) -> tuple[str, ...]:
    for name in named:
        same = [path for path in found.files if path == name or path.endswith(f"/{name}")]
        if same:
            return (min(same, key=lambda path: (len(path), path)),)
    if not any(map(is_readable, found.files)):
        raise _unknown(repository, "it has no file of rows", f"of {ENDINGS}: convert it")
    splits = dict(_splits(repository, found, subset))
    if split not in splits:
        remedy = did_you_mean(split, splits)
        raise _unknown(repository, f"{_of(subset)} has no split {split!r}", remedy)
    files = splits[split]
    strange = [name for name in files if not is_readable(name)]
    if strange:
        problem = f"split {split!r} is in {strange[0]!r}, which cannot be read"
        raise _unknown(repository, problem, f"convert it to one of {ENDINGS}")
    return files


def _of(subset: str | None) -> str:
    return "it" if subset is None else f"subset {subset!r}"


def _unknown(repository: Repository, problem: str, remedy: str) -> Exception:
    return repository.error(UnknownPartError, problem, remedy)


def _splits(
    repository: Repository, found: Listing, subset: str | None
) -> Iterator[tuple[str, tuple[str, ...]]]:
    import datasets

    card = b""
    if CARD in found.files:
        card = (fetch(repository, found, (CARD,)) / CARD).read_bytes()
    with tempfile.TemporaryDirectory(prefix="ilubench-") as place:
        tree = Path(place, "rows").resolve()
        for name in found.files:
            if not name.endswith(".py"):
                (tree / name).parent.mkdir(parents=True, exist_ok=True)
                (tree / name).touch()
        # a card without a head makes the client warn of it on stderr
        (tree / CARD).write_bytes(
            card if card.startswith(b"---") else b"---\nlicense: other\n---\n"
        )
        try:
            names = datasets.get_dataset_config_names(str(tree))
            chosen = subset or datasets.get_dataset_default_config_name(str(tree))
            if chosen not in names:
                problem = f"it has no subset {subset!r}"
                if subset is None:
                    problem = "it has several subsets, and none is named"
                raise _unknown(repository, problem, did_you_mean(subset or "", names))
            cache = str(Path(place, "cache"))
            builder = datasets.load_dataset_builder(str(tree), chosen, cache_dir=cache)
        except (ValueError, OSError, datasets.exceptions.DatasetsError) as error:
            problem = f"{_of(subset)} has no files that make up splits, or its card is wrong"
            remedy = f"name one: {repository.field}.files=NAME"
            raise _unknown(repository, problem, remedy) from error
        for split, files in (builder.config.data_files or {}).items():
            yield str(split), tuple(Path(str(file)).relative_to(tree).as_posix() for file in files)
