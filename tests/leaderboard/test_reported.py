"""Published numbers: every row parses, says where it is from, and is in the suites' own words."""

from pathlib import Path

import pytest
from places import LEADERBOARDS

from ilubench.leaderboard.records.models import Reported, ReportedFigure
from ilubench.specs.suite_files import load_suite
from ilubench.specs.yaml_files import task_names

FILES = sorted(LEADERBOARDS.glob("*/reported/*.json"))
WITHOUT_ATTACK = {"original", "unlearned", "mean"}
SIX = {"gsm8k", "agnews", "sst2", "winogrande", "mnli", "qqp"}


def read(suite: str, entry: str) -> Reported:
    file = LEADERBOARDS / suite / "reported" / f"{entry}.json"
    return Reported.model_validate_json(file.read_text(encoding="utf-8"))


def value(suite: str, entry: str, metric: str, state: str) -> float:
    """The one figure of that name: a second one would be ambiguous."""
    (found,) = (
        figure.value
        for figure in read(suite, entry).figures
        if (figure.metric, figure.state) == (metric, state)
    )
    return found


def test_there_are_rows_of_every_table() -> None:
    found: dict[str, set[str]] = {suite: set() for suite in ("wmdp-bio", "muse-news", "muse-books")}
    for file in FILES:
        found[file.parts[-3]].add(file.stem)
    poster = {"ilu-poster-original", "ilu-poster-npo", "ilu-poster-npo-ilu"}
    zephyr = {"original", "rmu", "rmu-ilu", "npo", "npo-ilu"}
    relearned = {"npo", "npo-sam", "npo-ilu", "rmu", "rmu-sam", "rmu-ilu"}
    assert found == {
        "muse-news": poster,
        "muse-books": poster,
        "wmdp-bio": {f"ilu-paper-zephyr-{name}" for name in zephyr}
        | {f"ilu-paper-relearn60-{name}" for name in relearned}
        | {f"ilu-paper-llama3-{name}" for name in ("npo", "lat", "tar", "npo-ilu")},
    }


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parts[-3]}-{file.stem}")
def test_a_row_says_where_it_is_from(file: Path) -> None:
    row = read(file.parts[-3], file.stem)
    assert (row.entry, row.suite) == (file.stem, file.parts[-3])
    assert "arXiv:2506.01339" in row.citation
    # what was copied from the poster was compared with it; notes of others were not
    assert (row.source, row.checked) in {("poster", True), ("notes", False)}
    assert (row.source == "poster") == row.suite.startswith("muse-")
    assert row.checked or "nobody has compared" in row.remarks


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parts[-3]}-{file.stem}")
def test_figures_are_in_the_suites_words(file: Path) -> None:
    figures = read(file.parts[-3], file.stem).figures
    attacks = known_attacks(file.parts[-3])
    assert {figure.state for figure in figures} - WITHOUT_ATTACK <= attacks
    named = [(figure.metric, figure.state) for figure in figures]
    assert len(set(named)) == len(named)
    for figure in figures:
        assert 0 <= figure.value <= highest(figure), figure


def known_attacks(suite: str) -> set[str]:
    found, _ = load_suite(suite)
    own = found["attacks"]
    assert isinstance(own, dict)
    # the relearning attack of the paper, which no shipped suite runs on its own yet
    return {*task_names("attacks"), *own, "relearn_forget"}


def highest(figure: ReportedFigure) -> float:
    """What the scale in the metric's name allows."""
    scale = figure.metric.rsplit("(", 1)[1].rstrip(")")
    return {"0-1": 1.0, "0-100": 100.0, "%": 100.0, "minutes": 1e5}[scale]


@pytest.mark.parametrize("suite", ["muse-news", "muse-books"])
@pytest.mark.parametrize("entry", ["ilu-poster-npo", "ilu-poster-npo-ilu"])
def test_muse_rows_have_all_attacks_and_metrics(suite: str, entry: str) -> None:
    by_state: dict[str, set[str]] = {}
    for figure in read(suite, entry).figures:
        by_state.setdefault(figure.state, set()).add(figure.metric)
    scores = {"VerbMem_f (0-100)", "KnowMem_f (0-100)", "KnowMem_r (0-100)"}
    assert by_state.pop("unlearned") == scores
    assert by_state == dict.fromkeys(SIX, scores | {"FA (%)"})


def test_directions() -> None:
    """A forget score counts against the method, whatever scale it is on."""
    found = {
        figure.metric: figure.higher_is
        for file in FILES
        for figure in read(file.parts[-3], file.stem).figures
    }
    assert found == {
        "FQ (0-1)": "better forgotten",
        "RA (0-1)": "better forgotten",
        "VerbMem_f (0-100)": "more known",
        "KnowMem_f (0-100)": "more known",
        "KnowMem_r (0-100)": "more useful",
        "MMLU (%)": "more useful",
        "FA (%)": "more useful",
        "training (minutes)": "more costly",
    }


@pytest.mark.parametrize(
    ("suite", "entry", "metric", "state", "published"),
    [
        ("wmdp-bio", "ilu-paper-zephyr-original", "MMLU (%)", "original", 58.15),
        ("wmdp-bio", "ilu-paper-zephyr-rmu", "RA (0-1)", "mean", 0.42),
        ("wmdp-bio", "ilu-paper-zephyr-rmu-ilu", "RA (0-1)", "mean", 0.65),
        ("wmdp-bio", "ilu-paper-zephyr-npo-ilu", "FA (%)", "mean", 81.18),
        ("wmdp-bio", "ilu-paper-relearn60-rmu", "FQ (0-1)", "relearn_forget", 0.36),
        ("wmdp-bio", "ilu-paper-relearn60-npo-sam", "FQ (0-1)", "relearn_forget", 0.54),
        ("wmdp-bio", "ilu-paper-llama3-tar", "training (minutes)", "unlearned", 7441.9),
        ("wmdp-bio", "ilu-paper-llama3-npo-ilu", "FA (%)", "mean", 85.81),
        ("muse-news", "ilu-poster-original", "VerbMem_f (0-100)", "original", 58.40),
        ("muse-news", "ilu-poster-npo", "VerbMem_f (0-100)", "winogrande", 57.27),
        ("muse-news", "ilu-poster-npo-ilu", "KnowMem_f (0-100)", "sst2", 44.12),
        ("muse-news", "ilu-poster-npo", "KnowMem_r (0-100)", "unlearned", 36.25),
        ("muse-books", "ilu-poster-npo", "FA (%)", "gsm8k", 5.84),
        ("muse-books", "ilu-poster-npo-ilu", "KnowMem_f (0-100)", "agnews", 14.37),
        ("muse-books", "ilu-poster-npo-ilu", "KnowMem_r (0-100)", "mnli", 61.32),
        ("muse-books", "ilu-poster-npo", "VerbMem_f (0-100)", "qqp", 9.57),
    ],
)
def test_some_numbers_as_published(
    suite: str, entry: str, metric: str, state: str, published: float
) -> None:
    assert value(suite, entry, metric, state) == published
