"""Why a hub's data set or model cannot be had: the client's exceptions -> one of our own each.

The client wraps what happened (`LocalEntryNotFoundError` around a time-out, say) and its HTTP
library is another one from version to version, so the whole chain of causes is looked at and the
HTTP library's classes are known by their names.
"""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ilubench.errors import (
    AccessError,
    DamagedError,
    GatedError,
    NotCachedError,
    RateLimitError,
    TokenError,
    UnknownPartError,
    UnknownRepositoryError,
    UnknownRevisionError,
    UnreachableError,
)

__all__ = ["COMMIT", "Repository", "asking", "is_offline", "refusal"]

COMMIT = re.compile(r"[0-9a-f]{40}")

OFFLINE = "go online once (`ilubench data fetch`) and unset HF_HUB_OFFLINE"

_NETWORK = ("ConnectError", "NetworkError", "ProxyError", "ConnectionError", "UnsupportedProtocol")
_CUT = ("RemoteProtocolError", "ReadError", "IncompleteRead")


@dataclass(frozen=True)
class Repository:
    """A data set or model of the hub, and where it was asked for.

    Attributes:
        kind: `dataset` or `model`.
        name: `org/name`.
        revision: a branch, tag or commit.
        field: of the spec that names it: `data.<role>`, `suite.target.model`.
        local: what to write to use local files in its place.
    """

    kind: Literal["dataset", "model"]
    name: str
    revision: str
    field: str
    local: str

    @property
    def shown(self) -> str:
        """Field, kind, name and revision, as errors begin."""
        return f"{self.field}: {self.what} {self.name}@{self.revision}"

    @property
    def short(self) -> str:
        """The revision; of a commit the first digits."""
        return self.revision[:12] if COMMIT.fullmatch(self.revision) else self.revision

    @property
    def what(self) -> str:
        """The kind, in words."""
        return "data set" if self.kind == "dataset" else "model"

    def error(self, kind: type[AccessError], problem: str, remedy: str) -> AccessError:
        """Return an error that names the repository, the remedy and the way without a hub."""
        thing = "file" if self.kind == "dataset" else "folder"
        error = kind(f"{self.shown}: {problem}; {remedy}, or give a local {thing}: {self.local}")
        error.reason = f"{self.name}@{self.short}: {problem}"
        return error


