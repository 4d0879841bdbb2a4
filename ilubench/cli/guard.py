"""How a command ends: exit codes, errors in one line, the libraries' chatter kept away."""

import contextlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import typer

__all__ = ["COMPLETE", "FAILED_CHECKS", "FAILED_JOBS", "NO_DATA", "guarded"]

COMPLETE, USAGE, NO_DATA, FAILED_JOBS, INTERNAL, INTERRUPTED = 0, 2, 3, 4, 5, 130
FAILED_CHECKS = FAILED_JOBS

MAX_MESSAGE = 500
"""Characters of an error's line."""


def guarded(call: Callable[[], object]) -> int:
    """Return the exit code of a command; an error is one line on stderr."""
    from ilubench.errors import IlubenchError, PathError, lacks_memory

    _open_streams()
    try:
        with _quiet_libraries():
            code = call()
            sys.stdout.flush()  # what cannot be written is told here, not while Python ends
    except IlubenchError as error:
        return _refused(error) if lacks_memory(error) else _fail(str(error), error.exit_code)
    except (typer.Abort, KeyboardInterrupt) as end:
        code = INTERRUPTED
        if isinstance(end.__cause__, EOFError):  # typer takes it for the end of what is typed
            code = _refused(end.__cause__)
    except BrokenPipeError:
        return INTERRUPTED
    except OSError as error:
        found = PathError.of(error, str(error.filename or "what this command writes"))
        return _refused(error) if found is None else _fail(str(found), found.exit_code)
    except Exception as error:  # noqa: BLE001 - the last resort of the process
        return _refused(error)
    if code == INTERRUPTED:  # so typer hands on what Ctrl-C raised
        return _fail("interrupted; the same command goes on where it stopped", INTERRUPTED)
    return code if isinstance(code, int) else COMPLETE


def _open_streams() -> None:
    """Give what a closed stream is told to nobody: Python has none in its place."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            nobody = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - for good
            os.set_inheritable(nobody.fileno(), True)  # else a worker's pipes take its number
            setattr(sys, name, nobody)


@contextlib.contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Keep the libraries' chatter out of stderr; their errors arrive as exceptions."""
    import logging
    import warnings

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Threads that spin for long while they wait make a step many times slower on busy cores;
    # threads that do not spin at all make it slower on idle ones.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    logging.captureWarnings(True)
    for name in (
        "transformers",
        "datasets",
        "lm_eval",
        "lm-eval",
        "huggingface_hub",
        "py.warnings",
    ):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _refused(error: Exception) -> int:
    """Report what click refused, else a crash. Typer brings its own click or uses the real one."""
    from ilubench.errors import lacks_memory

    if lacks_memory(error):
        traceback.clear_frames(error.__traceback__)  # to say so takes some, too
        return _fail("there is not enough memory for this; give less, or a larger machine", NO_DATA)
    if isinstance(error, ImportError) and (error.path or "").endswith(tuple(EXTENSION_SUFFIXES)):
        remedy = "give it more memory, or install it again"
        return _fail(f"{error.name} cannot be loaded: {error}; {remedy}", NO_DATA)
    message = getattr(error, "format_message", None)
    if not callable(message):
        return _fail(_report_crash(error), INTERNAL)
    code = int(getattr(error, "exit_code", USAGE))
    if type(error).__name__ == "NoArgsIsHelpError":  # its message is the help page
        typer.echo(message(), err=True)
        return code
    # pydantic puts these words before a choice that there is not
    return _fail(message().replace("Value error, ", ""), code)


def _fail(message: str, code: int) -> int:
    # a stranger's file may hold what a terminal obeys
    line = "".join(char if char.isprintable() else " " for char in message)
    line = " ".join(line.split())
    if len(line) > MAX_MESSAGE:  # the remedy stands at the end
        line = f"{line[: MAX_MESSAGE // 2]} ... {line[-MAX_MESSAGE // 2 + 5 :]}"
    with contextlib.suppress(OSError):  # nobody reads it
        typer.echo(f"error: {line}", err=True)
    return code


def _report_crash(error: Exception) -> str:
    import tempfile
    import traceback

    first = f"internal: {type(error).__name__}: {error}".split("\n", 1)[0]
    text = "".join(traceback.format_exception(error))
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="ilubench-", suffix=".txt", delete=False, errors="replace"
        ) as file:
            file.write(text)
    except OSError:  # the disk is full, too
        return f"{first}; please report it"
    return f"{first}; please report it with {file.name}"
