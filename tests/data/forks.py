"""Run the command line in forked copies of a warm process, and kill them at chosen moments.

Reads a JSON list of scenarios from stdin, writes what became of each to stdout. A scenario has
`words` and `out`, and one of
    kills      so many times kill -9 at a random file operation below `out`, one attempt after the
               other; the run of `like`, an earlier scenario's `out`, tells how many there are
    delays     kill -9 after so many seconds, one attempt after the other
    together   how many processes start at once, unharmed
The scenario ends when an attempt lives to its end (a last one is left alone).
"""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

FILE_OPERATIONS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link")


def warm() -> None:
    import datasets  # noqa: F401
    import lm_eval.evaluator  # noqa: F401
    import torch
    from transformers import AutoModelForCausalLM, LlamaForCausalLM  # noqa: F401

    import ilubench.methods.ilu
    import ilubench.reports.run_report
    import ilubench.runs.pipeline
    import ilubench.scoring.scorers.lm_eval  # noqa: F401

    torch.set_num_threads(1)


def die_at(event: int, out: str) -> Callable[[], int]:
    """Kill this process at its nth file operation below ``out``; return the count so far."""
    seen = 0

    def hook(name: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if name in FILE_OPERATIONS and str(arguments[0]).startswith(out):
            seen += 1
            if seen == event:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    return lambda: seen


def start(scenario: Mapping[str, Any], event: int) -> int:
    child = os.fork()
    if child:
        return child
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115
    from ilubench.cli import app
    from ilubench.cli.guard import guarded

    count = die_at(event, scenario["out"])
    code = guarded(lambda: app(scenario["words"], standalone_mode=False))
    if event == 0:
        with open(scenario["out"] + ".count", "w") as file:  # noqa: PTH123
            file.write(str(count()))
    os._exit(code)


def end(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def play(scenario: Mapping[str, Any]) -> list[int]:
    if "together" in scenario:
        children = [start(scenario, -1) for _ in range(scenario["together"])]
        return [end(child) for child in children]
    codes = []
    if "kills" in scenario:
        with open(scenario["like"] + ".count") as file:  # noqa: PTH123
            most = int(file.read()) // scenario["kills"]
        rng = random.Random(scenario["seed"])
        for _ in range(scenario["kills"]):
            codes.append(end(start(scenario, rng.randrange(1, most))))
    for delay in scenario.get("delays", ()):
        child = start(scenario, -1)
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
        codes.append(end(child))
    codes.append(end(start(scenario, 0)))
    return codes


if __name__ == "__main__":
    warm()
    print(json.dumps([play(scenario) for scenario in json.load(sys.stdin)]))
