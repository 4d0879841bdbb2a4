"""The methods' objectives written plainly: what their gradients are compared with."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from cases import CHOSEN, REFUSAL, Tensor, data, fresh, moved
from torch.func import functional_call
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from ilubench.data import collate
from ilubench.interfaces import Example
from ilubench.methods.invariance import token_shares
from ilubench.training import LossMethod


class Plain:
    """The objectives as the papers write them: item by item, in float64, differentiable twice.

    The weights are an argument, so that they can be scaled or moved.
    """

    def __init__(self, method: LossMethod, tokenizer: PreTrainedTokenizerBase) -> None:
        self.model = cast("torch.nn.Module", moved(method).double())
        cast("Any", self.model).set_attn_implementation("eager")
        self.theta = dict(self.model.named_parameters())
        self.original = {name: p.double() for name, p in fresh().named_parameters()}
        found = data()
        self.forget = [found.forget[index % len(found.forget)] for index in CHOSEN]
        self.retain = [found.retain[index % len(found.retain)] for index in CHOSEN]
        self.environments = {n: [d[i] for i in CHOSEN] for n, d in found.environments.items()}
        self.environments["forget"] = self.forget
        end = cast("int", tokenizer.eos_token_id)
        self.refusal = (*tokenizer(" " + REFUSAL)["input_ids"], end)
        self.target = torch.zeros(0)

    def hidden(self, theta: Any, item: Example, layer: int) -> Tensor:
        """Return the output of a layer, or what the head is given (-1): [T, H]."""
        seen: list[Tensor] = []
        body = cast("Any", self.model).model
        part = body.norm if layer < 0 else body.layers[layer]
        handle = part.register_forward_hook(lambda _m, _i, output: seen.append(output))
        functional_call(self.model, theta, (torch.tensor([item.input_ids]),))
        handle.remove()
        return seen[0][0]

    def losses(self, theta: Any, item: Example, w: Any = 1.0) -> Tensor:
        """Return the NLL of each target token; ``w`` scales the logits."""
        ids = torch.tensor(item.input_ids)
        logits = w * functional_call(self.model, theta, (ids[None],)).logits[0, :-1]
        chosen = torch.tensor(item.loss_mask)[1:]
        return functional.cross_entropy(logits, ids[1:], reduction="none")[chosen]

    def mean(self, theta: Any, items: Sequence[Example], w: Any = 1.0) -> Tensor:
        return torch.cat([self.losses(theta, item, w) for item in items]).mean()

    def change(self, theta: Any, item: Example) -> Tensor:
        """Return NLL - NLL_ref of a sequence."""
        return self.losses(theta, item).sum() - self.losses(self.original, item).sum().detach()

    # the methods' terms; each takes the method and the weights

    def forget_term(self, method: Any, theta: Any) -> Tensor:
        return cast("Tensor", getattr(self, f"forget_{type(method).__name__}")(method, theta))

    def forget_GradDiff(self, method: Any, theta: Any) -> Tensor:  # noqa: N802
        return -self.mean(theta, self.forget)

    def forget_NPO(self, method: Any, theta: Any) -> Tensor:  # noqa: N802
        changes = torch.stack([self.change(theta, item) for item in self.forget])
        counts = torch.tensor([sum(item.loss_mask) for item in self.forget])
        if method.reduction == "mean":
            changes = changes / counts
        if method.reduction == "batch_mean":
            changes = changes.sum() / counts.sum()
        value: Tensor = (-2 / method.beta * torch.sigmoid(method.beta * changes).log()).mean()
        return value

    def forget_SimNPO(self, method: Any, theta: Any) -> Tensor:  # noqa: N802
        means = torch.stack([self.losses(theta, item).mean() for item in self.forget])
        inside = torch.sigmoid(method.beta * means - method.margin)
        value: Tensor = (-2 / method.beta * inside.log()).mean()
        return value

    def refused(self, item: Example) -> Example | None:
        prompt = item.loss_mask.index(True)
        if prompt == 1:
            return None
        ids = item.input_ids[:prompt] + self.refusal
        return Example("", ids, tuple(place >= prompt for place in range(len(ids))))

    def forget_DPO(self, method: Any, theta: Any) -> Tensor:  # noqa: N802
        total = torch.zeros((), dtype=torch.float64)
        for item in self.forget:
            refusal = self.refused(item)
            if refusal is not None:
                ratio = self.change(theta, item) - self.change(theta, refusal)
                total = total - 2 / method.beta * torch.log(torch.sigmoid(method.beta * ratio))
        return total / len(self.forget)

    def forget_IDK(self, method: Any, theta: Any) -> Tensor:  # noqa: N802
        refusals = [self.refused(item) for item in self.forget]
        means = [self.losses(theta, item).mean() for item in refusals if item is not None]
        assert 0 < len(means) < len(self.forget)
        return torch.stack(means).sum() / len(self.forget)

    def rmu_error(self, method: Any, item: Example, left: Tensor, right: Tensor) -> Tensor:
        chosen = torch.tensor([place > 0 for place in range(len(item.input_ids))])
        if method.tokens == "targets":
            chosen = torch.tensor(item.loss_mask)
        return ((left - right) ** 2)[chosen].mean()

    def forget_RMU(self, method: Any, theta: Any) -> Tensor:  # noqa: N802
        errors = [
            self.rmu_error(method, item, self.hidden(theta, item, method.layer), self.target)
            for item in self.forget
        ]
        return torch.stack(errors).mean()

    def retain_term(self, method: Any, theta: Any) -> Tensor:
        if type(method).__name__ == "RMU":
            errors = []
            for item in self.retain:
                before = self.hidden(self.original, item, method.layer).detach()
                now = self.hidden(theta, item, method.layer)
                errors.append(self.rmu_error(method, item, now, before))
            return torch.stack(errors).mean()
        if getattr(method, "retain", "nll") == "kl":
            return torch.cat([self.divergences(theta, item) for item in self.retain]).mean()
        return self.mean(theta, self.retain)

    def divergences(self, theta: Any, item: Example) -> Tensor:
        ids = torch.tensor([item.input_ids])
        chosen = torch.tensor(item.loss_mask)[1:]
        p = torch.softmax(functional_call(self.model, self.original, (ids,)).logits, -1).detach()
        q = torch.softmax(functional_call(self.model, theta, (ids,)).logits, -1)
        return (p * (p.log() - q.log())).sum(-1)[0, :-1][chosen]

    def objective(self, method: Any, theta: Any) -> Tensor:
        if type(method).__name__ == "ILU":
            names = method.environments
            penalties = [method.weight * self.penalty(method, theta, name) for name in names]
            return torch.stack([self.objective(method.base, theta), *penalties]).sum()
        if type(method).__name__ == "SAM":
            if method.terms == "all":
                return self.objective(method.base, self.perturbed(method, theta, self.objective))
            away = self.perturbed(method, theta, self.forget_term)
            retain = method.base.gamma * self.retain_term(method.base, theta)
            return self.forget_term(method.base, away) + cast("Tensor", retain)
        retain = method.gamma * self.retain_term(method, theta)
        return self.forget_term(method, theta) + cast("Tensor", retain)

    def perturbed(self, method: Any, theta: Any, value: Callable[..., Tensor]) -> Any:
        slopes = torch.autograd.grad(value(method.base, theta), list(theta.values()))
        norm = sum((slope**2).sum() for slope in slopes) ** 0.5
        moves = zip(theta.items(), slopes, strict=True)
        return {name: p + method.rho * slope / norm for (name, p), slope in moves}

    def penalty(self, method: Any, theta: Any, name: str) -> Any:
        items = self.environments[name]
        if method.estimator == "plain":
            left = right = self.statistic(method, theta, items)
        else:
            found = data()
            dataset = found.forget if name == "forget" else found.environments[name]
            (batch,) = collate(dataset, CHOSEN, 0)
            (parts,) = token_shares([batch], split=True)
            halves = [batch.index[part > 0].tolist() for part in parts]
            assert sorted(halves[0] + halves[1]) == list(CHOSEN)
            left, right = (
                self.statistic(method, theta, [dataset[i] for i in half]) for half in halves
            )
        return sum((x * y).sum() for x, y in zip(left, right, strict=True))

    def statistic(self, method: Any, theta: Any, items: Sequence[Example]) -> Sequence[Tensor]:
        if method.penalty == "grad_norm":
            parameters = list(theta.values())
            return torch.autograd.grad(self.mean(theta, items), parameters, create_graph=True)
        size = 96 if method.predictor == "elementwise" else 1
        w = torch.ones(size, dtype=torch.float64, requires_grad=True)
        if method.predictor == "params":
            mean = self.mean({name: w * p for name, p in theta.items()}, items)
        elif method.predictor == "elementwise":
            mean = torch.cat([self.from_hidden(theta, item, w) for item in items]).mean()
        else:
            mean = self.mean(theta, items, w)
        return torch.autograd.grad(mean, w, create_graph=True)

    def from_hidden(self, theta: Any, item: Example, w: Tensor) -> Tensor:
        ids, chosen = torch.tensor(item.input_ids), torch.tensor(item.loss_mask)
        logits = (w * self.hidden(theta, item, -1)) @ theta["lm_head.weight"].T
        return functional.cross_entropy(logits[:-1], ids[1:], reduction="none")[chosen[1:]]
