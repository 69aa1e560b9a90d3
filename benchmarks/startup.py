"""Start-up: importing the package, asking the command line for help, opening the Segment widget in napari.

    python benchmarks/startup.py
    python tools/with_display.py python benchmarks/startup.py    # without a screen

Every start is a new process. Bare Python starts take turns with ours and are subtracted.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tempfile
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import _common as common
from _common import BenchmarkError, Finding, Target

if TYPE_CHECKING:
    import argparse

_WINDOW = Path(__file__).with_name("_open_widget.py")
_PYTHON = [sys.executable, "-c"]
_BARE, _IMPORT, _HELP = "bare Python", "import napari_nucleus_kd", "nucleus-kd --help"
_IMPORT_TARGET = Target("<", 0.2)
_WINDOW_TARGET = Target("<", 1.0)
# Too slow, or not wanted without a window, to be loaded by an import.
HEAVY = ("torch", "dask", "skimage", "napari", "qtpy", "PySide6", "PySide2", "PyQt6", "PyQt5")


def parse() -> argparse.Namespace:
    parser = common.options("Time until the plugin is there.", rounds=7)
    parser.add_argument("--windows", type=common.positive, default=3, help="times that the widget is opened")
    return parser.parse_args()


def main() -> int:
    arguments = parse()
    light = check_imports()
    contestants = {name: common.timed(lambda c=command: _start(c)) for name, command in commands().items()}
    for start in contestants.values():  # once, to have the files in memory
        start()
    seconds = common.interleave(contestants, arguments.rounds)
    findings = [*judge_starts(seconds), light]
    findings.append(measure_window(arguments.windows))
    facts = common.machine() | {"rounds": arguments.rounds}
    return common.report("startup", findings, facts, strict=arguments.strict)


def commands() -> dict[str, list[str]]:
    """Return the commands to start, by what the table calls them."""
    script = Path(sysconfig.get_path("scripts"), "nucleus-kd" + (".exe" if os.name == "nt" else ""))
    if not script.exists():
        raise BenchmarkError(f"{script} does not exist; install the package (pip install -e .)")
    return {_BARE: [*_PYTHON, "pass"], _IMPORT: [*_PYTHON, _IMPORT], _HELP: [str(script), "--help"]}


def check_imports() -> Finding:
    """Raise BenchmarkError if importing the package loads anything heavy."""
    code = f"import sys, json; {_IMPORT}; print(json.dumps(list(sys.modules)))"
    loaded = set(json.loads(_start([*_PYTHON, code])))
    if found := [name for name in HEAVY if name in loaded]:
        raise BenchmarkError(f"{_IMPORT} loads {', '.join(found)}; import them where they are used")
    return Finding(
        "heavy", "heavy modules loaded by it", 0, "", Target("<=", 0), f"looked for {', '.join(HEAVY)}"
    )


def judge_starts(seconds: dict[str, list[float]]) -> list[Finding]:
    """Return what an import and the command line cost beyond bare Python."""
    bare = median(seconds[_BARE])
    findings = [Finding("bare", _BARE, 1.0, seen=common.in_words(seconds[_BARE]))]
    for key, name, target in (("import", _IMPORT, _IMPORT_TARGET), ("help", _HELP, None)):
        extra = median(seconds[name]) - bare
        seen = f"{common.in_words(seconds[name])}, {median(seconds[name]) / bare:.2f} x bare Python"
        findings.append(Finding(key, f"{name}, beyond bare Python", extra, "s", target, seen))
    return findings


def measure_window(times: int) -> Finding:
    """Time the Segment widget from the menu to drawn, in a napari window that is there already."""
    what = "Segment widget opened in napari"
    if reason := _no_window():
        return common.skipped("widget", what, reason)
    seconds = []
    with tempfile.TemporaryDirectory(prefix="nucleus-kd-startup-") as folder:
        # napari's settings of this user stay untouched, and cannot differ between machines
        environment = {**os.environ, "NAPARI_CONFIG": str(Path(folder, "settings.yaml"))}
        for number in range(times):
            common.say(f"opening napari, {number + 1} of {times}")
            seconds.append(float(_start([sys.executable, str(_WINDOW)], environment).splitlines()[-1]))
    return Finding("widget", what, median(seconds), "s", _WINDOW_TARGET, common.in_words(seconds))


def _no_window() -> str:
    """Return why no window can be opened; empty if one can."""
    if sys.platform.startswith("linux") and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        return "no display; run under tools/with_display.py"
    return "" if find_spec("napari") else "napari is not installed"


def _start(command: list[str], environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise BenchmarkError(f"{' '.join(command)} failed: {done.stderr.strip()[-2000:]}")
    return done.stdout


if __name__ == "__main__":
    common.run(main)
