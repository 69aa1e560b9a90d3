"""Making an environment of its own for another tool."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from napari_nucleus_kd import apart
from napari_nucleus_kd.baselines.environments import (
    MADE,
    Found,
    Tool,
    clean_environment,
    folder,
    forget,
    forget_checked,
    python_of,
    tool_named,
    version_in,
)
from napari_nucleus_kd.errors import BaselineError, WriteError
from napari_nucleus_kd.io.atomic import make_folder, put_in_place, write_text
from napari_nucleus_kd.types import Progress

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

_SHOWN = 1500  # characters of what an installer said before it failed


def install_steps(
    name: str, python: str | None = None, more: Sequence[str] = ()
) -> Generator[Progress, None, Found]:
    """Install a tool into an environment of its own, with uv if it is there, else with venv and pip.

    Parameters
    ----------
    python : interpreter to make it with; None: this one.
    more : requirements beside the tool's own.

    Yields
    ------
    Progress, with what the installer says.

    Raises
    ------
    BaselineError with the installer's last words. WriteError
    """
    tool, place = tool_named(name), folder() / name
    environment = folder() / f"{name}.new"  # what is there stays until this one is complete
    interpreter = python or sys.executable
    _require_ours(place)
    make_folder(folder())
    lock = FileLock(folder() / f"{name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise BaselineError(f"{tool.title} is being installed already; wait for that to end") from error
    try:
        return (yield from _install_steps(tool, interpreter, environment, more))
    finally:
        lock.release()


def _install_steps(
    tool: Tool, interpreter: str, environment: Path, more: Sequence[str]
) -> Generator[Progress, None, Found]:
    place, name = folder() / tool.name, tool.name
    yield Progress(0, 3, f"making an environment for {place}")
    aside = _aside(name)
    if aside.exists() and not place.exists():  # killed while it was being replaced
        aside.rename(place)
    shutil.rmtree(aside, ignore_errors=True)
    _remove(environment)
    uv = shutil.which("uv")
    make = [uv, "venv", "--python", interpreter] if uv else [interpreter, "-m", "venv"]
    yield from _run([*make, str(environment)], 0)
    inside = str(python_of(environment))
    install = [uv, "pip", "install", "--python", inside] if uv else [inside, "-m", "pip", "install"]
    yield Progress(1, 3, f"installing {', '.join(tool.requirements)}")
    yield from _run([*install, *tool.requirements, *more], 1)
    yield Progress(2, 3, "looking whether it is there")
    version = version_in(tool, python_of(environment))
    write_text(environment / MADE, json.dumps({"version": version}) + "\n")
    try:
        put_in_place(environment, place)  # what was there goes only once it is
    except OSError as error:
        raise WriteError(
            f"{place} cannot be replaced: {error.strerror or error}; end what uses it, and install again"
        ) from error
    forget(name)
    forget_checked(name)
    return Found(python_of(place), version, "made by nucleus-kd")


def remove(name: str) -> Path | None:
    """Forget an environment of a person's, or else remove the one that was made; return what was removed.

    Raises
    ------
    BaselineError, WriteError
    """
    tool_named(name)
    forget_checked(name)
    environment = folder() / name
    shutil.rmtree(_aside(name), ignore_errors=True)
    if forget(name) or not environment.exists():
        return None
    _remove(environment)
    return environment


def _aside(name: str) -> Path:
    """Return where a former environment lies while, or because, replacing it was not finished."""
    return folder() / f"{name}.new-old"  # see put_in_place


def _require_ours(environment: Path) -> None:
    """Raise WriteError if a folder is there that is no environment."""
    if environment.exists() and not (environment / "pyvenv.cfg").exists():
        raise WriteError(f"{environment} is no environment that nucleus-kd made; move it away first")


def _remove(environment: Path) -> None:
    _require_ours(environment)
    if not environment.exists():
        return
    (environment / MADE).unlink(missing_ok=True)  # first: what is left of it is no environment
    try:
        shutil.rmtree(environment)
    except OSError as error:
        raise WriteError(f"{environment} cannot be removed: {error.strerror or error}") from error


def _run(command: list[str], step: int) -> Generator[Progress, None, None]:
    """Run an installer; its lines are the progress. It ends with the steps, or by apart.end_waiting."""
    said = ""
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=clean_environment(),
        )
    except OSError as error:
        raise BaselineError(f"{command[0]} cannot be run: {error.strerror or error}") from error
    assert process.stdout is not None
    try:
        while line := _next_line(process):
            said = (said + line)[-_SHOWN:]
            if line.strip():
                yield Progress(step, 3, re.sub(r"\s+", " ", line).strip()[:200])
        if process.returncode:
            raise BaselineError(f"{' '.join(command[:4])} … failed with status {process.returncode}: {said}")
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
        process.stdout.close()


def _next_line(process: subprocess.Popen[str]) -> str:
    """Wait for what a process says next; "" once it has ended."""
    assert process.stdout is not None
    with apart.waiting_for(process):
        line = process.stdout.readline()
        if not line:
            process.wait()
        return line
