"""The methods as tests make them, each with its variants, and one step of any of them."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from doubles import gradients, tiny_llama, unlearn_data
from transformers import PreTrainedModel

from ilubench.data.batches import collate
from ilubench.interfaces import Context, Dataset, Method, StepBatch, UnlearnBatch
from ilubench.interfaces import UnlearnData as Data
from ilubench.interfaces.discovery import create_plugin
from ilubench.specs import PluginRef
from ilubench.training import LossMethod, trainable_only

VOCABULARY = 380
ENVIRONMENTS = ("one", "two")
Making = Callable[..., Context]
Tensor = torch.Tensor


def fresh(seed: int = 0) -> PreTrainedModel:
    return tiny_llama(VOCABULARY, seed=seed)


NPO: dict[str, Any] = {"beta": 0.3, "gamma": 0.7}
REFUSAL = "three apples"
CONTEXTS = {"novice": "three apples:", "expert": "The miller counts:"}
ADVERSARY: dict[str, Any] = {"layers": [0], "epsilon": 0.8, "inner_steps": 3, "inner_lr": 0.4}

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "graddiff": ("graddiff", {"gamma": 0.7}),
    "npo-batch_mean": ("npo", {**NPO, "reduction": "batch_mean"}),
    "npo-kl": ("npo", {**NPO, "reduction": "mean", "retain": "kl"}),
    "simnpo": ("simnpo", {"gamma": 0.7, "beta": 0.6, "margin": 0.4}),
    "rmu": ("rmu", {"layer": 1, "gamma": 2.0, "coefficient": 3.0}),
    "rmu-targets": ("rmu", {"layer": 1, "scale": "relative", "tokens": "targets"}),
    "rr": ("rr", {"layers": [0, 1], "gamma": 3.0, "jitter": 0.05}),
    "rr-targets": ("rr", {"layers": [0], "tokens": "targets", "retain_layers": "all"}),
    "elm": ("elm", {"gamma": 0.7, "eta": 0.5, **CONTEXTS}),
    "elm-fluency": ("elm", {"eta": 2.0, "fluency": 0.6, "fluency_tokens": 3, **CONTEXTS}),
    "dpo": ("dpo", {"gamma": 0.7, "beta": 0.3, "refusals": [REFUSAL]}),
    "idk": ("idk", {"gamma": 0.7, "refusals": [REFUSAL]}),
    "sam": ("sam", {"rho": 0.5, "base": ("npo", NPO)}),
    "sam-all": ("sam", {"rho": 0.5, "terms": "all", "base": ("graddiff", {"gamma": 0.7})}),
    "sam-rr": ("sam", {"rho": 0.5, "base": ("rr", {"layers": [1], "jitter": 0.05})}),
    "lat": ("lat", {**ADVERSARY, "layers": [0, 1], "base": ("npo", NPO)}),
    "lat-rmu": (
        "lat",
        {**ADVERSARY, "target": "base", "base": ("rmu", {"layer": 1, "gamma": 2.0})},
    ),
    "lat-rr": ("lat", {**ADVERSARY, "base": ("rr", {"layers": [1], "jitter": 0.05})}),
    "ilu-rr": ("ilu", {"base": ("rr", {"layers": [1], "jitter": 0.05})}),
    "ilu-lat": ("ilu", {"base": ("lat", {**ADVERSARY, "base": ("graddiff", {"gamma": 0.7})})}),
    "ilu-rmu": ("ilu", {"base": ("rmu", {"layer": 1, "gamma": 2.0})}),
    "ilu-sam": ("ilu", {"base": ("sam", {"rho": 0.5, "base": ("npo", NPO)})}),
    "ilu-batch_mean": ("ilu", {"base": ("npo", {**NPO, "reduction": "batch_mean"})}),
    "ilu-forget": ("ilu", {"environments": ["forget", "one"]}),
    "ilu-control": ("ilu", {"penalty": "cross_entropy", "environments": ["one", "two"]}),
    "ilu-split": ("ilu", {"estimator": "split", "environments": ["one", "two"]}),
    "ilu-elementwise": ("ilu", {"predictor": "elementwise"}),
    "ilu-elementwise-split": ("ilu", {"predictor": "elementwise", "estimator": "split"}),
    "ilu-params": ("ilu", {"predictor": "params", "weight": 0.2}),
    "ilu-params-split": ("ilu", {"predictor": "params", "estimator": "split", "weight": 0.2}),
    "ilu-grad_norm": ("ilu", {"penalty": "grad_norm", "environments": ["two", "forget"]}),
    "ilu-grad_norm-split": ("ilu", {"penalty": "grad_norm", "estimator": "split"}),
}
ATTACK: dict[str, Any] = {"inner_steps": 3, "inner_batch": 2, "inner_lr": [1e-3, 2e-3]}
OWN_LOOP: dict[str, tuple[str, dict[str, Any]]] = {
    "task_vector": ("task_vector", {"scale": 0.5}),
    "tar": ("tar", {"inner_data": ["forget", "one"], **ATTACK}),
    "tar-npo": ("tar", {"base": ("npo", NPO), "tamper_loss": "nll", "weight": 0.1, **ATTACK}),
    "undo": ("undo", {"alpha": 0.1, "base": ("npo", NPO)}),
    "undo-both": ("undo", {"alpha": 0.1, "text": "both", "base": ("graddiff", {"gamma": 0.7})}),
}


def make(name: str, **train: Any) -> Any:
    use, settings = (CASES | OWN_LOOP)[name]

    def reference(use: str, settings: Mapping[str, Any]) -> PluginRef:
        values = dict(settings)
        if use == "ilu":
            values = {"environments": ["one"], "environment_batch": 8, "weight": 0.6, **values}
            values.setdefault("base", ("graddiff", {"gamma": 0.7}))
        if "base" in values:
            values["base"] = reference(*values["base"]).model_dump()
        if "base" not in values or use in ("tar", "undo"):  # train by settings of their own
            values["train"] = {"lr": 1e-3, "steps": 4, "batch_size": 4, **train}
        return PluginRef(use=use, settings=values)

    return create_plugin("methods", reference(use, settings))


def data() -> Data:
    return unlearn_data(VOCABULARY, environments=ENVIRONMENTS)


def data_for(method: Method) -> Data:
    """Return what a method sees in a run: no environment that it did not declare."""
    return unlearn_data(VOCABULARY, environments=method.environment_names())


CHOSEN = tuple(range(8))
"""The items of a step."""

PROGRESS = 0.25
"""Share of the training that lies before it."""


def step_batch(found: Data, micro: int | None) -> StepBatch:
    """Return 8 forget and retain items, and 8 of each environment, in micro-batches."""

    def cut(dataset: Dataset) -> list[Any]:
        made = collate(dataset, [index % len(dataset) for index in CHOSEN], 0, micro=micro)
        return [replace(batch, progress=PROGRESS) for batch in made]

    pairs = zip(cut(found.forget), cut(found.retain), strict=True)
    micros = [UnlearnBatch(forget, retain) for forget, retain in pairs]
    return StepBatch(micros, {name: cut(part) for name, part in found.environments.items()})


def one_step(
    method: LossMethod, context: Context, micro: int | None
) -> tuple[dict[str, Tensor], Mapping[str, float], Any]:
    """Return gradients and metrics of one step away from the original, and what was prepared."""
    found, model = data(), fresh()
    prepared = method.prepare(model, found, context)
    model.load_state_dict(moved(method).state_dict())
    with trainable_only(model, method.trainable):
        metrics = method.backward(model, step_batch(found, micro), prepared)
    return gradients(model), metrics, prepared


def moved(method: LossMethod) -> PreTrainedModel:
    """Return the original model with every weight that the method trains a little off."""
    model, other = fresh(), dict(fresh(1).named_parameters())
    with trainable_only(model, method.trainable), torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.add_(other[name], alpha=0.3)
    return model
