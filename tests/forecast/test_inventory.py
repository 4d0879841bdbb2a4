"""`ilubench data check` and `fetch`, and a run whose data and model are a hub's."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import yaml
from benign_rows import ROWS, lines
from doubles import make_tokenizer, tiny_llama
from hub_server import TOKEN, Hub, ask_only, go_offline, served
from runs import Outcome, command

from ilubench.errors import ModelError, SpecError
from ilubench.experiments.experiment import resolve_experiment
from ilubench.models.tokenizers import check_vocabulary, load_tokenizer
from ilubench.runs.stages.workbench import make_bench
from ilubench.specs import DataSource, SuiteSpec
from ilubench.specs.overrides import parse_words

MARKER = "xanthoquartzite"
"""A word of the gated text, which nothing that a run leaves may hold."""


def jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


GATED = [{"title": f"t{n}", "text": f"{MARKER} the cat {n} sat on the mat"} for n in range(6)]
OPEN = [{"question": f"why {n} ?", "answer": f"so {n}"} for n in range(8)]

SUITE: dict[str, Any] = {
    "name": "of-a-hub",
    "version": 1,
    "title": "Everything on a hub",
    "target": {"model": {"hub": "org/model", "revision": "main"}},
    "data": {
        "forget": {"hub": "org/gated", "revision": "main", "gated": True, "license": "terms"},
        "retain": {"hub": "org/open", "completion": "{question} {answer}"},
        "asked": {"hub": "org/open", "revision": "main", "limit": 4},
    },
    "forget": ["forget"],
    "retain": ["retain"],
    "scorers": {
        "known": {
            "use": "answer_nll",
            "settings": {"data": "asked", "prompt": "{question}", "completion": " {answer}"},
        },
        "gone": {
            "use": "answer_nll",
            "settings": {"data": "forget", "prompt": "{title}", "completion": " {text}"},
        },
    },
    "primary_forget": [
        {"label": "F", "scorer": "gone", "metric": "nll", "direction": "lower", "chance": 9}
    ],
    "utility": [
        {"label": "U", "scorer": "known", "metric": "nll", "direction": "lower", "chance": 9}
    ],
    "attacks": {
        "again": {
            "settings": {"train": {"lr": 1e-3, "steps": 2, "batch_size": 2}, "each_epoch": False},
            "data": {"train": {"hub": "org/open", "completion": "{answer}"}},
        }
    },
    "methods": {"default": {"train": {"lr": 1e-3, "steps": 2, "batch_size": 2}}},
    "max_length": 64,
}


@pytest.fixture(scope="module")
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    from huggingface_hub import close_session

    folder = tmp_path_factory.mktemp("model")
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(folder)
    tiny_llama(len(tokenizer)).save_pretrained(folder)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    with served() as hub:
        hub.add("model", "org/model", files, license="apache-2.0")
        yield hub
    close_session()


@pytest.fixture
def hub(_server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """A hub with the suite's model and data sets; the gated one is granted to nobody."""
    _server.asked.clear()
    _server.fail("")
    _server.add("dataset", "org/gated", {"a.jsonl": jsonl(GATED)}, gated=True)
    _server.add("dataset", "org/open", {"a.jsonl": jsonl(OPEN)})
    ask_only(_server, str(tmp_path / "cache"), monkeypatch)
    monkeypatch.chdir(tmp_path)
    return _server


