"""Seconds of work: rates from finished jobs, long and short, held up or not."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from ilubench.forecast.calibration import recorded
from ilubench.forecast.devices import CARDS, card_named, card_of
from ilubench.forecast.history import Finished, finished_jobs
from ilubench.forecast.speed import Sample, fitted
from ilubench.forecast.work import Work


def jobs(count: int, per: Sequence[float] = (2.0, 3.0, 0.5, 0.1, 0.05, 0.05)) -> list[Sample]:
    """Return jobs of unlike shapes that take so many seconds a unit; every third is a first one."""
    found = []
    for n in range(count):
        shape = (10.0 + n, 12.0 + (n * 7) % 5, 5.0 + (n * 3) % 4, 1.0 + n % 2)
        features = (*shape, 1.0, float(n % 3 == 0))
        seconds = sum(a * b for a, b in zip(features, per, strict=True))
        found.append(Sample(features, seconds))
    return found


def test_rates_explain_finished_jobs() -> None:
    rates = fitted(jobs(12), 2, "12 jobs", "measured")
    assert rates is not None
    for job in jobs(20):
        assert rates.seconds(job.features) == pytest.approx(job.seconds, rel=0.1)
    assert 1.1 < rates.low < 1.2
    assert 1.1 < rates.high < 1.2


def test_a_job_that_was_held_up_counts_little() -> None:
    held_up = Sample((11.0, 13.0, 6.0, 1.0, 1.0, 0.0), 6000.0)
    rates = fitted([*jobs(12), held_up], 2, "", "measured")
    assert rates is not None
    for job in jobs(12):
        assert rates.seconds(job.features) == pytest.approx(job.seconds, rel=0.15)


def test_a_single_job_gives_a_scale() -> None:
    (job,) = jobs(1)
    rates = fitted([job], 2, "", "measured")
    assert rates is not None
    assert rates.seconds(job.features) == pytest.approx(job.seconds, rel=0.05)
    twice = tuple(2 * feature for feature in job.features)
    assert rates.seconds(twice) == pytest.approx(2 * job.seconds, rel=0.05)
    assert rates.high >= 1.5
    assert fitted([], 2, "", "measured") is None


def test_short_jobs_are_told_apart_from_what_each_takes_at_least() -> None:
    """Milliseconds of work, a second of loading, four before the first one."""
    per = (2e-3, 3e-3, 5e-4, 1e-4, 1.0, 4.0)
    rates = fitted(jobs(12, per), 2, "", "measured", (0.5, 1.5))
    assert rates is not None
    assert rates.values[-2:] == pytest.approx((1.0, 4.0), rel=0.45)
    for job in jobs(20, per):
        assert rates.seconds(job.features) == pytest.approx(job.seconds, rel=0.15)
    longer = (1000.0, 1000.0, 500.0, 100.0, 1.0, 0.0)  # 50 times the work: 6 s, and no 50 starts
    assert rates.seconds(longer) < 50.0


def test_what_no_job_tells_is_assumed() -> None:
    """No finished job was the first of its process: what that takes more is as assumed."""
    later = [job for job in jobs(12) if not job.features[-1]]
    rates = fitted(later, 2, "", "measured", (0.05, 1.5))
    assert rates is not None
    assert rates.values[-1] == 1.5
    assert rates.seconds((0.0,) * 5 + (1.0,)) == 1.5


def test_the_scatter_of_long_jobs_is_no_start() -> None:
    """A first job that took half as long again: something else ran, nothing was imported."""
    some = [replace(job, seconds=job.seconds * (1.5 if job.features[-1] else 1)) for job in jobs(9)]
    rates = fitted(some, 2, "", "measured", (0.05, 1.5))
    assert rates is not None
    assert rates.values[-1] < 10.0 < 0.5 * jobs(1)[0].seconds


def test_half_and_twice_are_equally_wrong() -> None:
    """Of equal jobs that took 1 s, 2 s and 4 s the middle one counts; of two, the mean of logs."""
    shape = (1.0, 1.0, 1.0, 1.0, 0.0, 0.0)
    rates = fitted([Sample(shape, took) for took in (1.0, 2.0, 4.0)], 2, "", "measured")
    assert rates is not None
    assert rates.seconds(shape) == pytest.approx(2.0, rel=0.1)
    rates = fitted([Sample(shape, took) for took in (1.0, 4.0)], 2, "", "measured")
    assert rates is not None
    assert rates.seconds(shape) == pytest.approx(2.0, rel=0.2)


def test_cards_are_known_by_their_device_names() -> None:
    for told, name in (
        ("NVIDIA H200", "h200"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA A100-SXM4-40GB", "a100-40"),
    ):
        found = card_of(told)
        assert found is not None
        assert found.name == name
    assert card_of("Tesla T4") is None
    assert all(card_named(card.name) is card for card in CARDS)


def test_only_runs_of_the_suite_on_the_device_are_looked_at(tmp_path: Path) -> None:
    for name, device, key in (
        ("s-npo-1", "cpu", "a"),
        ("s-npo-2", "H200", "b"),
        ("t-x-3", "cpu", "c"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "env.json").write_text(json.dumps({"device": device}))
        plan = {"jobs": [{"stage": "score", "key": key}, {"stage": "score", "key": "broken"}]}
        (tmp_path / name / "plan.json").write_text(json.dumps(plan))
        folder = tmp_path / "store" / "score" / key
        folder.mkdir(parents=True)
        (folder / "DONE").write_text(json.dumps({"meta": {"stage": "score", "seconds": 2.5}}))
    broken = tmp_path / "store" / "score" / "broken"
    broken.mkdir()
    (broken / "DONE").write_text("{")
    (found,) = finished_jobs(tmp_path, "s", "cpu")
    assert (found.stage, found.seconds, found.folder.name) == ("score", 2.5, "a")
    assert found.began == frozenset()
    (tmp_path / "s-npo-1" / "status.json").write_text(json.dumps({"states": {"a": "done"}}))
    (found,) = finished_jobs(tmp_path, "s", "cpu")
    assert found.began == {"scoring"}
    assert finished_jobs(tmp_path / "nowhere", "s", "cpu") == []


def test_a_finished_job_updated_what_it_stored(tmp_path: Path) -> None:
    """One that trained three matrices is no measure of updates of all weights."""
    (tmp_path / "changes.safetensors").write_bytes(bytes(400))
    cost = {"steps": 5.0, "forward_tokens": 30.0, "backward_tokens": 20.0}
    one = Finished("unlearn", "rmu", 1.0, cost, tmp_path)
    found = recorded(one, Work(forward_tokens=10.0, forward_squares=70.0), width=4.0)
    assert (found.steps, found.updated) == (5.0, 5 * 100)
    assert (found.forward_squares, found.backward_squares) == (210.0, 140.0)
