"""Latent adversarial training around another method."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch.nn import functional

from ilubench.errors import SpecError
from ilubench.interfaces import (
    Batch,
    Context,
    Metrics,
    StepBatch,
    UnlearnBatch,
    UnlearnData,
)
from ilubench.methods.activations import Layers, check_layers, find_layer
from ilubench.methods.terms import ForgetRetain, summed_nll
from ilubench.methods.wrapping import Wrapper
from ilubench.specs import Plain, SearchSpec
from ilubench.training.proposals import layers_at, spread

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

__all__ = ["LAT"]


@dataclass
class _Perturbation:
    """What is added to the hidden states of one batch.

    Attributes:
        batch: perturbed whenever it runs, by its ``input_ids`` tensor.
        deltas: layer -> [B, T, H], float32.
        reached: layers that have been perturbed so far.
        ran: whether the batch has run with gradients.
    """

    batch: Batch
    deltas: dict[int, torch.Tensor] = field(default_factory=dict)
    reached: set[int] = field(default_factory=set)
    ran: bool = False


class LAT(Wrapper):
    """Latent adversarial training, targeted (Sheshadri et al. 2024, arXiv 2407.15549) or not.

    min over theta of the base's loss, the hidden states h_l of its forget batch replaced by
    h_l + delta_l at each of `layers`, with delta = argmin over |delta_l,t|_2 <= epsilon of the
    adversary's loss, for each token t. The adversary is found anew in each step by `inner_steps` of
    projected gradient descent from delta = 0: delta <- P(delta - inner_lr g / |g|), token by token.
    The retain batch, environments and the base's original model are not perturbed.

    The adversary undoes the forgetting: with `target=recall` (targeted) its loss is the NLL of the
    forget answers, so that it recalls them; with `target=base` (untargeted; Casper et al. 2024,
    arXiv 2403.05030) it is minus the base's forget term. The two are one for `graddiff`, `npo` and
    `simnpo`, whose terms fall as each sequence's NLL rises, since only directions count.

    Published settings, as far as we could verify, from the authors' public code: targeted, on
    Zephyr-7B and WMDP, layer 7, epsilon 2, 16 inner steps, around RMU (layer 8) and around gradient
    ascent, lr 5e-5, 4 steps of the model for one adversary; untargeted, on 7B chat models,
    layer 4, epsilon 8. Their inner steps are Adam's, of lr 5e-2: a coordinate, not a length, and
    so long that the first one ends on the ball. Ours takes one step of the model for one adversary.

    In the log, `recall_from` and `recall_to` (`base_from`, `base_to`) are the adversary's loss
    without a perturbation and before its last step; `perturbed` is the number of the step's forget
    sequences that the base ran. A base whose forget term runs other sequences instead (`idk`:
    refusals) is not perturbed in these.

    Attributes:
        base: the method that is trained; `train` and `trainable` are its own unless given.
        layers: indices of the layers, from 0, whose outputs are perturbed. They must not lie above
            what the base's forget term computes.
        epsilon: greatest length of a token's perturbation, a layer.
        inner_steps: of the adversary; each costs a forward and a backward pass of the forget batch.
        inner_lr: length of such a step, a token.
        target: what the adversary wants: `recall` or `base`.
    """

    layers: Layers = (7,)
    epsilon: float = Field(default=2.0, gt=0)
    inner_steps: int = Field(default=16, ge=1)
    inner_lr: float = Field(default=0.5, gt=0)
    target: Literal["recall", "base"] = "recall"

    @model_validator(mode="after")
    def _has_a_forget_term(self) -> Self:
        if self.target == "base" and not isinstance(self.base, ForgetRetain):
            name = type(self.base).__name__
            raise ValueError(f"{name} has no forget term of its own; give target=recall")
        return self

    def propose_search(self, config: "PretrainedConfig") -> SearchSpec:
        """Return the published layer by depth, the base's rates, and lengths."""
        fixed: dict[str, Plain | tuple[Plain, ...]] = {"layers": layers_at(config, 7 / 32)}
        return self.propose_around(config, fixed, epsilon=spread(0.5, 10))

    def check_model(self, config: "PretrainedConfig") -> None:
        """Raise unless the model has the layers.

        Raises:
            SpecError: it has not.
        """
        super().check_model(config)
        check_layers(config, self.layers, "layers")

    def prepare(self, model: "PreTrainedModel", data: UnlearnData, context: Context) -> Any:  # noqa: ANN401
        """Return what the base needs of the original model.

        Raises:
            SpecError: the model has no such layer.
        """
        for layer in self.layers:
            find_layer(model, layer, "layers")
        return super().prepare(model, data, context)

    def loss(self, model: "PreTrainedModel", batch: UnlearnBatch, prepared: Any) -> torch.Tensor:  # noqa: ANN401
        """Return the base's partial loss, the forget micro-batch perturbed."""
        found, _ = self._attack(model, [batch.forget], prepared)
        with self._under(model, found):
            return self.base.loss(model, batch, prepared)

    def backward(self, model: "PreTrainedModel", step: StepBatch, prepared: Any) -> Metrics:  # noqa: ANN401
        """Add the base's gradients under the perturbation into ``.grad``; return metrics.

        Raises:
            SpecError: the base's loss does not run the forget batch up to the perturbed layers.
        """
        found, metrics = self._attack(model, [micro.forget for micro in step.micro], prepared)
        with self._under(model, found):
            metrics.update(self.base.backward(model, step, prepared))
        perturbed = sum(len(one.batch.input_ids) for one in found if one.ran)
        return {**metrics, "perturbed": float(perturbed)}

    @contextlib.contextmanager
    def _under(self, model: "PreTrainedModel", found: Sequence[_Perturbation]) -> Iterator[None]:
        """Perturb the batches for a while; see afterwards that each layer was reached."""
        with _perturbed(model, found):
            yield
        for one in found:
            missed = sorted(set(self.layers) - one.reached) if one.ran else []
            if missed:
                problem = f"{type(self.base).__name__} computes no layer {missed[0]} to forget"
                raise SpecError(problem, field="layers", remedy="give lower ones")

    def _attack(
        self,
        model: "PreTrainedModel",
        batches: Sequence[Batch],
        prepared: Any,  # noqa: ANN401
    ) -> tuple[list[_Perturbation], dict[str, float]]:
        """Return each micro-batch's perturbation, and the adversary's loss on the way."""
        found, first, last = [], 0.0, 0.0
        for batch in batches:
            one = _Perturbation(batch)
            shape = (*batch.input_ids.shape, model.config.hidden_size)
            for layer in self.layers:
                one.deltas[layer] = torch.zeros(shape, device=batch.input_ids.device)
            values = [self._inner_step(model, one, prepared) for _ in range(self.inner_steps)]
            found.append(_Perturbation(batch, one.deltas))  # the base's forwards are to be seen
            first, last = first + values[0], last + values[-1]
        return found, {f"{self.target}_from": first, f"{self.target}_to": last}

    def _inner_step(self, model: "PreTrainedModel", one: _Perturbation, prepared: Any) -> float:  # noqa: ANN401
        """Move the perturbation by one step; return the micro-batch's part of the loss before."""
        moved = [delta.requires_grad_() for delta in one.deltas.values()]
        with _perturbed(model, [one]):
            loss = self._adversary(model, one.batch, prepared)
        slopes = torch.autograd.grad(loss, moved, allow_unused=True, materialize_grads=True)
        for layer, delta, slope in zip(self.layers, moved, slopes, strict=True):
            one.deltas[layer] = self._projected(
                delta.detach() - self.inner_lr * functional.normalize(slope, dim=-1)
            )
        return float(loss.detach())

    def _adversary(self, model: "PreTrainedModel", batch: Batch, prepared: Any) -> torch.Tensor:  # noqa: ANN401
        if self.target == "base" and isinstance(self.base, ForgetRetain):
            return -self.base.forget_term(model, batch, prepared)
        return summed_nll(model, batch).sum() / batch.tokens

    def _projected(self, delta: torch.Tensor) -> torch.Tensor:
        """Return the nearest perturbation whose tokens are no longer than epsilon."""
        lengths: torch.Tensor = delta.norm(dim=-1, keepdim=True)
        return delta / (lengths / self.epsilon).clamp_min(1.0)


