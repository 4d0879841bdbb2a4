"""Python starts with this: the n-th call that writes below a folder fails, and all that follow."""

import builtins
import io
import os
from collections.abc import Callable
from typing import Any

_BELOW = os.environ["ILUBENCH_FAILING_BELOW"]
_NUMBER = int(os.environ["ILUBENCH_FAILING_ERRNO"])
_LEFT = [int(os.environ["ILUBENCH_FAILING_FROM"])]


def _count(path: object) -> None:
    if isinstance(path, str | os.PathLike) and os.fspath(path).startswith(_BELOW):
        _LEFT[0] -= 1
        if _LEFT[0] < 0:
            raise OSError(_NUMBER, os.strerror(_NUMBER), os.fspath(path))


def _failing(call: Callable[..., Any]) -> Callable[..., Any]:
    def called(*args: Any, **kwargs: Any) -> Any:
        _count(args[0])
        return call(*args, **kwargs)

    return called


for _name in ("replace", "rename", "link", "mkdir", "unlink"):
    setattr(os, _name, _failing(getattr(os, _name)))

_open = builtins.open


def _open_failing(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
    if set(mode) & set("wax+"):
        _count(file)
    return _open(file, mode, *args, **kwargs)


builtins.open = io.open = _open_failing
