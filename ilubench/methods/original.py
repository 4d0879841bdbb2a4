"""The original model beside the one that is trained, at the price of the trained tensors."""

import contextlib
import fnmatch
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from ilubench.methods.gradients import swap_weights
from ilubench.models.forward import evaluate_only, state_logits

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Original"]


class Original:
    """The original values of the parameters that change; the others need no copy.

    Three matrices are kept when three are trained, a whole second set of weights when all are.

    Args:
        model: the original model, before any step.
        patterns: of the trained parameters' names, as `trainable` has them; none means all.
    """

    def __init__(self, model: "PreTrainedModel", patterns: Sequence[str]) -> None:
        """Copy the tensors."""
        self._kept = {
            name: parameter.detach().clone()
            for name, parameter in model.named_parameters()
            if not patterns or any(fnmatch.fnmatch(name, pattern) for pattern in patterns)
        }

    @contextlib.contextmanager
    def weights(self, model: "PreTrainedModel") -> Iterator[None]:
        """Make ``model`` the original one, in eval mode and without gradients, for a while."""
        named = dict(model.named_parameters())
        changed = [named[name] for name in self._kept]
        with evaluate_only(model), swap_weights(changed, [*self._kept.values()]):
            yield

    def logits(self, model: "PreTrainedModel", states: torch.Tensor) -> torch.Tensor:
        """Return the logits that the original head makes of states, without gradients: [n, V].

        No weights are swapped, so that a backward pass may ask for it.

        Args:
            model: its weights may have changed by now.
            states: [n, H], the original's (see `ilubench.models.forward.answer_states`).
        """
        head = model.get_output_embeddings()
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        own = {} if head is None else dict(head.named_parameters())
        mine = {name: names[id(parameter)] for name, parameter in own.items()}
        weights = {name: self._kept[whole] for name, whole in mine.items() if whole in self._kept}
        with torch.no_grad():
            return state_logits(model, states, weights)
