"""Methods that fail in their own ways."""

from typing import Any

from ilubench.interfaces import Method
from ilubench.specs import Spec


class Raises(Method):
    """Fails after it was given everything."""

    def unlearn(self, model: Any, data: Any, context: Any) -> Any:
        del model, data, context
        raise RuntimeError("the dog ate the gradients\nand the rest of the message")


class NotMethod(Spec):
    """A plugin class of no use as a method."""


class NotSpec:
    """No plugin class at all."""


class Unfinished(Method):
    """Lacks `unlearn`."""
