"""What was found of a run's data and models."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, computed_field

__all__ = ["Inventory", "Supply", "shown_size"]


class Supply(BaseModel):
    """One role or model.

    Attributes:
        field: that names it: `data.<role>`, `suite.target.model`.
        source: hub id and revision, file, generator's table.
        commit: that the revision stands for; empty if of no hub.
        state: `cached`; `local`; `made` (generated, or trained by a recipe); `to fetch`; `missing`.
        gated: whether its terms must be accepted.
        license: as the spec says, else its card.
        bytes: that would be downloaded.
        rows: number of rows; None where they are not read yet, and for models.
    """

    model_config = ConfigDict(frozen=True)

    field: str
    source: str
    commit: str = ""
    state: Literal["cached", "local", "made", "to fetch", "missing"]
    gated: bool = False
    license: str = ""
    bytes: int = 0
    rows: int | None = None

    @property
    def size(self) -> str:
        """What would be downloaded, in the unit that fits."""
        return shown_size(self.bytes)


class Inventory(BaseModel):
    """All that a run needs.

    Attributes:
        supplies: roles, then models.
        problems: everything that would stop the run.
    """

    model_config = ConfigDict(frozen=True)

    supplies: tuple[Supply, ...]
    problems: tuple[str, ...]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def fine(self) -> bool:
        """Whether nothing stands in the way."""
        return not self.problems

    @computed_field  # type: ignore[prop-decorator]
    @property
    def bytes(self) -> int:
        """What is still to be downloaded."""
        return sum(supply.bytes for supply in self.supplies)


def shown_size(size: int) -> str:
    """Return a number of bytes in the unit that fits."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size //= 1000
    return f"{size:.0f} GB"
