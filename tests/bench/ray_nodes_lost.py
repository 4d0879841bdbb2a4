"""A run on several Ray nodes of this machine, of which some are killed, against one process.

python tests/bench/ray_nodes_lost.py [NODES]     (with tests/support and this folder on PYTHONPATH)

Prints jobs, kills, wall times and efficiency: serial seconds on one core, over seconds of the run
times the cores that it could use. Nodes share the machine: with more nodes than cores, it is the
cores that count.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

from ray_nodes import Kills, nodes
from runs import SUITE, command, made, rows, samples, target_folder, weights

WORDS = (SUITE, "method=npo", "seeds=0..4", "attacks=gsm8k,agnews", "attack.train.steps=150")

KILLS = {5: "worker", 9: "node", 14: "node"}
"""At which number of artifacts what is killed."""


def main(count: int) -> None:
    words = ("run", *WORDS, f"suite.target.model.path={target_folder(made())}")
    out = Path(tempfile.mkdtemp(prefix="ray-nodes-"))
    cores = min(count, len(os.sched_getaffinity(0)))
    with nodes(count) as cluster:
        kills = Kills(out / "ray" / "store", cluster, at=KILLS)
        kills.start()
        place = (f"ray.address={cluster.address}", f"out={out / 'ray'}")
        began = time.monotonic()
        done = command(*words, "executor=ray", *place)
        wall = time.monotonic() - began
        kills.ended = True
    print(done.err)
    assert done.code == 0
    began = time.monotonic()
    assert command(*words, f"out={out / 'serial'}").code == 0
    serial = time.monotonic() - began
    one, two = out / "serial", out / "ray"
    record, jobs, failures = rows(two)
    assert samples(one) == samples(two)
    assert weights(one) == weights(two)
    assert (record, sorted(jobs), failures) == (rows(one)[0], sorted(rows(one)[1]), [])
    print(f"{len(jobs)} jobs on {count} nodes; killed: {', '.join(kills.done)}; results identical")
    print(f"wall {wall:.1f} s, serial {serial:.1f} s; {serial / wall / cores:.2f} of {cores} cores")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 4)
