"""Verification of an entry: measured again with fresh seeds, compared, written into it.

Two kinds. *weights*: the published weights, known by their SHA-256, are attacked again. *method*:
the pinned method unlearns again, apart (:mod:`ilubench.leaderboard.verify.isolation`), and what
comes out is attacked. Either way the maintainer's own suite of that name and version is run, never
what the record says of it; the record's must be like it.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ilubench.errors import DataError, JobError, SpecError, UsageError
from ilubench.leaderboard.records.files import read_entry, read_entry_run, write_record
from ilubench.leaderboard.records.models import Entry, Verification, Weights
from ilubench.leaderboard.records.prediction import compare_runs, comparison_table
from ilubench.leaderboard.records.samples import point_to_samples
from ilubench.records.likeness import setting_differences, suite_differences
from ilubench.records.markdown import cell
from ilubench.records.results import RunRecord
from ilubench.records.run_files import memory_of
from ilubench.records.store import write_atomic
from ilubench.specs import Seed
from ilubench.specs.values import convert_value

if TYPE_CHECKING:
    from ilubench.experiments.experiment import Experiment
    from ilubench.records.finished import FinishedRun
    from ilubench.runs.pipeline import Reporter, RunResult

__all__ = ["Request", "fresh_seeds", "parse_seeds", "verification_text", "verify_entry"]

ENOUGH = 5
"""Seeds of a verification that is not told how many; fewer where fewer weights were published."""

FEWEST = 2
FRESH = range(100_000, 1_000_000)
"""Where fresh seeds are drawn from: nobody can have chosen weights that do well under them."""


@dataclass(frozen=True)
class Request:
    """What is to be verified, and how.

    Attributes:
        path: the entry's file.
        kind: attack the published weights, or run the method.
        by: who verifies.
        seeds: fresh ones; drawn at random where None.
        weights: folder with the weights; downloaded where None.
        suite: the maintainer's suite: a name, or a file; that of the entry's name where empty.
        out: folder of results and cache.
        device: to compute on.
    """

    path: Path
    kind: Literal["weights", "method"]
    by: str
    seeds: tuple[int, ...] | None = None
    weights: Path | None = None
    suite: str = ""
    out: Path = Path("runs/verification")
    device: str = "auto"


def verify_entry(request: Request, reporter: "Reporter") -> Entry:
    """Measure an entry again, compare, and write what was found into its record.

    Returns:
        The entry as it now stands; its last verification is the new one.

    Raises:
        UsageError: seeds of the entry, another suite than the maintainer's, or a method that
            cannot be run again; names the field.
        DataError: records, weights or samples that are not what they must be.
        JobError: an attack failed, or the method did or tried what it may not; nothing is written.
    """
    entry = read_entry(request.path)
    submitted = read_entry_run(entry, request.path.parent)
    with_rows = submitted.rows  # figures that do not follow from the samples end it here
    if not with_rows:
        raise DataError(f"{request.path}: no robustness row; there is nothing to verify")
    run = _attack_again if request.kind == "weights" else _run_again
    result, words = run(request, entry, submitted, reporter)
    if result.record.failures:
        first = result.record.failures[0]
        raise JobError(f"{entry.entry} was not verified: {first.label}: {first.message}")
    return _written(request, entry, submitted, result, words)


def fresh_seeds(taken: Sequence[int], asked: Sequence[int] | None, count: int) -> tuple[int, ...]:
    """Return the seeds of a verification.

    Args:
        taken: the entry's.
        asked: those given; None draws them, so that nobody can have fitted weights to them.
        count: how many are drawn.

    Raises:
        UsageError: one of the entry's, one twice, or fewer than two.
    """
    if asked is None:
        free = [seed for seed in FRESH if seed not in set(taken)]
        return tuple(sorted(secrets.SystemRandom().sample(free, max(count, FEWEST))))
    shared = sorted(set(asked) & set(taken))
    if shared:
        names = ", ".join(map(str, shared))
        raise UsageError(
            f"--seeds: {names}: seeds of the entry itself; a verification needs others"
        )
    if len(set(asked)) != len(asked) or len(asked) < FEWEST:
        raise UsageError(
            f"--seeds: {len(set(asked))} different of {len(asked)}; a prediction interval needs at "
            f"least {FEWEST}, each once, better {ENOUGH}: --seeds 100..104"
        )
    return tuple(asked)


def parse_seeds(text: str) -> tuple[int, ...]:
    """Return the seeds that `100..104` or `100,105` names.

    Raises:
        UsageError: no list of numbers and ranges.
    """
    found = convert_value(tuple[Seed, ...], text, "--seeds")
    assert isinstance(found, list | tuple)
    return tuple(found)


def verification_text(entry: Entry) -> str:
    """Return an entry's last verification as Markdown: its comparisons, and what follows."""
    last = entry.verifications[-1]
    seeds = ", ".join(map(str, last.seeds))
    verdict = "disputed" if last.disputed else "stays"
    by = f"{last.kind}, by {cell(last.by)}, seeds {seeds}"
    shown = comparison_table(last.comparisons)
    return f"{shown}\n\n{entry.entry}: {verdict} ({by}); tier {entry.tier}"


