"""How long a job takes, and how sure that is."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["ORIGINS", "Origin", "Took"]

Origin = Literal["finished", "probe", "like", "assumed"]

ORIGINS: dict[Origin, str] = {
    "finished": "medians of finished jobs of the same kind on this device",
    "probe": "a probe on this device",
    "like": "finished jobs of other kinds on this device, by their tokens",
    "assumed": "6 x parameters x tokens over an ASSUMED share of the card's peak; what a method "
    "runs besides one pass over each batch (sam, lat, tar and others) is not in it",
}
"""Where a time is from, the surest first."""


@dataclass(frozen=True)
class Took:
    """Seconds of a job.

    Attributes:
        seconds: expected.
        low: at least, roughly.
        high: at most, roughly.
        origin: where they are from.
    """

    seconds: float
    low: float
    high: float
    origin: Origin

    @classmethod
    def within(cls, seconds: float, factors: tuple[float, float], origin: Origin) -> "Took":
        """Return seconds that may be so many times fewer, and so many times more."""
        return cls(seconds, seconds / factors[0], seconds * factors[1], origin)