def grant(hub: Hub, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("HF_TOKEN", TOKEN)
    hub.repos["dataset", "org/gated"].tokens = (TOKEN,)


def asked(name: str, *words: str, **changes: Any) -> Outcome:
    Path("suite.yaml").write_text(yaml.safe_dump({**SUITE, **changes}))
    return command("data", name, "suite=./suite.yaml", "method=graddiff", *words)


def states(done: Outcome) -> dict[str, str]:
    return {one["field"]: one["state"] for one in done.json["supplies"]}


FIELDS = ("data.again.train", "data.forget", "data.retain", "data.asked", "suite.target.model")


def test_check_names_all_that_is_wrong_and_downloads_nothing(hub: Hub) -> None:
    words = ["suite.target.model.hub=org/none", "data.asked.split=tset", "data.again.train=x.csv"]
    done = asked("check", *words)
    assert done.code == 3
    problems = [line for line in done.err.splitlines() if line.startswith("problem: ")]
    assert [line.split(":")[1].strip() for line in problems] == [
        "data.again.train",
        "data.forget",
        "data.asked",
        "suite.target.model",
    ]
    for line, told in zip(
        problems,
        ("no such file 'x.csv'", "no token is set", "no split 'tset'", "no such model"),
        strict=True,
    ):
        assert told in line
    assert done.err.splitlines()[-1] == "error: 4 problems; see above"
    assert "Traceback" not in done.err
    assert not any(path.startswith("GET") and "/resolve/" in path for path in hub.asked)


def test_check_says_what_there_is(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    grant(hub, monkeypatch)
    done = asked("check", "--json")
    assert done.code == 0, done.err
    assert states(done) == dict.fromkeys(FIELDS, "to fetch")
    found = {one["field"]: one for one in done.json["supplies"]}
    gated = hub.repos["dataset", "org/gated"]
    assert found["data.forget"] == {
        "field": "data.forget",
        "source": "org/gated@main",
        "commit": gated.head,
        "state": "to fetch",
        "gated": True,
        "license": "terms",
        "bytes": len(gated.files["a.jsonl"]),
        "rows": None,
    }
    assert found["suite.target.model"]["license"] == "apache-2.0"
    shared = [found[f"data.{role}"]["bytes"] for role in ("again.train", "retain", "asked")]
    assert shared == [len(jsonl(OPEN)), 0, 0]  # of one file
    assert not any(".jsonl" in path for path in hub.asked)
    plain = asked("check")
    assert "org/gated@main" in plain.out
    assert "`ilubench data fetch` with the same words downloads the rest" in plain.out


def test_after_fetch_everything_works_offline(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    grant(hub, monkeypatch)
    done = asked("fetch", "--json")
    assert done.code == 0, done.err
    told = done.err.splitlines()
    first = next(number for number, line in enumerate(told) if line.endswith(": fetched"))
    assert len(told[:first]) == 3  # all sizes before the first download; shared files once
    (line,) = [line for line in told if line.startswith("data.forget: org/gated@")]
    assert ", 408 B, licence terms; gated: the terms that were accepted on its page apply" in line
    assert states(done) == dict.fromkeys(FIELDS, "cached")

    go_offline(monkeypatch)
    monkeypatch.delenv("HF_TOKEN")
    hub.asked.clear()
    again = asked("check", "--json")
    assert again.code == 0, again.err
    assert states(again) == dict.fromkeys(FIELDS, "cached")
    rows = {one["field"]: one["rows"] for one in again.json["supplies"]}
    assert rows["data.forget"] == 6
    assert rows["data.asked"] == 4
    tables = resolve_experiment(parse_words(["suite=./suite.yaml", "method=graddiff"])).tables
    assert tables.rows("forget")[0]["title"] == "t0"
    assert hub.asked == []


def test_fetch_gets_what_can_be_had_and_names_the_rest(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = asked("fetch")
    assert done.code == 3
    assert "problem: data.forget: data set org/gated@main: it is gated" in done.err
    hub.fail("500")
    left = states(asked("check", "--json"))
    assert left == {**dict.fromkeys(FIELDS, "cached"), "data.forget": "missing"}


def test_the_same_refusal_is_told_once(hub: Hub) -> None:
    del hub.repos["dataset", "org/open"]
    done = asked("check", "data.forget=x.jsonl")
    assert done.err.count("there is no such data set") == 1
    assert "problem: data.retain: data set org/open@main: see data.again.train" in done.err


def test_columns_are_checked(hub: Hub) -> None:
    Path("forget.jsonl").write_bytes(jsonl([{"title": "t", "txt": "x"}, {"title": "t"}]))
    done = asked("check", "data.forget=forget.jsonl", "suite.target.model.path=.")
    assert "data.forget: 2 of 2 rows have no column 'text', which its template names" in done.err
    assert "did you mean 'txt'?" in done.err
    assert "problem: scorers.gone: data.forget: there is no column 'text'" in done.err
    assert "problem: suite.target.model: " in done.err


def test_a_generators_input_may_have_the_name_of_what_is_made_from_it(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `data.winogrande.train=FILE` does: the columns asked for are those of the made rows."""
    lines(Path("rows.jsonl"), ROWS["winogrande"])
    grant(hub, monkeypatch)
    local = ("data.winogrande.train=rows.jsonl", "data.winogrande.eval=rows.jsonl")
    done = asked("check", "attacks=winogrande", *local)
    assert (done.code, done.err) == (0, "")


def test_a_target_without_a_tokenizer_is_told(hub: Hub, tmp_path: Path) -> None:
    tiny_llama(80).save_pretrained("bare")
    hub.add("model", "org/bare", {path.name: path.read_bytes() for path in Path("bare").iterdir()})
    local = ["data.retain=x.csv", "data.forget=x.csv", "data.asked=x.csv", "data.again.train=x.csv"]
    for word in ("suite.target.model.hub=org/bare", "suite.target.model.path=bare"):
        done = asked("check", word, *local)
        (line,) = [line for line in done.err.splitlines() if "suite.target.model: " in line]
        assert "it has no tokenizer (tokenizer.json or tokenizer.model)" in line


def test_text_of_a_gated_source_is_never_published() -> None:
    with pytest.raises(ValueError, match="publish_text: text of a gated source is never recorded"):
        DataSource(hub="a/b", gated=True, publish_text=True)
    own = {"hub": "org/gated", "gated": True}
    made = {"generated": "cut.all", "publish_text": True}
    generators = {"cut": {"use": "paragraphs", "inputs": {"test": own}}}
    data = {**SUITE["data"], "asked": made}
    SuiteSpec.model_validate(
        {**SUITE, "data": {**data, "asked": {"generated": "cut.all"}}, "generators": generators}
    )
    with pytest.raises(ValueError, match="asked: publish_text: generator 'cut' reads a gated"):
        SuiteSpec.model_validate({**SUITE, "data": data, "generators": generators})


def test_a_form_that_differs_is_told_without_gated_text(hub: Hub) -> None:
    from ilubench.experiments.training_text import check_form

    fa = {
        "scorer": {
            "use": "answer_nll",
            "settings": {"data": "train", "prompt": "{title}", "completion": " {text}"},
        },
        "metric": "nll",
        "direction": "lower",
        "chance": 9,
    }
    Path("rows.jsonl").write_bytes(jsonl(GATED))
    for gated, shown in ((True, False), (False, True)):
        own = {"path": "rows.jsonl", "prompt": "{text}", "gated": gated}
        attack = {**SUITE["attacks"]["again"], "data": {"train": own}, "fa": fa}
        Path("suite.yaml").write_text(yaml.safe_dump({**SUITE, "attacks": {"again": attack}}))
        experiment = resolve_experiment(parse_words(["suite=./suite.yaml", "method=none"]))
        with pytest.raises(SpecError) as caught:
            check_form(experiment, experiment.attacks[0])
        assert (MARKER in str(caught.value)) is shown


def test_a_run_that_is_refused_ends_with_one_line(hub: Hub) -> None:
    Path("suite.yaml").write_text(yaml.safe_dump(SUITE))
    done = command("run", "suite=./suite.yaml", "method=graddiff", "attacks=none", "out=out")
    assert done.code == 3
    (line,) = done.err.splitlines()
    assert line.startswith("error: data.forget: data set org/gated@main: it is gated, and no token")
    assert done.out == ""


def test_a_run_of_a_hub_records_commits_and_no_gated_text(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grant(hub, monkeypatch)
    Path("suite.yaml").write_text(yaml.safe_dump(SUITE))
    done = command("run", "suite=./suite.yaml", "method=graddiff", "out=out", "--json")
    assert done.code == 0, done.err
    (run,) = (path.parent for path in Path("out").glob("*/results.json"))
    environment = json.loads((run / "env.json").read_text())
    repos = {name: hub.repos[name].head for name in hub.repos}
    told = {field: (one["hub"], one["commit"]) for field, one in environment["hub"].items()}
    assert told == {
        "forget": ("org/gated", repos["dataset", "org/gated"]),
        "retain": ("org/open", repos["dataset", "org/open"]),
        "asked": ("org/open", repos["dataset", "org/open"]),
        "again.train": ("org/open", repos["dataset", "org/open"]),
        "suite.target.model": ("org/model", repos["model", "org/model"]),
    }
    marked = [
        path
        for path in tmp_path.rglob("*")
        if path.is_file() and MARKER.encode() in path.read_bytes()
    ]
    assert {path.relative_to(tmp_path).parts[0] for path in marked} == {"cache"}
    assert MARKER not in done.out + done.err
    assert TOKEN not in done.out + done.err
    for path in tmp_path.rglob("out/**/*.parquet"):  # compressed on disk
        assert MARKER not in str(pyarrow.parquet.read_table(path).to_pylist())


# ------------------------------------------------------------------- a tokenizer from elsewhere


@pytest.fixture
def apart(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The suite's target; its tokenizer is that of a gated model, granted to one token."""
    whole = hub.repos["model", "org/model"].files
    words = {name for name in whole if "tokenizer" in name}
    hub.add("model", "org/bare", {name: whole[name] for name in whole.keys() - words})
    weights = {"model.safetensors": b"another model's", "pytorch_model.bin": b"pickle"}
    read = {name: whole[name] for name in words | {"config.json"}}
    hub.add("model", "org/words", {**read, **weights}, gated=True, tokens=(TOKEN,))
    grant(hub, monkeypatch)
    for folder, name in (("bare", "org/bare"), ("words", "org/words")):
        Path(folder).mkdir()
        for file, data in hub.repos["model", name].files.items():
            Path(folder, file).write_bytes(data)
    words_of = {"hub": "org/words", "revision": "main", "gated": True, "license": "of words"}
    return {"model": {"hub": "org/bare", "revision": "main"}, "tokenizer": words_of}


def test_a_tokenizer_from_elsewhere_is_looked_for_and_fetched(
    hub: Hub, apart: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = asked("check", "--json", target=apart)
    assert done.code == 0, done.err
    fields = (*FIELDS, "suite.target.tokenizer")
    assert states(done) == dict.fromkeys(fields, "to fetch")
    repo = hub.repos["model", "org/words"]
    assert done.json["supplies"][-1] == {
        "field": "suite.target.tokenizer",
        "source": "org/words@main",
        "commit": repo.head,
        "state": "to fetch",
        "gated": True,
        "license": "of words",
        "bytes": sum(len(data) for name, data in repo.files.items() if name.endswith(".json")),
        "rows": None,
    }
    local = asked("check", "--json", "suite.target.tokenizer.path=words", target=apart)
    assert states(local)["suite.target.tokenizer"] == "local"
    lacking = asked("check", "suite.target.tokenizer.path=bare", target=apart)
    assert "problem: suite.target.tokenizer: bare: it has no tokenizer" in lacking.err
    own = asked("check", "suite.target.model.path=bare", target=apart)  # and so its own tokenizer
    assert "problem: suite.target.model: bare: it has no tokenizer" in own.err
    monkeypatch.delenv("HF_TOKEN")
    refused = asked("check", target=apart)
    (line,) = [line for line in refused.err.splitlines() if "suite.target.tokenizer" in line]
    assert line.startswith("problem: suite.target.tokenizer: model org/words@main: it is gated, an")

    grant(hub, monkeypatch)
    assert states(asked("fetch", "--json", target=apart)) == dict.fromkeys(fields, "cached")
    downloads = [path for path in hub.asked if "GET /org/words/resolve/" in path]
    assert len(downloads) == 3
    assert all(path.endswith(".json") for path in downloads)


def scores(done: Outcome) -> list[tuple[str, float]]:
    return [(score["scorer"], score["value"]) for score in done.json["scores"]]


def test_a_run_with_a_tokenizer_from_elsewhere(
    hub: Hub, apart: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores are those of the model that has the same tokenizer beside it."""
    words = ("run", "suite=./suite.yaml", "method=graddiff", "attacks=none", "--json")
    Path("suite.yaml").write_text(yaml.safe_dump({**SUITE, "target": apart}))
    done = command(*words, "out=out")
    assert done.code == 0, done.err
    (run,) = (path.parent for path in Path("out").glob("*/results.json"))
    told = json.loads((run / "env.json").read_text())["hub"]
    for part, name in (("model", "org/bare"), ("tokenizer", "org/words")):
        head = hub.repos["model", name].head
        found = {"hub": name, "revision": "main", "commit": head}
        assert told[f"suite.target.{part}"] == found
    monkeypatch.delenv("HF_TOKEN")
    own = ("suite.target.model.hub=org/model", "data.forget=rows.jsonl", "out=own")
    Path("rows.jsonl").write_bytes(jsonl(GATED))
    assert scores(command(*words, *own)) == scores(done)


def test_the_tokenizers_files_are_a_part_of_the_key(hub: Hub, apart: dict[str, Any]) -> None:
    def key(*words: str) -> str:
        named = (f"data.{role}=x.csv" for role in SUITE["data"])
        experiment = resolve_experiment(
            parse_words(["suite=./suite.yaml", "method=none", *named, *words])
        )
        return make_bench(experiment).target

    Path("suite.yaml").write_text(yaml.safe_dump({**SUITE, "target": apart}))
    folders = ("suite.target.model.path=bare", "suite.target.tokenizer.path=words")
    first = key()
    assert key(*folders) == first
    Path("words/model.safetensors").unlink()
    assert key(*folders) == first
    Path("words/tokenizer_config.json").write_text("{}")
    assert key(*folders) != first


def test_a_method_that_is_verified_apart_gets_the_tokenizer(
    hub: Hub, apart: dict[str, Any], tmp_path: Path
) -> None:
    from ilubench.leaderboard.verify.isolated import JOB, OUT, _unlearn
    from ilubench.leaderboard.verify.isolation import Cell, _furnish

    Path("suite.yaml").write_text(yaml.safe_dump({**SUITE, "target": apart}))
    experiment = resolve_experiment(parse_words(["suite=./suite.yaml", "method=graddiff"]))
    room = tmp_path / "room"
    _furnish(room, make_bench(experiment), experiment, 0, Cell((), ()))
    assert not (room / "target" / "tokenizer.json").exists()
    assert load_tokenizer(room / "tokenizer").get_vocab() == make_tokenizer().get_vocab()
    job = json.loads((room / JOB).read_text())
    assert _unlearn(room, job)["steps"] == 2
    assert list((room / OUT).glob("*.safetensors"))


def test_a_tokenizer_of_another_model_stops_a_run_before_anything_is_made(
    hub: Hub, apart: dict[str, Any]
) -> None:
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(["mill", "sacks"], special_tokens=False)
    config = tiny_llama(len(make_tokenizer())).config
    check_vocabulary(tokenizer, config, Path("words"))  # two tokens that no text is made of
    tokenizer.add_special_tokens({"pad_token": "<fill>"})
    message = r"^words: its tokenizer gives '<fill>' the id 3\d\d, and the target model has 3\d\d"
    with pytest.raises(ModelError, match=message):
        check_vocabulary(tokenizer, config, Path("words"))
    tokenizer.save_pretrained("words")
    Path("suite.yaml").write_text(yaml.safe_dump({**SUITE, "target": apart}))
    word = "suite.target.tokenizer.path=words"
    done = command("run", "suite=./suite.yaml", "method=graddiff", "attacks=none", "out=out", word)
    assert done.code == ModelError.exit_code
    assert done.err.startswith("error: words: its tokenizer gives '<fill>'")
    assert not list(Path("out").rglob("*.safetensors"))


def test_where_a_tokenizer_may_be_named() -> None:
    target = {"model": {"path": "a"}, "tokenizer": {"path": "b"}}
    kept = SuiteSpec.model_validate({**SUITE, "target": target}).model_dump(mode="json")["target"]
    assert kept["tokenizer"]["path"] == "b"
    bare = SuiteSpec.model_validate(SUITE).model_dump(mode="json")["target"]
    assert bare.keys() == {"model", "recipe"}  # as records of before have it
    with pytest.raises(ValueError, match=r"retrain\.tokenizer: the target's reads its text too"):
        SuiteSpec.model_validate({**SUITE, "retrain": target})
    made = {"config": {}, "tokenizer": {"kind": "word"}, "text": ["forget"]}
    recipe = {**made, "pack": [{"length": 16}], "train": {"lr": 1, "steps": 1, "batch_size": 1}}
    both = {"recipe": recipe, "tokenizer": {"path": "b"}}
    with pytest.raises(ValueError, match="tokenizer: the recipe has one of its own"):
        SuiteSpec.model_validate({**SUITE, "target": both})
