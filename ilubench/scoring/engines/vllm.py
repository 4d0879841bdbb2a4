"""The vLLM engine: one loaded model whose weights are replaced."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from ilubench.errors import DataError, DivergedError, IlubenchError, ItemError, JobError, ModelError
from ilubench.interfaces import MAX_OPTIONS, Generation, Ids, SamplingSpec, TokenLogprobs
from ilubench.models.folder import check_folder
from ilubench.models.forward import architecture_name
from ilubench.scoring.engines.batching import check_options, check_prompts
from ilubench.scoring.engines.handover import Spool, same_model, write_live
from ilubench.scoring.engines.text import (
    cut_at_stop,
    decode_text,
    eos_ids,
    has_stopped,
    sample_seed,
)
from ilubench.scoring.engines.vllm_host import as_before, sampling_params, start_engine, stop_engine

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["VllmEngine"]

_SEQUENCES = 256
"""Sequences that are decoded at once."""

_TOKENS = 1024
"""Tokens of key-value cache for each of ``batch_size`` sequences, at least."""

T = TypeVar("T")


class VllmEngine:
    """Scores and generates with vLLM; same interface and, in float32, same results as HFEngine.

    The first :meth:`load` starts vLLM; later ones hand the tensors over as safetensors on a memory
    file system and reset the prefix cache. A call that fails inside vLLM is tried once more with a
    fresh engine on the same weights; the second failure is a JobError. Samples (``temperature``
    above 0) depend on seed, prompt and number, but are not those of HFEngine. One at a time in a
    process: vLLM's process group is global.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        batch_size: int = 32,
        max_length: int | None = None,
        dtype: str = "float32",
        device: str = "cpu",
        devices: int = 1,
    ) -> None:
        """Prepare; vLLM starts with the first weights.

        Args:
            tokenizer: decodes what is generated and names the end-of-sequence token.
            batch_size: sequences that the key-value cache has room for (in vLLM more run at once).
            max_length: tokens that a sequence may have; by default what the model takes.
            dtype: of the weights inside vLLM; live models must have it.
            device: `cpu` or `cuda`.
            devices: GPUs among which the model is divided.
        """
        self.tokenizer = tokenizer
        self.max_length = max_length or int(tokenizer.model_max_length)
        self._given_length = max_length
        self._batch_size = batch_size
        self._dtype, self._device, self._devices = dtype, device, devices
        self._llm: Any = None
        self._config: PretrainedConfig | Any = None
        self._weights: Path | None = None
        self._spool: Spool | None = None
        self._scratch = Spool(0)  # of the tokenizer
        tokenizer.save_pretrained(self._scratch.folder)

    # ------------------------------------------------------------------ weights

    def load(self, weights: PreTrainedModel | Path) -> None:
        """Replace the weights: a live model of the same architecture, or a checkpoint's folder.

        Raises:
            ModelError: no safetensors; tensors or shapes are not those of its configuration; a live
                model has another dtype; vLLM cannot run the model.
            DivergedError: the weights give logits that are not numbers.
            JobError: vLLM failed twice.
        """
        if isinstance(weights, str | Path):
            self._take(Path(weights), None)
            return
        with as_before():
            spool = write_live(weights, self._dtype)
        try:
            self._take(spool.folder, spool)
        finally:
            if spool is not self._spool:
                spool.free()

    def _take(self, folder: Path, spool: Spool | None) -> None:
        """Put a checkpoint's weights into vLLM; ``spool`` is its folder if that is ours."""
        # vLLM itself says nothing of a missing tensor: the one before would stay
        config = check_folder(folder)
        fits = self._llm is not None and same_model(config, self._config)
        before, self._spool = self._spool, spool
        self._weights, self._config = folder, config
        takes = getattr(config.get_text_config(), "max_position_embeddings", None)
        self.max_length = self._given_length or int(takes or self.tokenizer.model_max_length)
        try:
            if fits:
                self._again(lambda: self._swap(folder))
            else:
                self._restart()
        finally:
            if before is not None:
                before.free()

    def _swap(self, folder: Path) -> None:
        self._llm.collective_rpc("swap_weights", args=(str(folder),))
        if not self._llm.reset_prefix_cache():
            raise RuntimeError("the prefix cache could not be reset")
        self._probe()

    def _probe(self) -> None:
        """Run one token: does the model run, and are its logits numbers?"""
        first = self.tokenizer.bos_token_id or 0
        asked = {"max_tokens": 1, "logprob_token_ids": [first]}
        given, settings = zip(*self._requests([[first]], [asked]), strict=True)
        (found,) = self._llm.generate(list(given), list(settings), use_tqdm=False)
        _numbers(entry.logprob for entry in found.outputs[0].logprobs[0].values())

    def _restart(self) -> None:
        """Start vLLM on the current weights, in place of the one that is there."""
        self._stop()
        self._config.save_pretrained(self._scratch.folder)  # looked for beside the tokenizer
        try:
            with as_before():
                self._llm = start_engine(self._arguments(), self._device)
                self._probe()
        except DivergedError:
            raise
        except Exception as error:
            with as_before():
                stop_engine(self._llm)
            self._llm = None
            problem = _first_line(error)
            if "memory" in problem.lower():
                raise JobError(
                    f"out of memory: vLLM cannot start ({problem}); lower suite.score_batch, "
                    "or use engine=hf"
                ) from error
            name = architecture_name(self._config)
            raise ModelError(f"vLLM cannot run {name}: {problem}; use engine=hf") from error

    def _arguments(self) -> dict[str, Any]:
        text = self._config.get_text_config()
        heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
        width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        size = getattr(torch, self._dtype).itemsize
        token = 2 * text.num_hidden_layers * heads * width * size
        tokens = max(self.max_length + 1, self._batch_size * _TOKENS)
        shared = {
            "model": str(self._weights),
            "tokenizer": str(self._scratch.folder),
            "dtype": self._dtype,
            # one more than fits: the last token of a continuation is scored but never fed
            "max_model_len": self.max_length + 1,
            "max_num_seqs": _SEQUENCES,
            "max_logprobs": MAX_OPTIONS,
            "kv_cache_memory_bytes": max(64 << 20, token * tokens),
            "enable_prefix_caching": True,
            "generation_config": "vllm",  # never the checkpoint's own sampling settings
            "trust_remote_code": False,
            "disable_log_stats": True,
            "use_tqdm_on_load": False,
            "seed": 0,
        }
        if self._device == "cpu":
            return shared | {"enforce_eager": True, "block_size": 32}
        # the cache has its size above; the share of the card's memory is only checked, against
        # what the model in training leaves free
        found = shared | {"gpu_memory_utilization": 0.01}
        return found | {"tensor_parallel_size": self._devices} if self._devices > 1 else found

    def _stop(self) -> None:
        stopped, self._llm = self._llm, None
        if stopped is not None:
            with as_before():
                stop_engine(stopped)
        del stopped
        gc.collect()  # its cache and weights are in reference cycles

    def close(self) -> None:
        """Stop vLLM and remove what was written for it."""
        self._stop()
        self._weights = None
        self._scratch.free()
        if self._spool is not None:
            self._spool.free()
            self._spool = None

    # ------------------------------------------------------------------ the three calls

    def choices(self, prompts: Sequence[Ids], options: Sequence[int]) -> list[tuple[float, ...]]:
        """Return next-token log-probabilities (nats) of the ``options`` tokens, one row a prompt.

        Raises:
            ItemError: an empty or too long prompt.
            DataError: an option outside the vocabulary, or more than MAX_OPTIONS of them.
            DivergedError: a log-probability is not a number.
        """
        self._check(prompts)
        check_options(options, self._vocabulary(), self.tokenizer)
        if len(set(options)) > MAX_OPTIONS:
            raise DataError(f"{len(set(options))} options at once; vLLM takes {MAX_OPTIONS}")
        asked = {"max_tokens": 1, "logprob_token_ids": sorted(set(options))}
        rows = []
        for found in self._run(prompts, [asked] * len(prompts)):
            known = found.outputs[0].logprobs[0]
            rows.append(tuple(known[option].logprob for option in options))
        _numbers(value for row in rows for value in row)
        return rows

    def logprobs(self, pairs: Sequence[tuple[Ids, Ids]]) -> list[TokenLogprobs]:
        """Return log-probabilities (nats) and argmax flags of each continuation's tokens.

        The last token is read off the next-token row, the others are prompt log-probabilities.
        vLLM leaves those at positions that it took from its prefix cache undefined: a request whose
        cached part reaches into the continuation is run again without the cache.

        Raises:
            ItemError: an empty context or continuation, or a pair that does not fit.
            DivergedError: a log-probability is not a number.
        """
        for position, (_, continuation) in enumerate(pairs):
            if not continuation:
                raise ItemError(position, "the continuation is empty")
        prompts = [[*context, *rest[:-1]] if context else [] for context, rest in pairs]
        self._check(prompts)
        self._check([rest[-1:] for _, rest in pairs])
        asked: list[dict[str, Any]] = [
            {
                "max_tokens": 1,
                "logprob_token_ids": [rest[-1]],
                "prompt_logprobs": 0 if len(rest) > 1 else None,
                "skip_reading_prefix_cache": False,
            }
            for _, rest in pairs
        ]
        found = self._run(prompts, asked)
        again = [
            position
            for position, (context, rest) in enumerate(pairs)
            if len(rest) > 1 and (found[position].num_cached_tokens or 0) >= len(context)
        ]
        fresh = [{**asked[position], "skip_reading_prefix_cache": True} for position in again]
        for position, answer in zip(
            again, self._run([prompts[position] for position in again], fresh), strict=True
        ):
            found[position] = answer
        scored = [_scored(answer, *pair) for answer, pair in zip(found, pairs, strict=True)]
        _numbers(value for one in scored for value in one.values)
        return scored

    def generate(self, prompts: Sequence[Ids], sampling: SamplingSpec) -> list[list[Generation]]:
        """Return ``sampling.n`` continuations a prompt, without the end-of-sequence token.

        Text ends before the first stop string; ``ids`` may reach past its start.

        Raises:
            ItemError: an empty prompt, or one that does not fit together with ``max_tokens``.
        """
        self._check(prompts, extra=sampling.max_tokens)
        copies = sampling.n if sampling.temperature > 0 else 1
        ends = eos_ids(self.tokenizer, self._config) | set(sampling.stop_ids)
        shared = {
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "stop_token_ids": sorted(ends),
            "logprobs": 0,  # of the token itself: shows logits that are not numbers
        }
        wanted = [(prompt, number) for prompt in prompts for number in range(copies)]
        asked: list[dict[str, Any]] = [
            {**shared, "seed": sample_seed(sampling, *one)} if sampling.temperature > 0 else shared
            for one in wanted
        ]
        written = []
        for found in self._write([prompt for prompt, _ in wanted], asked, sampling.stop):
            ids = found[:-1] if found and found[-1] in ends else found
            text = cut_at_stop(decode_text(self.tokenizer, ids), sampling.stop)
            written.append(Generation(ids, text))
        several = [written[at : at + copies] for at in range(0, len(written), copies)]
        return [mine if copies == sampling.n else mine * sampling.n for mine in several]

    # ------------------------------------------------------------------ inside

    def _vocabulary(self) -> int:
        return int(self._config.get_text_config().vocab_size)

    def _check(self, prompts: Sequence[Ids], *, extra: int = 0) -> None:
        if self._weights is None:
            raise ModelError("no weights are loaded; call load()")
        check_prompts(
            prompts,
            self.tokenizer,
            extra=extra,
            max_length=self.max_length,
            vocabulary=self._vocabulary(),
        )

    def _requests(
        self, prompts: Sequence[Ids], asked: Sequence[Mapping[str, Any]]
    ) -> list[tuple[dict[str, Any], Any]]:
        """Return vLLM's prompts and settings (greedy and without text unless asked)."""
        usual = {"temperature": 0.0, "detokenize": False}
        settings = sampling_params([{**usual, **one} for one in asked])
        return [
            ({"prompt_token_ids": list(prompt)}, one)
            for prompt, one in zip(prompts, settings, strict=True)
        ]

    def _run(self, prompts: Sequence[Ids], asked: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Run requests; answers in their order."""
        if not prompts:
            return []
        given, settings = zip(*self._requests(prompts, asked), strict=True)
        return self._again(
            lambda: list(self._llm.generate(list(given), list(settings), use_tqdm=False))
        )

    def _write(
        self, prompts: Sequence[Ids], asked: Sequence[Mapping[str, Any]], stop: Sequence[str]
    ) -> list[tuple[int, ...]]:
        """Generate; a request ends after the token with which its text holds a stop string.

        vLLM's own search for stop strings decodes the prompt's end along and waits for whole
        characters, so that broken text ends elsewhere than in the transformers engine.
        """
        if not stop:
            return [_ids(one) for one in self._run(prompts, asked)]
        requests = self._requests(prompts, asked)

        def steps() -> list[tuple[int, ...]]:
            engine = self._llm.llm_engine
            written: dict[str, tuple[int, ...]] = {}
            for number, request in enumerate(requests):
                engine.add_request(str(number), *request)
            while engine.has_unfinished_requests():
                for one in engine.step():
                    if one.request_id in written:
                        continue
                    stopped = has_stopped(self.tokenizer, one.outputs[0].token_ids, stop)
                    if stopped:
                        engine.abort_request([one.request_id])
                    if stopped or one.finished:
                        written[one.request_id] = _ids(one)
            return [written[str(number)] for number in range(len(requests))]

        return self._again(steps)

    def _again(self, call: Callable[[], T]) -> T:
        """Call; after a failure inside vLLM, once more with a fresh engine on the same weights."""
        try:
            with as_before():
                return call()
        except IlubenchError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a dead engine raises
            first = _first_line(error)
        try:
            self._restart()
            with as_before():
                return call()
        except DivergedError:
            raise
        except Exception as error:
            self._stop()
            raise JobError(f"vLLM failed twice: {first}; then: {_first_line(error)}") from error


def _ids(answer: Any) -> tuple[int, ...]:  # noqa: ANN401
    """Return what a request has written; each token's likelihood must be a number."""
    written = answer.outputs[0]
    ids = tuple(written.token_ids)
    _numbers(rows[token].logprob for rows, token in zip(written.logprobs, ids, strict=True))
    return ids


def _scored(answer: Any, context: Ids, rest: Ids) -> TokenLogprobs:  # noqa: ANN401
    """Return the continuation's log-probabilities from one request's answer."""
    values, greedy = [], []
    for place, token in enumerate(rest[:-1], start=len(context)):
        entry = answer.prompt_logprobs[place][token]
        values.append(float(entry.logprob))
        greedy.append(entry.rank == 1)
    output = answer.outputs[0]
    values.append(float(output.logprobs[0][rest[-1]].logprob))
    greedy.append(output.token_ids[0] == rest[-1])
    return TokenLogprobs(tuple(values), tuple(greedy))


def _numbers(values: Iterator[float]) -> None:
    if any(math.isnan(value) for value in values):
        raise DivergedError("the model's logits are not numbers; its weights diverged")


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if "error" in line.lower()), lines[0] if lines else "") or (
        type(error).__name__
    )
