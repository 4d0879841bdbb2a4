"""The methods' objectives written plainly: what their gradients are compared with."""

from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from typing import Any, cast

import torch
from cases import CHOSEN, PROGRESS, REFUSAL, Tensor, data, fresh, moved
from torch.func import functional_call
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from ilubench.data.batches import collate
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
        self.tokenizer = tokenizer
        self.prepared: Any = None
        self.target = torch.zeros(0)
        self.added: dict[int, list[tuple[int, Tensor]]] = {}

    def call(self, theta: Any, item: Example) -> Any:
        """Run the model; what is in ``added`` for the item is added behind its layers."""
        layers, ids = cast("Any", self.model).model.layers, torch.tensor([item.input_ids])
        added = [] if theta is self.original else self.added.get(id(item), [])
        handles = [
            layers[at].register_forward_hook(lambda _m, _i, output, more=more: output + more)
            for at, more in added
        ]
        output = functional_call(self.model, theta, (ids,))
        for handle in handles:
            handle.remove()
        return output

    def hidden(self, theta: Any, item: Example, layer: int) -> Tensor:
        """Return the output of a layer, or what the head is given (-1): [T, H]."""
        seen: list[Tensor] = []
        body = cast("Any", self.model).model
        part = body.norm if layer < 0 else body.layers[layer]
        handle = part.register_forward_hook(lambda _m, _i, output: seen.append(output))
        self.call(theta, item)
        handle.remove()
        return seen[0][0]

    def losses(self, theta: Any, item: Example, w: Any = 1.0) -> Tensor:
        """Return the NLL of each target token; ``w`` scales the logits."""
        ids = torch.tensor(item.input_ids)
        logits = w * self.call(theta, item).logits[0, :-1]
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

    def rerouted(self, method: Any, theta: Any, item: Example, layers: Any) -> tuple[Any, Any]:
        """Return the original's and the model's states of the tokens that count, by layer."""
        first = item.loss_mask.index(True) if method.tokens == "targets" else 1
        before = [self.hidden(self.original, item, layer)[first:].detach() for layer in layers]
        return before, [self.hidden(theta, item, layer)[first:] for layer in layers]

    def forget_RR(self, method: Any, theta: Any) -> Tensor:  # noqa: N802
        means = []
        for item in self.forget:
            before, now = self.rerouted(method, theta, item, method.layers)
            for old, new in zip(before, now, strict=True):
                cosines = (old * new).sum(-1) / old.norm(dim=-1) / new.norm(dim=-1)
                means.append(torch.where(cosines > 0, cosines, 0.0).mean())
        value: Tensor = method.alpha * (1 - PROGRESS / 2) * torch.stack(means).mean()
        return value

    def retain_RR(self, method: Any, theta: Any) -> Tensor:  # noqa: N802
        means = []
        for item in self.retain:
            layers = method.layers if method.retain_layers == "same" else (0, 1)
            for old, new in zip(*self.rerouted(method, theta, item, layers), strict=True):
                means.append(((new - old) ** 2).sum(-1).sqrt().mean())
        value: Tensor = method.alpha * PROGRESS / 2 * torch.stack(means).mean()
        return value

    def forget_ELM(self, method: Any, theta: Any) -> Tensor:  # noqa: N802
        crosses = []
        for item in self.forget:
            places = torch.tensor(item.loss_mask)[1:]
            target = self.elm_target(method, item.input_ids)[:-1]
            predicted = torch.log_softmax(self.call(theta, item).logits[0, :-1], -1)
            crosses.append(-(target * predicted).sum(-1)[places])
        if not method.fluency:
            return torch.cat(crosses).mean()
        fluent = [self.prepared.fluent[index] for index in CHOSEN]
        return torch.cat(crosses).mean() + cast("Tensor", method.fluency * self.mean(theta, fluent))

    def elm_target(self, method: Any, ids: Sequence[int]) -> Tensor:
        """Return p_target of what follows each of the tokens: [T, V]."""
        found = []
        for context in ("", method.novice, method.expert):
            before = self.tokenizer(context, add_special_tokens=False)["input_ids"]
            whole = torch.tensor([[*before, *ids]])
            logits = functional_call(self.model, self.original, (whole,)).logits[0, len(before) :]
            found.append(torch.softmax(logits, -1).detach())
        mixed: Tensor = found[0] * (found[1] / found[2]) ** method.eta
        return mixed / mixed.sum(-1, keepdim=True)

    def retain_term(self, method: Any, theta: Any) -> Tensor:
        if type(method).__name__ == "RR":
            return self.retain_RR(method, theta)
        if type(method).__name__ == "RMU":
            errors = []
            for item in self.retain:
                before = self.hidden(self.original, item, method.layer).detach()
                now = self.hidden(theta, item, method.layer)
                errors.append(self.rmu_error(method, item, now, before))
            return torch.stack(errors).mean()
        if getattr(method, "retain", "nll") == "kl" or type(method).__name__ == "ELM":
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
        if type(method).__name__ == "LAT":
            self.attack(method, theta)
            value = self.objective(method.base, theta)
            self.added = {}
            return value
        if type(method).__name__ == "SAM":
            if method.terms == "all":
                return self.objective(method.base, self.perturbed(method, theta, self.objective))
            away = self.perturbed(method, theta, self.forget_term)
            retain = method.base.gamma * self.retain_term(method.base, theta)
            return self.forget_term(method.base, away) + cast("Tensor", retain)
        retain = method.gamma * self.retain_term(method, theta)
        return self.forget_term(method, theta) + cast("Tensor", retain)

    def attack(self, method: Any, theta: Any) -> None:
        """Put into ``added`` what undoes the forgetting: each token of each item by itself."""
        self.added = {
            id(item): [(at, torch.zeros(len(item.input_ids), 96)) for at in method.layers]
            for item in self.forget
        }
        for _ in range(method.inner_steps):
            for pairs in self.added.values():
                pairs[:] = [(at, more.double().requires_grad_()) for at, more in pairs]
            if method.target == "base":
                loss = -self.forget_term(method.base, theta)
            else:
                loss = self.mean(theta, self.forget)
            everything = [more for pairs in self.added.values() for _, more in pairs]
            slopes = iter(torch.autograd.grad(loss, everything))
            for pairs in self.added.values():
                pairs[:] = [(at, self.stepped(method, more, next(slopes))) for at, more in pairs]

    def stepped(self, method: Any, more: Tensor, slope: Tensor) -> Tensor:
        rows = []
        for old, away in zip(more.detach(), slope, strict=True):
            row = old - method.inner_lr * away / away.norm() if away.norm() > 0 else old
            rows.append(row * method.epsilon / row.norm() if row.norm() > method.epsilon else row)
        return torch.stack(rows)

    def perturbed(self, method: Any, theta: Any, value: Callable[..., Tensor]) -> Any:
        patterns = method.trainable or ("*",)
        trained = {n: p for n, p in theta.items() if any(fnmatch(n, one) for one in patterns)}
        slopes = torch.autograd.grad(value(method.base, theta), list(trained.values()))
        norm = sum((slope**2).sum() for slope in slopes) ** 0.5
        moves = zip(trained.items(), slopes, strict=True)
        return {**theta, **{name: p + method.rho * slope / norm for (name, p), slope in moves}}

    def penalty(self, method: Any, theta: Any, name: str) -> Any:
        items = self.environments[name]
        if method.penalty == "cross_entropy":
            return self.mean(theta, items)
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
