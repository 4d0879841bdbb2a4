"""Shared fixtures: offline, one thread, a tiny tokenizer, a tiny random Llama, a context."""

import gc
import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before any test imports the hub's client
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy: the workers share the cores
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
from doubles import MemoryState, make_context, make_tokenizer, tiny_llama
from hypothesis import settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from ilubench.interfaces import Context


gc.disable()  # nothing of what is imported while tests are collected is garbage
settings.register_profile("ilubench", deadline=None, derandomize=True)
settings.load_profile("ilubench")


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tokenizer() -> "PreTrainedTokenizerBase":
    """A byte-level BPE tokenizer with BOS, EOS and padding, trained on a few sentences."""
    return make_tokenizer()


@pytest.fixture
def model(tokenizer: "PreTrainedTokenizerBase") -> "PreTrainedModel":
    """A random Llama of two layers with heads of 48."""
    return tiny_llama(len(tokenizer))


@pytest.fixture
def state() -> MemoryState:
    return MemoryState()


@pytest.fixture
def context(tokenizer: "PreTrainedTokenizerBase", state: MemoryState) -> "Callable[..., Context]":
    """Return a function that makes a context; keyword arguments replace its fields."""

    def make(**changes: object) -> "Context":
        return make_context(tokenizer, **{"state": state, **changes})

    return make
