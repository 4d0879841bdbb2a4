"""What the tests of the contracts themselves share."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from ilubench.errors import IlubenchError


def checks_of(contract: object) -> Mapping[str, Callable[..., None]]:
    return {name: getattr(contract, name) for name in dir(contract) if name.startswith("test_")}


def run_check(check: Callable[..., None], folder: Path) -> None:
    takes_folder = "tmp_path" in check.__code__.co_varnames[: check.__code__.co_argcount]
    check(folder) if takes_folder else check()


def assert_caught(contract: object, broken: Mapping[str, str], folder: Path) -> None:
    """Each named check fails with its problem."""
    for name, problem in broken.items():
        with pytest.raises((AssertionError, IlubenchError), match=problem.replace("{", r"\{")):
            run_check(checks_of(contract)[name], folder)


def assert_holds(contract: object, folder: Path) -> None:
    """Every check passes, or does not apply."""
    for number, (name, check) in enumerate(checks_of(contract).items()):
        own = folder / str(number)
        own.mkdir()
        try:
            run_check(check, own)
        except pytest.skip.Exception:
            continue
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error
