"""Verification: prediction intervals, weights attacked again, methods run again on their own."""

import base64
import hashlib
import http.server
import importlib
import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import yaml
from architectures import make_model
from doubles import SilentProgress, differing, weights
from finished_runs import Told, write_run
from quick_board import FRESH, altered, board, edited, measured, published, quick_suite, store_copy
from runs import Outcome, command
from scipy import special, stats

import ilubench
from ilubench.errors import (
    AccessError,
    DataError,
    JobError,
    ModelError,
    PluginError,
    StoreError,
    UsageError,
)
from ilubench.experiments.experiment import Experiment, resolve_experiment
from ilubench.leaderboard.records.files import read_entry
from ilubench.leaderboard.records.models import Package, Weights
from ilubench.leaderboard.records.prediction import NUMERICS, Sides, compare_runs, compare_scores
from ilubench.leaderboard.verify.download import fetch_weights, find_weights
from ilubench.leaderboard.verify.given_weights import weights_like
from ilubench.leaderboard.verify.isolation import (
    NAMESPACES,
    PYTHON,
    Cell,
    hidden_places,
    namespaces,
    unlearn_apart,
)
from ilubench.leaderboard.verify.package import check_provided
from ilubench.leaderboard.verify.verify import fresh_seeds
from ilubench.records.finished import read_run
from ilubench.runs.stages.keys import unlearn_key
from ilubench.runs.stages.workbench import make_bench
from ilubench.specs.overrides import parse_words
from ilubench.statistics.intervals import Array, Samples
from ilubench.statistics.row import Chances, Course, MethodRuns

ITEMS = 24
LABELS = ("A", "B", "C")
STEPS = (0, 4, 8, 16)
ATTACKS = ("one", "two", "three")


def drawn(mean: Array, seeds: int, rng: np.random.Generator) -> Array:
    """Scores of 0 and 1 [S, I] whose chance has an effect of the seed and of seed x item."""
    seed = 0.5 * rng.normal(size=(seeds, 1)) + 0.3 * rng.normal(size=(seeds, ITEMS))
    scores: Array = (rng.random((seeds, ITEMS)) < special.expit(mean + seed)).astype(np.float64)
    return scores


def side(seeds: range, items: Array, rng: np.random.Generator, better: float = 0.0) -> MethodRuns:
    """A model's runs; ``better`` is added to every score of the forget metric."""
    names = tuple(f"i{k}" for k in range(ITEMS))
    count = len(seeds)

    def table(mean: Array, more: float = 0.0) -> Samples:
        return Samples(drawn(mean, count, rng) + more, tuple(seeds), names)

    useful = (table(items + 2),)
    before = table(items + 1.5, better)
    courses = tuple(
        Course(
            attack=attack,
            steps=STEPS,
            forget=(before, *(table(items + 1 - 0.3 * k, better) for k in range(3))),
            utility=(useful, *((table(items + 2),) for _ in STEPS[1:])),
            fa=None,
            quartile_steps=STEPS[1:],
            total_steps=STEPS[-1],
        )
        for attack in ATTACKS
    )
    return MethodRuns(before, useful, courses)


def pair(seeds: tuple[int, int], noise: int, better: float = 0.0) -> list[Sides]:
    """Three metrics of a row, submitted with ``better``, and measured again."""
    rng = np.random.default_rng(noise)
    found = []
    for label in LABELS:
        items = rng.normal(size=ITEMS)
        one = side(range(seeds[0]), items, rng, better)
        other = side(range(100, 100 + seeds[1]), items, rng)
        found.append(
            Sides(label, one, other, Chances(0.0, (0.25,)), ATTACKS[:2], ((0.9, 0.9),), ("U",))
        )
    return found


def disputed(seeds: tuple[int, int], times: int, better: float = 0.0) -> float:
    """The share of verifications in which a figure's interval excludes 0."""
    found = (compare_scores(pair(seeds, noise, better)) for noise in range(times))
    return sum(any(one.disputed for one in each) for each in found) / times


# ------------------------------------------------------------------------------- the intervals


