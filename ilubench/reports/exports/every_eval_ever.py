"""The shared format of evaluations "Every Eval Ever", version 0.3.0: a file for each model.

Paper: arXiv 2606.14516. Files lie as in its datastore, `data/<collection>/<owner>/<model>/`.
"""

import hashlib
import json
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

from pydantic import JsonValue

from ilubench.records.finished import FinishedRun
from ilubench.records.store import write_atomic, write_json
from ilubench.reports.exports.checkpoints import MADE_HERE, Checkpoint, Score, checkpoints_of
from ilubench.specs import DataSource

__all__ = ["write_every_eval_ever"]

SCHEMA = "0.3.0"
NOT_KEPT = "a run does not keep the prompt; sample_id names the item of the suite"
LIBRARIES = {"hf": "transformers", "vllm": "vllm"}

Json: TypeAlias = dict[str, JsonValue]


def write_every_eval_ever(
    run: FinishedRun, folder: Path, organization: str, *, samples: bool
) -> Iterator[Path]:
    """Write a run's models and yield the files; the same run has the same names of files.

    Args:
        run: with samples.
        folder: that `data/` is put into.
        organization: who ran it.
        samples: also each item's score, where items are right or wrong and none is gated.

    Raises:
        DataError: no samples.
        StoreError: a file cannot be written.
    """
    now = repr(time.time())
    collection = f"{MADE_HERE}-{run.record.suite}"
    for one in checkpoints_of(run):
        place = f"data/{collection}/{one.model}"
        name = _uuid(run.record.run, one.model)
        found = _aggregate(run, one, f"{collection}/{one.model}/{now}", now, organization)
        lines = [*_lines(one, str(found["evaluation_id"]))] if samples else []
        if lines:
            text = "".join(json.dumps(line) + "\n" for line in lines).encode()
            file = f"{place}/{name}_samples.jsonl"
            found["detailed_evaluation_results"] = {
                "format": "jsonl",
                "file_path": file,
                "hash_algorithm": "sha256",
                "checksum": hashlib.sha256(text).hexdigest(),
                "total_rows": len(lines),
            }
            write_atomic(folder / file, text)
            yield folder / file
        write_json(folder / place / f"{name}.json", found)
        yield folder / place / f"{name}.json"


# --- inside ---


def _uuid(run: str, model: str) -> str:
    digest = hashlib.sha256(f"{run}/{model}".encode()).digest()
    return str(uuid.UUID(bytes=digest[:16], version=4))


def _aggregate(
    run: FinishedRun, one: Checkpoint, evaluation: str, now: str, organization: str
) -> Json:
    record, suite = run.record, run.suite
    assert suite is not None
    libraries = {**record.libraries, **run.libraries}
    engine = LIBRARIES.get(record.engine, record.engine)
    about: Json = {
        # an original model may be a hub's; nobody else has the others
        "deployment_type": "self_deployed",
        "model_availability": "unknown" if one.model.startswith(MADE_HERE) else "open_weights",
        "what": one.said,
        "suite": f"{suite.name} version {suite.version}",
        "run": record.run,
        "dtype": record.dtype,
        "seeds": ", ".join(map(str, record.seeds)),
    }
    if one.who == "method":
        about["method"] = json.dumps(record.method, sort_keys=True)
    if one.attack:
        about["attack"] = json.dumps(run.settings.get(one.attack, one.attack), sort_keys=True)
    return {
        "schema_version": SCHEMA,
        "evaluation_id": evaluation,
        "retrieved_timestamp": now,
        "source_metadata": {
            "source_name": "ilubench",
            "source_type": "evaluation_run",
            "source_organization_name": organization,
            "evaluator_relationship": "other",
        },
        "eval_library": {"name": "ilubench", "version": libraries.get("ilubench", "unknown")},
        "model_info": {
            "name": one.model.partition("/")[2],
            "id": one.model,
            "inference_engine": {"name": engine, "version": libraries.get(engine, "unknown")},
            "additional_details": about,
        },
        "evaluation_results": [_result(score, suite.name) for score in one.scores],
    }


def _result(score: Score, suite: str) -> Json:
    figure, spec = score.figure, score.spec
    low, high = score.bounds
    details: Json = {
        "items": str(figure.n_items),
        "seeds": ", ".join(map(str, score.samples.seeds)),
    }
    if figure.note is not None:
        details["note"] = figure.note.kind
    measured: Json = {"score": figure.value, "details": details}
    if figure.low is not None and figure.high is not None:
        measured["uncertainty"] = {
            "confidence_interval": {
                "lower": figure.low,
                "upper": figure.high,
                "confidence_level": 0.95,
                "method": f"over {figure.kind.replace('-', ' ')}",
            }
        }
    return {
        "evaluation_result_id": _id(score),
        "evaluation_name": spec.label,
        "source_data": _source(score, suite),
        "metric_config": {
            "evaluation_description": f"a measure of {score.purpose}",
            "metric_id": _id(score),
            "metric_name": spec.metric,
            "lower_is_better": spec.direction == "lower",
            "score_type": "continuous",
            "min_score": "-Infinity" if low is None else low,
            "max_score": "Infinity" if high is None else high,
            "additional_details": {"better": f"{spec.direction} means that a model knows more"},
        },
        "score_details": measured,
    }


def _id(score: Score) -> str:
    return f"{score.scorer}.{score.spec.metric}"


def _source(score: Score, suite: str) -> Json:
    source = score.source
    if source is None or source.hub is None:
        name = f"{suite}/{score.role or score.scorer}"
        return {"dataset_name": name, "source_type": "other", **_details(source)}
    found: Json = {"dataset_name": source.hub, "source_type": "hf_dataset", "hf_repo": source.hub}
    return {**found, "hf_split": source.split, **_details(source)}


def _details(source: DataSource | None) -> Json:
    """What names the rows: of which version and part, under which terms."""
    if source is None:
        return {}
    names = ("revision", "subset", "limit", "offset", "shuffle", "license", "generated")
    found: Json = {name: str(value) for name in names if (value := getattr(source, name))}
    if source.gated:
        found["gated"] = "true"
    return {"additional_details": found} if found else {}


def _lines(one: Checkpoint, evaluation: str) -> Iterator[Json]:
    for score in one.scores:
        if score.gated or not set(score.samples.values.ravel().tolist()) <= {0.0, 1.0}:
            continue
        for seed, values in zip(score.samples.seeds, score.samples.values, strict=True):
            for item, value in zip(score.samples.items, values.tolist(), strict=True):
                yield {
                    "schema_version": SCHEMA,
                    "evaluation_id": evaluation,
                    "model_id": one.model,
                    "evaluation_name": score.spec.label,
                    "evaluation_result_id": _id(score),
                    "sample_id": item,
                    "interaction_type": "single_turn",
                    "input": {"raw": "", "reference": []},
                    "output": {"raw": []},
                    "answer_attribution": [],
                    "evaluation": {"score": value, "is_correct": value == 1.0},
                    "metadata": {"seed": str(seed), "input": NOT_KEPT},
                }
