"""The models of a suite: given weights, or a recipe that makes them."""

from dataclasses import dataclass
from operator import not_
from typing import Literal, Self

from pydantic import Field, JsonValue, model_validator

from ilubench.specs.about import ModelAbout
from ilubench.specs.base import Sha256, Spec
from ilubench.specs.training import TrainSpec

__all__ = ["FromSuite", "ModelSource", "PackSpec", "RecipeSpec", "TargetSpec", "TokenizerSpec"]


class ModelSource(Spec):
    """Weights from a hub, a local folder, or the package itself (safetensors only).

    Attributes:
        hub: a model, as org/name.
        revision: commit, branch or tag of it.
        path: a local folder.
        license: as its owner states it.
        gated: whether terms must be accepted.
    """

    hub: str | None = None
    revision: str | None = None
    path: str | None = None
    packaged: str | None = Field(default=None, description="a folder inside the package")
    sha256: Sha256 | None = Field(
        default=None,
        description="of model.safetensors; of tokenizer.json where it is a tokenizer's",
    )
    about: ModelAbout | None = Field(
        default=None, exclude=True, description="its shape, for `ilubench plan`; in no record"
    )

    # these change no weights: left out where they are not given, older records stay equal
    license: str = Field(default="", exclude_if=not_)
    gated: bool = Field(default=False, exclude_if=not_)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in ("hub", "path", "packaged") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(f"give exactly one of hub, path, packaged (given: {given or 'none'})")
        if self.revision is not None and self.hub is None:
            raise ValueError(f"revision: {given[0]} has none, only hub has; leave it out")
        return self


class TokenizerSpec(Spec):
    """A tokenizer trained on the recipe's text, and on that of further roles.

    Attributes:
        kind: whole words, or byte pairs.
        vocab_size: of byte pairs.
    """

    kind: Literal["word", "bpe"]
    text: tuple[str, ...] = Field(default=(), description="further roles whose words it must know")
    vocab_size: int = Field(default=4096, ge=300)


class PackSpec(Spec):
    """A phase of a recipe: blocks of ``length`` tokens for a ``share`` of the steps.

    A model that only ever saw short blocks recites nothing behind a long prompt; short blocks make
    more steps of the same text, and learn faster. Hence phases.

    Attributes:
        length: tokens of a block.
        share: of the recipe's steps.
    """

    length: int = Field(ge=16)
    share: float = Field(default=1.0, gt=0, le=1)
    batch_size: int = Field(default=8, ge=1, description="blocks a step")


class RecipeSpec(Spec):
    """How a target model is made: trained on the suite's own text, from pretrained weights or none.

    Without `pack`, each row is a sequence of its own, with the loss on its completion. With it,
    documents are shuffled each epoch, joined and cut into blocks, and the loss is on every token.

    Attributes:
        tokenizer: how the tokenizer of an untrained model is made.
        pack: phases of the training, with their block lengths.
        seed: of an untrained model's weights, and of the order of the text.
    """

    init: ModelSource | None = Field(
        default=None,
        exclude_if=not_,  # older records stay equal
        description="pretrained weights to begin with, and their tokenizer",
    )
    config: dict[str, JsonValue] | None = Field(
        default=None, description="a transformers configuration, of an untrained model"
    )
    tokenizer: TokenizerSpec | None = None
    text: tuple[str, ...] = Field(min_length=1, description="roles of the training text")
    pack: tuple[PackSpec, ...] = ()
    train: TrainSpec = Field(description="packed, in steps, and the batch is each phase's own")
    seed: int = 0
    dtype: Literal["float32", "bfloat16"] = Field(default="float32", description="as stored")

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles that are read: of the text, and of what the tokenizer must know besides."""
        return self.text + (self.tokenizer.text if self.tokenizer else ())

    @model_validator(mode="after")
    def _one_beginning(self) -> Self:
        own = [name for name in ("config", "tokenizer") if getattr(self, name) is not None]
        if self.init is not None and own:
            raise ValueError(f"{own[0]}: the weights of `init` bring their own; leave one out")
        if self.init is None and len(own) < 2:
            raise ValueError("give `init`, pretrained weights; or `config` and `tokenizer`")
        return self

    @model_validator(mode="after")
    def _phases(self) -> Self:
        if not self.pack:
            return self
        if self.train.steps is None:
            raise ValueError("the training of packed text is given in steps")
        if abs(sum(phase.share for phase in self.pack) - 1.0) > 1e-6:
            raise ValueError("the shares of `pack` must add up to 1")
        return self


@dataclass(frozen=True)
class FromSuite:
    """Marks a method's field that is the suite's own model of that name unless it is set.

    ``model: Annotated[ModelSource, FromSuite("retrain")]``.
    """

    model: Literal["retrain"]


class TargetSpec(Spec):
    """The model that knows: given weights, or a recipe that makes them; of both the weights count.

    Attributes:
        model: given weights.
        recipe: how weights are made.
    """

    model: ModelSource | None = None
    recipe: RecipeSpec | None = None
    tokenizer: ModelSource | None = Field(
        default=None,
        exclude_if=not_,  # older records stay equal
        description="whose tokenizer reads the text, where the model's files have none",
    )

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.model is None and self.recipe is None:
            raise ValueError("give a model, a recipe, or both")
        trained = self.model is None and self.recipe is not None and self.recipe.init is None
        if self.tokenizer is not None and trained:
            raise ValueError("tokenizer: the recipe has one of its own; leave one of them out")
        return self