def test_an_interval_is_student_s_at_bonferroni_s_level() -> None:
    sides = pair((4, 3), 7)[:1]
    found = compare_scores(sides)
    assert [one.figure.partition(":")[0] for one in found] == [
        "after unlearning",
        "RA_core",
        "worst case",
        "utility kept",
    ]
    means = [
        runs.unlearned_forget.values.mean(axis=1)
        for runs in (sides[0].submitted, sides[0].verified)
    ]
    test = stats.ttest_ind(means[1], means[0], equal_var=True)
    ends = test.confidence_interval(1 - 0.05 / 4)
    assert (found[0].low, found[0].high) == pytest.approx((ends.low, ends.high))
    assert found[0].verified - found[0].submitted == pytest.approx(
        means[1].mean() - means[0].mean()
    )


def test_the_worst_case_is_where_both_sides_together_are_worst() -> None:
    sides = pair((4, 3), 7)[0]
    (worst,) = [one for one in compare_scores([sides]) if one.figure.startswith("worst case")]
    pooled = {
        f"worst case: {one.attack}, step {one.steps[k]}": np.concatenate(
            [one.forget[k].values.mean(axis=1), other.forget[k].values.mean(axis=1)]
        ).mean()
        for one, other in zip(sides.submitted.courses, sides.verified.courses, strict=True)
        for k in range(1, len(STEPS))
        if kept(one, other, k)
    }
    assert worst.figure == min(pooled, key=lambda name: pooled[name])


def kept(one: Course, other: Course, k: int) -> bool:
    now, before = (
        np.concatenate(
            [course.utility[at][0].values.mean(axis=1) for course in (one, other)]
        ).mean()
        for at in (k, 0)
    )
    return bool(now - 0.25 >= 0.9 * (before - 0.25))


def test_honest_rows_are_disputed_seldom_and_exaggerated_ones_found() -> None:
    assert disputed((10, 5), 120) <= 0.12  # of 5 %, 120 draws give more in 1 of 1,000
    assert disputed((10, 5), 20, better=0.2) >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [(10, 5), (5, 5), (5, 2)])
def test_honest_rows_are_disputed_in_five_percent_at_most(seeds: tuple[int, int]) -> None:
    assert 0.01 <= disputed(seeds, 1500) <= 0.065


def test_a_model_without_randomness_may_differ_by_what_machines_do() -> None:
    sides = pair((4, 3), 7)[0]

    def once(runs: MethodRuns, value: float) -> MethodRuns:
        table = Samples(np.full((1, ITEMS), value), (0,), runs.unlearned_forget.items)
        return MethodRuns(table, runs.unlearned_utility, runs.courses)

    def first(other: float) -> bool:
        changed = Sides(
            **{
                **vars(sides),
                "submitted": once(sides.submitted, 0.5),
                "verified": once(sides.verified, other),
            }
        )
        return compare_scores([changed])[0].disputed

    assert not first(0.5 - 0.9 * NUMERICS)
    assert first(0.5 - 1.1 * NUMERICS)


@pytest.mark.parametrize(
    ("other", "error", "message"),
    [
        (Told(seeds=[7]), DataError, "has 1 seed.*at least 2 on each side"),
        (Told(seeds=[4, 5, 6]), UsageError, "share the seeds 4: a measurement with the same seeds"),
        (Told(seeds=[7, 8], attacks=["core"]), UsageError, "differ in attacks"),
        (Told(seeds=[7, 8], lost=[("core", 8)]), DataError, "FQ is incomplete"),
    ],
)
def test_what_cannot_be_compared(
    tmp_path: Path, other: Told, error: type[Exception], message: str
) -> None:
    submitted = read_run(write_run(tmp_path / "submitted", Told()))
    verified = read_run(write_run(tmp_path / "verified", other))
    with pytest.raises(error, match=message):
        compare_runs(submitted, verified)


