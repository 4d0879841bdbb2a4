"""Folders that tests read from."""

from pathlib import Path

import ilubench

ROOT = Path(__file__).parents[2]
FIXTURES = Path(__file__).parents[1] / "fixtures"
LEADERBOARDS = ROOT / "leaderboards"
MEASURED = LEADERBOARDS / "mini" / "measured"
PACKAGE = Path(ilubench.__file__).parent
MINI_TARGET = PACKAGE / "data" / "mini" / "target"