def is_offline() -> bool:
    """Whether the hub must not be asked."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


@contextlib.contextmanager
def asking(repository: Repository, name: str = "") -> Iterator[None]:
    """Turn whatever the hub's client raises into the error that says what happened.

    Args:
        repository: what is asked for.
        name: the file of it, if one is.
    """
    from huggingface_hub import errors

    # the first is of the HTTP library that this client uses
    kinds: tuple[type[BaseException], ...] = (*errors.HfHubHTTPError.__bases__[:1],)
    kinds += (OSError, RuntimeError, ValueError, errors.EntryNotFoundError)
    try:
        yield
    except AccessError:
        raise
    except kinds as error:
        raise refusal(repository, error, name) from error


def refusal(repository: Repository, error: BaseException, name: str = "") -> AccessError:
    """Return the error that says why a hub's data set or model cannot be had.

    Args:
        repository: what was asked for.
        error: what the client raised.
        name: the file that was asked for, if one was.
    """
    chain = list(_chain(error))
    for one in chain:
        found = _answered(repository, one, name)
        if found is not None:
            return found
    for one in chain:
        found = _unanswered(repository, one)
        if found is not None:
            return found
    problem = f"the download failed ({_told(error)})"
    return repository.error(AccessError, problem, "see that it can be written to the hub's cache")


# --- inside ---


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _token() -> str | None:
    from huggingface_hub import get_token

    return get_token()


def _told(error: BaseException) -> str:
    """Return an exception in one line; a token in it is taken out."""
    first = (str(error).strip().split("\n", 1)[0])[:200]
    token = _token()
    if token:
        first = first.replace(token, "<token>")
    return f"{type(error).__name__}: {re.sub(r'hf_[A-Za-z0-9]{8,}', '<token>', first)}".rstrip(": ")


def _answered(repository: Repository, error: BaseException, name: str) -> AccessError | None:
    """The error of a hub that answered: no."""
    from huggingface_hub import errors

    found: AccessError | None = None
    match error:
        case errors.GatedRepoError():
            found = _gated(repository)
        case errors.RevisionNotFoundError():
            problem = f"it has no branch, tag or commit {repository.revision!r}"
            found = repository.error(UnknownRevisionError, problem, "check the revision (main?)")
        case errors.RepositoryNotFoundError():
            found = _no_repository(repository)
        case errors.HFValidationError():
            problem = f"{repository.name!r} is no name of a hub"
            found = repository.error(UnknownRepositoryError, problem, "write org/name")
        case errors.HfHubHTTPError() if isinstance(error, errors.EntryNotFoundError):
            found = _no_file(repository, name)
        case errors.HfHubHTTPError():
            found = _status(repository, error, getattr(error.response, "status_code", 0))
    return found


def _gated(repository: Repository) -> AccessError:
    page = "accept its terms on its page of the hub"
    if _token() is None:
        problem = "it is gated, and no token is set"
        remedy = f"{page}, then set HF_TOKEN (or `hf auth login`)"
    else:
        problem = "it is gated, and the account of the token that is set has no access"
        remedy = (
            f"{page} with that account, wait where they are granted by hand, and let a "
            "fine-grained token read gated repositories"
        )
    return repository.error(GatedError, problem, remedy)


def _no_repository(repository: Repository) -> AccessError:
    if _token() is None:
        problem = f"there is no such {repository.what}, or it is private and no token is set"
        remedy = "check the name; set HF_TOKEN for a private one"
    else:
        problem = f"there is no such {repository.what}, or it is private and not for this token"
        remedy = "check the name and the token's rights"
    return repository.error(UnknownRepositoryError, problem, remedy)


def _no_file(repository: Repository, name: str) -> AccessError:
    problem = f"it has no file {name!r}" if name else "it lacks a file"
    return repository.error(UnknownPartError, problem, "check the revision")


def _status(repository: Repository, error: BaseException, status: int) -> AccessError:
    """The error of an answer whose number is all that it tells."""
    if status in (401, 403):
        problem = f"the hub does not accept the token that is set ({status})"
        remedy = "set a valid HF_TOKEN that may read it (`hf auth whoami` says whose it is)"
        if _token() is None:
            problem = f"the hub does not give it away without a token ({status})"
            remedy = "set HF_TOKEN (or `hf auth login`)"
        return repository.error(TokenError, problem, remedy)
    if status == 429:
        seconds = _wait(error)
        pause = f"wait {seconds} seconds" if seconds else "wait some minutes"
        remedy = f"{pause} and give the same command again (a token raises the limit)"
        return repository.error(RateLimitError, "the hub was asked too often (429)", remedy)
    if status >= 500:
        problem = f"the hub has a fault of its own ({status})"
        return repository.error(UnreachableError, problem, "try again later")
    problem = f"the hub refuses ({_told(error)})"
    return repository.error(UnreachableError, problem, "check name, revision and HF_ENDPOINT")


def _wait(error: BaseException) -> int:
    """Seconds that the hub asks to wait; 0 where it does not say."""
    headers = getattr(getattr(error, "response", None), "headers", {})
    text = f"{headers.get('retry-after', '')} {headers.get('ratelimit', '')}"
    found = re.search(r"^\s*(\d+)|\bt=(\d+)", text)
    return int(found[1] or found[2]) if found else 0


def _unanswered(repository: Repository, error: BaseException) -> AccessError | None:
    """The error of a hub that did not answer, or not to the end."""
    from huggingface_hub import errors

    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "Consistency check failed" in str(error) or kinds.intersection(_CUT):
        problem = "the download was cut short"
        return repository.error(DamagedError, problem, "give the same command again")
    if isinstance(error, errors.OfflineModeIsEnabled):
        return repository.error(NotCachedError, "offline, and it is not in the cache", OFFLINE)
    if any("Timeout" in kind for kind in kinds):
        problem = "the hub does not answer in time"
        remedy = "try again, with HF_HUB_ETAG_TIMEOUT and HF_HUB_DOWNLOAD_TIMEOUT (s) raised"
        return repository.error(UnreachableError, problem, remedy)
    if kinds.intersection(_NETWORK):
        problem = f"the hub cannot be reached, and it is not in the cache ({_told(error)})"
        remedy = "check the connection, proxy and HF_ENDPOINT"
        return repository.error(UnreachableError, problem, remedy)
    if kinds.intersection({"JSONDecodeError", "FileMetadataError"}):
        problem = "what answers is no hub"
        return repository.error(UnreachableError, problem, "check proxy and HF_ENDPOINT")
    return None
