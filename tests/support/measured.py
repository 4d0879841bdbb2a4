"""The committed result sets, and the experiment that each came from."""

from pathlib import Path
from typing import Any

from places import LEADERBOARDS

from ilubench.experiments.experiment import Experiment, resolve_experiment
from ilubench.records.results import RunRecord
from ilubench.specs import PluginRef
from ilubench.specs.overrides import parse_words

RESULT_SETS = sorted(path.parent for path in LEADERBOARDS.glob("*/measured/*/results.json"))


def read(folder: Path) -> tuple[RunRecord, Experiment]:
    record = RunRecord.model_validate_json((folder / "results.json").read_text())
    settings: Any = record.method["settings"]
    method = PluginRef(use=str(record.method["use"]), settings=settings)
    words = [f"suite={record.suite}", f"attacks={','.join(record.attacks)}"]
    words.append(f"seeds={','.join(str(seed) for seed in record.seeds)}")
    return record, resolve_experiment(parse_words(words), method=method)
