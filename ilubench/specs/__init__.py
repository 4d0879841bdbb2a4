"""Frozen input models: what a suite, an attack, a data source and a run are.

Every YAML file under ``tasks/`` validates against one of these. Plugins (methods, attacks,
scorers, generators) are named by reference (`PluginRef`) and resolved above this layer.
"""

from ilubench.specs.about import DataAbout, ModelAbout
from ilubench.specs.attack import AttackSpec, GateSpec, ProtocolSpec
from ilubench.specs.base import PluginRef, Seed, Settings, Spec
from ilubench.specs.cluster import RaySpec, SlurmSpec
from ilubench.specs.data import DataSource, GeneratorSpec
from ilubench.specs.memory import MemorySpec
from ilubench.specs.metrics import (
    KNOWN_RANGES,
    CompositeSpec,
    Direction,
    Estimator,
    FineTuningAccuracySpec,
    MeasuredChance,
    MetricSpec,
    Range,
    StatedScore,
    turned,
)
from ilubench.specs.run import RunSpec
from ilubench.specs.score import ScoreSpec
from ilubench.specs.suite import SuiteSpec
from ilubench.specs.target import (
    FromSuite,
    ModelSource,
    PackSpec,
    RecipeSpec,
    TargetSpec,
    TokenizerSpec,
)
from ilubench.specs.training import LoraSpec, TrainSpec
from ilubench.specs.tuning import Candidates, Plain, RangeSpec, SearchSpec, TuningSpec

__all__ = [
    "KNOWN_RANGES",
    "AttackSpec",
    "Candidates",
    "CompositeSpec",
    "DataAbout",
    "DataSource",
    "Direction",
    "Estimator",
    "FineTuningAccuracySpec",
    "FromSuite",
    "GateSpec",
    "GeneratorSpec",
    "LoraSpec",
    "MeasuredChance",
    "MemorySpec",
    "MetricSpec",
    "ModelAbout",
    "ModelSource",
    "PackSpec",
    "Plain",
    "PluginRef",
    "ProtocolSpec",
    "Range",
    "RangeSpec",
    "RaySpec",
    "RecipeSpec",
    "RunSpec",
    "ScoreSpec",
    "SearchSpec",
    "Seed",
    "Settings",
    "SlurmSpec",
    "Spec",
    "StatedScore",
    "SuiteSpec",
    "TargetSpec",
    "TokenizerSpec",
    "TrainSpec",
    "TuningSpec",
    "turned",
]
