"""What every spec is, and a plugin by reference."""

from collections.abc import Mapping
from typing import Annotated, TypeAlias

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    model_validator,
)

__all__ = ["Name", "PluginRef", "Seed", "Settings", "Sha256", "Spec"]

Settings: TypeAlias = Mapping[str, JsonValue]

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
"""A name that may become part of a path: lower case, digits, ``-`` and ``_``."""

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


Seed = Annotated[int, Field(ge=0, lt=2**63)]


class Spec(BaseModel):
    """Base of everything that is configured: frozen, and unknown fields are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PluginRef(Spec):
    """A plugin by name (``npo``) or by file (``./my.py:MyMethod``), with its settings.

    Attributes:
        use: its name, or FILE.py:Class.
        settings: its fields.
    """

    use: str
    settings: Settings = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: object) -> object:
        return {"use": value} if isinstance(value, str) else value
