"""`import ilubench as ib`: what is run and read from Python is what the command line says."""

import json
import re
from pathlib import Path

import pytest
from places import LEADERBOARDS, ROOT
from runs import TINY, WEAK, made, with_target

import ilubench as ib
from ilubench import api
from ilubench.errors import SpecError

NPO = LEADERBOARDS / "mini" / "measured" / "npo"


@pytest.fixture(scope="module")
def npo() -> ib.Run:
    return ib.load(NPO)


def test_figures_are_the_records(npo: ib.Run) -> None:
    for label, row in npo.finished.rows.items():
        line = npo.rows.loc[label]
        assert (line["ra"], line["ra_low"], line["ra_high"]) == (
            row.ra.value,
            row.ra.low,
            row.ra.high,
        )
        assert (line["worst_attack"], line["worst_step"]) == row.worst_at
        for attack in row.attacks:
            own = npo.attacks.loc[(label, attack.attack)]
            assert own["recovery"] == attack.recovery.value
            assert own["end"] == attack.steps[-1].forget.value
            for step in attack.steps:
                found = npo.course.loc[(label, attack.attack, step.step)]
                assert (found["forget"], found["eligible"]) == (step.forget.value, step.eligible)
    assert npo.finished.samples is not None
    assert len(npo.samples) == len(npo.finished.samples)
    assert len(npo.scores) == len(npo.record.scores)


def test_a_figure_without_a_value_is_missing() -> None:
    none = ib.load(LEADERBOARDS / "mini" / "measured" / "none")
    assert none.rows["recovery"].isna().all()


def test_a_run_is_that_of_the_command_line(tmp_path: Path) -> None:
    out = with_target(made(), tmp_path / "out")
    found = ib.run(
        WEAK,
        "method.train.steps=2",
        suite=TINY,
        method="npo",
        seeds=[0, 1],
        attacks="none",
        out=out,
        quiet=True,
    )
    assert found.folder.parent == out
    assert found.record.seeds == (0, 1)
    told = json.loads((found.folder / "results.json").read_text())["method"]["settings"]
    assert told["train"]["steps"] == 2
    assert "not attacked" in found.verdict
    assert (found.folder / "report.html").is_file()
    assert ib.load(found.folder).record == found.record


def test_a_failed_job_is_an_error_that_says_where_the_rest_is(tmp_path: Path) -> None:
    out = with_target(made(), tmp_path / "out")
    attack = tmp_path / "mine.py"
    attack.write_text(
        "from ilubench.interfaces import WeightAttack\n\n\n"
        "class Mine(WeightAttack):\n"
        '    """Breaks."""\n\n'
        "    def roles(self):\n        return ()\n\n"
        "    def tamper(self, model, data, context):\n        raise ValueError('no moon')\n"
    )
    with pytest.raises(ib.IlubenchError, match="no moon") as caught:
        ib.run(WEAK, suite=TINY, method="none", attacks=f"{attack}:Mine", out=out, quiet=True)
    (folder,) = out.glob("tiny-none-*")
    assert f"load('{folder}')" in str(caught.value)
    assert ib.load(folder).record.failures


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"methd": "npo"}, "unknown setting 'methd'"),
        ({"method": "np"}, "did you mean 'npo'?"),
        ({"suite": "mimi"}, "mini"),
    ],
)
def test_wrong_words_are_the_command_lines_errors(settings: dict[str, str], told: str) -> None:
    with pytest.raises(ib.IlubenchError, match=re.escape(told)):
        ib.run(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("words", "settings", "told"),
    [
        ((), {"method": ["npo", "ilu"]}, "2 are named, and a run has one; call run_grid"),
        ((3,), {}, "3 is no text"),
        ((None,), {}, "None is no text"),
        ((), {"attack": {"gsm8k": {"lr": 1}}}, "attack: a dict cannot be written as a word"),
        ((), {"suite": b"mini"}, "suite: a bytes cannot be"),
    ],
)
def test_what_is_no_word_is_refused_before_any_job(
    tmp_path: Path, words: tuple[str, ...], settings: dict[str, object], told: str
) -> None:
    with pytest.raises(SpecError, match=told):
        ib.run(*words, out=tmp_path, quiet=True, **settings)
    assert not [*tmp_path.iterdir()]


def test_any_collection_is_a_list_of_words() -> None:
    import numpy as np

    for seeds in (range(2), (0, 1), np.arange(2), (one for one in (0, 1)), [np.int64(0), 1.0]):
        (found,) = api._experiments((), {"suite": TINY, "seeds": seeds})
        assert found.seeds == (0, 1)


def test_plots_and_notebooks(npo: ib.Run) -> None:
    assert [panel.get_title() for panel in npo.plot().axes if panel.get_title()] == [
        *npo.record.attacks
    ]
    npo.plot("recovery", metric="FQ")
    with pytest.raises(ib.IlubenchError, match="choose from: course"):
        npo.plot("curse")  # type: ignore[arg-type]
    with pytest.raises(ib.IlubenchError, match="choose from: FQ"):
        npo.plot("recovery", metric="F")
    assert npo.verdict in npo._repr_html_()
    assert npo.verdict in repr(npo)


def code_of(text: str, heading: str) -> str:
    """The first block of Python below a heading."""
    (code,) = re.findall(rf"^## {heading}$.*?^```python\n(.*?)^```$", text, re.M | re.S)[:1]
    return str(code)


def test_the_readmes_five_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, npo: ib.Run
) -> None:
    """As they stand there, but that the run is the committed one: four minutes are not a test's."""
    asked: list[object] = []

    def run(*words: str, **settings: object) -> ib.Run:
        asked.append((words, settings))
        return npo

    code = code_of((ROOT / "README.md").read_text(), "From Python")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ilubench.api.run", run)
    assert len([line for line in code.splitlines() if line.strip()]) <= 5
    exec(compile(code, "README.md", "exec"), {})
    assert asked == [((), {"suite": "mini", "method": "npo", "seeds": [0, 1]})]
    (figure,) = tmp_path.iterdir()
    assert figure.stat().st_size > 1000


def test_the_notebook_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT / "docs")
    notebook = json.loads(Path("notebook.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(cells) >= 5
    names: dict[str, object] = {}
    for place, code in enumerate(cells):
        exec(compile(code, f"cell {place + 1}", "exec"), names)
    assert isinstance(names["run"], ib.Run)
