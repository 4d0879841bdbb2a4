"""A damaged file of a finished run or of its store: found and named, or made again; never used."""

import shutil
from pathlib import Path
from random import Random

from runs import command, weights
from tiny_run import WORDS, Base, copied, everything

LOADS = "suite.attacks.gsm8k.settings.train.lr=2e-3"
"""Another attack on the same unlearned models."""

COMPLETE, USAGE, NO_DATA = 0, 2, 3


def trial(random: Random, base: Base, folder: Path) -> int:
    """Damage one file, show the run, and give the command again."""
    out = copied(base, folder)
    (run,), (undisturbed,) = (at.glob("*/config.yaml") for at in (out, base.out))
    files = sorted(path for path in out.rglob("*") if path.is_file() and path.name != "seconds")
    victim = random.choice(files)
    what = f"{_damage(random, victim, files)} {victim.relative_to(out)}"
    shown = command("table", str(run.parent), "--format", "json")
    told = command("table", str(undisturbed.parent), "--format", "json")
    if shown.code == COMPLETE:
        same = shown.out.replace(str(out), "") == told.out.replace(str(base.out), "")
        assert same, f"{what}: shown all the same"
    else:
        _assert_named(shown.code, shown.err, victim, f"{what}: table")
    again = command(*WORDS, f"out={out}", "workers=1")
    if again.code == COMPLETE:
        *found, left = everything(out)
        *undamaged, wanted = base.found
        assert found == undamaged, f"{what}: used"
        if left != wanted:  # weights that no open job asked for: the next that does, must see it
            loading = command(*WORDS, f"out={out}", "workers=1", LOADS)
            assert loading.code == COMPLETE, f"{what}: exit {loading.code}: {loading.err[-300:]}"
            assert victim.name in loading.err, f"{what}: made again without a word"
            assert wanted.items() <= weights(out).items(), f"{what}: loaded"
    else:
        _assert_named(again.code, again.err, victim, f"{what}: run")
    return 1


def _damage(random: Random, victim: Path, files: list[Path]) -> str:
    """Damage a file, and say how."""
    content = bytearray(victim.read_bytes())
    how = random.choice(
        ("flipped a bit of", "cut", "deleted", "emptied", "zeroed", "took another's")
    )
    if how == "deleted":
        victim.unlink()
        return how
    others = [path for path in files if path.suffix == victim.suffix and path != victim]
    if how == "took another's" and others:
        shutil.copyfile(random.choice(others), victim)
        return how
    if how == "emptied" or not content:
        content.clear()
    elif how == "cut":
        del content[random.randrange(len(content)) :]
    elif how == "zeroed":
        start = random.randrange(len(content))
        content[start : start + 64] = bytes(len(content[start : start + 64]))
    else:
        content[random.randrange(len(content))] ^= 1 << random.randrange(8)
        how = "flipped a bit of"
    victim.write_bytes(content)
    return how


def _assert_named(code: int, told: str, victim: Path, what: str) -> None:
    assert code in (USAGE, NO_DATA), f"{what}: exit {code}: {told[-300:]}"
    assert "Traceback" not in told, f"{what}: a traceback"
    assert victim.name in told, f"{what}: not named: {told[-300:]}"