def test_runs_are_compared_by_what_rows_are_judged_by(tmp_path: Path) -> None:
    submitted = read_run(write_run(tmp_path / "submitted", Told(noise=3)))
    verified = read_run(
        write_run(tmp_path / "verified", Told(seeds=range(9, 12), end=0.5, noise=4))
    )
    found = {one.figure: one for one in compare_runs(submitted, verified)}
    core, worst = (name for name, one in found.items() if one.disputed)
    assert core == "RA_core"
    assert worst.startswith("worst case: seen, step")
    assert found["RA_core"].submitted == pytest.approx(0.6)
    assert found["RA_core"].verified == pytest.approx(0.5)
    assert found["utility kept"].submitted == pytest.approx(1.0)


def test_fresh_seeds() -> None:
    assert fresh_seeds([0, 1], (100, 101), 5) == (100, 101)
    drawn_seeds = fresh_seeds([0, 1], None, 4)
    assert len(set(drawn_seeds)) == 4
    assert min(drawn_seeds) >= 100_000
    with pytest.raises(UsageError, match="--seeds: 1: seeds of the entry itself"):
        fresh_seeds([0, 1], (1, 2), 5)
    with pytest.raises(
        UsageError, match="1 different of 2; a prediction interval needs at least 2"
    ):
        fresh_seeds([0, 1], (7, 7), 5)


# ------------------------------------------------------------------------------- published weights


def again(path: Path, *words: str, out: Path | None = None) -> Outcome:
    """Verify an entry of the quick suite."""
    place = ("--suite", str(quick_suite()), "--out", str(out or measured()))
    return command("leaderboard", "verify", str(path), *place, *words)


def by_weights(path: Path, *words: str) -> Outcome:
    return again(path, "--weights", str(published()[0]), *words)


def exaggerate(samples: pa.Table) -> pa.Array:
    """A forget metric that is better by 1 for each item, before and after every attack."""
    mine = pc.and_(pc.equal(samples["who"], "method"), pc.equal(samples["scorer"], "forget_nll"))
    return pc.add(samples["value"], pc.cast(mine, pa.float64()))


def green(path: Path) -> bool:
    done = command("leaderboard", "check", str(path.parent.parent))
    assert done.out == "", done.out
    return done.code == 0


def test_an_honest_entry_stays(tmp_path: Path) -> None:
    path = board(tmp_path)
    done = by_weights(path, "--seeds", FRESH, "--by", "Grace")
    assert done.code == 0, done.err
    assert done.out.endswith(
        "npo-1: stays (weights, by Grace, seeds 100, 101, 102); tier verified-weights\n"
    )
    entry = read_entry(path)
    assert (entry.tier, entry.disputed) == ("verified-weights", False)
    (one,) = entry.verifications
    assert (one.by, one.kind, one.seeds) == ("Grace", "weights", (100, 101, 102))
    after = one.comparisons[0]
    assert after.submitted == pytest.approx(after.verified)  # the same weights, scored again
    assert one.comparisons[1].submitted != one.comparisons[1].verified
    assert one.run.method == entry.run.method
    assert str(tmp_path) not in path.read_text()
    assert green(path)


def test_an_exaggerated_entry_is_disputed_and_green_before(tmp_path: Path) -> None:
    path = board(tmp_path)
    altered(path, exaggerate)
    assert green(path)
    done = by_weights(path, "--seeds", FRESH)
    assert done.code == 0, done.err
    assert "npo-1: disputed" in done.out
    entry = read_entry(path)
    assert entry.disputed
    assert [one.figure for one in entry.verifications[0].comparisons if one.disputed][:2] == [
        "after unlearning",
        "RA_core",
    ]
    assert green(path)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--seeds", "2,100"), 2, "--seeds: 2: seeds of the entry itself"),
        (
            ("--seeds", "100..103"),
            2,
            "--seeds: 4, and .* has weights of 3 seeds; give at most so many",
        ),
        (("--seeds", "x..y"), 2, "'x..y' is not a range"),
        (("--method",), 2, "--method makes its own weights; leave out --weights"),
        (("--suite", "mini"), 2, "npo-1.json is of suite quick 1, and at hand is suite mini"),
    ],
)
def test_what_is_refused_before_anything_runs(
    tmp_path: Path, words: tuple[str, ...], code: int, message: str
) -> None:
    path = board(tmp_path)
    before = path.read_bytes()
    done = by_weights(path, *words)
    assert done.code == code
    assert re.search(message, done.err), done.err
    assert path.read_bytes() == before


