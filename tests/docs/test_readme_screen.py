"""README's screen is what its first command ends with: the committed run's first seed, shown."""

import re
from pathlib import Path

import pyarrow.compute as pc
import pytest
from places import LEADERBOARDS, ROOT

from ilubench.records.finished import read_run
from ilubench.records.results import ReferenceRecord, RunRecord
from ilubench.records.rows import Compared, robustness_row
from ilubench.records.scores import method_samples
from ilubench.reports.last_screen import LINES, Ended, last_screen
from ilubench.reports.verdict_text import verdict_text

SEED = 0
README = (ROOT / "README.md").read_text(encoding="utf-8")


def first_seed() -> Ended:
    """Return the committed run of ilu as it would have been with its first seed alone."""
    run = read_run(LEADERBOARDS / "mini" / "measured" / "ilu")
    assert run.samples is not None
    assert run.suite is not None
    once = pc.and_(pc.equal(run.samples["attack"], ""), pc.not_equal(run.samples["who"], "method"))
    samples = run.samples.filter(pc.or_(pc.equal(run.samples["seed"], SEED), once))
    found = Compared(*(method_samples(samples, who) for who in ("method", "reference", "retrain")))
    attacks, suite = run.record.attacks, run.suite
    rows = {
        metric.label: robustness_row(suite, metric, attacks, (SEED,), found, run.metric_ranges)
        for metric in suite.primary_forget
    }
    not_done = r"seed [1-9]$|attack none|retrain"  # other seeds, and what is shipped
    jobs = tuple(job for job in run.record.jobs if not re.search(not_done, job.label))
    shipped = {
        who: ReferenceRecord(run=who, samples="", attacks=attacks, seeds=(SEED,), scored=False)
        for who in ("reference", "retrain")
    }
    alone = {"seeds": (SEED,), "jobs": jobs, "notes": (), "references": shipped}
    record = RunRecord.model_validate({**run.record.model_dump(), **alone})
    (folder,) = set(re.findall(r"runs/mini-ilu-\w+", README))
    command = ("ilubench", "run", "method=ilu")
    return Ended(record, rows, suite, Path(folder), command)


def test_the_screen_is_that_of_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = first_seed().folder / "report.html"  # a run leaves one
    page.parent.mkdir(parents=True)
    page.touch()
    (shown,) = re.findall(r"^```text\n(.*?)^```$", README, re.M | re.S)
    assert shown == f"{last_screen(first_seed())}\n"
    assert shown.count("\n") <= LINES
    assert "cannot be told" in shown


def test_five_seeds_tell() -> None:
    run = read_run(LEADERBOARDS / "mini" / "measured" / "ilu")
    assert len(run.record.seeds) == 5
    told = verdict_text(run.record, run.rows, run.suite)
    begin, _, _ = told.partition(" of what was forgotten")
    assert f"{begin[0].lower()}{begin[1:]} of it" in " ".join(README.split())
