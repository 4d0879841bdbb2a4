"""What must start at once imports no heavy library, and no package imports in circles."""

import subprocess
import sys

import grimp
import pytest

HEAVY = ("torch", "transformers", "vllm", "lm_eval", "datasets")
LIGHT = ("records", "statistics", "specs", "reports", "leaderboard", "experiments", "cli")

SCRIPT = """
import importlib, pkgutil, sys
package = importlib.import_module("ilubench." + sys.argv[1])
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
        found = [name for name in sys.argv[2:] if name in sys.modules]
        assert not found, f"{module.name} imports {found}"
"""


@pytest.mark.parametrize("package", LIGHT)
def test_light_packages_import_no_heavy_library(package: str) -> None:
    command = [sys.executable, "-c", SCRIPT, package, *HEAVY]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_no_module_imports_in_a_circle() -> None:
    """Neither between modules nor between packages; layers alone allow both below one package."""
    graph = grimp.build_graph("ilubench", exclude_type_checking_imports=True)
    for module in graph.modules:
        for below in graph.find_modules_directly_imported_by(module):
            back = graph.find_shortest_chain(below, module)
            assert back is None, f"{module} imports {below}, which leads back: {back}"
