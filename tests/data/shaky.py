"""A method for tests of tuning: a model made too sure of itself, or a failure of some kind."""

from typing import Any, Literal

import torch

from ilubench.errors import DivergedError
from ilubench.interfaces import Method


class Shaky(Method):
    """Enlarges the logits, by more or less with the seed: what is wrong gets a larger loss.

    Attributes:
        strength: logits grow by about this share.
        mood: `diverge` and `raise` fail.
    """

    strength: float = 0.0
    mood: Literal["fine", "diverge", "raise"] = "fine"

    def unlearn(self, model: Any, data: Any, context: Any) -> Any:
        del data
        if self.mood == "diverge":
            raise DivergedError("step 3: the loss is not finite")
        if self.mood == "raise":
            raise RuntimeError("the dog ate the gradients")
        by_seed = torch.rand((), generator=torch.Generator().manual_seed(context.seed)).item()
        with torch.no_grad():
            model.get_output_embeddings().weight *= 1.0 + self.strength * (0.9 + 0.2 * by_seed)
        return model
