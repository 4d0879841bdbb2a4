"""What a plugin author reads: methods, attacks, engines, scorers, generators and their types.

Nothing here imports torch; tensors appear in annotations only. A plugin class *is* its typed
configuration: its pydantic fields are what `method.<field>=<value>` sets on the command line.
"""

from ilubench.interfaces.attacks import (
    BoundPromptAttack,
    Checkpoint,
    Item,
    Options,
    PromptAttack,
    PromptContext,
    Shot,
    Told,
    WeightAttack,
)
from ilubench.interfaces.chats import Chat
from ilubench.interfaces.engines import MAX_OPTIONS, Engine, Generation, SamplingSpec, TokenLogprobs
from ilubench.interfaces.generators import Generator
from ilubench.interfaces.methods import Method
from ilubench.interfaces.scorers import Asked, BoundScorer, SampleScore, ScoreContext, Scorer
from ilubench.interfaces.training import (
    Batch,
    Context,
    Dataset,
    Example,
    Ids,
    Metrics,
    Progress,
    Room,
    Row,
    StateStore,
    StepBatch,
    UnlearnBatch,
    UnlearnData,
)

__all__ = [
    "MAX_OPTIONS",
    "Asked",
    "Batch",
    "BoundPromptAttack",
    "BoundScorer",
    "Chat",
    "Checkpoint",
    "Context",
    "Dataset",
    "Engine",
    "Example",
    "Generation",
    "Generator",
    "Ids",
    "Item",
    "Method",
    "Metrics",
    "Options",
    "Progress",
    "PromptAttack",
    "PromptContext",
    "Room",
    "Row",
    "SampleScore",
    "SamplingSpec",
    "ScoreContext",
    "Scorer",
    "Shot",
    "StateStore",
    "StepBatch",
    "TokenLogprobs",
    "Told",
    "UnlearnBatch",
    "UnlearnData",
    "WeightAttack",
]
