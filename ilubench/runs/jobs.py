"""A job as plain data: all that any process must know to carry it out."""

from typing import Literal

from ilubench.records.results import Who
from ilubench.specs import PluginRef, Spec

__all__ = ["Job", "Stage"]

Stage = Literal["target", "unlearn", "score", "attack"]


class Job(Spec):
    """One unit of work; `key` names its artifact, `needs` the artifacts it starts from.

    Attributes:
        who: `method`; `reference`, `retrain` and `untouched` for the jobs of the original model, of
            the one that never knew and of the one before it was taught, which all rows of a suite
            share.
        seed: the user's.
        method: what unlearns, with all settings; of jobs of the stage `unlearn`.
        weights: key of the unlearned weights that are scored or attacked.
        attack: its name in the suite; empty where nothing is attacked.
        told_by: keys of the scores that an attack which tunes is told by: the unlearned model's,
            then the untouched one's where chance levels are measured.
    """

    stage: Stage
    key: str
    label: str
    needs: tuple[str, ...] = ()
    who: Who = "method"
    seed: int = 0
    method: PluginRef | None = None
    weights: str = ""
    attack: str = ""
    told_by: tuple[str, ...] = ()

    @property
    def scores_original(self) -> bool:
        """Whether it leads to the original model's score, which comes before all that is costly."""
        return self.who == "reference" and self.stage != "attack"

    @property
    def looks_first(self) -> bool:
        """Whether it measures what models know that nothing was done to, before all that costs."""
        return self.scores_original or self.who == "untouched"
