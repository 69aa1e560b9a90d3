"""Long steps in a process of their own: a window stays quick, and a crash there is no crash here.

The two processes talk in lines of JSON, one at a time: the one that asks writes "next", the other takes one
step and answers with its progress. So nothing runs ahead; who takes no step pauses it. When the pipe ends,
because it was closed or because the program died, the steps are closed and the process goes.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import psutil

from napari_nucleus_kd import errors
from napari_nucleus_kd.errors import DeviceError, NucleusKDError
from napari_nucleus_kd.types import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from pydantic import JsonValue

_PATIENCE_S = 60.0  # for the step in hand, when the steps are closed
_KILO = 1024
_NICER = 5  # by how much it steps back behind the window, in units of `nice`
# By the thread that waits for an answer, after the one whose work it does.
_WAITED_FOR: dict[tuple[int, int], subprocess.Popen[Any]] = {}
_BEHALF = threading.local()
_T = TypeVar("_T")
_SHOWN = 2000  # characters of what a process said before it died


def apart_steps(task: str, request: JsonValue) -> Generator[Progress, None, JsonValue]:
    """Take the steps of a task in a process of its own.

    Parameters
    ----------
    task : "module:function" of this package; the function takes the request and returns a generator of
        Progress that returns what can be said in JSON.

    Yields
    ------
    The task's progress.

    Returns
    -------
    What the task returns.

    Raises
    ------
    NucleusKDError : what the task raises of these, as it is.
    DeviceError : the process died.
    RuntimeError : a fault of the task's, with its traceback as a note.
    """
    command = [sys.executable, "-P", "-m", __name__, task]
    with tempfile.TemporaryFile() as said, started(command, said, _PATIENCE_S) as process:
        assert process.stdin is not None
        with contextlib.suppress(OSError):  # it died: nobody will answer
            _write(process.stdin, request)
        while True:
            answer = _asked(process)
            if answer is None:
                raise DeviceError(
                    f"the process that did the work ended {how_it_ended(process, said)}. Close other "
                    "programs, and start it again: it goes on from what was kept"
                )
            kind, content = answer
            if kind == "result":
                result: JsonValue = content
                return result
            if kind == "error":
                raise _error(*content)
            yield Progress(**content)


@contextlib.contextmanager
def started(
    command: list[str], said: IO[bytes], patience_s: float, environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process; at the end close its pipe and wait until it has gone.

    Parameters
    ----------
    said : file for what it prints to stderr.
    patience_s : for what it has in hand, when its pipe is closed; then it is killed.
    environment : its variables; None: those of this process.
    """
    options: dict[str, Any] = {"start_new_session": True}  # Ctrl-C is for the program that asks
    if sys.platform == "win32":
        options = {"creationflags": subprocess.BELOW_NORMAL_PRIORITY_CLASS | subprocess.CREATE_NO_WINDOW}
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, env=environment, **options
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        yield process
    finally:
        with contextlib.suppress(OSError):
            process.stdin.close()
        try:
            process.wait(patience_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


@contextlib.contextmanager
def waiting_for(process: subprocess.Popen[Any]) -> Iterator[None]:
    """Note that this thread waits for an answer of a process, so that another one can end that."""
    thread = threading.get_ident()
    key = getattr(_BEHALF, "thread", thread), thread
    _WAITED_FOR[key] = process
    try:
        yield
    finally:
        del _WAITED_FOR[key]


def on_behalf(work: Callable[..., _T]) -> Callable[..., _T]:
    """Return a function for another thread, which does a part of the work of this one; see end_waiting."""
    thread = threading.get_ident()

    def do(*args: Any, **kwargs: Any) -> _T:
        _BEHALF.thread = thread
        return work(*args, **kwargs)

    return do


def end_waiting(thread: int) -> None:
    """Kill the processes that a thread, or another one on its behalf, waits for; what they do is lost.

    The processes that these started are killed, too.
    """
    for (owner, _), process in tuple(_WAITED_FOR.items()):
        if owner == thread:
            _kill(process)


def _kill(process: subprocess.Popen[Any]) -> None:
    with contextlib.suppress(psutil.Error):  # it has just ended
        for inner in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                inner.kill()
    process.kill()


def _asked(process: subprocess.Popen[bytes]) -> tuple[str, Any] | None:
    """Ask for the next step; None if nobody answers."""
    assert process.stdin is not None and process.stdout is not None
    try:
        with waiting_for(process):
            _write(process.stdin, "next")
            line = process.stdout.readline()
    except OSError:
        return None
    if not line.endswith(b"\n"):
        return None
    kind, content = json.loads(line)
    return kind, content


def _write(pipe: IO[bytes], value: Any) -> None:
    pipe.write(json.dumps(value).encode() + b"\n")
    pipe.flush()


def _error(name: str, text: str, trace: str) -> Exception:
    """Return an error of this package, or MemoryError, as it was raised; another one with its traceback."""
    kind = MemoryError if name == MemoryError.__name__ else getattr(errors, name, None)
    if isinstance(kind, type) and issubclass(kind, NucleusKDError | MemoryError):
        return kind(text)
    error = RuntimeError(f"{name}: {text}")
    error.add_note(trace)
    return error


def how_it_ended(process: subprocess.Popen[bytes], said: IO[bytes]) -> str:
    """Say how a process that answers no more has died, and what it said last."""
    try:
        code = process.wait(_PATIENCE_S)
    except subprocess.TimeoutExpired:
        code = None
    said.seek(0)
    last = said.read()[-_SHOWN:].decode(errors="replace").strip()
    how = f"by signal {-code}" if code is not None and code < 0 else f"with status {code}"
    return f"{how}, perhaps for want of memory{' (it said: ' + last + ')' if last else ''}"


def held_bytes(process: psutil.Process) -> int:
    """Return the most main memory that a process has had; of others than this on macOS what it has now."""
    status = Path(f"/proc/{process.pid}/status")
    if status.is_file():
        lines = status.read_text().splitlines()
        known = (int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
        return next(known, 0) * _KILO  # a process that ends has none
    if sys.platform == "win32":
        return int(process.memory_info().peak_wset)
    if process.pid == os.getpid():
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(process.memory_info().rss)


def main() -> None:
    """Serve the task named on the command line to the program that started this one."""
    to = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no answer
    if hasattr(os, "nice"):
        os.nice(_NICER)
    module, _, function = sys.argv[1].partition(":")
    if module.partition(".")[0] != __package__:
        raise SystemExit(f"{module} is no module of {__package__}")
    request = json.loads(sys.stdin.buffer.readline())
    with contextlib.suppress(BrokenPipeError):
        _serve(getattr(importlib.import_module(module), function), request, to)


def _serve(task: Any, request: JsonValue, to: IO[bytes]) -> None:
    steps: Generator[Progress, None, JsonValue] | None = None
    try:
        while sys.stdin.buffer.readline():
            steps = task(request) if steps is None else steps
            try:
                progress = asdict(next(steps))
            except StopIteration as stop:
                _write(to, ("result", stop.value))
                return
            values = {n: v for n, v in progress["values"].items() if math.isfinite(v)}
            _write(to, ("progress", progress | {"values": values}))
    except Exception as error:
        _write(to, ("error", (type(error).__name__, str(error), traceback.format_exc())))
    finally:
        if steps is not None:
            steps.close()


if __name__ == "__main__":
    main()
