"""What the contracts share: how a check fails, and what holds for every plugin's settings."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import torch

from ilubench.specs import Spec
from ilubench.testing.job import StepRecorder

__all__ = [
    "PluginContract",
    "require",
    "require_finite_steps",
    "require_finite_weights",
    "require_same_traces",
    "skip",
    "some",
    "unlike",
]


class PluginContract(ABC):
    """Tests of what a plugin says of itself and needs; a contract adds those of its kind."""

    @abstractmethod
    def make(self) -> Spec:
        """Return the plugin to test."""

    @abstractmethod
    def _tried(self) -> list[str]:
        """Run it, and return the addresses that it tried to reach."""

    def test_it_needs_no_network(self) -> None:
        """Runs are repeated on machines without a network."""
        tried = self._tried()
        require(
            not tried, f"it tried to reach {tried[:3]}; whatever it needs comes with its package"
        )

    def test_it_is_described(self) -> None:
        """`ilubench ls` shows the first line of its docstring."""
        kind = type(self.make())
        require(
            bool((kind.__dict__.get("__doc__") or "").strip()),
            f"{kind.__name__} has no docstring; say in its first line what it does",
        )
        version = getattr(kind, "version", 1)
        require(version >= 1, f"{kind.__name__}.version is {version}; count from 1")

    def test_its_settings_survive_a_round_trip(self) -> None:
        """Settings are written into a run's record and read again."""
        plugin = self.make()
        kind = type(plugin)
        for way, again in (
            ("model_dump", kind.model_validate(plugin.model_dump(mode="json"))),
            ("model_dump_json", kind.model_validate_json(plugin.model_dump_json())),
        ):
            require(
                again == plugin,
                f"{way} and back gives another {kind.__name__}: {unlike(plugin, again)}; "
                "give each field a type that JSON can hold",
            )
        strict = kind.model_config.get("frozen") and kind.model_config.get("extra") == "forbid"
        require(
            bool(strict),
            f"{kind.__name__}'s model_config must keep frozen=True and extra='forbid', so that a "
            "misspelt setting is an error",
        )


def require(holds: bool, problem: str) -> None:
    """Fail with the problem as the last line; pytest shows no frame of ours."""
    __tracebackhide__ = True
    if not holds:
        raise AssertionError(problem)


def require_finite_steps(log: StepRecorder) -> None:
    """Fail unless every step reports a finite `loss`, and nothing that is not finite."""
    __tracebackhide__ = True
    for step, metrics in log.steps:
        require("loss" in metrics, f"step {step} reports no 'loss'; it has {sorted(metrics)}")
        bad = {name: value for name, value in metrics.items() if not math.isfinite(value)}
        require(not bad, f"step {step} reports {bad}; guard the logarithm or the division")


def require_finite_weights(weights: dict[str, torch.Tensor], when: str = "afterwards") -> None:
    """Fail if a weight is infinite or NaN."""
    __tracebackhide__ = True
    broken = [name for name, tensor in weights.items() if not bool(torch.isfinite(tensor).all())]
    require(not broken, f"not finite {when}: {some(broken)}")


def require_same_traces(before: Mapping[str, object], after: Mapping[str, object]) -> None:
    """Fail if something is other than before (`read_traces`)."""
    __tracebackhide__ = True
    for what, value in before.items():
        require(
            after[what] == value,
            f"{what}: other than before ({unlike(value, after[what])}); put it back, in a "
            "`finally` where it can fail",
        )


def skip(reason: str) -> NoReturn:
    """Skip what does not apply."""
    import pytest

    __tracebackhide__ = True
    pytest.skip(reason)


def some(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    shown = ", ".join(names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown


def unlike(left: Any, right: Any) -> str:  # noqa: ANN401
    """Say where two values, by name if they have names, differ."""
    pairs = [
        part if isinstance(part, dict) else getattr(part, "__dict__", None)
        for part in (left, right)
    ]
    if pairs[0] is None or pairs[1] is None:
        return f"{left} became {right}"
    one, other = pairs
    assert one is not None
    assert other is not None
    names = [name for name in {**one, **other} if one.get(name) != other.get(name)]
    return "; ".join(f"{n}: {one.get(n)} became {other.get(n)}"[:200] for n in names[:3])
