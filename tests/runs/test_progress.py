"""The live view: a line a job, of fixed columns, that fits the terminal."""

import io

import pytest
from rich.console import Console
from runs import command, made, planned

from ilubench.forecast.estimate import expected_seconds
from ilubench.runs.executors.base import Outcome
from ilubench.runs.progress import Bars
from ilubench.runs.remaining import RemainingTime

JOBS = (
    ("attack retrain with winogrande, seed 0", "score step-000128", "retain_verbmem"),
    ("unlearn ilu, seed 0", "train", "loss 23.4"),
    ("attack ./a/file/of/ones_own.py:Method with gsm8k, seed 104", "train", "loss 0.123"),
)


@pytest.mark.parametrize("width", [63, 80, 140])
def test_a_line_a_job_with_columns_that_stay(width: int) -> None:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=True, color_system=None)
    bars = Bars(console)
    rows = [bars.show(label) for label, *_ in JOBS]
    shown = []
    for done in (10, 37):
        for row, (_, phase, note) in zip(rows, JOBS, strict=True):
            row.start(phase, 130)
            row.advance(done, note)
        console.print(bars._bars.get_renderable())
        shown.append([line.rstrip() for line in out.getvalue().splitlines()])
        out.seek(out.truncate(0))
    for lines in shown:
        assert len(lines) == len(JOBS)
        assert max(map(len, lines)) <= width
        assert len({line.index("/130") for line in lines}) == 1
        assert "score step-000128" in lines[0]
        assert lines[1].endswith("train loss 23.4")
    assert shown[0][0].index("score") == shown[1][0].index("score")


def test_what_is_left_is_what_the_planner_expects() -> None:
    """Here from the finished run of another method; then from the run's own jobs."""
    out = f"out={made()}"
    plan = planned("method=npo", "attacks=gsm8k", out)
    told = command("plan", f"suite={plan.experiment.run.suite}", "method=npo", "attacks=gsm8k", out)
    assert told.code == 0
    expected = expected_seconds(plan)
    left = [job for job in plan.jobs if not plan.is_done(job)]
    assert {job.key for job in left} == expected.keys()
    later = dict.fromkeys(expected, 7.0)
    asked = [later, expected]
    remaining = RemainingTime(plan, lambda _plan: asked.pop())
    attack = next(job for job in left if job.attack)
    score = next(job for job in left if job.stage == "score")
    assert remaining.expected(attack) == expected[attack.key]
    assert remaining.seconds() == pytest.approx(sum(map(remaining.expected, left)))
    remaining.started()
    remaining.finished(Outcome(attack, "done", 500.0))
    assert remaining.expected(attack) == 500.0
    # the first of its kind: the planner knows more now
    assert remaining.expected(score) == 7.0