# --- the two kinds ---


def _attack_again(
    request: Request, entry: Entry, submitted: "FinishedRun", reporter: "Reporter"
) -> "tuple[RunResult, str]":
    """Attack the published weights."""
    from ilubench.leaderboard.verify.given_weights import GivenOnce, GivenWeights
    from ilubench.runs.pipeline import run
    from ilubench.specs import PluginRef

    seeds, wanted = _assigned(request, entry)
    experiment = _experiment(request, entry, seeds, PluginRef(use="none"))
    _check_suite(request.path, submitted, experiment)
    files = _files(request, [*wanted.values()])
    once = len(entry.weights) == 1
    given = (GivenOnce if once else GivenWeights)(
        sha256={seed: one.sha256 for seed, one in wanted.items()},
        files={seed: files[one.seed] for seed, one in wanted.items()},
    )
    of = ", ".join(f"{one.seed}" for one in dict.fromkeys(wanted.values()))
    words = f"the published weights of seed {of}, attacked again"
    return run(replace(experiment, method=given, method_name="weights"), reporter), words


def _assigned(request: Request, entry: Entry) -> tuple[tuple[int, ...], dict[int, Weights]]:
    """Fresh seeds, and the weights that each of them attacks; no two share one.

    The weights of a method without randomness are one file, which all seeds attack.
    """
    path, kept = request.path, sorted(entry.weights, key=lambda one: one.seed)
    if not kept:
        raise DataError(f"{path}: weights: none; a row without them can be verified by --method")
    if len(kept) == 1:
        if len(entry.run.seeds) > 1 and _drawn(entry):
            raise DataError(
                f"{path}: weights: of one seed, and the method differs by seed; {FEWEST} are needed"
            )
        seeds = fresh_seeds(entry.run.seeds, request.seeds, ENOUGH)
        return seeds, dict.fromkeys(seeds, kept[0])
    seeds = fresh_seeds(entry.run.seeds, request.seeds, min(len(kept), ENOUGH))
    if len(seeds) > len(kept):
        raise UsageError(
            f"--seeds: {len(seeds)}, and {path} has weights of {len(kept)} seeds; give at most "
            "so many, since attacks on the same weights are no independent measurements"
        )
    if request.seeds is None and len(kept) > len(seeds):
        kept = sorted(secrets.SystemRandom().sample(kept, len(seeds)), key=lambda one: one.seed)
    return seeds, dict(zip(seeds, kept, strict=False))


def _drawn(entry: Entry) -> bool:
    """Whether the method's models differ by seed: each was scored."""
    return len({one.seed for one in entry.run.scores if one.who == "method"}) > 1


def _files(request: Request, wanted: Sequence[Weights]) -> Mapping[int, Path]:
    from ilubench.leaderboard.verify.download import fetch_weights, find_weights

    if request.weights is not None:
        return find_weights(wanted, request.weights)
    return fetch_weights(wanted, request.out / "store" / "published")


def _run_again(
    request: Request, entry: Entry, submitted: "FinishedRun", reporter: "Reporter"
) -> "tuple[RunResult, str]":
    """Run the pinned method apart, and attack what comes out."""
    from ilubench.leaderboard.verify.isolation import Cell, hidden_places, namespaces, unlearn_apart
    from ilubench.leaderboard.verify.package import check_provided
    from ilubench.runs.pipeline import run
    from ilubench.runs.plan import check_method, target_job
    from ilubench.runs.stages.target import make_target
    from ilubench.runs.stages.workbench import make_bench
    from ilubench.specs import PluginRef

    use, settings = entry.run.method_name, entry.run.method["settings"]
    package = check_provided(use, entry.package)
    seeds = fresh_seeds(entry.run.seeds, request.seeds, ENOUGH)
    ref = PluginRef.model_validate({"use": use, "settings": settings})
    experiment = _experiment(request, entry, seeds, ref)
    _check_suite(request.path, submitted, experiment)
    _check_method(request.path, entry, experiment)
    bench = make_bench(experiment)
    check_method(bench, experiment.method)
    if bench.given_target is None:
        job = target_job(bench.suite, bench.target)
        make_target(bench, job, reporter.show(job.label))
    cell = Cell(namespaces(), hidden_places(experiment), package)
    for seed in seeds if experiment.method.seeded else seeds[:1]:
        unlearn_apart(bench, experiment, seed, cell, reporter.show("verify"))
    return run(experiment, reporter), f"unlearned again, {cell.how}"


