"""vLLM inside a process that also trains: import, start, weights, end; what it changes is put back.

This is the only file that imports vLLM. It runs in this process
(``VLLM_ENABLE_V1_MULTIPROCESSING=0``), so that nothing is left behind when a run is killed.
"""

from __future__ import annotations

import logging
import os
import random
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

__all__ = ["as_before", "sampling_params", "start_engine", "stop_engine"]


class WeightSwap:
    """Mixed into vLLM's worker (``worker_extension_cls``): loads other weights into its model."""

    def swap_weights(self, folder: str) -> None:
        """Replace every tensor by the checkpoint's; that it is complete was seen before."""
        worker: Any = self
        worker.reload_weights(weights_path=folder)
        tied = worker.model_config.hf_text_config.tie_word_embeddings
        if tied and worker.device.type == "cpu":
            # a head that shares the embedding's tensor keeps a packed copy of the old one
            from vllm.model_executor.layers import utils

            head = worker.get_model().lm_head
            utils.dispatch_cpu_unquantized_gemm(head, remove_weight=False)


def start_engine(arguments: Mapping[str, Any], device: str) -> Any:  # noqa: ANN401
    """Return `vllm.LLM(**arguments)`, its weights replaceable by :class:`WeightSwap`."""
    _prepare(device)
    from vllm import LLM

    extension = f"{WeightSwap.__module__}.{WeightSwap.__qualname__}"
    return LLM(**arguments, worker_extension_cls=extension)


def sampling_params(asked: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Return one `vllm.SamplingParams` a request."""
    from vllm import SamplingParams

    return [SamplingParams(**one) for one in asked]


def stop_engine(engine: Any) -> None:  # noqa: ANN401
    """Stop what :func:`start_engine` returned (None: what failed while it started).

    Otherwise its finalizer, whenever it runs, takes down the process group of the next engine.
    """
    from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

    if engine is not None:
        engine.llm_engine.engine_core.shutdown()
    cleanup_dist_env_and_memory()


def _prepare(device: str) -> None:
    """Set what vLLM reads from the environment when it is imported; the user's settings win."""
    settings = {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    }
    if device == "cpu":
        settings["TORCHDYNAMO_DISABLE"] = "1"  # else the first log-probabilities start a compiler
    for name, value in settings.items():
        os.environ.setdefault(name, value)
    logging.getLogger("vllm").setLevel(logging.ERROR)


@contextmanager
def as_before() -> Iterator[None]:
    """Put back what vLLM changes in a process that also trains.

    It seeds every generator, replaces `torch.set_num_threads`, may set the number of threads, and
    leaves variables such as LD_PRELOAD to child processes.
    """
    import numpy as np

    python, numpy = random.getstate(), np.random.get_state()
    threads, setter = torch.get_num_threads(), torch.set_num_threads
    environment = dict(os.environ)
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
            torch.set_num_threads = setter
            if torch.get_num_threads() != threads:
                setter(threads)
            for name in set(os.environ) - set(environment):
                if not name.startswith(("VLLM_", "TORCHDYNAMO_")):
                    del os.environ[name]
            os.environ.update(environment)
