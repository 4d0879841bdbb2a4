"""Plugins by entry point and by file; a broken one harms nobody else and says what is wrong."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import pytest

from ilubench.errors import PluginError, SpecError
from ilubench.interfaces import Method
from ilubench.interfaces import discovery as plugins
from ilubench.interfaces.discovery import (
    GROUPS,
    PluginField,
    create_plugin,
    find_plugin,
    list_entries,
    name_plugin,
)
from ilubench.interfaces.sources import describe_target
from ilubench.methods.npo import NPO
from ilubench.specs import PluginRef, Spec

GOOD = '''\
"""My module."""
from ilubench.interfaces import Method

class Mine(Method):
    """Does nothing.

    More.
    """
    strength: float = 1.0

    def unlearn(self, model, data, context):
        return model

class Half(Method):
    strength: float = 1.0

class Plain:
    pass
'''


@pytest.fixture(autouse=True)
def _forget_modules() -> Iterator[None]:
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith(("ilubench_plugin_", "strangers")):
            del sys.modules[name]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(GOOD)
    return path


def test_every_installed_plugin_loads_and_has_a_description() -> None:
    for group in GROUPS:
        for name, target in list_entries(group).items():
            assert issubclass(find_plugin(group, name), Spec)
            assert not describe_target(target).startswith("broken"), name
            assert describe_target(target), f"{name} has no docstring"


def test_the_names_of_the_methods() -> None:
    assert {"none", "npo", "ilu", "checkpoint"} <= set(list_entries("methods"))
    assert list_entries("methods")["npo"] == "ilubench.methods.npo:NPO"
    assert describe_target("ilubench.methods.npo:NPO").startswith(
        "Negative preference optimisation"
    )


def test_an_unknown_name_gets_a_did_you_mean() -> None:
    with pytest.raises(PluginError, match=r"unknown method 'np'; did you mean 'npo'\?"):
        find_plugin("methods", "np")


def test_a_plugin_by_file(file: Path) -> None:
    found = create_plugin("methods", PluginRef(use=f"{file}:Mine", settings={"strength": 2}))
    assert isinstance(found, Method)
    assert found.model_dump() == {"strength": 2.0}
    assert find_plugin("methods", f"{file}:Mine") is type(found)
    assert name_plugin("methods", found) == PluginRef(
        use="mine.py:Mine", settings={"strength": 2.0}
    )


def test_two_files_of_one_name_are_two_plugins(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "mine.py"
    other.parent.mkdir()
    other.write_text(GOOD.replace("1.0", "3.0"))
    assert create_plugin("methods", PluginRef(use=f"{file}:Mine")).strength == 1.0
    assert create_plugin("methods", PluginRef(use=f"{other}:Mine")).strength == 3.0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Mien", r"has no class 'Mien'; did you mean 'Mine'\?"),
        ("Half", "cannot be used: it does not define unlearn"),
        ("Plain", "is not an ilubench plugin class"),
    ],
)
def test_classes_that_cannot_be_used(file: Path, name: str, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        create_plugin("methods", PluginRef(use=f"{file}:{name}"))


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise RuntimeError('no luck\\nat all')\n", "raised RuntimeError: no luck$"),
        (
            "import no_such_library\n",
            "raised ModuleNotFoundError: No module named 'no_such_library'",
        ),
        ("def f(:\n", "raised SyntaxError"),
        ("import sys\nsys.exit(3)\n", "raised SystemExit: 3"),
    ],
)
def test_a_module_that_raises(tmp_path: Path, code: str, reason: str) -> None:
    path = tmp_path / "broken.py"
    path.write_text(code)
    with pytest.raises(PluginError, match=reason):
        find_plugin("methods", f"{path}:Mine")
    path.write_text(GOOD)  # mended: the broken import left nothing behind
    assert find_plugin("methods", f"{path}:Mine").__name__ == "Mine"


def test_a_file_without_a_class(file: Path) -> None:
    with pytest.raises(PluginError, match=rf"{file}: which class of the file\? write {file}:Class"):
        find_plugin("methods", str(file))


def test_a_missing_file() -> None:
    with pytest.raises(PluginError, match=r"no such file '\./nowhere\.py'; check the path"):
        find_plugin("methods", "./nowhere.py:Mine")


def test_a_wrong_setting_names_the_plugin_and_the_field(file: Path) -> None:
    with pytest.raises(SpecError, match=r"mine\.py:Mine: strenght: unknown field; did you mean"):
        create_plugin("methods", PluginRef(use=f"{file}:Mine", settings={"strenght": 2}))
    with pytest.raises(SpecError, match="method npo: train: is missing"):
        create_plugin("methods", PluginRef(use="npo"))


@pytest.fixture
def strangers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a package whose entry points are one sound and three broken methods."""
    (tmp_path / "strangers.py").write_text(GOOD)
    (tmp_path / "strangers_broken.py").write_text("raise RuntimeError('no GPU')\n")
    info = tmp_path / "strangers-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: strangers\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[ilubench.methods]\n"
        "sound = strangers:Mine\n"
        "raises = strangers_broken:Mine\n"
        "absent = strangers_absent:Mine\n"
        "nameless = strangers:Nobody\n"
    )
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("strangers")
def test_an_installed_extension_is_found() -> None:
    assert create_plugin("methods", PluginRef(use="sound")).strength == 1.0
    assert describe_target(list_entries("methods")["sound"]) == "Does nothing."


@pytest.mark.usefixtures("strangers")
def test_a_broken_plugin_breaks_no_listing_and_no_other_plugin() -> None:
    listed = list_entries("methods")
    assert {"sound", "raises", "absent", "nameless", "npo"} <= set(listed)
    assert describe_target(listed["absent"]) == "broken: no module 'strangers_absent'"
    assert describe_target(listed["nameless"]) == "broken: strangers has no class 'Nobody'"
    assert find_plugin("methods", "npo") is NPO


@pytest.mark.usefixtures("strangers")
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("raises", "method 'raises' is broken: RuntimeError: no GPU"),
        ("absent", "method 'absent' is broken: ModuleNotFoundError"),
        ("nameless", "method 'nameless' is broken: AttributeError"),
    ],
)
def test_a_broken_plugin_that_is_asked_for_raises(name: str, reason: str) -> None:
    with pytest.raises(PluginError, match=reason):
        find_plugin("methods", name)


class Holder(Spec):
    held: Annotated[NPO, PluginField("methods")]


SETTINGS = {"train": {"lr": 0.1, "steps": 1}, "beta": 0.3}


def test_a_plugin_field_takes_references_and_objects() -> None:
    ref = {"use": "npo", "settings": SETTINGS}
    held = Holder.model_validate({"held": ref})
    assert held.held.beta == 0.3
    assert Holder(held=held.held) == held
    dumped = held.model_dump(mode="json")
    assert dumped["held"]["use"] == "npo"
    assert Holder.model_validate(dumped) == held


def test_a_plugin_field_refuses_another_class() -> None:
    with pytest.raises(ValueError, match="NoUnlearning is not a NPO"):
        Holder.model_validate({"held": "none"})


def test_importing_plugins_imports_no_torch() -> None:
    import subprocess

    code = (
        "import sys, ilubench.interfaces.discovery as p; "
        "p.list_entries('methods'); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    assert plugins.GROUPS == ("methods", "attacks", "scorers", "generators")
