"""How long the leaderboards' page takes to build, how heavy it is, and what that is spent on.

Synthetic entries: `python tests/bench/leaderboard_page.py [METHODS] [ATTACKS]`, 50 and 12 without
words. Three primary metrics, five seeds, four checkpoints an attack, few items: the page's weight
does not depend on them, the time of a first build does (it reads and compares all samples).
"""

import cProfile
import json
import pstats
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from finished_runs import SUITE, Told, write_run

from ilubench.leaderboard.records.files import read_board, write_record
from ilubench.leaderboard.records.models import Entry, Submission, Weights
from ilubench.leaderboard.records.samples import point
from ilubench.leaderboard.site.build import build
from ilubench.leaderboard.site.html import embedded_json
from ilubench.leaderboard.site.ranked import ranked_groups
from ilubench.leaderboard.site.view import page_data
from ilubench.specs.yaml_files import load_yaml

SHIPPED = Path(__file__).parents[2] / "leaderboards" / "mini" / "measured" / "npo"
SEEDS = tuple(range(5))
CITATION = "@article{key, title = {A method of some name}, author = {A. and B.}, year = {2026}}"


def _suite(attacks: int) -> dict[str, Any]:
    metric = {"scorer": "asked", "metric": "acc"}
    names = [f"attack{k:02}" for k in range(attacks)]
    return {
        "primary_forget": [
            {"label": "FQ", **metric},
            {"label": "1 - VerbMem_f", **metric},
            {"label": "1 - KnowMem_f", **metric},
        ],
        "attacks": {name: {"fa": {"scorer": "nothing", "metric": "acc"}} for name in names},
        "core_unseen": names[1:],
    }


def _write(root: Path, number: int, suite: dict[str, Any]) -> None:
    """Write one entry, with all that an entry can have."""
    told = Told(
        f"method{number:02}",
        settings=json.loads((SHIPPED / "results.json").read_text())["method"]["settings"],
        after=0.75 + 0.004 * (number % 40),
        end=0.3 + 0.012 * (number % 37),
        seeds=SEEDS,
        attacks=tuple(suite["attacks"]),
        noise=number + 1,
        suite=suite,
    )
    name = f"method{number:02}-1"
    folder = root / SUITE["name"]
    run = write_run(folder / "measured" / name, told)
    found = json.loads((run / "results.json").read_text())
    found["cost"] = {"steps": 90.0, "train_seconds": 24.2, "tokens": 55187.2, "peak_bytes": 8e8}
    config: dict[str, Any] = dict(load_yaml(run / "config.yaml"))
    entry = Entry(
        entry=name,
        title=f"Method number {number}",
        run=found,
        config=config,
        environment=json.loads((SHIPPED / "env.json").read_text()),
        samples=point(folder, f"measured/{name}/samples.parquet"),
        weights=tuple(
            Weights(seed=s, sha256=f"{s}{number:02}" + "a" * 61, bytes=9_000_000) for s in SEEDS
        ),
        trains_on=("text",),
        submission=Submission(by="A group", day="2026-01-01", citation=CITATION),
    )
    write_record(folder / f"{name}.json", entry)


def _spent(root: Path, cache: Path) -> None:
    """Print what a build with a warm cache spends its time on."""
    profile = cProfile.Profile()
    profile.enable()
    data = page_data([(board, ranked_groups(board, cache)) for board in [read_board(root)]])
    profile.disable()
    pstats.Stats(profile).sort_stats("cumtime").print_stats("ilubench/", 12)
    print("weight of the data, by what it is:")
    rows: Any = data["boards"][0]["rows"]  # type: ignore[index,call-overload]
    sizes: dict[str, int] = {}
    for row in rows:
        for key, value in row.items():
            sizes[key] = sizes.get(key, 0) + len(embedded_json({"": value}))
    for key, size in sorted(sizes.items(), key=lambda one: -one[1])[:8]:
        print(f"  {key}: {size / 1000:.0f} kB")


def main() -> None:
    """Build a board, twice."""
    given = [int(word) for word in sys.argv[1:3]]
    methods, attacks = [*given, *(50, 12)[len(given) :]]
    with tempfile.TemporaryDirectory() as place:
        root, cache = Path(place) / "leaderboards", Path(place) / "cache"
        suite = _suite(attacks)
        for number in range(methods):
            _write(root, number, suite)
        for word in ("first build", "second build"):
            wall, cpu = time.perf_counter(), time.process_time()
            found = build(root, Path(place) / "site", cache)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            print(f"{word}: {wall:.1f} s ({cpu:.1f} s of this process), {found.size / 1000:.0f} kB")
        _spent(root / SUITE["name"], cache)


if __name__ == "__main__":
    main()
