"""A repository's files at one commit: listed, fetched, and known again without the hub.

The client's cache keeps files, but not which files there are; a cache that holds two of three
shards looks like one that holds all. So the list is kept beside them, in the repository's folder of
the cache: `ilubench/<commit>.json`. Branches and tags resolve through the client's own `refs/`.
"""

import contextlib
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, cast

from ilubench.data.hub.refusals import COMMIT, OFFLINE, Repository, asking, is_offline
from ilubench.errors import DamagedError, NotCachedError, UnknownRevisionError, UnreachableError
from ilubench.records.keys import file_sha256

__all__ = ["Listing", "Repository", "access", "cached", "fetch", "listing"]

_SHA256 = 64
"""Digits of a SHA-256."""


@dataclass(frozen=True)
class Listing:
    """What a repository holds at a commit.

    Attributes:
        commit: 40 hexadecimal digits.
        files: name -> size in bytes; None where it is not known.
        gated: whether its terms must be accepted.
        license: as its card says; empty where it does not.
        certain: whether these are all files; False for what merely lies in the cache.
    """

    commit: str
    files: Mapping[str, int | None]
    gated: bool = False
    license: str = ""
    certain: bool = field(default=True, compare=False)

    def size(self, names: Sequence[str]) -> int:
        """Return the bytes of the files together, as far as they are known."""
        return sum(self.files[name] or 0 for name in names)


def listing(repository: Repository) -> Listing:
    """Return the commit that a revision stands for now, and its files.

    A commit that is known already is not asked for again. Where the hub cannot be asked or refuses,
    the last known answer counts.

    Raises:
        AccessError: the hub refuses or cannot be asked, and the cache knows nothing either; each
            reason is a class of its own.
    """
    known = _known(repository)
    if known is not None and known.certain and repository.revision == known.commit:
        return known
    if is_offline():
        if known is None:
            problem = "offline, and it is not in the cache"
            raise repository.error(NotCachedError, problem, OFFLINE)
        return known
    try:
        found = _asked(repository)
    except UnknownRevisionError:
        raise  # the hub knows the repository, and better than the cache
    except Exception:
        if known is None:
            raise
        return known
    _remember(repository, found)
    return found


def fetch(repository: Repository, found: Listing, names: Sequence[str]) -> Path:
    """Return the folder that holds the files of a commit, downloaded where they are not there.

    Raises:
        AccessError: one cannot be had, or is damaged; each reason is a class of its own.
    """
    from huggingface_hub import hf_hub_download

    folder = snapshot(repository, found)
    spoiled = [name for name in names if _damaged(folder / name, found.files[name])]
    missing = [name for name in names if not (folder / name).is_file()]
    if is_offline() and (spoiled or missing):
        raise _incomplete(repository, missing, spoiled)
    for name in sorted({*spoiled, *missing}, key=list(names).index):
        with asking(repository, name):
            hf_hub_download(
                repository.name,
                name,
                repo_type=repository.kind,
                revision=found.commit,
                cache_dir=_cache(),
                force_download=name in spoiled,
            )
        if _damaged(folder / name, found.files[name]):
            problem = f"{name}: the download is not what the hub says"
            raise repository.error(DamagedError, problem, "give the same command again")
    return folder


def cached(repository: Repository, found: Listing, names: Sequence[str]) -> tuple[str, ...]:
    """Return those of the files that are in the cache, in their full size."""
    folder = snapshot(repository, found)
    return tuple(
        name
        for name in names
        if (folder / name).is_file() and not _spoiled(folder / name, found.files[name])
    )


def access(repository: Repository, found: Listing, names: Sequence[str]) -> None:
    """See that files which are not in the cache could be downloaded; nothing is.

    Raises:
        AccessError: they could not; each reason is a class of its own.
    """
    from huggingface_hub import HfApi

    if is_offline():
        fetch(repository, found, names)
        return
    _asked(repository)
    if found.gated:
        with asking(repository):
            HfApi().auth_check(repository.name, repo_type=repository.kind)


def snapshot(repository: Repository, found: Listing) -> Path:
    """Return where the client keeps the files of a commit."""
    return _home(repository) / "snapshots" / found.commit


# --- inside ---


def _cache() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _home(repository: Repository) -> Path:
    """The repository's folder of the client's cache, in its documented layout."""
    return _cache() / f"{repository.kind}s--{repository.name.replace('/', '--')}"


def _spoiled(path: Path, size: int | None) -> bool:
    return size is not None and path.is_file() and path.stat().st_size != size


def _damaged(path: Path, size: int | None) -> bool:
    """Whether a file has another size than the hub says, or another hash than its name.

    The client links to what it fetched by the hub's own hash of it: SHA-256 of large files, git's
    SHA-1 of others. A mirror may have names that are no such hash; they tell nothing.
    """
    if _spoiled(path, size):
        return True
    named = path.readlink().name if path.is_symlink() and path.is_file() else ""
    if not re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", named):
        return False
    return named != (file_sha256(path) if len(named) == _SHA256 else _git_sha1(path))


