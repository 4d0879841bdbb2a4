"""Attacks one after the other."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from ilubench.data.seeds import seed_for
from ilubench.interfaces import Checkpoint, Context, Dataset, Metrics, WeightAttack
from ilubench.interfaces.discovery import PluginField, SuiteAttacks
from ilubench.training import seed_everything

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Chain"]

Link = Annotated[WeightAttack, PluginField("attacks")]


class Chain(WeightAttack):
    """Several of the suite's attacks, each on what the one before has left: its last checkpoint.

    Scored after each; the levels are called by the attacks' names.

    Attributes:
        links: attacks of the suite, by name, with the settings and data that they have there.
    """

    shards: ClassVar[bool] = True

    links: Annotated[dict[str, Link], SuiteAttacks()] = Field(min_length=2)

    def roles(self) -> tuple[str, ...]:
        """Return the links' roles, as `link.role`."""
        return tuple(f"{name}.{role}" for name, link in self.links.items() for role in link.roles())

    def checkpoints(self, examples: int) -> tuple[int | str, ...]:  # noqa: ARG002
        """Return the unlearned model, then the links."""
        return (0, *self.links)

    def tamper(
        self, model: "PreTrainedModel", data: Mapping[str, Dataset], context: Context
    ) -> Iterator[Checkpoint]:
        """Yield the live model before, and after each link."""
        yield Checkpoint(model, 0)
        steps = 0
        for name, link in self.links.items():
            mine = {role: data[f"{name}.{role}"] for role in link.roles()}
            before = steps

            def log(step: int, metrics: Metrics, before: int = before) -> None:
                context.log(before + step, metrics)

            seed = seed_for(context.seed, "link", name)
            own = replace(context, seed=seed, phase=f"{context.phase}-{name}", log=log)
            seed_everything(seed)
            for found in link.tamper(model, mine, own):
                model = found.model
            counts = link.checkpoints(sum(map(len, mine.values())))
            steps += max((at for at in counts if isinstance(at, int)), default=0)
            yield Checkpoint(model, None, name)
