"""One job in several processes: the same row, scored on the way; ends together; what is refused."""

import json
import os
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from doubles import SilentProgress
from rich.console import Console
from runs import SUITE, command, made, samples, target_folder, with_target

from ilubench.errors import JobError, UsageError
from ilubench.experiments.experiment import resolve_experiment
from ilubench.models.configuration import load_config
from ilubench.runs import placing
from ilubench.runs.executors.ranks import Ranks
from ilubench.runs.executors.share import share_machine
from ilubench.runs.folder import run_config
from ilubench.runs.jobs import Job
from ilubench.runs.plan import make_plan
from ilubench.runs.progress import Lines
from ilubench.specs import PluginRef
from ilubench.specs.overrides import parse_words


def test_a_row_in_two_ranks_is_that_of_one_process(tmp_path: Path) -> None:
    out = with_target(made(), tmp_path / "out")
    asked = ("method=ilu", "attacks=gsm8k", "devices_per_job=2", f"out={out}")
    done = command("run", SUITE, *asked)
    assert done.code == 0, done.err
    one, two = samples(made()), samples(out)
    assert len(two) == 10  # two models, each scored, and at 4 checkpoints of its attack
    for name, scored in two.items():
        for mine, theirs in zip(scored, one[name], strict=True):
            assert (mine["item"], mine["metric"]) == (theirs["item"], theirs["metric"])
            assert mine["value"] == pytest.approx(theirs["value"], abs=1e-4)
    (path,) = out.glob("*/results.json")
    record = json.loads(path.read_text())
    assert record["conditions"]["world_size"] == 2
    assert record["failures"] == []


PLUGIN = """
    import os, signal
    from pathlib import Path
    from torch import OutOfMemoryError, distributed
    from ilubench.interfaces import Method
    from ilubench.training.fitting import fit_in_memory

    class Ends(Method):
        shards = True
        how: str
        place: str

        def unlearn(self, model, data, context):
            last, marker = distributed.get_rank() == 1, Path(self.place) / self.how
            seen = marker.exists()
            distributed.barrier()
            marker.touch()
            if last and (self.how == "dies" or (self.how == "dies once" and not seen)):
                os.kill(os.getpid(), signal.SIGKILL)
            if last and self.how == "raises":
                raise RuntimeError("a plugin's own error")

            def step():
                if context.room.micro(None, 8) > 2 and last:
                    raise OutOfMemoryError
                distributed.barrier()

            if self.how == "is large":
                fit_in_memory(step, context, "a step")
                (Path(self.place) / f"limit {context.room.limit}").touch()
            distributed.barrier()
            return model
"""


@pytest.fixture
def ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ranks]:
    monkeypatch.chdir(tmp_path)
    Path("ends.py").write_text(textwrap.dedent(PLUGIN))
    target = f"suite.target.model.path={target_folder(made())}"
    experiment = resolve_experiment(parse_words([SUITE, target, "method=npo", "attacks=none"]))
    made_ranks = Ranks(run_config(experiment), 2, "cpu", tmp_path / "ranks")
    yield made_ranks
    made_ranks.close()


def carry_out(ranks: Ranks, how: str) -> None:
    method = PluginRef(use="./ends.py:Ends", settings={"how": how, "place": str(Path.cwd())})
    job = Job(stage="unlearn", key=how.replace(" ", "-"), label=how, method=method)
    ranks.carry_out(job, SilentProgress())


def test_ranks_live_and_die_together(ranks: Ranks) -> None:
    carry_out(ranks, "dies once")  # and is tried once more
    processes = [process for process, _ in ranks._running]
    with pytest.raises(RuntimeError, match="a plugin's own error") as caught:
        carry_out(ranks, "raises")
    assert "ends.py" in caught.value.__notes__[0]
    assert not any(process.is_alive() for process in processes)


@pytest.mark.slow
def test_a_rank_that_dies_again_fails_the_job(ranks: Ranks) -> None:
    with pytest.raises(JobError, match=r"one of its 2 processes ended with signal 9 .*, 2 times"):
        carry_out(ranks, "dies")


@pytest.mark.slow
def test_what_does_not_fit_on_one_rank_is_begun_again_on_all(ranks: Ranks) -> None:
    carry_out(ranks, "is large")
    assert Path("limit 2").exists()  # 8 did not fit on one of them, nor 4


def test_ranks_end_when_nobody_asks_any_more(ranks: Ranks) -> None:
    carry_out(ranks, "is fine")
    for _, connection in ranks._running:
        connection.close()  # as if this process were gone
    deadline = time.monotonic() + 5
    for process, _ in ranks._running:
        process.join(max(0.0, deadline - time.monotonic()))
        assert process.exitcode == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("method=tar",), "TAR does not train a model that is divided"),
        (("method=ilu", "method.base=elm"), "ELM does not train a model that is divided"),
        (("method=ilu", "method.predictor=params"), "method.predictor"),
        (("method=ilu", "method.estimator=split"), "method.estimator"),
        (("method=npo", "method.retain=kl"), "method.retain"),
        (("memory.moments=float8",), "memory.moments"),
        (("device=cuda",), "device=cuda"),
        (("devices_per_job=0",), "devices_per_job: must be at least 1"),
        (("devices_per_job=two",), "devices_per_job: must be a whole number"),
    ],
)
def test_what_does_not_go_with_several_devices_is_refused_before_any_job(
    tmp_path: Path, words: tuple[str, ...], told: str
) -> None:
    several = () if "devices_per_job" in words[0] else ("devices_per_job=2",)
    done = command("run", SUITE, *several, *words, f"out={tmp_path / 'out'}")
    assert done.code == 2
    assert told in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_clusters_gpus_need_not_be_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    slots = object()
    monkeypatch.setattr(placing, "_on_slurm", lambda *_: slots)
    words = ["method=npo", "devices_per_job=2", "executor=slurm", "slurm.gpus=2"]
    out = with_target(made(), tmp_path / "out")
    plan = make_plan(resolve_experiment(parse_words([SUITE, *words, f"out={out}"])))
    assert plan.bench.device == "cuda"
    assert placing.place_jobs(plan, Lines(Console()))[1] is slots


def test_each_worker_has_as_many_gpus_as_a_job_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = load_config(target_folder(made()))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3,4")
    both = share_machine("auto", "cuda", tiny, 9, 2)
    assert both.workers == 2
    given = [both.environment(n)["CUDA_VISIBLE_DEVICES"] for n in range(2)]
    assert given == ["0,1", "2,3"]
    with pytest.raises(UsageError, match="5 GPUs for workers=3"):
        share_machine(3, "cuda", tiny, 9, 2)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert share_machine(2, "cpu", tiny, 9, 2).threads == 4  # of which each rank takes its part