def test_another_suite_under_the_same_name_is_refused(tmp_path: Path) -> None:
    path = board(tmp_path)
    config = read_entry(path).config
    suite: Any = json.loads(json.dumps(config["suite"]))
    suite["max_length"] = 64
    edited(path, config={**config, "suite": suite})
    done = by_weights(path, "--seeds", FRESH)
    assert done.code == 2
    assert "config.suite.max_length: 64, and in suite quick 1 128" in done.err


def test_weights_are_found_by_hash_alone(tmp_path: Path) -> None:
    folder, wanted = published()
    for place, one in enumerate(reversed(wanted)):
        (tmp_path / str(place)).mkdir()
        shutil.copyfile(
            folder / f"npo-{one.seed}.safetensors", tmp_path / str(place) / "x.safetensors"
        )
    found = find_weights(wanted, tmp_path)
    assert {seed: path.parent.name for seed, path in found.items()} == {0: "2", 1: "1", 2: "0"}
    damaged = found[1]
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\0")
    with pytest.raises(
        ModelError, match=f"no file has the SHA-256 {wanted[1].sha256} of the weights of seed 1"
    ):
        find_weights(wanted, tmp_path)
    with pytest.raises(ModelError, match="no folder"):
        find_weights(wanted, tmp_path / "absent")


def test_weights_that_fit_no_target_fail_and_leave_the_entry(tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    listed = []
    for seed in range(3):
        file = folder / f"{seed}.safetensors"
        file.write_bytes(f"no tensors, seed {seed}".encode())
        sha = hashlib.sha256(file.read_bytes()).hexdigest()
        listed.append({"seed": seed, "sha256": sha, "bytes": file.stat().st_size})
    path = edited(board(tmp_path), weights=listed)
    before = path.read_bytes()
    done = again(path, "--weights", str(folder), "--seeds", FRESH)
    assert done.code == 3
    assert "0.safetensors does not fit the suite's target" in done.err
    assert path.read_bytes() == before


def test_weights_under_other_names_than_the_models(tmp_path: Path) -> None:
    made = make_model("gpt_neox", seed=1)
    made.save_pretrained(tmp_path)
    found = weights_like(make_model("gpt_neox"), tmp_path / "model.safetensors")
    assert not differing(weights(made), weights(found))
    make_model("llama").save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"model\.safetensors does not fit the suite's target: "):
        weights_like(made, tmp_path / "model.safetensors")


# ------------------------------------------------------------------------------- downloads


class _Files(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; `/away/x` leads to plain http."""

    def do_GET(self) -> None:
        if self.path.startswith("/away/"):
            self.send_response(302)
            self.send_header("Location", "http://127.0.0.1:9/file")
            self.end_headers()
        else:
            super().do_GET()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """A folder, and its https address on this machine with a certificate of the moment."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    words = "req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost"
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("no openssl to make a certificate with")
    files = [
        "-keyout",
        str(key),
        "-out",
        str(certificate),
        "-addext",
        "subjectAltName=IP:127.0.0.1",
    ]
    subprocess.run([program, *words.split(), *files], check=True, capture_output=True)
    folder = tmp_path / "served"
    folder.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Files, directory=folder))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield folder, f"https://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def told(content: bytes, url: str, **changes: Any) -> Weights:
    sha = hashlib.sha256(content).hexdigest()
    return Weights(**{"seed": 3, "sha256": sha, "bytes": len(content), "url": url, **changes})


