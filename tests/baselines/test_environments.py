"""Where tools are found, and making an environment for one."""

import json
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import platformdirs
import pytest
from typer.testing import CliRunner

from napari_nucleus_kd import apart, baselines
from napari_nucleus_kd.baselines import environments, making
from napari_nucleus_kd.cli import app
from napari_nucleus_kd.errors import BaselineError, WriteError
from napari_nucleus_kd.types import finish


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    """Keep what is known of environments in a folder of the test's."""
    monkeypatch.setattr(platformdirs, "user_data_path", lambda *_, **__: tmp_path / "home")
    return tmp_path / "home" / "baselines"


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """Make a tool of which a wheel is at hand."""
    path, info = tmp_path / "fakepose-3.1-py3-none-any.whl", "fakepose-3.1.dist-info"
    files = {
        "fakepose.py": "",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: fakepose\nVersion: 3.1\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
        archive.writestr(f"{info}/RECORD", "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD")))
    tool = replace(
        baselines.TOOLS["cellpose"], requirements=(f"fakepose @ {path.as_uri()}",), needs=("fakepose",)
    )
    monkeypatch.setitem(environments.TOOLS, "cellpose", tool)
    return path


def run(*arguments):
    return CliRunner().invoke(app, ["baselines", *map(str, arguments)], env={"COLUMNS": "240"})


def said(done):
    return " ".join(done.output.split())


def test_weights_that_work_are_remembered_and_tried_again(fake_tool, monkeypatch):
    found = environments.Found(Path(sys.executable), "3.1", "for tests")
    there = {"cellpose": found, "stardist": "StarDist is not installed"}
    monkeypatch.setattr(baselines, "installed", lambda: there)
    assert "not checked yet" in said(run("list"))
    weights = fake_tool()
    done = run("check", "cellpose", "--weights", weights)
    assert done.exit_code == 0 and "PQ" in done.output and "nuclei in the fluorescence sample" in said(done)
    assert baselines.checked() == {"cellpose": weights}
    tried = run("list", "--check")
    assert tried.exit_code == 0 and "nuclei of the sample" in said(tried)
    Path(weights).unlink()
    tried = run("list", "--check")
    assert tried.exit_code == 1 and "failed:" in said(tried)
    assert baselines.checked() == {}, "it worked, and does so no more"
    baselines.note_checked("cellpose", weights)
    assert run("check", "cellpose", "--weights", fake_tool("fault")).exit_code == 1
    assert baselines.checked() == {}


def test_a_tool_that_was_never_checked_must_at_least_be_importable(monkeypatch):
    found = environments.Found(Path(sys.executable), "3.1", "for tests")
    monkeypatch.setattr(baselines, "installed", lambda: {"cellpose": found})
    for needs, status, words in [("json", 0, "not checked yet"), ("no_such", 1, "failed: no_such cannot be")]:
        tool = replace(baselines.TOOLS["cellpose"], needs=(needs,))
        monkeypatch.setitem(environments.TOOLS, "cellpose", tool)
        done = run("list", "--check")
        assert done.exit_code == status and words in said(done)


def test_a_tool_that_is_nowhere_says_how_to_get_it(wheel):
    with pytest.raises(BaselineError, match=r"baselines install cellpose.*baselines use cellpose PATH"):
        baselines.find("cellpose")
    done = run("list")
    assert done.exit_code == 0 and "is not installed" in said(done)
    with pytest.raises(BaselineError, match="no tool 'oracle'; choose from cellpose, cellpose4, stardist"):
        baselines.find("oracle")


@pytest.mark.parametrize("installer", ["uv", "pip"])
def test_an_environment_is_made_used_and_removed(wheel, home, monkeypatch, installer):
    if installer == "uv" and not shutil.which("uv"):
        pytest.skip("there is no uv on PATH")
    if installer == "pip":
        monkeypatch.setattr(shutil, "which", lambda _: None)
    done = run("install", "cellpose")
    assert done.exit_code == 0, done.output
    found = baselines.find("cellpose")
    assert bool(list((home / "cellpose").rglob("pip/__init__.py"))) == (installer == "pip"), (
        "uv brings no pip"
    )
    assert (found.version, found.how) == ("3.1", "made by nucleus-kd")
    assert found.python == environments.python_of(home / "cellpose") != Path(sys.executable)
    assert "3.1" in run("list").output
    assert "is installed" in said(run("install", "cellpose")), "installing once more replaces it"
    assert "removed" in run("remove", "cellpose").output and not (home / "cellpose").exists()
    assert "nothing was removed" in run("remove", "cellpose").output


def test_what_cannot_be_installed_leaves_nothing_that_is_used(wheel, home):
    wheel.write_bytes(b"no wheel")
    with pytest.raises(BaselineError, match="failed with status"):
        finish(baselines.install_steps("cellpose"))
    with pytest.raises(BaselineError, match="is not installed"):
        baselines.find("cellpose")
    with pytest.raises(BaselineError, match=r"cannot be run|No interpreter found"):
        finish(baselines.install_steps("cellpose", python=str(home / "no-python")))


def test_the_environment_that_works_stays_until_another_one_does(wheel, home):
    finish(baselines.install_steps("cellpose"))
    baselines.note_checked("cellpose", "cyto3")
    before = baselines.environment_state("cellpose")
    wheel.write_bytes(b"no wheel")
    with pytest.raises(BaselineError, match="failed with status"):
        finish(baselines.install_steps("cellpose"))
    assert baselines.find("cellpose").version == "3.1"
    assert (baselines.environment_state("cellpose"), baselines.checked()) == (before, {"cellpose": "cyto3"})