def _git_sha1(path: Path) -> str:
    head = b"blob %d\0" % path.stat().st_size
    return hashlib.sha1(head + path.read_bytes(), usedforsecurity=False).hexdigest()


def _incomplete(
    repository: Repository, missing: Sequence[str], spoiled: Sequence[str]
) -> Exception:
    if missing:
        more = f" and {len(missing) - 1} more files" if len(missing) > 1 else ""
        problem = f"offline, and {missing[0]}{more} is not in the cache"
        return repository.error(NotCachedError, problem, OFFLINE)
    problem = f"{spoiled[0]} in the cache is damaged: it is not what the hub sent"
    return repository.error(DamagedError, problem, OFFLINE)


def _asked(repository: Repository) -> Listing:
    """Ask the hub; its answer has no text of any row."""
    from huggingface_hub import HfApi, constants

    with asking(repository):
        info: Any = HfApi().repo_info(
            repository.name,
            repo_type=repository.kind,
            revision=repository.revision,
            files_metadata=True,
            timeout=constants.HF_HUB_ETAG_TIMEOUT,
        )
    if not isinstance(info.sha, str) or not COMMIT.fullmatch(info.sha):
        problem = f"the hub names no commit for it ({info.sha!r:.60})"
        raise repository.error(UnreachableError, problem, "check HF_ENDPOINT")
    card = info.card_data or {}
    given = card.get("license") or ()
    names = {one.rfilename: one.size for one in info.siblings or ()}
    return Listing(
        commit=info.sha,
        files={name: size for name, size in names.items() if _plain(name)},
        gated=bool(info.gated),
        license=", ".join(map(str, [given] if isinstance(given, str) else given)),
    )


def _plain(name: str) -> bool:
    """Whether a name leads to a file below the folder it is put into."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\\" not in name


def _remember(repository: Repository, found: Listing) -> None:
    """Keep a listing, and what its branch or tag stands for; a read-only cache is left alone."""
    home = _home(repository)
    told = {
        "files": dict(found.files),
        "gated": found.gated,
        "license": found.license,
    }
    with contextlib.suppress(OSError):
        _write(home / "ilubench" / f"{found.commit}.json", json.dumps(told))
        if repository.revision != found.commit and _plain(repository.revision):
            _write(home / "refs" / repository.revision, found.commit)


def _write(path: Path, text: str) -> None:
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, aside = tempfile.mkstemp(dir=path.parent, prefix=".ilubench-")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    Path(aside).replace(path)


def _known(repository: Repository) -> Listing | None:
    """What the cache knows of a revision; None if nothing."""
    home = _home(repository)
    commit = repository.revision
    if not COMMIT.fullmatch(commit):
        ref = home / "refs" / commit
        if not _plain(commit) or not ref.is_file():
            return None
        commit = ref.read_text(encoding="utf-8").strip()
    if not COMMIT.fullmatch(commit):
        return None
    try:
        told = json.loads((home / "ilubench" / f"{commit}.json").read_text(encoding="utf-8"))
        return Listing(commit, dict(told["files"]), bool(told["gated"]), str(told["license"]))
    except (OSError, ValueError, KeyError, TypeError):
        return _fetched_elsewhere(repository, commit)


def _fetched_elsewhere(repository: Repository, commit: str) -> Listing | None:
    """What another program put into the cache: the client's own list of it, else what lies there.

    Files that are numbered `-00000-of-00003` tell how many there must be.
    """
    listed = dict(_clients_list(repository, commit))
    if listed:
        return Listing(commit, listed)
    folder = _home(repository) / "snapshots" / commit
    names = sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )
    if not names:
        return None
    return Listing(commit, dict.fromkeys(_with_siblings(names)), certain=False)


def _clients_list(repository: Repository, commit: str) -> Iterator[tuple[str, int | None]]:
    """The files of a commit, as the client (2.0 and later) keeps them after a whole download."""
    import huggingface_hub

    read = getattr(huggingface_hub, "get_cached_repo_tree", None)
    if read is None:
        return
    try:
        entries = read(repository.name, repo_type=repository.kind, revision=commit)
    except Exception:  # noqa: BLE001 - no such list; its error class is not in all versions
        return
    for entry in cast("Sequence[Any]", entries):
        if _plain(entry.path):
            yield entry.path, entry.size


def _with_siblings(names: Sequence[str]) -> Iterator[str]:
    """Yield the names, and those of numbered siblings that are not there."""
    for name in names:
        found = re.search(r"-(\d{5})-of-(\d{5})", name)
        if found is None:
            yield name
            continue
        for number in range(int(found[2])):
            yield f"{name[: found.start(1)]}{number:05}{name[found.end(1) :]}"
