"""Wrong input of every kind: each ends in a sentence or a result, soon and in little memory.

Lost is what ends in a crash (exit 5), takes more than 5 s of a processor, or more than 1 GB.
"""

import contextlib
import copy
import csv
import functools
import gzip
import io
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from doubles import make_tokenizer, tiny_llama
from finished_runs import Told, write_run
from places import FIXTURES

from ilubench.cli import app
from ilubench.cli.guard import guarded
from ilubench.cli.words import grid_of
from ilubench.data.rows import Tables
from ilubench.experiments.experiment import restore_experiment
from ilubench.models.folder import check_folder
from ilubench.models.tokenizers import check_vocabulary, load_tokenizer
from ilubench.scoring.scorers.task_files import task_facts
from ilubench.specs import DataSource
from ilubench.specs.yaml_files import load_yaml, tasks_folder
from leaderboards import tiny_board

SECONDS, BYTES = 5.0, 1_000_000_000

Draw = random.Random
Call = Callable[[], object]

DEEP: Any = functools.reduce(lambda inner, _: [inner], range(100), cast("Any", 0))
ODD: tuple[Any, ...] = (
    *(None, "", " ", True, 0, -1, 1.5, 1e308, -1e-308, 2**63, -(2**63), 10**30, 10**400),
    *("0123", "1e400", "-1", "nan", "inf", "NaN", "none", "null", "~", "=", "0x1F", "1:30", "²"),
    *("{", "}", "{0}", "{x}", "{x.y}", "{x[0]}", "{{", "{!r}", "{:>9999999999}", "%s", "$(x)"),
    *("..", "../..", "/", "/dev/zero", "/dev/null", "/proc/self/mem", "a/b", "~/x", "C:\\x", "."),
    *("a" * 300, "a" * 100_000, "9" * 5000, "\x00", "\x1b[31m", "\u202e", "é", "🎉", "\ud800"),
    *("1e400", "1" * 19, "2024-13-45", "[1", "[[[[", "&a", "*a", "!!python/none x", "<<", "- x"),
    *([], {}, [[]], [None], {"": ""}, {"a": {"a": {"a": 1}}}, [1, "a", None], {"use": None}),
    *("0..100000000000", "5..1", "0,0,0", ",", ",,", "a,b", "npo,npo", "File.py:X", "./no.py:X"),
    DEEP,
    float("nan"),
    float("inf"),
)
"""Values that something may take for another thing than it is."""


# --- mutations ---


