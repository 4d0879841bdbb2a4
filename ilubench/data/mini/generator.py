"""The miniature world as a generator plugin."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, cast

from ilubench.data.mini.world import build_tables
from ilubench.interfaces import Generator, Row

__all__ = ["MiniWorld"]


class MiniWorld(Generator):
    """The embedded world: fictional agents (forget), fictional flowers (retain), six benign tasks.

    Attributes:
        seed: of the world's facts and items; another seed is another world.
    """

    version: ClassVar[int] = 2

    seed: int = 0

    def tables(self, inputs: Mapping[str, Sequence[Row]]) -> Mapping[str, Sequence[Row]]:
        """Return the world's tables; it takes no inputs."""
        del inputs
        return cast("Mapping[str, Sequence[Row]]", build_tables(self.seed))
