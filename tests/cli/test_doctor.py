"""`ilubench doctor`: each thing that can be amiss is named, and asking for it says the same."""

import importlib.metadata
from pathlib import Path

import pytest
from runs import command, process

from ilubench.cli.doctor import Examination, Finding, examine
from ilubench.errors import PluginError
from ilubench.interfaces.discovery import create_plugin, find_plugin, list_claims, list_entries
from ilubench.specs import PluginRef

METHOD = '''\
"""A module."""
from ilubench.interfaces import Method

class Mine(Method):
    """Does nothing."""

    def unlearn(self, model, data, context):
        return model

class Half(Method):
    """Defines nothing."""
'''


def package(folder: Path, name: str, *methods: str, version: str = "1.0") -> Path:
    """Write an installed package: its metadata, and a module `doctored` with two methods."""
    folder.mkdir(exist_ok=True)
    (folder / "doctored.py").write_text(METHOD)
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    (info / "METADATA").write_text(metadata)
    points = "\n".join(["[ilubench.methods]", *methods])
    (info / "entry_points.txt").write_text(f"{points}\n")
    return folder


def found(examination: Examination, area: str, name: str) -> list[Finding]:
    return [f for f in examination.findings if (f.area, f.name) == (area, name)]


def only(area: str, name: str) -> Finding:
    (finding,) = found(examine(), area, name)
    return finding


def test_a_sound_installation_is_fine() -> None:
    examination = examine()
    assert [f for f in examination.findings if not f.fine] == []
    assert examination.fine
    assert {f.name for f in examination.findings if f.area == "methods"} == set(
        list_entries("methods")
    )
    torch = only("libraries", "torch")
    assert torch.detail.startswith(importlib.metadata.version("torch"))
    assert "2.8" in torch.detail
    assert only("devices", "cpu").fine
    assert only("places", "HF_HUB_OFFLINE").detail == "1: the hub is not asked"


def test_the_command_prints_it_and_leaves_with_0() -> None:
    done = command("doctor")
    assert done.code == 0, done.out
    assert "all is fine" in done.out
    assert "ilubench.methods.npo:NPO" in done.out
    whole = command("doctor", "--json").json
    assert whole["fine"] is True
    assert Examination.model_validate({"findings": whole["findings"]}).fine


def test_two_packages_that_claim_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(package(tmp_path / "a", "claimants", "npo = doctored:Mine"))
    who = [claim.package for claim in list_claims("methods")["npo"]]
    assert who == ["claimants 1.0", f"ilubench {importlib.metadata.version('ilubench')}"]
    both = r"claimed by claimants 1\.0 \(doctored:Mine\) and ilubench .*\(ilubench\.methods\.npo"
    with pytest.raises(PluginError, match=f"method 'npo' is {both}.*uninstall all but one"):
        find_plugin("methods", "npo")
    with pytest.raises(PluginError, match=both):
        create_plugin("methods", PluginRef(use="npo"))
    assert find_plugin("methods", "graddiff").__name__ == "GradDiff"
    finding = only("methods", "npo")
    assert finding.state == "disputed"
    assert "claimants 1.0" in finding.detail
    listed = {entry["name"]: entry["title"] for entry in command("ls", "methods", "--json").json}
    assert listed["npo"].startswith("claimed by claimants 1.0")
    assert command("doctor").code == 4


def test_two_packages_with_one_class_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    again = "npo = ilubench.methods.npo:NPO"
    monkeypatch.syspath_prepend(package(tmp_path / "a", "claimants", again))
    assert find_plugin("methods", "npo").__name__ == "NPO"
    assert only("methods", "npo").fine


def test_a_package_that_is_installed_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = package(tmp_path / "old", "Twice_Here", "twice = doctored:Mine")
    new = package(tmp_path / "new", "twice.here", "twice = doctored:Mine", version="2.0")
    monkeypatch.syspath_prepend(old)
    monkeypatch.syspath_prepend(new)
    here, hidden = found(examine(), "methods", "twice")
    assert (here.state, hidden.state) == ("fine", "shadowed")
    assert "2.0" in here.detail
    assert hidden.detail == f"Twice_Here in {old}; the one in {new} comes first"


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("doctored:Half", "it does not define unlearn"),
        ("doctored:Nobody", "AttributeError"),
        ("doctored_nowhere:Mine", "ModuleNotFoundError"),
        ("doctored_leaving:Mine", "SystemExit: 3"),
        ("pathlib:Path", "is not an ilubench plugin class"),
    ],
)
def test_broken_plugins(
    target: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = package(tmp_path / "a", "patients", f"ailing = {target}")
    (folder / "doctored_leaving.py").write_text("import sys\nsys.exit(3)\n")
    monkeypatch.syspath_prepend(folder)
    finding = only("methods", "ailing")
    assert finding.state == "broken"
    assert reason in finding.detail
    assert f"({target}, patients 1.0)" in finding.detail
    assert only("methods", "npo").fine


def test_a_library_of_another_age(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(package(tmp_path / "a", "transformers", version="4.57.1"))
    finding = only("libraries", "transformers")
    assert finding.state == "unfit"
    assert finding.detail.startswith("4.57.1, needed ")


def test_folders_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    (tmp_path / "file").touch()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file" / "hub"))
    monkeypatch.chdir(tmp_path)
    finding = only("places", "hub cache")
    assert finding.state == "unwritable"
    assert finding.detail.endswith(f"{tmp_path / 'file'} cannot be written")
    assert only("places", "results").fine


def test_it_survives_a_torch_that_does_not_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart.so.99')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = process("doctor", "--json")
    assert done.code == 4, done.err
    broken = {f["name"]: f["detail"] for f in done.json["findings"] if f["state"] == "broken"}
    assert "libcudart.so.99" in broken["torch"]
    assert "libcudart.so.99" in broken["npo"]
    assert "mini" not in broken