def test_an_environment_in_use_is_not_taken_apart(wheel, home, monkeypatch):
    finish(baselines.install_steps("cellpose"))

    def in_use(partial, path):
        raise PermissionError(13, "Access is denied")

    with monkeypatch.context() as patch:
        patch.setattr(making, "put_in_place", in_use)
        with pytest.raises(WriteError, match="end what uses it, and install again"):
            finish(baselines.install_steps("cellpose"))
    assert baselines.find("cellpose").version == "3.1"
    baselines.note_checked("cellpose", "cyto3")
    before = baselines.environment_state("cellpose")
    finish(baselines.install_steps("cellpose"))
    assert baselines.environment_state("cellpose") != before
    assert baselines.checked() == {}, "it is another one now"


def test_folders_that_lie_about_are_no_packages(home, tmp_path, monkeypatch):
    (tmp_path / "stardist").mkdir()
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "json.py").write_text("raise SystemExit('run by accident')")
    monkeypatch.chdir(tmp_path)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", "own"], check=True, cwd=tmp_path)
    with pytest.raises(BaselineError, match="stardist and tensorflow are not installed"):
        baselines.use("stardist", tmp_path / "own")


def test_a_folder_that_is_no_environment_is_left_alone(wheel, home):
    (home / "cellpose").mkdir(parents=True)
    (home / "cellpose" / "thesis.txt").write_text("mine")
    with pytest.raises(WriteError, match="move it away first"):
        finish(baselines.install_steps("cellpose"))
    assert run("remove", "cellpose").exit_code == 1
    assert (home / "cellpose" / "thesis.txt").exists()


def test_an_installation_that_is_broken_off_is_begun_anew(wheel, home):
    steps = baselines.install_steps("cellpose")
    for progress in steps:
        if progress.done == 1:
            break
    steps.close()
    with pytest.raises(BaselineError, match="is not installed"):
        baselines.find("cellpose")
    assert finish(baselines.install_steps("cellpose")).version == "3.1"


def test_an_installer_that_says_nothing_can_be_ended_from_another_thread(wheel, home, tmp_path, monkeypatch):
    silent, ended = tmp_path / "python", []
    silent.write_text("#!/bin/sh\nexec sleep 600\n")
    silent.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda _: None)

    def install():
        with pytest.raises(BaselineError, match="failed with status -9"):
            finish(baselines.install_steps("cellpose", python=str(silent)))
        ended.append(True)

    job, until = threading.Thread(target=install, daemon=True), time.monotonic() + 60
    job.start()
    while not apart._WAITED_FOR:
        assert job.is_alive() and time.monotonic() < until
        time.sleep(0.05)
    apart.end_waiting(job.ident)
    job.join(60)
    assert ended and not (home / "cellpose").exists()


def test_an_environment_of_ones_own_is_used_and_forgotten(wheel, home, tmp_path):
    own = tmp_path / "own"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(own)], check=True)
    with pytest.raises(BaselineError, match=r"fakepose is not installed in the environment of .*own"):
        baselines.use("cellpose", own)
    packages = (
        next((own / "lib").rglob("site-packages")) if (own / "lib").exists() else own / "Lib/site-packages"
    )
    zipfile.ZipFile(wheel).extractall(packages)
    done = run("use", "cellpose", own)
    assert done.exit_code == 0 and "(3.1) is taken from" in said(done)
    assert baselines.find("cellpose").how == "named by you"
    assert "nothing was removed" in said(run("remove", "cellpose")) and own.exists()
    with pytest.raises(BaselineError, match="is not installed"):
        baselines.find("cellpose")


def test_another_version_than_the_tools_is_refused(monkeypatch):
    tool = replace(baselines.TOOLS["cellpose"], requirements=("numpy<1",), needs=("numpy",))
    monkeypatch.setitem(environments.TOOLS, "cellpose", tool)
    with pytest.raises(BaselineError, match=r"has numpy .*Cellpose 3 means <1"):
        baselines.use("cellpose", Path(sys.executable))


@pytest.mark.parametrize("content", ["{", "[1]"])
def test_damaged_notes_are_named(home, content):
    home.mkdir(parents=True)
    (home / "environments.json").write_text(content)
    with pytest.raises(BaselineError, match=r"environments\.json.*delete it"):
        baselines.find("stardist")


def test_what_is_no_python_is_refused(home, tmp_path):
    for path in (tmp_path / "nothing", Path("/bin/false")):
        with pytest.raises(BaselineError, match="cannot be run as Python"):
            baselines.use("stardist", path)
    assert not (home / "environments.json").exists()


def test_an_environment_that_went_is_told(wheel, home):
    home.mkdir(parents=True)
    (home / "environments.json").write_text(json.dumps({"cellpose": "/gone/python", "oracle": "/x"}))
    assert "/gone/python cannot be run" in baselines.installed()["cellpose"]
    assert making.remove("cellpose") is None


def test_an_environment_of_ours_whose_python_went_is_to_be_installed_again(home):
    (home / "cellpose").mkdir(parents=True)
    (home / "cellpose" / environments.MADE).write_text("{}")
    with pytest.raises(BaselineError, match=r"; install it again: nucleus-kd baselines install cellpose$"):
        baselines.find("cellpose")
