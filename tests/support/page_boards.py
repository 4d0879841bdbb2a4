"""A leaderboard with something of everything that the page shows, and one full of hostile texts."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

from finished_runs import SUITE, Told

from leaderboards import edit_json, tiny_entry

METRICS: list[dict[str, Any]] = [
    {"label": "FQ", "scorer": "asked", "metric": "acc", "chance": 0.25},
    {"label": "1 - VerbMem_f", "scorer": "asked", "metric": "acc", "direction": "lower"},
]
CITATION = (
    "@article{npo24,\n  title = {Negative {P}reference \\textit{Optimization}},\n  year = 2024\n}"
)
HASH = "ab" * 32

MARKUP = "</script><script>window.hacked=1</script><!-- <img src=x onerror=window.hacked=1>"
WORDS = "{{ 7*7 }}{% set a=1 %} | `x` [y](javascript:window.hacked=1) \\input{/etc/passwd} $x$ ${1}"
FORMULA = "=HYPERLINK(1)+cmd|' /C calc'!A0"
ADDRESS = 'https://x.test/"onmouseover="window.hacked=1"|)<b>'


def rich_board(root: Path) -> Path:
    """Write a suite `known` with all tiers, a dispute, an attack, a collapse, and reported rows."""
    suite: dict[str, Any] = {"primary_forget": METRICS}

    def told(use: str, after: float = 0.8, end: float = 0.6, **more: Any) -> Told:
        return Told(use, after=after, end=end, seeds=(0, 1, 2), suite=suite, **more)

    tiny_entry(root, "none", told("none"))
    tiny_entry(root, "retrain", told("retrain", 0.9, 0.9, noise=7))
    npo = tiny_entry(root, "npo", told("npo"))
    rmu = tiny_entry(root, "rmu", told("rmu", 0.75, 0.35, noise=2))
    sam = tiny_entry(root, "sam", told("sam", 0.7, 0.5, noise=3))
    tiny_entry(root, "wild", told("undo", 0.9, 0.9, noise=4, utility=0.3))
    edit_json(npo, _verified("weights", 0.0, 0.2))
    edit_json(rmu, _verified("weights", -0.3, -0.1))
    edit_json(sam, _verified("method", -0.1, 0.1))
    edit_json(sam, lambda entry: entry["run"].update(seen=["seen"]))
    edit_json(npo, _published)
    _attack(npo)
    _reported(npo.parent, "paper-npo", title="NPO, as printed")
    return npo.parent


def hostile_board(root: Path) -> Path:
    """Write a suite `known` in which every text that a stranger can choose is an attempt."""
    suite = {
        "title": MARKUP,
        "primary_forget": [{**METRICS[0], "label": MARKUP[:90]}],
        "utility": [{**SUITE["utility"][0], "label": WORDS[:80]}],
        "attacks": {
            name: {"fa": {"scorer": "nothing", "metric": "acc", "label": MARKUP[:90]}}
            for name in SUITE["attacks"]
        },
    }
    told = Told("npo", seeds=(0, 1, 2), suite=suite)
    npo = tiny_entry(root, "npo", told)
    rmu = tiny_entry(root, "rmu", Told("rmu", end=0.3, seeds=(0, 1, 2), suite=suite, noise=2))
    for path, title in ((npo, MARKUP), (rmu, FORMULA)):
        edit_json(path, _verified("weights", 0.1, 0.2, by=MARKUP))
        edit_json(path, partial(_hostile, title=title))
    _attack(npo, title=MARKUP, by=FORMULA)
    _reported(npo.parent, "paper", title=MARKUP, model=FORMULA, citation=MARKUP, where=WORDS[:99])
    return npo.parent


# --- inside


def _verified(kind: str, low: float, high: float, by: str = "A. Maintainer") -> Any:
    """A change that adds a verification with one comparison, of that interval."""
    middle = (low + high) / 2

    def change(entry: Any) -> None:
        comparison = {"metric": "FQ", "figure": "RA_core", "submitted": 0.5}
        comparison |= {"verified": 0.5 + middle, "low": low, "high": high}
        if by != "A. Maintainer":
            comparison |= {"metric": by, "figure": by}
        told = {"kind": kind, "by": by, "day": "2026-01-02", "seeds": [100, 101]}
        told |= {"run": entry["run"], "samples": entry["samples"], "comparisons": [comparison]}
        entry["verifications"].append(told)

    return change


def _published(entry: Any) -> None:
    entry["title"] = "NPO & friends"
    entry["submission"] |= {"citation": CITATION, "code": "https://code.test/npo"}
    entry["weights"] = [{"seed": 0, "sha256": HASH, "bytes": 123456789, "url": "https://w.test/0"}]


def _hostile(entry: Any, title: str) -> None:
    entry["title"] = title
    entry["submission"] |= {"by": MARKUP, "code": ADDRESS, "paper": ADDRESS}
    entry["submission"] |= {"citation": f"@misc{{a, title={{{MARKUP}}}, note={{\\input{{x}}}}}}"}
    entry["submission"] |= {"remarks": f"{MARKUP}\n{WORDS}"}
    entry["weights"] = [{"seed": 0, "sha256": HASH, "bytes": 1, "url": ADDRESS}]
    entry["package"] = {"name": MARKUP, "version": WORDS, "sha256": HASH, "url": ADDRESS}
    entry["trains_on"] = [MARKUP, WORDS]
    entry["environment"] |= {"device": MARKUP, "libraries": {MARKUP: WORDS}}
    entry["run"]["notes"] = [MARKUP, WORDS]
    entry["run"]["method"]["settings"] = {MARKUP: FORMULA, "a": [WORDS]}
    entry["run"]["cost"] = {MARKUP: 1.0, "steps": 3.0}


def _attack(entry: Path, title: str = "Relearning", by: str = "B. Attacker") -> None:
    """A verified attack that brings back more than the suite's, on one entry."""
    run = json.loads(entry.read_text())["run"]
    pointer = json.loads(entry.read_text())["samples"]
    for row in run["rows"].values():
        row["worst_case"] |= {"value": 0.111, "low": 0.1, "high": 0.122, "note": None}
    result = {"entry": entry.stem, "run": run, "samples": pointer, "verified": True}
    record: dict[str, Any] = {
        "schema_version": 1,
        "kind": "attack",
        "entry": "relearn-1",
        "title": title,
        "suite": "known",
        "suite_version": 1,
        "config": {},
        "package": None,
        "results": [result],
        "submission": {"by": by, "day": "2026-02-03", "code": "", "paper": ""},
    }
    record["submission"] |= {"citation": "", "remarks": ""}
    place = entry.parent / "attacks"
    place.mkdir()
    (place / "relearn-1.json").write_text(json.dumps(record))


def _reported(folder: Path, name: str, **changes: str) -> None:
    published_row(folder, name, {("FQ", "mean"): 0.65}, **changes)


def published_row(
    folder: Path, name: str, values: dict[tuple[str, str], float], **changes: str
) -> None:
    """Write a paper's row into a board: (metric, state) -> value."""
    figures = [
        {"metric": metric, "state": state, "value": value, "higher_is": "better forgotten"}
        for (metric, state), value in values.items()
    ]
    record: dict[str, Any] = {"schema_version": 1, "kind": "reported", "entry": name}
    record |= {"title": name, "suite": "known", "model": "some model", "source": "notes"}
    record |= {"checked": False, "citation": "", "paper": "https://p.test/1", "where": "table 2"}
    record |= {"figures": figures, "remarks": "", **changes}
    (folder / "reported").mkdir(parents=True, exist_ok=True)
    (folder / "reported" / f"{name}.json").write_text(json.dumps(record))


def copied(board: Path, to: Path) -> Path:
    """Copy a leaderboard to a folder of one's own, and return it."""
    return Path(shutil.copytree(board, to))