# --- the maintainer's suite ---


def _experiment(
    request: Request, entry: Entry, seeds: Sequence[int], method: "object"
) -> "Experiment":
    """The maintainer's suite with the entry's attacks and memory settings, and fresh seeds."""
    from ilubench.experiments.experiment import resolve_experiment
    from ilubench.specs import PluginRef
    from ilubench.specs.overrides import parse_words

    assert isinstance(method, PluginRef)
    memory = memory_of(entry.config, f"{request.path}: config")
    words = (
        f"suite={request.suite or entry.run.suite}",
        f"attacks={','.join(entry.run.attacks)}",
        f"seeds={','.join(map(str, seeds))}",
        f"engine={entry.run.engine}",
        f"device={request.device}",
        f"out={request.out}",
        "never_knew=false",
        "references=run",  # what is verified rests on nothing that the entry may rest on
        "allow_weak_target=true",  # compared is the entry, whatever its suite's target knows
    )
    try:
        found = resolve_experiment(parse_words(words), method=method)
    except SpecError as error:
        problem = f"{request.path} cannot be run again here: {error}"
        raise UsageError(problem) from error
    return replace(found, run=found.run.model_copy(update={"memory": memory}))


def _check_suite(path: Path, submitted: "FinishedRun", experiment: "Experiment") -> None:
    """Refuse an entry that was measured on something else, before anything is computed."""
    suite, record = experiment.suite, submitted.record
    here = f"suite {suite.name} {suite.version}"
    if (suite.name, suite.version) != (record.suite, record.suite_version):
        raise UsageError(
            f"{path} is of suite {record.suite} {record.suite_version}, and at hand is {here}; "
            "verify it with the ilubench that has that version"
        )
    assert submitted.suite is not None  # an entry's is always read
    # rows and weights whose hashes the record has are compared by them, after the run
    known = {*record.data, *(("target",) if record.target else ())}
    for field, one, other in suite_differences(submitted.suite, suite, record.attacks, known):
        raise UsageError(f"{path}: config.suite.{field}: {one!r}, and in {here} {other!r}; {_ODD}")
    for attack in experiment.attacks:
        mine = attack.plugin.model_dump(mode="json")
        for field, one, other in setting_differences(submitted.settings.get(attack.name), mine):
            place = f"config.attacks.{attack.name}.{field}"
            raise UsageError(f"{path}: {place}: {one!r}, and in {here} {other!r}; {_ODD}")


_ODD = "a row with other settings than the suite's belongs to another suite"


def _check_method(path: Path, entry: Entry, experiment: "Experiment") -> None:
    """Refuse a method that is not the one of the entry, or that does not unlearn at all."""
    method, record = experiment.method, entry.run
    name = experiment.method_name
    if not method.trains:
        raise UsageError(
            f"{path}: method {name} trains on nothing; verify its weights: no --method"
        )
    version = type(method).version
    if version != record.method_version:
        raise UsageError(
            f"{path}: run.method_version: {record.method_version}, and version {version} of {name} "
            "is installed; install the one of the entry"
        )
    found = method.model_dump(mode="json")
    for field, one, other in setting_differences(record.method["settings"], found):
        raise UsageError(f"{path}: run.method.settings.{field}: {one!r} became {other!r}")


# --- the record ---


def _written(
    request: Request, entry: Entry, submitted: "FinishedRun", result: "RunResult", words: str
) -> Entry:
    from ilubench.records.finished import read_run

    verified = read_run(result.plan.folder)
    comparisons = compare_runs(submitted, verified)
    folder = request.path.parent
    number = len(entry.verifications) + 1
    name = f"{entry.entry}.verified-{number}.parquet"
    write_atomic(folder / name, (result.plan.folder / "samples.parquet").read_bytes())
    record = _of_entry(entry, result.record, words)
    one = Verification(
        kind=request.kind,
        by=request.by,
        day=datetime.now(UTC).date(),
        seeds=record.seeds,
        run=record,
        samples=point_to_samples(folder, name),
        comparisons=comparisons,
    )
    found = entry.model_copy(update={"verifications": (*entry.verifications, one)})
    write_record(request.path, found)
    return found


def _of_entry(entry: Entry, record: RunRecord, words: str) -> RunRecord:
    """The run as one of the entry's method, whose weights they are; ``words`` say how it was."""
    own = entry.run
    told = {name: getattr(own, name) for name in ("method", "method_version", "seen")}
    return record.model_copy(update={**told, "notes": (*record.notes, words)})
