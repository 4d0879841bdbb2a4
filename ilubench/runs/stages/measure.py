"""A scorer of a run, ready to score."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ilubench.errors import PluginError
from ilubench.interfaces import BoundPromptAttack, BoundScorer, Engine, SampleScore
from ilubench.specs import Direction, Estimator, Range

__all__ = ["Measure"]


@dataclass(frozen=True)
class Measure:
    """A scorer that is ready, how each of its metrics becomes a number, what an item can score.

    ``directions`` says which values of a metric say that the model knows more, ``name`` is for
    errors.
    """

    bound: BoundScorer
    metrics: Mapping[str, Estimator]
    ranges: Mapping[str, Range] = field(default_factory=dict)
    directions: Mapping[str, Direction] = field(default_factory=dict)
    name: str = ""

    def score(self, engine: Engine, attack: BoundPromptAttack | None = None) -> list[SampleScore]:
        """Return the samples' scores, asked as an attack asks where one is given.

        Raises:
            CannotApplyError: the scorer cannot apply it.
            PluginError: it takes the attack and does not apply it.
        """
        if attack is None:
            return self.bound.score(engine)
        mine = attack.on(self.directions)
        found = self.bound.score(engine, mine)
        if not mine.rewritten:
            raise PluginError(
                f"scorer {self.name!r} asked its items without the prompt attack {attack.name}; "
                "its `score` must call attack.rewrite for each, or raise CannotApplyError"
            )
        return found
