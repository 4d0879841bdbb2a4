"""Published weights: found in a folder, or fetched, and known by their SHA-256 alone."""

import contextlib
import hashlib
import os
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO, Any

from ilubench.errors import AccessError, ModelError
from ilubench.leaderboard.records.models import Weights
from ilubench.records.keys import file_sha256

__all__ = ["fetch_weights", "find_weights"]

CHUNK = 1 << 20
TIMEOUT = 60.0
"""Seconds without a byte after which a download is given up."""

OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


def find_weights(wanted: Sequence[Weights], folder: Path) -> dict[int, Path]:
    """Return seed -> the file below a folder that has the record's SHA-256, whatever its name.

    Raises:
        ModelError: no such folder, or no file is the one of a seed.
    """
    if not folder.is_dir():
        raise ModelError(f"no folder {str(folder)!r}; give the one in which the weights lie")
    sizes = {one.bytes for one in wanted}
    files = [
        path
        for path in sorted(folder.rglob("*.safetensors"))
        if path.is_file() and not path.is_symlink()
    ]
    hashes = {file_sha256(path): path for path in files if path.stat().st_size in sizes}
    for one in wanted:
        if one.sha256 not in hashes:
            looked = ", ".join(path.name for path in files[:5]) or "none"
            more = f" and {len(files) - 5} more" if len(files) > 5 else ""
            raise ModelError(
                f"{folder}: no file has the SHA-256 {one.sha256} of the weights of seed {one.seed}"
                f" ({one.bytes} bytes); .safetensors files there: {looked}{more}"
            )
    return {one.seed: hashes[one.sha256] for one in wanted}


def fetch_weights(wanted: Sequence[Weights], folder: Path) -> dict[int, Path]:
    """Return seed -> its file, downloaded unless it is there already.

    A file is visible under its name, `<SHA-256>.safetensors`, once its size and hash were found
    right; nothing reads it before.

    Raises:
        AccessError: offline, no address in the record, or the address does not give the file.
        ModelError: what came has another size or SHA-256.
    """
    return {one.seed: _fetched(one, folder) for one in wanted}


# --- inside ---


class _OnlyHttps(urllib.request.HTTPRedirectHandler):
    """Follows no redirection that leaves https."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """Return the next request, or None, which makes the redirection an error."""
        if not newurl.startswith("https://"):
            return None
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _fetched(one: Weights, folder: Path) -> Path:
    path = folder / f"{one.sha256}.safetensors"
    if path.is_file() and file_sha256(path) == one.sha256:
        return path
    local = "or get the files yourself: --weights FOLDER"
    what = f"the weights of seed {one.seed}"
    if not one.url:
        raise AccessError(f"{what} were not published (no url in the record); {local}")
    if _offline(os.environ):
        raise AccessError(f"{what}: offline by {' or '.join(OFFLINE)}; unset them, {local}")
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / f".{one.sha256}.{os.getpid()}.tmp"
    try:
        _download(one, aside, what)
        aside.replace(path)
    except (urllib.error.URLError, HTTPException, OSError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it holds the connection
            reason: object = error
        else:
            reason = getattr(error, "reason", error)
        raise AccessError(f"{what} cannot be had from {one.url}: {reason}; {local}") from error
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
    return path


def _offline(environment: Mapping[str, str]) -> bool:
    return any(environment.get(name, "").upper() in ("1", "ON", "YES", "TRUE") for name in OFFLINE)


def _download(one: Weights, aside: Path, what: str) -> None:
    """Write what the address gives; stop at the first byte too many."""
    if not one.url.startswith("https://"):
        raise AccessError(f"{what}: {one.url!r} is no https address")
    found, length = hashlib.sha256(), 0
    opener = urllib.request.build_opener(_OnlyHttps())
    answer: Any
    with opener.open(one.url, timeout=TIMEOUT) as answer, aside.open("wb") as file:
        while chunk := answer.read(CHUNK):
            length += len(chunk)
            if length > one.bytes:
                raise ModelError(
                    f"{what}: {one.url} sends more than the record's {one.bytes} bytes"
                )
            found.update(chunk)
            file.write(chunk)
    if length != one.bytes or found.hexdigest() != one.sha256:
        raise ModelError(
            f"{what}: {one.url} gave {length} bytes with SHA-256 {found.hexdigest()}, and the "
            f"record says {one.bytes} and {one.sha256}; they are not the weights of this entry"
        )