@contextlib.contextmanager
def _perturbed(model: "PreTrainedModel", found: Sequence[_Perturbation]) -> Iterator[None]:
    """Add to hidden states whenever one of the batches runs with gradients.

    Other batches pass as they are: retain sets, environments, refusals. So does whatever runs
    without gradients: the original model.
    """
    running: list[_Perturbation] = []

    def begin(_body: object, args: tuple[Any, ...], inputs: Mapping[str, Any]) -> None:
        ids = inputs.get("input_ids", *args[:1])
        running.clear()
        if torch.is_grad_enabled():
            running.extend(one for one in found if one.batch.input_ids is ids)
        for one in running:
            one.ran = True

    def adding(layer: int) -> Callable[[object, object, Any], Any]:
        def add(_layer: object, _inputs: object, output: Any) -> Any:  # noqa: ANN401
            if not running:
                return None
            (one,) = running
            one.reached.add(layer)
            hidden, *rest = output if isinstance(output, tuple) else (output,)
            hidden = hidden + one.deltas[layer].to(hidden.dtype)
            return (hidden, *rest) if isinstance(output, tuple) else hidden

        return add

    with contextlib.ExitStack() as hooks:
        body = model.base_model.register_forward_pre_hook(begin, with_kwargs=True)
        hooks.callback(body.remove)
        for layer in {layer for one in found for layer in one.deltas}:
            hooks.callback(find_layer(model, layer).register_forward_hook(adding(layer)).remove)
        yield
