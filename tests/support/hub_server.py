"""A stand-in for a hub: an HTTP server on loopback that the real client talks to.

It answers what the client of `huggingface_hub` asks (repository's information, tree, files with
ETag, ranges), keeps repositories at several commits, and misbehaves as a test scripts it.
"""

import contextlib
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

TOKEN = "hf_standinTokenThatNobodyMaySee0123456789"

_API = re.compile(r"/api/(datasets|models)/([^/]+/[^/]+)(?:/(.*))?")
_FILE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.*)")


@dataclass
class Repo:
    """A repository: commits (oldest first) of name -> content; the last is `main`."""

    files: dict[str, bytes]
    license: str = "mit"
    gated: bool = False
    tokens: tuple[str, ...] = ()
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.push(self.files)

    def push(self, files: dict[str, bytes]) -> str:
        """Add a commit; return its hash."""
        content = json.dumps({name: data.hex() for name, data in sorted(files.items())})
        commit = hashlib.sha1(content.encode()).hexdigest()
        self.files = files
        self.commits.pop(commit, None)
        self.commits[commit] = files
        return commit

    @property
    def head(self) -> str:
        return list(self.commits)[-1]

    def at(self, revision: str) -> str | None:
        found = self.head if revision == "main" else revision
        return found if found in self.commits else None


class Hub:
    """The server and what it holds.

    Attributes:
        repos: (`dataset` or `model`, name) -> repository.
        fault: `"429"`, `"500"`, `"403"`, `"truncated"`, `"hanging"`, `"garbage"` or `""`: what goes
            wrong with each request whose path has `fault_at` in it.
        asked: paths of all requests.
    """

    def __init__(self) -> None:
        self.repos: dict[tuple[str, str], Repo] = {}
        self.fault = self.fault_at = ""
        self.asked: list[str] = []
        hub = self

        class Handler(_Handler):
            owner = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def add(self, kind: str, name: str, files: dict[str, bytes], **about: Any) -> Repo:
        self.repos[kind, name] = Repo(files, **about)
        return self.repos[kind, name]

    def fail(self, fault: str, at: str = "") -> None:
        self.fault, self.fault_at = fault, at

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    owner: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Keep quiet."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._dispatch()

    def _dispatch(self) -> None:
        parts = urlsplit(self.path)
        path = unquote(parts.path)
        self.owner.asked.append(f"{self.command} {path}")
        if self.owner.fault and self.owner.fault_at in path:
            if self.owner.fault == "hanging":
                time.sleep(0.6)  # longer than the client waits
            if self.owner.fault == "garbage":
                return self._send(200, b"<html>a proxy's page</html>")
            if self.owner.fault.isdigit():
                extra = {"Retry-After": "7"} if self.owner.fault == "429" else {}
                return self._send(int(self.owner.fault), b"{}", extra)
        if found := _API.fullmatch(path):
            kind, name, rest = found.groups()
            return self._api(kind[:-1], name, rest or "", parse_qs(parts.query))
        if found := _FILE.fullmatch(path):
            kind, name, revision, file = found.groups()
            return self._file("dataset" if kind else "model", name, revision, file)
        return self._send(404, b"{}")

    def _repo(self, kind: str, name: str, *, files: bool) -> Repo | None:
        """Return the repository unless the request must be refused, and then refuse it."""
        token = (self.headers.get("authorization") or "").removeprefix("Bearer ")
        if token and token != TOKEN:
            said = {"X-Error-Message": "Invalid credentials in Authorization header"}
            self._send(401, b"{}", said)
            return None
        repo = self.owner.repos.get((kind, name))
        if repo is None:
            self._send(404 if token else 401, b"{}", {"X-Error-Code": "RepoNotFound"})
            return None
        if repo.gated and files and token not in repo.tokens:
            self._send(403 if token else 401, b"{}", {"X-Error-Code": "GatedRepo"})
            return None
        return repo

    def _api(self, kind: str, name: str, rest: str, query: dict[str, list[str]]) -> None:
        if rest == "auth-check":
            return self._send(200, b"{}") if self._repo(kind, name, files=True) else None
        repo = self._repo(kind, name, files=False)
        if repo is None:
            return None
        verb, _, place = rest.partition("/")
        revision = place.partition("/")[0] if verb in ("revision", "tree") else "main"
        commit = repo.at(revision)
        if commit is None:
            return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        files = repo.commits[commit]
        if verb == "tree":
            found: Any = [
                {"type": "file", "path": path, "size": len(data), "oid": _etag(data)}
                for path, data in files.items()
            ]
            return self._send(200, json.dumps(found).encode())
        blobs = "blobs" in query
        found = {
            "id": name,
            "sha": commit,
            "private": False,
            "gated": "manual" if repo.gated else False,
            "cardData": {"license": repo.license},
            "siblings": [
                {"rfilename": path, **({"size": len(data)} if blobs else {})}
                for path, data in files.items()
            ],
            "tags": [],
        }
        return self._send(200, json.dumps(found).encode())

    def _file(self, kind: str, name: str, revision: str, file: str) -> None:
        repo = self._repo(kind, name, files=file != "README.md")
        if repo is None:
            return None
        commit = repo.at(revision)
        if commit is None:
            return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        about = {"X-Repo-Commit": commit}
        if file not in repo.commits[commit]:
            return self._send(404, b"{}", {**about, "X-Error-Code": "EntryNotFound"})
        data = repo.commits[commit][file]
        about |= {"ETag": f'"{_etag(data)}"', "Accept-Ranges": "bytes"}
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if asked:
            start = int(asked[1])
            about["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            return self._send(206, data[start:], about)
        return self._send(200, data, about)

    def _send(self, status: int, body: bytes, about: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (about or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        cut = self.owner.fault == "truncated" and self.owner.fault_at in self.path
        self.wfile.write(body[: len(body) // 2 if status == 200 else 0] if cut else body)
        self.close_connection = self.close_connection or cut


def _etag(data: bytes) -> str:
    """Return what a hub says of a file that is not large: git's hash of it."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@contextlib.contextmanager
def served() -> Iterator[Hub]:
    """Run a stand-in hub for the length of a block."""
    hub = Hub()
    try:
        yield hub
    finally:
        hub.stop()


def ask_only(hub: Hub, cache: str, patch: pytest.MonkeyPatch) -> None:
    """Point the client of this process at a stand-in, with an empty cache and no token or pause.

    The client reads its variables once, on import; a process of its own needs only HF_ENDPOINT.
    """
    from huggingface_hub import constants, file_download
    from huggingface_hub.utils import _http

    patch.setattr(constants, "ENDPOINT", hub.address)
    template = hub.address + "/{repo_id}/resolve/{revision}/{filename}"
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    patch.setattr(constants, "HF_HUB_CACHE", cache)
    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    patch.setattr(constants, "HF_TOKEN_PATH", f"{cache}/no-token")
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        patch.delenv(name, raising=False)
    hurried = SimpleNamespace(**{**vars(time), "sleep": lambda _seconds: None})
    patch.setattr(_http, "time", hurried)
    patch.setattr(file_download, "time", hurried)


def go_offline(patch: pytest.MonkeyPatch) -> None:
    """Set the client of this process offline."""
    from huggingface_hub import constants

    patch.setattr(constants, "HF_HUB_OFFLINE", True)
