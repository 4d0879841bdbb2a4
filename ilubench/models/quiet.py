"""What libraries print, kept away."""

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["hushed", "panics_told", "quiet"]


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Keep away what libraries log when they are imported: of kernels that nobody asked for."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' progress bars and warnings away, and of what it imports for a model."""
    from transformers.utils import logging as shown_by

    shown = shown_by.is_progress_bar_enabled()
    verbosity = shown_by.get_verbosity()
    shown_by.disable_progress_bar()
    shown_by.set_verbosity_error()
    try:
        with hushed():
            yield
    finally:
        shown_by.set_verbosity(verbosity)
        if shown:
            shown_by.enable_progress_bar()


@contextlib.contextmanager
def panics_told() -> Iterator[None]:
    """Turn what a library in Rust panics of, which is no Exception, into one; print nothing of it.

    Raises:
        ValueError: in its place.
    """
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise ValueError(str(error)) from error
    finally:
        os.dup2(kept, 2)
        os.close(kept)