def places_in(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the paths of all that lies in a tree."""
    parts = value.items() if isinstance(value, dict) else enumerate(value)
    for key, below in parts:
        yield (*path, key)
        if isinstance(below, dict | list):
            yield from places_in(below, (*path, key))


def odd_tree(draw: Draw, value: Any) -> Any:
    """Return a tree in which a few values are odd, gone, or elsewhere."""
    tree = copy.deepcopy(value)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        found = list(places_in(tree))
        if not found:
            return draw.choice(ODD)
        *above, key = draw.choice(found)
        holder = functools.reduce(lambda inner, part: inner[part], above, tree)
        action = draw.randrange(5)
        if action == 0:
            del holder[key]
        elif action == 1 and isinstance(holder, dict):
            holder[str(draw.choice(ODD))[:200]] = holder.pop(key)
        elif action == 2:
            *other, last = draw.choice(found)
            taken = functools.reduce(lambda inner, part: inner[part], other, tree)[last]
            holder[key] = copy.deepcopy(taken)
        else:
            holder[key] = copy.deepcopy(draw.choice(ODD))
    return tree


def odd_bytes(draw: Draw, content: bytes) -> bytes:
    """Return content with a few bytes changed, cut, repeated or put in."""
    for _ in range(draw.choice((1, 1, 2, 5))):
        at = draw.randrange(len(content) + 1)
        end = min(len(content), at + draw.choice((1, 3, 40, 1000)))
        piece = draw.choice(
            (
                b"",
                bytes([draw.randrange(256)]),
                content[at:end] * draw.choice((2, 50)),
                str(draw.choice(ODD)).encode("utf-8", "surrogatepass"),
                b"[" * draw.choice((10, 3000)),
                b"\xff\xfe",
            )
        )
        content = content[:at] + piece + content[end if draw.random() < 0.7 else at :]
        if draw.random() < 0.1:
            content = content[: draw.randrange(len(content) + 1)]
    return content[:2_000_000]


def odd_json(draw: Draw, content: bytes) -> bytes:
    """Return a JSON file's content, its text or its tree made odd."""
    if draw.random() < 0.3:
        return odd_bytes(draw, content)
    return json.dumps(odd_tree(draw, json.loads(content))).encode()


def odd_yaml(draw: Draw, content: bytes) -> bytes:
    """Return a YAML file's content, its text or its tree made odd."""
    if draw.random() < 0.3:
        return odd_bytes(draw, content)
    tree = odd_tree(draw, yaml.safe_load(content))
    with contextlib.suppress(ValueError):  # 10**400 has too many digits for some
        return yaml.safe_dump(tree, sort_keys=False).encode("utf-8", "replace")
    return repr(tree).encode("utf-8", "replace")


def odd_parquet(draw: Draw, content: bytes) -> bytes:
    """Return a Parquet file's content, its bytes or its columns made odd."""
    if draw.random() < 0.4:
        return odd_bytes(draw, content)
    table = pq.read_table(io.BytesIO(content))
    name = draw.choice(table.column_names)
    odd = draw.choice(ODD[:40])
    values = [odd if draw.random() < 0.2 else one for one in table[name].to_pylist()]
    with contextlib.suppress(pa.ArrowException, OverflowError, UnicodeEncodeError, TypeError):
        place = table.column_names.index(name)
        kind = table.schema.field(name).type if draw.random() < 0.6 else None
        table = table.set_column(place, name, [pa.array(values, kind)])
    if draw.random() < 0.2:
        table = table.drop_columns([draw.choice(table.column_names)])
    if draw.random() < 0.2:
        table = table.slice(0, draw.randrange(3))
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()


def odd_file(draw: Draw, path: Path) -> None:
    """Make one file odd, by its ending; now and then it is gone, empty, a folder or a device."""
    content, fate = path.read_bytes(), draw.random()
    if fate < 0.06:
        path.unlink()
        if fate < 0.01:
            path.mkdir()
        elif fate < 0.02:
            path.symlink_to("/dev/zero")
        elif fate < 0.03:
            path.symlink_to(path.name)
        elif fate < 0.04:
            os.mkfifo(path)
        return
    if path.name == "rows.json":  # lines
        path.write_bytes(odd_bytes(draw, content))
        return
    kinds = {".json": odd_json, ".yaml": odd_yaml, ".parquet": odd_parquet}
    path.write_bytes(kinds.get(path.suffix, odd_bytes)(draw, content))


# --- kinds of input: (randomness, folder) -> what a command does with it ---


def command(*words: str) -> Call:
    return lambda: app(list(words), standalone_mode=False)


def suites(draw: Draw, folder: Path) -> Call:
    """A shipped suite or attack, mutated and resolved."""
    files = [FIXTURES / "tiny.yaml", *sorted(tasks_folder().glob("*/*.yaml"))]
    path = folder / "own.yaml"
    source = draw.choice(files)
    path.write_bytes(source.read_bytes())
    odd_file(draw, path)
    if source.parent.name == "attacks":
        return lambda: grid_of(["method=npo", "suite=mini", f"attacks={path}"], None)
    return lambda: grid_of(["method=npo", f"suite={path}"], None)


def words(draw: Draw, folder: Path) -> Call:
    """Words of the command line."""
    del folder
    keys = [
        *("method", "suite", "attacks", "seeds", "out", "engine", "workers", "keep", "job_timeout"),
        *("method.beta", "method.train.lr", "method.train.steps", "attack.train.epochs"),
        *("attack.fractions", "attack.gsm8k.train.steps", "suite.max_length", "suite.score_batch"),
        *("suite.scorers.retain_mc.settings.limit", "data.forget_mc", "data.forget_mc.limit"),
        *("data.gsm8k.eval", "data.forget_mc.prompt", "suite.target.recipe.config.hidden_size"),
        *("suite.target.recipe.config.x", "suite.target.model.packaged", "suite.utility"),
        *("suite.methods.npo.beta", "suite.generators.mini.settings.seed", "data.x.y.z", "memory"),
    ]
    given = [f"suite={FIXTURES / 'tiny.yaml'}", "method=npo"]
    for _ in range(draw.choice((1, 1, 2, 3))):
        key, value = draw.choice(keys), draw.choice(ODD)
        word = f"{key}={'9' * 401 if value == 10**400 else value}"
        if draw.random() < 0.1:
            word = odd_bytes(draw, word.encode("utf-8", "replace")).decode("utf-8", "replace")
        given = [*(old for old in given if not word.startswith(old.split("=")[0] + "=")), word]
    return lambda: grid_of(given, None)


def config_files(draw: Draw, folder: Path) -> Call:
    """A file of words."""
    path = folder / "words.yaml"
    told = {
        "suite": str(FIXTURES / "tiny.yaml"),
        "method": "npo",
        "attacks": ["gsm8k", "agnews"],
        "seeds": "0..2",
        "method.train.steps": 3,
        "data": {"forget_mc": {"limit": 4, "revision": "0123"}},
        "attack": {"train": {"lr": 1e-3, "steps": 4}, "fractions": [0.5, 1.0]},
        "out": "runs",
    }
    path.write_text(yaml.safe_dump(told))
    odd_file(draw, path)
    return lambda: grid_of(None, path)


def runs(draw: Draw, folder: Path) -> Call:
    """A finished run's folder, as a stranger may send it."""
    place = folder / "run"
    shutil.copytree(_run(), place)
    odd_file(draw, draw.choice([path for path in sorted(place.iterdir()) if path.is_file()]))
    asked = draw.choice(
        (
            ("table", str(place)),
            ("show", str(place)),
            ("show", str(place), "--details"),
            ("compare", str(place), str(_run())),
            ("watch", str(place), "--once"),
            ("report", str(place), "--out", str(folder / "page.html")),
            ("gates", str(place)),
            ("ls", "runs", str(folder)),
        )
    )
    return command(*asked)


def restored(draw: Draw, folder: Path) -> Call:
    """A planned run's configuration."""
    path = folder / "config.yaml"
    path.write_bytes(_config())
    odd_file(draw, path)
    return lambda: restore_experiment(load_yaml(path), path)


def boards(draw: Draw, folder: Path) -> Call:
    """A leaderboard with one odd file."""
    root = folder / "leaderboards"
    shutil.copytree(_board(), root)
    files = [path for path in sorted(root.rglob("*")) if path.is_file()]
    odd_file(draw, draw.choice(files))
    return command("leaderboard", "check", str(root))


def rows(draw: Draw, folder: Path) -> Call:
    """A file of rows, read and written into prompts."""
    asked = [
        {
            "id": n,
            "question": f"Who is {n}?",
            "answer": "she",
            "choices": ["a", "b"],
            "label": n % 2,
        }
        for n in range(6)
    ]
    table = odd_tree(draw, asked)
    kind = draw.choice(("jsonl", "json", "csv", "tsv", "parquet", "jsonl.gz"))
    path = folder / f"rows.{kind}"
    lines = table if isinstance(table, list) else asked
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    if kind in ("csv", "tsv"):
        text = io.StringIO()
        writer = csv.writer(text, delimiter="," if kind == "csv" else "\t")
        writer.writerow(asked[0])
        writer.writerows(row.values() if isinstance(row, dict) else [row] for row in lines)
        content = text.getvalue().encode("utf-8", "replace")
    elif kind == "parquet":
        out = io.BytesIO()
        try:
            pq.write_table(pa.Table.from_pylist(lines), out)
        except (pa.ArrowException, AttributeError, OverflowError, TypeError, ValueError):
            pq.write_table(pa.Table.from_pylist(asked), out)
        content = out.getvalue()
    elif kind.endswith("gz"):
        content = gzip.compress(content)
    path.write_bytes(content)
    if draw.random() < 0.5:
        odd_file(draw, path)
    template = draw.choice(("{question}", "{choices[0]}", "{label}", "{answer.x}", "{id!r:>9}"))
    label = {"label": ("no", "yes")} if draw.random() < 0.3 else {}

    def read() -> None:
        from ilubench.data.rows import render_pair

        source = DataSource(path=str(path), prompt=template, completion=" {answer}", labels=label)
        tables = Tables({"role": source}, {}, lambda spec: None)  # type: ignore[arg-type,return-value]
        for row in tables.rows("role"):
            render_pair(row, source, "role")
        tables.fingerprint("role")

    return read


def models(draw: Draw, folder: Path) -> Call:
    """A checkpoint's folder."""
    place = folder / "model"
    shutil.copytree(_model(), place)
    odd_file(draw, draw.choice(sorted(place.iterdir())))

    def read() -> None:
        config = check_folder(place)
        check_vocabulary(load_tokenizer(place), config, place)

    return read


def task_yaml(draw: Draw, folder: Path) -> Call:
    """A task file of lm-eval's form."""
    path = folder / "own.yaml"
    told = {
        "task": "own",
        "dataset_path": "json",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": ["a", "b"],
        "doc_to_target": "label",
        "num_fewshot": 0,
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        "include": None,
        "metadata": {"version": 1.0},
    }
    path.write_text(yaml.safe_dump(told))
    odd_file(draw, path)
    return lambda: task_facts(str(path))


KINDS: dict[str, tuple[Callable[[Draw, Path], Call], int]] = {
    "suites": (suites, 5),
    "words": (words, 6),
    "config_files": (config_files, 4),
    "rows": (rows, 6),
    "restored": (restored, 2),
    "task_yaml": (task_yaml, 2),
    "runs": (runs, 2),
    "models": (models, 2),
    "boards": (boards, 1),
}
"""Kind -> what makes a case of it, and its share."""


# --- what cases start from, made once ---


@functools.cache
def _kept() -> Path:
    kept = tempfile.TemporaryDirectory(prefix="ilubench-fuzz-")
    _OPEN.append(kept)
    return Path(kept.name)


_OPEN: list[tempfile.TemporaryDirectory[str]] = []


@functools.cache
def _run() -> Path:
    folder = write_run(_kept() / "run", Told(seeds=(0, 1)))
    (folder / "env.json").write_text('{"libraries": {"torch": "2"}, "platform": "x"}')
    (folder / "status.json").write_text('{"ended": 3, "jobs": 9}')
    (folder / "plan.json").write_text('{"run": "a", "folder": ".", "jobs": []}')
    return folder


@functools.cache
def _config() -> bytes:
    from ilubench.runs.folder import run_config
    from ilubench.specs.yaml_text import write_yaml

    (found,) = grid_of([f"suite={FIXTURES / 'tiny.yaml'}", "method=npo"], None)
    return write_yaml(run_config(found)).encode()


@functools.cache
def _board() -> Path:
    tiny_board(_kept() / "leaderboards")
    return _kept() / "leaderboards"


@functools.cache
def _model() -> Path:
    folder = _kept() / "model"
    tokenizer = make_tokenizer()
    tiny_llama(len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


# --- a trial ---


class HangError(BaseException):
    """A case took longer than it may."""


def trial(draw: Draw, _: object, folder: Path) -> int:
    """Give a command something wrong, of a kind drawn by the kinds' shares."""
    prepare()
    kind = draw.choices(list(KINDS), [share for _, share in KINDS.values()])[0]
    wrong, said = carry_out(kind, draw, folder)
    assert not wrong, f"{kind}: {wrong}: {said.strip()[-300:]}"
    return 1


@functools.cache
def prepare() -> None:
    """Make what cases start from, so that no case's time and memory is spent on it."""
    for kind in KINDS:
        with tempfile.TemporaryDirectory(prefix="ilubench-fuzz-") as place:
            carry_out(kind, Draw(0), Path(place))


def carry_out(kind: str, draw: Draw, folder: Path) -> tuple[str, str]:
    """Return what is wrong with how a case ends, empty where nothing is; and what was said."""
    said, before = io.StringIO(), Path.cwd()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    os.chdir(folder)
    try:
        call = KINDS[kind][0](draw, folder)
        signal.signal(signal.SIGPROF, _stop)
        signal.signal(signal.SIGALRM, _stop)
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            signal.setitimer(signal.ITIMER_PROF, SECONDS)  # of a processor: others may be busy
            signal.setitimer(signal.ITIMER_REAL, 20 * SECONDS)
            code = guarded(call)
    except HangError:
        return "hangs", said.getvalue()
    except BaseException as error:  # noqa: BLE001 - nothing may pass
        return f"raises {type(error).__name__}", said.getvalue()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        os.chdir(before)
    more = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory)
    *_, last = said.getvalue().splitlines() or [""]
    wrong = {
        "crashes": code == 5,
        "blows up": more > BYTES,
        "says nothing": code in (2, 3) and not last,
        "says too much": len(last) > 600,
        "speaks of libraries": "validation error" in last or "Traceback" in said.getvalue(),
    }
    return next((name for name, found in wrong.items() if found), ""), said.getvalue()


def _stop(*_: object) -> None:
    raise HangError
