"""The only training loop: target, methods and attacks go through `optimize`.

A step's data, and any randomness in it, depend on (seed, step) alone; hence a killed job that
resumes from its saved state ends with the same bits as one that was never killed.
"""

from ilubench.specs.memory import memory_per_parameter
from ilubench.training.fine_tuning import fine_tune, pretrain, sequence_nll
from ilubench.training.fitting import NoRoomError
from ilubench.training.loop import (
    Batches,
    learning_rate,
    micro_batches,
    optimize,
    pad_id,
    seed_everything,
    trainable_only,
)
from ilubench.training.lora import ADAPTERS, check_lora, target_layers, train_part
from ilubench.training.loss_method import LossMethod

__all__ = [
    "ADAPTERS",
    "Batches",
    "LossMethod",
    "NoRoomError",
    "check_lora",
    "fine_tune",
    "learning_rate",
    "memory_per_parameter",
    "micro_batches",
    "optimize",
    "pad_id",
    "pretrain",
    "seed_everything",
    "sequence_nll",
    "target_layers",
    "train_part",
    "trainable_only",
]
