"""What libraries print, kept away."""

import contextlib
import logging
from collections.abc import Iterator

__all__ = ["hushed", "quiet"]


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