def test_weights_are_downloaded_once_and_checked(tmp_path: Path, served: tuple[Path, str]) -> None:
    folder, address = served
    content = os.urandom(3_000_000)
    (folder / "a").write_bytes(content)
    one, store = told(content, f"{address}/a"), tmp_path / "store"
    found = fetch_weights([one], store)
    assert found[3].read_bytes() == content
    (folder / "a").unlink()
    assert fetch_weights([one], store) == found


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"bytes": 999}, ModelError, "sends more than the record's 999 bytes"),
        ({"bytes": 1001}, ModelError, "gave 1000 bytes with SHA-256"),
        ({"sha256": "0" * 64}, ModelError, "they are not the weights of this entry"),
        ({"url": "/away/a"}, AccessError, "cannot be had from .*; or get the files yourself"),
        ({"url": "/absent"}, AccessError, "cannot be had from .*404"),
    ],
)
def test_a_download_that_is_refused_leaves_nothing(
    tmp_path: Path,
    served: tuple[Path, str],
    changes: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    folder, address = served
    content = os.urandom(1000)
    (folder / "a").write_bytes(content)
    one = told(content, address + changes.pop("url", "/a"), **changes)
    with pytest.raises(error, match=message):
        fetch_weights([one], tmp_path / "store")
    assert not list((tmp_path / "store").iterdir())


def test_offline_and_unpublished_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(AccessError, match=r"seed 3: offline by HF_HUB_OFFLINE.*--weights FOLDER"):
        fetch_weights([told(b"x", "https://127.0.0.1/a")], tmp_path)
    with pytest.raises(AccessError, match=r"not published \(no url in the record\)"):
        fetch_weights([told(b"x", "")], tmp_path)


def test_what_is_run_again_has_the_entry_s_memory_settings(tmp_path: Path) -> None:
    path = board(tmp_path / "boards")
    config: Any = json.loads(json.dumps(read_entry(path).config))
    config["run"]["memory"] = {"moments": "bfloat16", "offload": True}
    edited(path, config=config)
    out = store_copy(tmp_path / "out")
    given = ("--weights", str(published()[0]), "--seeds", FRESH)
    done = again(path, *given, out=out)
    assert done.code == 0, done.err
    (made,) = out.glob("quick-*/config.yaml")
    memory = yaml.safe_load(made.read_text())["run"]["memory"]
    assert (memory["moments"], memory["offload"]) == ("bfloat16", True)
    assert green(path)
    config["run"]["memory"] = {"moments": "float7"}
    edited(path, config=config)
    done = by_weights(path, "--seeds", FRESH)
    assert done.code == 3
    assert "npo-1.json: config: run.memory.moments: Input should be" in done.err


# ------------------------------------------------------------------------------- methods, apart

METHODS = """
import contextlib, json, os, socket
from ilubench.methods.npo import NPO

class Tries(NPO):
    def unlearn(self, model, data, context):
        for attempt in (self.reach, self.peek, self.read, self.generate):
            try:
                attempt()
            except (OSError, ImportError, ValueError):
                continue
            with contextlib.suppress(OSError):
                socket.getaddrinfo(f"{attempt.__name__} worked", 80)
        return model

    def reach(self):
        with socket.socket() as opened:
            opened.settimeout(1)
            opened.connect(("192.0.2.1", 80))

    def peek(self):
        from ilubench.experiments.experiment import resolve
        from ilubench.specs.overrides import parse
        from ilubench.specs import PluginRef
        from ilubench.errors import SpecError
        try:
            made = resolve(parse(["suite=%s"]), method=PluginRef(use="npo"))
        except SpecError as error:
            raise ValueError("refused") from error
        made.tables.rows("forget_mc")

    def read(self):
        open("%s").close()

    def generate(self):
        from ilubench.data.mini.generator import MiniWorld

class Looks(NPO):
    def unlearn(self, model, data, context):
        seen = {
            "variables": sorted(os.environ),
            "home": os.listdir(os.path.expanduser("~")),
            "here": os.listdir(),
            "networks": [name for _, name in socket.if_nameindex()],
            "data": [len(data.forget), len(data.retain), sorted(data.environments)],
            "moments": context.memory.moments,
        }
        raise RuntimeError(json.dumps(seen))
"""


def install(folder: Path, version: str = "1.0") -> Package:
    """Put a package of methods into a folder as pip would."""
    sys.modules.pop("odd_methods", None)  # that of another test lies elsewhere
    importlib.invalidate_caches()
    (folder / "odd_methods").mkdir(parents=True)
    info = folder / f"odd_methods-{version}.dist-info"
    info.mkdir()
    names = ("tries", "looks")
    points = [f"{name} = odd_methods:{name.capitalize()}" for name in names]
    texts = {
        folder / "odd_methods" / "__init__.py": METHODS % (quick_suite(), quick_suite()),
        info / "METADATA": f"Metadata-Version: 2.1\nName: odd-methods\nVersion: {version}\n",
        info / "entry_points.txt": "\n".join(["[ilubench.methods]", *points, ""]),
    }
    lines = []
    for path, text in texts.items():
        path.write_text(text)
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=")
        lines.append(f"{path.relative_to(folder)},sha256={digest.decode()},{len(text)}")
    (info / "RECORD").write_text("\n".join([*lines, f"{info.name}/RECORD,,", ""]))
    return Package(name="odd-methods", version=version, sha256="0" * 64)


def apart(
    use: str, out: Path, command_: tuple[str, ...], package: Path | None = None, *more: str
) -> Experiment:
    """Let a method unlearn on its own, seed 0."""
    words = [f"suite={quick_suite()}", f"method={use}", "seeds=0", f"out={out}", *more]
    experiment = resolve_experiment(parse_words(words))
    cell = Cell(command_, hidden_places(experiment), package)
    unlearn_apart(make_bench(experiment), experiment, 0, cell, SilentProgress())
    return experiment


def test_no_place_lies_in_another_that_is_covered() -> None:
    """A shipped suite's file lies in the folder of tasks, which is covered whole."""
    places = hidden_places(resolve_experiment(parse_words(["suite=mini", "method=npo"])))
    assert any(place.name in ("tasks", "_tasks") for place in places)
    assert any(place.name == "mini" for place in places)
    assert not [one for one in places if set(one.parents) & set(places)]


@pytest.mark.parametrize("gone", ["mini", "generators"])
def test_answers_that_cannot_be_found_cannot_be_hidden(
    gone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package of another layout must not show a verified method the answers."""
    for name in {"mini", "generators"} - {gone}:
        (tmp_path / "data" / name).mkdir(parents=True)
    experiment = resolve_experiment(parse_words(["suite=mini", "method=npo"]))
    monkeypatch.setattr(ilubench, "__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(StoreError, match=f"{gone}: not there, so it cannot be hidden"):
        hidden_places(experiment)


@pytest.fixture(params=["namespaces", "python"])
def walls(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """What holds a method: the system's namespaces, or Python's audit hook alone."""
    if request.param == "python":
        return ()
    found = namespaces()
    if not found:
        pytest.skip("this system allows no namespaces of one's own")
    return found


def test_a_method_unlearns_apart_as_it_does_in_a_run(tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(measured() / "store" / "target", out / "store" / "target")
    experiment = apart("npo", out, ())
    bench = make_bench(experiment)
    key = unlearn_key(bench, experiment.method, 0)
    made, before = (
        place / "store" / "unlearn" / key / "changes.safetensors" for place in (out, measured())
    )
    assert made.read_bytes() == before.read_bytes()
    artifact = bench.store.get("unlearn", key)
    assert artifact is not None
    assert artifact.meta()["isolated"] == PYTHON
    assert not list((out / "isolated").iterdir())


def test_what_a_method_tries_is_refused_and_told(
    tmp_path: Path, walls: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    site, out = tmp_path / "site", tmp_path / "out"
    install(site)
    monkeypatch.syspath_prepend(str(site))
    shutil.copytree(measured() / "store" / "target", out / "store" / "target")
    with pytest.raises(JobError, match="tries, seed 0 tried to reach") as caught:
        apart("tries", out, walls, site)
    for attempt in (
        r"reach \('192.0.2.1', 80\) in the network",
        r"read \S*quick.yaml",
        r"read \S*ilubench/data/mini",
        "which a verified method must do without: it gets the forget set",
    ):
        assert re.search(attempt, str(caught.value)), caught.value
    assert "worked" not in str(caught.value)
    assert not list((out / "store").glob("unlearn/*/DONE"))


def test_what_a_method_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site, out = tmp_path / "site", tmp_path / "out"
    install(site)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    shutil.copytree(measured() / "store" / "target", out / "store" / "target")
    walls = namespaces()
    with pytest.raises(JobError) as caught:
        apart("looks", out, walls, site, "memory.moments=float8")
    seen = json.loads(str(caught.value).partition("RuntimeError: ")[2])
    assert "HF_TOKEN" not in seen["variables"]
    assert "OMP_NUM_THREADS" in seen["variables"]
    assert seen["here"] == []
    assert set(seen["home"]) <= {"hf", "cache"}
    assert seen["data"] == [8, 8, []]
    assert seen["moments"] == "float8"
    if walls:
        assert seen["networks"] == ["lo"]


def test_weights_from_outside_are_not_taken_for_a_method_s_own(tmp_path: Path) -> None:
    out = store_copy(tmp_path / "out")
    words = [f"suite={quick_suite()}", "method=npo", "seeds=0", f"out={out}"]
    experiment = resolve_experiment(parse_words(words))
    with pytest.raises(StoreError, match=r"outside of the verification; .* --out FOLDER"):
        unlearn_apart(make_bench(experiment), experiment, 0, Cell((), ()), SilentProgress())


def test_a_method_is_run_again(tmp_path: Path) -> None:
    path = board(tmp_path)
    done = again(path, "--method", "--seeds", "200,201", "--by", "Grace")
    assert done.code == 0, done.err
    assert "npo-1: stays (method, by Grace, seeds 200, 201); tier verified-method" in done.out
    (one,) = read_entry(path).verifications
    held = NAMESPACES if namespaces() else PYTHON
    assert f"unlearned again, {held}" in one.run.notes
    assert one.run.cost["steps"] == 3
    assert green(path)


# ------------------------------------------------------------------------------- packages


def test_a_package_must_be_the_one_that_was_pinned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = install(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert check_provided("tries", package) == tmp_path
    assert check_provided("npo", None) is None
    for use, pinned, message in (
        ("tries", None, "'tries' is to come from ilubench, and comes from odd-methods 1.0"),
        ("npo", package, "'npo' is to come from odd-methods, and comes from ilubench"),
        ("absent", package, "comes from no installed package; install odd-methods==1.0"),
        ("./mine.py:Mine", package, "is a file; only an installed package"),
        ("tries", package.model_copy(update={"version": "1.1"}), "1.0 is installed; .* pins 1.1"),
    ):
        with pytest.raises(PluginError, match=message):
            check_provided(use, pinned)


def test_a_package_must_be_as_it_was_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = install(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    code = tmp_path / "odd_methods" / "__init__.py"
    added = code.with_name("more.py")
    added.write_text("")
    with pytest.raises(PluginError, match=r"more\.py was added to the package"):
        check_provided("tries", package)
    added.unlink()
    url = tmp_path / "odd_methods-1.0.dist-info" / "direct_url.json"
    url.write_text(json.dumps({"url": "x", "archive_info": {"hashes": {"sha256": "1" * 64}}}))
    with pytest.raises(PluginError, match=f"archive with SHA-256 {'1' * 64}; the record pins 0000"):
        check_provided("tries", package)
    url.unlink()
    code.write_text(code.read_text() + "# changed")
    with pytest.raises(PluginError, match=r"__init__\.py is not as it was installed"):
        check_provided("tries", package)


def test_a_method_of_another_version_is_not_run_again(tmp_path: Path) -> None:
    path = board(tmp_path)
    entry = read_entry(path)
    run = entry.run.model_dump(mode="json")
    run["method_version"] = 2
    path = edited(path, entry="npo-2", run=run)
    done = again(path, "--method", "--seeds", FRESH)
    assert done.code == 2
    assert "run.method_version: 2, and version 1 of npo is installed" in done.err
