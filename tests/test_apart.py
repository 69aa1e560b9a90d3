"""Steps in a process of their own."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from napari_nucleus_kd import apart
from napari_nucleus_kd.apart import apart_steps
from napari_nucleus_kd.errors import DeviceError, SettingsError
from napari_nucleus_kd.types import Progress

HERE = "napari_nucleus_kd.apart"


@pytest.fixture
def task(monkeypatch, tmp_path):
    """Make a task of the source of a function, in a module that the other process can import."""
    names = iter(range(9))

    def make(source):
        name = f"task{next(names)}"
        (tmp_path / f"{name}.py").write_text(
            "import os, time, sys\nfrom pathlib import Path\n"
            "from napari_nucleus_kd.types import Progress\n"
            "from napari_nucleus_kd.errors import SettingsError\n" + source
        )
        return f"{HERE}.{name}:task"

    # The package lets only its own modules serve; for the test its folder of tasks is one.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    site = tmp_path / "sitecustomize.py"
    site.write_text(
        "import importlib, sys\n"
        "true = importlib.import_module\n"
        f"importlib.import_module = lambda name, *a: true(name.removeprefix('{HERE}.'), *a)\n"
    )
    return make


def test_progress_and_result_come_one_step_at_a_time(task, tmp_path):
    said = tmp_path / "said"
    source = (
        "def task(request):\n"
        "    print('noise on standard output')\n"
        "    for i in range(3):\n"
        f"        Path({str(said)!r}).write_text(str(i))\n"
        "        yield Progress(i + 1, 3, request['word'], {'loss': 0.5, 'bad': float('nan')})\n"
        "    return {'sum': 3, 'pid': os.getpid()}\n"
    )
    steps = apart_steps(task(source), {"word": "wörk"})
    assert next(steps) == Progress(1, 3, "wörk", {"loss": 0.5})
    time.sleep(0.3)
    assert said.read_text() == "0", "it runs ahead"
    assert [next(steps).done, next(steps).done] == [2, 3]
    with pytest.raises(StopIteration) as stop:
        next(steps)
    assert stop.value.value["sum"] == 3 and stop.value.value["pid"] != os.getpid()


def test_closing_lets_the_task_close(task, tmp_path):
    kept = tmp_path / "kept"
    source = (
        "def task(request):\n"
        "    try:\n"
        "        while True:\n"
        "            yield Progress(1, 2)\n"
        "    finally:\n"
        f"        Path({str(kept)!r}).write_text('kept')\n"
    )
    steps = apart_steps(task(source), None)
    next(steps)
    steps.close()
    assert kept.read_text() == "kept"


def test_errors_come_over_as_they_are(task):
    with pytest.raises(SettingsError, match="too small") as caught:
        next(apart_steps(task("def task(request):\n    raise SettingsError('too small')\n    yield\n"), None))
    assert str(caught.value) == "too small"
    with pytest.raises(RuntimeError) as caught:
        next(apart_steps(task("def task(request):\n    1 / 0\n    yield\n"), None))
    assert str(caught.value) == "ZeroDivisionError: division by zero", "for a person"
    assert "Traceback" in caught.value.__notes__[0] and "1 / 0" in caught.value.__notes__[0]
    with pytest.raises(MemoryError):
        next(apart_steps(task("def task(request):\n    raise MemoryError\n    yield\n"), None))


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_when_the_program_is_killed_the_process_closes_its_task_and_goes(task, tmp_path):
    kept = tmp_path / "kept"
    source = (
        "def task(request):\n"
        "    try:\n"
        "        while True:\n"
        "            time.sleep(0.05)\n"
        "            yield Progress(1, 2, str(os.getpid()))\n"
        "    finally:\n"
        f"        Path({str(kept)!r}).write_text('kept')\n"
    )
    program = (
        "import sys\n"
        "from napari_nucleus_kd.apart import apart_steps\n"
        "for progress in apart_steps(sys.argv[1], None):\n"
        "    print(progress.message, flush=True)\n"
    )
    command = [sys.executable, "-c", program, task(source)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as window:
        pid = int(window.stdout.readline())
        window.kill()
    began = time.monotonic()
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() - began < 30
        time.sleep(0.05)
    assert kept.read_text() == "kept"


def test_a_process_that_dies_is_told_with_what_it_said(task):
    source = (
        "def task(request):\n"
        "    yield Progress(1, 2, str(os.getpid()))\n"
        "    print('out of memory', file=sys.stderr, flush=True)\n"
        "    os.abort()\n"
    )
    steps = apart_steps(task(source), None)
    next(steps)
    with pytest.raises(DeviceError, match="goes on from what was kept") as caught:
        next(steps)
    assert "out of memory" in str(caught.value)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_process_that_is_killed_between_steps_is_told(task):
    source = "def task(request):\n    while True:\n        yield Progress(1, 2, str(os.getpid()))\n"
    steps = apart_steps(task(source), None)
    os.kill(int(next(steps).message), signal.SIGKILL)
    with pytest.raises(DeviceError, match="by signal 9"):
        next(steps)


def test_only_tasks_of_the_package_are_served():
    with pytest.raises(DeviceError, match="os is no module of napari_nucleus_kd"):
        next(apart_steps("os:system", "echo"))


def test_a_slow_last_step_is_not_waited_for_for_ever(task, monkeypatch):
    monkeypatch.setattr(apart, "_PATIENCE_S", 0.5)
    source = (
        "def task(request):\n    try:\n        yield Progress(1, 2)\n    finally:\n        time.sleep(60)\n"
    )
    steps = apart_steps(task(source), None)
    next(steps)
    began = time.monotonic()
    steps.close()
    assert time.monotonic() - began < 20
