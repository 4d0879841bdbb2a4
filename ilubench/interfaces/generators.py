"""Generators of tables."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from ilubench.interfaces.training import Row
from ilubench.specs import Spec

__all__ = [
    "Generator",
]


class Generator(Spec, ABC):
    """Makes tables of text, from nothing or from other tables."""

    version: ClassVar[int] = 1

    @abstractmethod
    def tables(self, inputs: Mapping[str, Sequence[Row]]) -> Mapping[str, Sequence[Row]]:
        """Return table name -> rows; the same inputs give the same rows."""
