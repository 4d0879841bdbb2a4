"""ilubench: does what a language model was made to forget stay forgotten?

Importing this package imports neither torch nor transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from ilubench.errors import IlubenchError

if TYPE_CHECKING:
    from ilubench.api import Run, load, run, run_grid

__all__ = ["IlubenchError", "Run", "__version__", "load", "run", "run_grid"]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Return what is read from `ilubench.api` when it is first asked for."""
    if name in ("Run", "load", "run", "run_grid"):
        # by its name: no module below imports what stands above it
        return getattr(import_module("ilubench.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
