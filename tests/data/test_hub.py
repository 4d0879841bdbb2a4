"""Data sets and models of a hub: the real client against a stand-in server, every refusal."""

import hashlib
import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hub_server import TOKEN, Hub, ask_only, go_offline, served

from ilubench import errors
from ilubench.data.hub import models
from ilubench.data.hub.models import model_folder, needed_files
from ilubench.data.rows import Tables, hub_repository, read_hub
from ilubench.errors import AccessError, DataError, ModelError
from ilubench.interfaces import Generator, Row
from ilubench.models.checkpoints import find_folder, find_tokenizer, model_origin, tokenizer_sha256
from ilubench.specs import DataSource, GeneratorSpec, ModelSource

ROWS: list[Row] = [{"text": f"row {number}", "n": number} for number in range(6)]

CARD = """---
license: mit
configs:
- config_name: main
  data_files:
  - {split: train, path: main/train-*}
  - {split: test, path: main/test.parquet}
- config_name: other
  data_files: other/*.csv
---
A card.
"""

FIRST, SECOND = (f"main/train-0000{number}-of-00002.parquet" for number in (0, 1))


def parquet(rows: list[Row]) -> bytes:
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([dict(row) for row in rows]), buffer)
    return buffer.getvalue()


def jsonl(rows: list[Row]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


FILES = {
    "README.md": CARD.encode(),
    FIRST: parquet(ROWS[:2]),
    SECOND: parquet(ROWS[2:4]),
    "main/test.parquet": parquet(ROWS[4:5]),
    "other/a.csv": b"text,n\nrow 5,5\n",
    "rows.py": b"raise SystemExit('the data set ran code')",
}


@pytest.fixture(scope="module")
def _server() -> Iterator[Hub]:
    from huggingface_hub import close_session

    with served() as hub:
        yield hub
    close_session()


@pytest.fixture
def hub(_server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """A stand-in with one data set of two subsets; the client's cache is empty."""
    _server.repos.clear()
    _server.asked.clear()
    _server.fail("")
    _server.add("dataset", "org/rows", dict(FILES))
    ask_only(_server, str(tmp_path / "cache"), monkeypatch)
    return _server


class Copy(Generator):
    def tables(self, inputs: Any) -> Any:
        return {"all": inputs["rows"]}


def source(**fields: Any) -> DataSource:
    return DataSource.model_validate({"hub": "org/rows", "subset": "main", **fields})


def rows(**fields: Any) -> list[Row]:
    return read_hub(source(**fields), "forget")


def downloads(hub: Hub) -> list[str]:
    return [path.rpartition("/resolve/")[2][41:] for path in hub.asked if path.startswith("GET /d")]


# ------------------------------------------------------------------------------- rows


def test_a_split_is_read_in_the_order_of_its_files_and_nothing_else_is_fetched(hub: Hub) -> None:
    assert rows() == ROWS[:4]
    assert downloads(hub) == ["README.md", FIRST, SECOND]
    assert rows(split="test") == ROWS[4:5]
    assert rows(subset="other") == [{"text": "row 5", "n": "5"}]  # of a CSV


def test_without_a_card_the_names_of_the_files_tell(hub: Hub) -> None:
    hub.add("dataset", "org/plain", {"data/train.jsonl": jsonl(ROWS), "a.py": b"exit(1)"})
    assert rows(hub="org/plain", subset=None) == ROWS


def test_one_file_under_several_names(hub: Hub) -> None:
    names = ["bio_remove_dataset.jsonl", "bio-forget-corpus.jsonl"]
    hub.add("dataset", "org/a", {"x/bio_remove_dataset.jsonl": jsonl(ROWS[:1]), "b.jsonl": b""})
    hub.add("dataset", "org/b", {"bio-forget-corpus.jsonl": jsonl(ROWS[:2]), "b.jsonl": b""})
    hub.add("dataset", "org/c", {"data/train-00000-of-00001.parquet": parquet(ROWS[:3])})
    found = [len(rows(hub=f"org/{name}", subset=None, files=names)) for name in "abc"]
    assert found == [1, 2, 3]


def test_a_local_folder_may_hold_the_file_under_either_name(tmp_path: Path) -> None:
    def read(**fields: Any) -> list[Row]:
        one = DataSource.model_validate({"path": str(tmp_path), **fields})
        return Tables({"forget": one}, {}, lambda _: Copy()).rows("forget")

    (tmp_path / "b.jsonl").write_bytes(jsonl(ROWS))
    assert [row["n"] for row in read(files=["a.jsonl", "b.jsonl"])] == list(range(6))
    with pytest.raises(DataError, match=r"data\.forget: .* is a folder without a\.x; give a file"):
        read(files=["a.x"])
    with pytest.raises(DataError, match=r"is a folder; give a file"):
        read()


def test_a_source_without_names_of_files_is_recorded_as_ever() -> None:
    assert "files" not in source().model_dump()
    assert source(files=["a"]).model_dump()["files"] == ("a",)


def test_the_commit_of_each_role_is_known(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    class Moving(Copy):
        def tables(self, inputs: Any) -> Any:
            hub.repos["dataset", "org/rows"].push({"train.csv": b"text\nmoved\n"})
            return super().tables(inputs)

    first = hub.repos["dataset", "org/rows"].head
    spec = GeneratorSpec(use="x", inputs={"rows": source(split="test")})
    sources = {"made": DataSource(generated="copy.all"), "train": source(revision="main")}

    def tables() -> Tables:
        return Tables(sources, {"copy": spec}, lambda _: Moving())

    found = tables()
    assert found.rows("made")[0]["n"] == 4
    assert found.rows("train")[0]["n"] == 0  # the data set moved between the two
    told = {"hub": "org/rows", "commit": first}
    assert found.origins() == {
        "copy.rows": {**told, "revision": None},
        "train": {**told, "revision": "main"},
    }
    go_offline(monkeypatch)
    hub.repos.clear()
    again = tables()
    again.rows("train")
    assert again.origins()["train"]["commit"] == first


# ------------------------------------------------------------------------------- the cache


def test_what_was_fetched_is_read_offline(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    rows()
    go_offline(monkeypatch)
    hub.asked.clear()
    assert rows() == ROWS[:4]
    with pytest.raises(errors.NotCachedError, match=r"main/test\.parquet is not in the cache"):
        rows(split="test")
    assert hub.asked == []


def test_a_commit_is_used_as_it_is_and_asked_for_once(hub: Hub) -> None:
    repo = hub.repos["dataset", "org/rows"]
    old = repo.head
    repo.push({"train.csv": b"text\nnew\n"})
    assert rows(revision=old) == ROWS[:4]
    hub.asked.clear()
    assert rows(revision=old) == ROWS[:4]
    assert hub.asked == []


def test_a_branch_that_moved_is_followed_and_remembered(hub: Hub) -> None:
    rows()
    hub.repos["dataset", "org/rows"].push({"train.csv": b"text\nnew\n"})
    assert rows(subset=None) == [{"text": "new"}]
    hub.fail("500")
    assert rows(subset=None) == [{"text": "new"}]
    with pytest.raises(errors.UnreachableError):  # of the old commit, which main no longer is
        rows(hub="org/other")


def snapshot(tmp_path: Path) -> Path:
    (folder,) = (tmp_path / "cache" / "datasets--org--rows" / "snapshots").iterdir()
    return folder


def test_half_a_cache_is_never_read(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows()
    (snapshot(tmp_path) / SECOND).unlink()
    go_offline(monkeypatch)
    with pytest.raises(errors.NotCachedError, match=f"{SECOND} is not in the cache"):
        rows()
    # as another program would have left it: nobody knows the files, their numbers tell
    for path in (tmp_path / "cache" / "datasets--org--rows" / "ilubench").iterdir():
        path.unlink()
    with pytest.raises(errors.NotCachedError, match="the cache holds only a part of it"):
        rows()
    (snapshot(tmp_path) / "main" / "test.parquet").write_bytes(b"")
    with pytest.raises(errors.NotCachedError, match=f"{SECOND} is not in the cache"):
        rows()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    assert rows() == ROWS[:4]


def test_another_programs_cache_is_read(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import snapshot_download

    snapshot_download("org/rows", repo_type="dataset", cache_dir=str(tmp_path / "cache"))
    go_offline(monkeypatch)
    assert rows() == ROWS[:4]
    assert rows(subset="other") == [{"text": "row 5", "n": "5"}]  # of a CSV


def other_bit(content: bytes) -> bytes:
    return bytes([*content[:50], content[50] ^ 1, *content[51:]])


@pytest.mark.parametrize("damage", [lambda content: content[:50], other_bit])
@pytest.mark.parametrize("large", [False, True])
def test_a_damaged_file_is_fetched_again_or_named(
    hub: Hub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[bytes], bytes],
    *,
    large: bool,
) -> None:
    """By its size and its hash: git's, or SHA-256 of files that are large to the hub."""
    if large:
        monkeypatch.setattr("hub_server._etag", lambda data: hashlib.sha256(data).hexdigest())
    rows()
    broken = snapshot(tmp_path) / FIRST
    broken.resolve().write_bytes(damage(FILES[FIRST]))
    go_offline(monkeypatch)
    with pytest.raises(errors.DamagedError, match=f"{FIRST} in the cache is damaged"):
        rows()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    assert rows() == ROWS[:4]


def test_a_file_of_a_mirror_that_does_not_tell_hashes(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub_server._etag", lambda data: f"x{hashlib.md5(data).hexdigest()}")
    assert rows() == ROWS[:4]
    broken = snapshot(tmp_path) / FIRST
    broken.resolve().write_bytes(b"x" * len(FILES[FIRST]))  # of the right size
    with pytest.raises(errors.DamagedError, match=rf"{FIRST} cannot be read.*remove {broken}"):
        rows()


# ------------------------------------------------------------------------------- refusals

Prepare = Callable[[Hub, pytest.MonkeyPatch], dict[str, Any]]


def gated(hub: Hub, patch: pytest.MonkeyPatch) -> dict[str, Any]:
    hub.add("dataset", "org/gated", {"a.jsonl": jsonl(ROWS)}, gated=True)
    return {"hub": "org/gated", "subset": None}


def with_token(before: Prepare, token: str = TOKEN) -> Prepare:
    def prepare(hub: Hub, patch: pytest.MonkeyPatch) -> dict[str, Any]:
        patch.setenv("HF_TOKEN", token)
        return before(hub, patch)

    return prepare


def asking(**fields: Any) -> Prepare:
    return lambda _hub, _patch: fields


def failing(fault: str, at: str = "") -> Prepare:
    def prepare(hub: Hub, patch: pytest.MonkeyPatch) -> dict[str, Any]:
        patch.setattr("huggingface_hub.constants.HF_HUB_ETAG_TIMEOUT", 0.2)
        patch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
        hub.fail(fault, at)
        return {}

    return prepare


def unreachable(_hub: Hub, patch: pytest.MonkeyPatch) -> dict[str, Any]:
    patch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    return {}


def offline(_hub: Hub, patch: pytest.MonkeyPatch) -> dict[str, Any]:
    go_offline(patch)
    return {}


REFUSALS: dict[str, tuple[Prepare, type[AccessError], str]] = {
    "gated, no token": (
        gated,
        errors.GatedError,
        "data.forget: data set org/gated@main: it is gated, and no token is set; accept its terms "
        "on its page of the hub, then set HF_TOKEN (or `hf auth login`), or give a local file: "
        "data.forget=<file>",
    ),
    "gated, not granted": (
        with_token(gated),
        errors.GatedError,
        "it is gated, and the account of the token that is set has no access; accept its terms on "
        "its page of the hub with that account",
    ),
    "token refused": (
        with_token(asking(), "hf_expiredExpiredExpired"),
        errors.TokenError,
        "the hub does not accept the token that is set (401); set a valid HF_TOKEN",
    ),
    "token needed": (failing("403"), errors.TokenError, "does not give it away without a token"),
    "offline": (
        offline,
        errors.NotCachedError,
        "data set org/rows@main: offline, and it is not in the cache; go online once (`ilubench "
        "data fetch`) and unset HF_HUB_OFFLINE, or give a local file: data.forget=<file>",
    ),
    "unreachable": (
        unreachable,
        errors.UnreachableError,
        "the hub cannot be reached, and it is not in the cache (ConnectError",
    ),
    "no revision": (
        asking(revision="v9"),
        errors.UnknownRevisionError,
        "data set org/rows@v9: it has no branch, tag or commit 'v9'; check the revision",
    ),
    "no commit": (asking(revision="0" * 40), errors.UnknownRevisionError, "has no branch, tag or"),
    "no repository": (
        asking(hub="org/nope"),
        errors.UnknownRepositoryError,
        "there is no such data set, or it is private and no token is set; check the name; set HF_T",
    ),
    "no repository for the token": (
        with_token(asking(hub="org/nope")),
        errors.UnknownRepositoryError,
        "there is no such data set, or it is private and not for this token",
    ),
    "no name": (asking(hub="a//b"), errors.UnknownRepositoryError, "write org/name"),
    "no subset": (
        asking(subset="mian"),
        errors.UnknownPartError,
        "it has no subset 'mian'; did you mean 'main'?",
    ),
    "subset needed": (
        asking(subset=None),
        errors.UnknownPartError,
        "it has several subsets, and none is named; choose from: main, other",
    ),
    "no split": (
        asking(split="tset"),
        errors.UnknownPartError,
        "subset 'main' has no split 'tset'; did you mean 'test'?",
    ),
    "too many": (
        failing("429"),
        errors.RateLimitError,
        "the hub was asked too often (429); wait 7 seconds and give the same command again",
    ),
    "too many files": (failing("429", "/resolve/"), errors.RateLimitError, "too often (429)"),
    "fault": (failing("500"), errors.UnreachableError, "the hub has a fault of its own (500)"),
    "fault of files": (failing("503", ".parquet"), errors.UnreachableError, "its own (503)"),
    "hanging": (failing("hanging", "/api/"), errors.UnreachableError, "does not answer in time"),
    "no hub": (failing("garbage", "/api/"), errors.UnreachableError, "what answers is no hub"),
    "no hub's files": (failing("garbage", "/resolve/"), errors.UnreachableError, "is no hub"),
    "cut short": (
        failing("truncated", ".parquet"),
        errors.DamagedError,
        "the download was cut short; give the same command again",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_every_refusal_says_what_and_what_to_do(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    prepare, kind, message = REFUSALS[name]
    fields = prepare(hub, monkeypatch)
    with pytest.raises(AccessError, match=re.escape(message)) as caught:
        rows(**fields)
    text = str(caught.value)
    assert type(caught.value) is kind
    assert caught.value.exit_code == 3
    assert text.startswith(f"data.forget: data set {fields.get('hub', 'org/rows')}@")
    assert text.endswith("or give a local file: data.forget=<file>")
    assert "hf_" not in text
    assert not list((tmp_path / "cache").rglob("*.incomplete"))


def test_a_gated_data_set_with_a_granted_token(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = with_token(gated)(hub, monkeypatch)
    hub.repos["dataset", "org/gated"].tokens = (TOKEN,)
    assert rows(**fields) == ROWS


def test_a_token_in_a_librarys_message_is_not_shown(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ilubench.data.hub import refusal

    monkeypatch.setenv("HF_TOKEN", "secretOfAnotherForm")
    repository = hub_repository(source(), "forget")
    for token in ("secretOfAnotherForm", TOKEN):
        text = str(refusal(repository, OSError(f"cannot write; token={token}")))
        assert token not in text
        assert "the download failed (OSError: cannot write; token=<token>)" in text


# ------------------------------------------------------------------------------- models


def model(hub: Hub, files: dict[str, bytes], **about: Any) -> ModelSource:
    hub.add("model", "org/model", files, **about)
    return ModelSource(hub="org/model", revision="main")


def index(*names: str) -> bytes:
    weights = {f"layer{number}": name for number, name in enumerate(names)}
    return json.dumps({"weight_map": weights}).encode()


PARTS = {
    "config.json": b"{}",
    "model.safetensors.index.json": index("a.safetensors", "b.safetensors"),
    "a.safetensors": b"1",
    "b.safetensors": b"2",
    "consolidated.safetensors": b"the same weights in another layout",
    "pytorch_model.bin": b"pickle",
    "chat_template.jinja": b"{{ messages }}",
}


def test_a_models_needed_files_are_fetched_and_its_commit_is_known(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = model(hub, PARTS)
    folder = model_folder(asked, "suite.target.model", needed_files)
    found = {path.name for path in folder.iterdir()}
    assert found == set(PARTS) - {"consolidated.safetensors", "pytorch_model.bin"}
    commit = hub.repos["model", "org/model"].head
    assert model_origin(asked, folder) == {"hub": "org/model", "revision": "main", "commit": commit}
    assert model_origin(ModelSource(path="x"), Path("x")) == {}
    go_offline(monkeypatch)
    assert model_folder(asked, "suite.target.model", needed_files) == folder
    (folder / "b.safetensors").unlink()
    with pytest.raises(errors.NotCachedError, match=r"b\.safetensors is not in the cache"):
        find_folder(asked)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"config.json": b"{}", "pytorch_model.bin": b"x"}, r"it has no \.safetensors file"),
        ({"model.safetensors.index.json": index("x.safetensors")}, r"lacks 'x\.safetensors'"),
        ({"model.safetensors.index.json": index("../x")}, "is not a file's name beside it"),
    ],
)
def test_a_model_without_its_weights(hub: Hub, files: dict[str, bytes], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        find_folder(model(hub, files))
    assert not any(".bin" in path for path in hub.asked)


def test_a_model_that_is_refused(hub: Hub) -> None:
    asked = model(hub, PARTS, gated=True)
    message = (
        r"^suite\.target\.model: model org/model@main: it is gated, and no token is set; .*, or "
        r"give a local folder: suite\.target\.model\.path=<folder>$"
    )
    with pytest.raises(errors.GatedError, match=message):
        find_folder(asked)
    gone = asked.model_copy(update={"hub": "org/gone"})
    with pytest.raises(
        errors.UnknownRepositoryError, match=r"^method\.model: model .*no such model"
    ):
        find_folder(gone, "method.model")


WORDS = {
    "README.md": b"A card.",
    "added_tokens.json": b"{}",
    "config.json": b"{}",
    "generation_config.json": b"{}",
    "model.safetensors": b"1",
    "original/tokenizer.model": b"the same in another layout",
    "special_tokens_map.json": b"{}",
    "tokenizer.bin": b"a pickle, perhaps",
    "tokenizer.json": b"{}",
    "tokenizer.model": b"m",
    "tokenizer_config.json": b"{}",
}
"""A model as it is published; of a tokenizer are those below."""

OF_WORDS = {
    "added_tokens.json",
    "config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
}


def test_of_a_tokenizer_no_weights_are_fetched(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = model(hub, WORDS)
    folder = find_tokenizer(asked)
    assert {path.name for path in folder.iterdir()} == OF_WORDS
    assert model_origin(asked, folder)["commit"] == hub.repos["model", "org/model"].head
    before = tokenizer_sha256(folder)
    (folder / "model.safetensors").write_bytes(b"1")  # as if the model were fetched, too
    (folder / "generation_config.json").write_bytes(b"{}")
    assert tokenizer_sha256(folder) == before
    go_offline(monkeypatch)
    hub.asked.clear()
    assert find_tokenizer(asked) == folder
    assert hub.asked == []
    (folder / "added_tokens.json").write_bytes(b"{1}")
    assert tokenizer_sha256(folder) != before


@pytest.mark.parametrize("name", ["gated, no token", "gated, not granted", "token refused", "off"])
def test_every_refusal_of_a_tokenizer_names_its_field(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    asked = model(hub, WORDS, gated=True)
    told = REFUSALS["offline" if name == "off" else name]
    prepare, kind, _ = told
    prepare(hub, monkeypatch)
    with pytest.raises(AccessError) as caught:
        find_tokenizer(asked)
    assert type(caught.value) is kind
    text = str(caught.value)
    assert text.startswith("suite.target.tokenizer: model org/model@main: ")
    assert text.endswith("or give a local folder: suite.target.tokenizer.path=<folder>")


def test_a_model_without_a_tokenizer(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(errors.UnknownPartError, match=r"it has no tokenizer \(tokenizer\.json or"):
        find_tokenizer(model(hub, PARTS))
    assert not any("/resolve/" in path for path in hub.asked)
    with pytest.raises(ModelError, match=r"it has no tokenizer .*suite\.target\.tokenizer\.path="):
        find_tokenizer(ModelSource(path=str(tmp_path)))
    with pytest.raises(ModelError, match=r"no tokenizer folder 'x'; .*suite\.target\.tokenizer\.p"):
        find_tokenizer(ModelSource(path="x"))
    (tmp_path / "tokenizer.json").write_bytes(b"{}")
    right = ModelSource(path=str(tmp_path), sha256=hashlib.sha256(b"{}").hexdigest())
    assert find_tokenizer(right) == tmp_path
    with pytest.raises(ModelError, match=r"tokenizer\.json has SHA-256 44136f.*was changed"):
        find_tokenizer(right.model_copy(update={"sha256": "0" * 64}))


def test_names_that_lead_out_of_the_folder_are_not_followed(hub: Hub, tmp_path: Path) -> None:
    from ilubench.data.hub import listing

    hub.add("dataset", "org/evil", {"../../evil.jsonl": jsonl(ROWS), "/etc/x.jsonl": b""})
    repository = replace(hub_repository(source(), "x"), name="org/evil")
    assert listing(repository).files == {}
    with pytest.raises(errors.UnknownPartError, match="it has no file of rows"):
        rows(hub="org/evil", subset=None)
    assert not list(tmp_path.rglob("evil.jsonl"))


def test_packaged_leads_not_out_over_a_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder beside the package, and a link to it from within."""
    package, theirs = tmp_path / "data", tmp_path / "theirs"
    for folder in (package / "hub", theirs):
        folder.mkdir(parents=True)
    (package / "link").symlink_to(theirs)
    (package / "own").symlink_to(package / "hub")
    monkeypatch.setattr(models, "__file__", str(package / "hub" / "models.py"))
    with pytest.raises(ModelError, match="'link' leads out of the package"):
        model_folder(ModelSource(packaged="link"), "suite.target.model", lambda *_: ())
    inside = model_folder(ModelSource(packaged="own"), "suite.target.model", lambda *_: ())
    assert inside == package / "hub"
