"""ilubench: does what a language model was made to forget stay forgotten?

Importing this package imports neither torch nor transformers.
"""

from ilubench.errors import IlubenchError

__all__ = ["IlubenchError", "__version__"]
__version__ = "0.1.0"
