"""Faults on purpose: python tests/faults/run.py [KIND ...] [--cases N] [--seed S] [--out DIR].

A trial follows from its number and the seed, so that one that lost can be made again (`--only`).
What was tried is kept in DIR, and the same command goes on where it stopped; for other code take
another DIR.
"""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

sys.path.append(str(Path(__file__).parents[1] / "support"))

import concurrency
import corruption
import disk
import fuzz_input
import interruptions
import kills
import long_haul
import memory
import ray_kills
from tiny_run import Base, make_base


@dataclass(frozen=True)
class Kind:
    """A kind of fault.

    Attributes:
        trial: gets what is drawn at random, an undisturbed run, and a folder of its own; returns
            how many faults it made, and raises AssertionError where something was lost.
        cases: trials of a whole round.
        what: for the table.
    """

    trial: Callable[[Random, Base, Path], int]
    cases: int
    what: str


KINDS = {
    "kills": Kind(kills.trial, 90, "kill -9 of the command or of any process it started"),
    "corruption": Kind(corruption.trial, 300, "a file of store, run folder or record damaged"),
    "interruptions": Kind(interruptions.trial, 40, "SIGINT, SIGTERM, SIGHUP"),
    "concurrency": Kind(concurrency.trial, 10, "8 commands with one store, some of them killed"),
    "disk": Kind(disk.trial, 60, "a write that fails: full, read-only, no rights, no inodes"),
    "memory": Kind(memory.trial, 40, "less memory than it needs"),
    "ray": Kind(ray_kills.trial, 10, "kill -9 of a command or an actor of a Ray cluster"),
    "input": Kind(fuzz_input.trial, 10_000, "wrong words, files, rows, runs, boards, models"),
    "long_haul": Kind(long_haul.trial, 2, "hundreds of jobs in one process and in two workers"),
}

TOLD_S = 1.0
"""Shorter trials that survived are not told one by one."""


@dataclass(frozen=True)
class Tried:
    """A trial that was made; ``lost`` says what, empty where it survived."""

    case: int
    seconds: float
    lost: str
    faults: int


def carry_out(name: str, cases: Sequence[int], seed: int, out: Path) -> Iterator[Tried]:
    """Yield the trials of a kind, those first that were made before."""
    out.mkdir(parents=True, exist_ok=True)
    told = out / f"{name}-{seed}.jsonl"
    lines = told.read_text().splitlines() if told.exists() else []
    done = {one.case: one for one in (Tried(**json.loads(line)) for line in lines)}
    base = make_base(out / "base")
    for case in cases:
        if case not in done:
            done[case] = _carry_out(name, case, seed, base, out)
            with told.open("a") as file:
                file.write(json.dumps(vars(done[case])) + "\n")
        yield done[case]


def _carry_out(name: str, case: int, seed: int, base: Base, out: Path) -> Tried:
    folder = out / f"{name}-{seed}-{case}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    began, lost, faults = time.monotonic(), "", 1
    try:
        faults = KINDS[name].trial(Random(f"{name} {seed} {case}"), base, folder)
        shutil.rmtree(folder)  # of one that lost it stays
    except AssertionError as error:
        lost = str(error) or "an assertion without a word"
    return Tried(case, round(time.monotonic() - began, 1), lost, faults)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--cases", type=int, help="of each kind; without, a whole round")
    parser.add_argument("--only", type=int, metavar="CASE", help="this one alone")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("faults"))
    asked = parser.parse_args()
    unknown = sorted(set(asked.kinds) - KINDS.keys())
    if unknown:
        parser.error(f"no kind {unknown[0]!r}; there are {', '.join(KINDS)}")
    lines = ["| fault | trials | faults | survived | lost | seconds |", "|---|---|---|---|---|---|"]
    lost = 0
    for name in asked.kinds or KINDS:
        kind = KINDS[name]
        count = kind.cases if asked.cases is None else asked.cases
        cases = range(count) if asked.only is None else [asked.only]
        tried = []
        for one in carry_out(name, cases, asked.seed, asked.out.resolve()):
            tried.append(one)
            if one.lost or one.seconds >= TOLD_S:
                print(f"{name} {one.case}: {one.lost or 'survived'} ({one.seconds} s)", flush=True)
        losses = sum(bool(one.lost) for one in tried)
        lost += losses
        faults, seconds = sum(one.faults for one in tried), sum(one.seconds for one in tried)
        counts = (len(tried), faults, len(tried) - losses, losses, round(seconds))
        lines.append(f"| {kind.what} | {' | '.join(map(str, counts))} |")
    print("\n".join(lines))
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
