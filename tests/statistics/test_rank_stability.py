"""`ilubench stability`: splits and taus by hand, and of finished runs."""

from pathlib import Path

import numpy as np
import pytest
from finished_runs import Told, write_run
from runs import command
from scipy.stats import kendalltau  # type: ignore[import-untyped, unused-ignore]

from ilubench.errors import DataError
from ilubench.statistics.intervals import Samples
from ilubench.statistics.rank_stability import rank_stability, split_seeds


def table(by_seed: list[float], seeds: tuple[int, ...] | None = None) -> Samples:
    """Two items, each seed's mean as given."""
    values = np.array([[mean - 0.1, mean + 0.1] for mean in by_seed])
    return Samples(values, seeds or tuple(range(len(by_seed))), ("x", "y"))


@pytest.mark.parametrize(("count", "ways"), [(2, 1), (3, 3), (4, 3), (5, 10), (6, 10)])
def test_every_split_once(count: int, ways: int) -> None:
    found = list(split_seeds(range(count)))
    assert len(found) == ways == len({frozenset(map(frozenset, halves)) for halves in found})
    for one, two in found:
        assert sorted(one + two) == list(range(count))
        assert len(two) - len(one) == count % 2


def test_taus_by_hand() -> None:
    """c is last under every seed; a and b change places under seed 2 only, and by much."""
    tables = {"a": table([0.8, 0.8, 0.1]), "b": table([0.7, 0.7, 0.7]), "c": table([0.0, 0.0, 0.0])}
    found = rank_stability(tables)
    # halves {0}, {1, 2}: a > b > c against b > a > c (tau 1/3); the same for {1}; and for {2}
    assert (found.splits, found.halves, found.undefined) == (3, (1, 2), 0)
    assert found.mean == pytest.approx(1 / 3)
    assert found.least == pytest.approx(1 / 3)
    tables["a"] = table([0.8, 0.8, 0.75])
    assert (rank_stability(tables).mean, rank_stability(tables).least) == (1.0, 1.0)


def test_reversed_and_tied_orders() -> None:
    tables = {name: table([k, -k]) for k, name in enumerate("abc")}
    assert rank_stability(tables).mean == pytest.approx(-1.0)
    # a tie of two in one half: tau-b is 2 / sqrt(3 * 2)
    tables = {"a": table([1.0, 1.0]), "b": table([1.0, 0.5]), "c": table([0.0, 0.0])}
    assert rank_stability(tables).mean == pytest.approx(2 / np.sqrt(6))
    equal = {name: table([1.0, k]) for k, name in enumerate("abc")}
    found = rank_stability(equal)
    assert (found.splits, found.undefined, found.mean, found.least) == (1, 1, None, None)


def test_only_shared_seeds_count() -> None:
    rng = np.random.default_rng(3)
    tables = {n: table(list(rng.random(5)), (4, 2, 0, 1, 3)) for n in "abcd"}
    extra = table([*tables["a"].values.mean(axis=1), 9.0], (4, 2, 0, 1, 3, 7))
    found = rank_stability({**tables, "a": extra})
    assert found == rank_stability(tables)
    assert found.splits == 10
    means = {n: dict(zip(t.seeds, t.values.mean(axis=1), strict=True)) for n, t in tables.items()}
    taus = []
    for one, two in split_seeds((0, 1, 2, 3, 4)):
        orders = [[np.mean([m[s] for s in half]) for m in means.values()] for half in (one, two)]
        taus.append(kendalltau(*orders).statistic)
    assert found.mean == pytest.approx(np.mean(taus))
    assert found.least == pytest.approx(min(taus))


def test_refusals() -> None:
    three = {name: table([0.1, 0.2]) for name in "abc"}
    with pytest.raises(DataError, match=r"needs 3 of them, not 2 \(a, b\)"):
        rank_stability({name: three[name] for name in "ab"})
    with pytest.raises(DataError, match="share 1 seed, and halves need 2"):
        rank_stability({**three, "c": table([0.1, 0.2], (1, 5))})
    other = Samples(np.zeros((2, 2)), (0, 1), ("x", "z"))
    with pytest.raises(DataError, match="not asked the same items"):
        rank_stability({**three, "c": other})


@pytest.fixture
def runs(tmp_path: Path) -> list[str]:
    told = {
        "none": Told("none"),
        "rmu": Told("rmu", end=0.3, noise=1),
        "npo": Told("npo", end=0.5, noise=2),
        "ilu": Told("ilu", end=0.7, noise=3),
    }
    return [str(write_run(tmp_path / name, one)) for name, one in told.items()]


def test_of_finished_runs(runs: list[str], tmp_path: Path) -> None:
    """Far apart: always the same order; the reference has no place in it."""
    shown = command("stability", *runs)
    assert shown.code == 0, shown.err
    assert "| FQ | 3 | 5 | 2 and 3 | 10 | 1.000 | 1.000 |" in shown.out
    assert "methods: rmu, npo, ilu" in shown.out
    assert "- left out: none (reference)" in shown.out
    (one,) = command("stability", *runs, "--json").json
    assert (one["metric"], one["attacks"], one["mean"]) == ("FQ", ["core"], 1.0)
    assert one["left_out"]["none"]["kind"] == "reference"
    near = [Told(f"m{k}", end=0.6 + 0.004 * k, noise=9 + k) for k in range(3)]
    alike = [str(write_run(tmp_path / told.use, told)) for told in near]
    (one,) = command("stability", *alike, "--json").json
    assert one["least"] < one["mean"] < 1.0


def test_too_few_methods_or_seeds(runs: list[str], tmp_path: Path) -> None:
    few = command("stability", *runs[:3])
    assert few.code == 3
    assert "FQ: an order of methods needs 3 of them, not 2 (rmu, npo) (left out: none" in few.err
    single = write_run(tmp_path / "single", Told("simnpo", seeds=(0,)))
    done = command("stability", *runs, str(single))
    assert done.code == 3
    assert "share 1 seed" in done.err
