"""What is publicly known of data and models that are not at hand, for planning only."""

from collections.abc import Mapping

from pydantic import Field, JsonValue

from ilubench.specs.base import Spec

__all__ = ["DataAbout", "ModelAbout"]


class DataAbout(Spec):
    """Approximate sizes of a data source, from public knowledge.

    They are used while the rows are not at hand, identify nothing and stand in no record.

    Attributes:
        rows: of the split (after `where`, before `offset` and `limit`).
        tokens: mean of a row's text, in tokens of a vocabulary of about 32,000.
        bytes: of the download, where it is known.
    """

    rows: int = Field(ge=1)
    tokens: float = Field(gt=0)
    bytes: int | None = Field(default=None, ge=1)


class ModelAbout(Spec):
    """Approximate facts about a model, from public knowledge.

    They are used while its files are not at hand, identify nothing and stand in no record.

    Attributes:
        config: what its `config.json` says of its shape, as transformers reads it.
        bytes: of the download, where it is known.
    """

    config: Mapping[str, JsonValue]
    bytes: int | None = Field(default=None, ge=1)
