"""The programs that tox calls before and around the tests."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parent.parent / "tools"
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="they do nothing elsewhere")


def load(name):
    spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def libs(monkeypatch):
    module = load("qt_system_libs")
    monkeypatch.setattr(module, "LIBRARIES", {"libno_such.so.1": "libno-such1"})
    monkeypatch.setattr(module, "PROGRAMS", {})
    monkeypatch.setenv("DISPLAY", ":0")
    return module


def test_what_is_there_is_not_missing():
    module = load("qt_system_libs")
    module.LIBRARIES = {"libc.so.6": "libc6"}
    module.PROGRAMS = {"sh": "dash"}
    assert module.missing(need_xvfb=True) == {}


def test_without_the_right_to_install_the_command_is_printed(libs, monkeypatch, capsys):
    monkeypatch.setattr(libs, "_privilege", lambda: None)
    monkeypatch.setattr(libs.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert libs.main([]) == 1
    assert "sudo apt-get install -y libno-such1" in capsys.readouterr().err.replace("update && ", "")


def test_for_the_demo_it_is_only_a_warning_and_nothing_without_a_display(libs, monkeypatch, capsys):
    monkeypatch.setattr(libs, "_privilege", lambda: None)
    assert libs.main(["--optional"]) == 0
    assert "libno_such.so.1" in capsys.readouterr().err
    monkeypatch.delenv("DISPLAY")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert libs.main(["--optional"]) == 0
    assert capsys.readouterr().err == ""


def test_with_the_right_it_installs_exactly_what_is_missing(libs, monkeypatch):
    asked = []
    monkeypatch.setattr(libs, "_privilege", lambda: [])
    monkeypatch.setattr(libs.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(libs, "install", lambda packages, _: asked.append(packages) or True)
    assert libs.main([]) == 1  # it is still not there, and that is said
    assert asked == [["libno-such1"]]


def test_elsewhere_nothing_is_attempted(libs, monkeypatch):
    monkeypatch.setattr(libs.sys, "platform", "darwin")
    assert libs.main([]) == 0


@pytest.mark.parametrize("display", [None, ":0"])
def test_a_command_keeps_its_exit_status(display, monkeypatch):
    module = load("with_display")
    ran = []

    def run(command, **_):
        ran.append(command)
        return subprocess.CompletedProcess(command, 3)

    monkeypatch.setattr(module.subprocess, "run", run)
    monkeypatch.setattr(module.shutil, "which", lambda name: name)
    monkeypatch.delenv("DISPLAY", raising=False)
    if display:
        monkeypatch.setenv("DISPLAY", display)
    assert module.main(["pytest", "-q"]) == 3
    assert ran[0][-2:] == ["pytest", "-q"]
    assert (ran[0][0] == "xvfb-run") is (display is None)


@pytest.mark.parametrize(
    ("arguments", "names", "rest"),
    [
        ([], None, []),
        (["--strict"], None, ["--strict"]),
        (["speed"], ["speed"], []),
        (["benchmarks/speed.py", "startup", "--rounds", "3"], ["speed", "startup"], ["--rounds", "3"]),
        (["accuracy", "speed.csv", "--split", "val"], ["accuracy"], ["speed.csv", "--split", "val"]),
    ],
)
def test_names_come_first_and_the_rest_goes_to_the_benchmarks(arguments, names, rest):
    module = load("run_benchmarks")
    scripts, given = module.chosen(arguments)
    assert [script.stem for script in scripts] == (names or list(module.benchmarks()))
    assert given == rest


def test_an_unknown_benchmark_is_named(capsys):
    assert load("run_benchmarks").main(["sped"]) == 2
    assert "sped" in capsys.readouterr().err
