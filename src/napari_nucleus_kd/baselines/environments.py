"""Where other tools are installed: this environment, one that a person named, or one that we made."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from napari_nucleus_kd.baselines.weights import weight_files
from napari_nucleus_kd.errors import BaselineError
from napari_nucleus_kd.io.atomic import make_folder, write_text

_NAMED = "environments.json"
_CHECKED = "checked.json"
MADE = "made.json"  # in an environment of ours, once it is complete
_PATIENCE_S = 120.0
_SHOWN = 300  # characters of what a Python said before it failed
# Variables that say how many threads a tool takes on a processor.
THREADS = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")


@dataclass(frozen=True, slots=True)
class Tool:
    """Another tool that finds nuclei.

    Attributes
    ----------
    served_as : name in serve.TOOLS.
    requirements : what pip installs for it.
    needs : packages that must be there for it to work.
    devices : that it runs on; cuda may have a number.
    """

    name: str
    title: str
    served_as: str
    requirements: tuple[str, ...]
    needs: tuple[str, ...]
    devices: tuple[str, ...]


_TORCH = ("auto", "cpu", "cuda", "mps")
TOOLS = {
    tool.name: tool
    for tool in (
        Tool("cellpose", "Cellpose 3", "cellpose", ("cellpose>=3.1,<4",), ("cellpose", "torch"), _TORCH),
        Tool("cellpose4", "Cellpose 4", "cellpose", ("cellpose>=4",), ("cellpose", "torch"), _TORCH),
        Tool(
            "stardist",
            "StarDist",
            "stardist",
            ("stardist>=0.9.1", "tensorflow>=2.16"),
            ("stardist", "tensorflow"),
            ("auto", "cpu", "cuda"),
        ),
    )
}


class Found(NamedTuple):
    """Where a tool is.

    Attributes
    ----------
    how : "named by you", "made by nucleus-kd" or "this environment".
    """

    python: Path
    version: str
    how: str


def folder() -> Path:
    """Return where environments and what is known of them are kept."""
    from platformdirs import user_data_path

    return user_data_path("napari-nucleus-kd", appauthor=False) / "baselines"


def tool_named(name: str) -> Tool:
    """Return a tool.

    Raises
    ------
    BaselineError lists the names there are.
    """
    if name not in TOOLS:
        raise BaselineError(f"no tool {name!r}; choose from {', '.join(TOOLS)}")
    return TOOLS[name]


def python_of(environment: Path) -> Path:
    """Return the interpreter of a virtual environment, or of a conda one."""
    places = ("bin/python", "Scripts/python.exe", "python.exe")
    return next((environment / p for p in places if (environment / p).exists()), environment / places[0])


def find(name: str) -> Found:
    """Return where a tool is installed.

    Raises
    ------
    BaselineError says how to install it, or what is wrong with where it should be.
    """
    tool = tool_named(name)
    named = _named().get(name)
    if named is not None:
        return Found(Path(named), version_in(tool, Path(named)), "named by you")
    made = folder() / name
    if (made / MADE).exists():
        python, again = python_of(made), f"install it again: nucleus-kd baselines install {name}"
        return Found(python, version_in(tool, python, remedy=again), "made by nucleus-kd")
    try:
        return Found(Path(sys.executable), version_in(tool, Path(sys.executable)), "this environment")
    except BaselineError as error:
        raise BaselineError(
            f"{tool.title} is not installed: nucleus-kd baselines install {name}. Where you have it already: "
            f"nucleus-kd baselines use {name} PATH/TO/PYTHON"
        ) from error


def installed() -> dict[str, Found | str]:
    """Return for each tool where it is, or why it cannot be used."""
    found: dict[str, Found | str] = {}
    for name in TOOLS:
        try:
            found[name] = find(name)
        except BaselineError as error:
            found[name] = str(error)
    return found


def use(name: str, python: Path) -> Found:
    """Take a tool from an environment of yours from now on.

    Parameters
    ----------
    python : its interpreter, or its folder.

    Raises
    ------
    BaselineError if the tool is not there. WriteError
    """
    tool = tool_named(name)
    # The path as given: an interpreter of a virtual environment is a link, and resolved it is another one.
    python = (python_of(python) if python.is_dir() else python).absolute()
    found = Found(python, version_in(tool, python), "named by you")
    _note(_NAMED, _named() | {name: str(python)})
    forget_checked(name)
    return found


def forget(name: str) -> bool:
    """Forget which environment of yours a tool was taken from; tell whether one was known."""
    named = _named()
    if named.pop(name, None) is None:
        return False
    _note(_NAMED, named)
    return True


def checked() -> dict[str, str]:
    """Return with which weights each tool was last seen to work, see note_checked."""
    return _known(_CHECKED)


def note_checked(name: str, weights: str) -> None:
    """Note that a tool works with these weights, a path or a name."""
    path = Path(weights).absolute()
    _note(_CHECKED, checked() | {tool_named(name).name: str(path) if weight_files(path) else weights})


def forget_checked(name: str) -> None:
    """Forget with which weights a tool works: it is another one now, or failed."""
    known = checked()
    if known.pop(name, None) is not None:
        _note(_CHECKED, known)


def environment_state(name: str) -> tuple[str | None, int | None, tuple[str | None, ...]]:
    """Return what changes when a tool comes from elsewhere, is installed anew, or gets other threads."""
    made = folder() / name / MADE
    threads = tuple(os.environ.get(variable) for variable in THREADS)
    return _named().get(name), made.stat().st_mtime_ns if made.exists() else None, threads


def _named() -> dict[str, str]:
    return _known(_NAMED)


def _note(file: str, known: dict[str, str]) -> None:
    make_folder(folder())
    write_text(folder() / file, json.dumps(known, indent=2) + "\n")


def _known(name: str) -> dict[str, str]:
    """Return what a file says of the tools; nothing, if there is none."""
    file = folder() / name
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise BaselineError(f"{file} cannot be read: {error}; delete it, and name the tools again") from error
    if not isinstance(known, dict):
        raise BaselineError(f"{file} is damaged; delete it, and name the tools again")
    return {str(tool): str(said) for tool, said in known.items() if tool in TOOLS}


_CLEAN = "import sys; sys.path[:] = [p for p in sys.path if p]; "  # no packages of the current folder
_ASK = (
    f"{_CLEAN}import importlib.metadata as m, importlib.util as u, json, sys; names = sys.argv[1:]; "
    "print(json.dumps([m.version(names[0]) if all(u.find_spec(n) for n in names) else '', "
    "[n for n in names if not u.find_spec(n)]]))"
)


def version_in(tool: Tool, python: Path, remedy: str | None = None) -> str:
    """Return the version of a tool in an environment.

    Parameters
    ----------
    remedy : what to do if there is no such Python; None: name another one.

    Raises
    ------
    BaselineError if it is not there, or another version is.
    """
    from packaging.requirements import Requirement

    try:
        said = subprocess.run(
            [str(python), "-c", _ASK, *tool.needs],
            capture_output=True,
            timeout=_PATIENCE_S,
            check=True,
            text=True,
            env=clean_environment(),
        )
        version, missing = json.loads(said.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise BaselineError(
            f"{python} cannot be run as Python ({_last_words(error)}); "
            + (remedy or f"name the interpreter of the environment where {tool.title} is")
        ) from error
    if missing:
        raise BaselineError(
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed in the "
            f"environment of {python}"
        )
    wanted = Requirement(tool.requirements[0]).specifier
    if not wanted.contains(version, prereleases=True):
        raise BaselineError(f"{python} has {tool.needs[0]} {version}, and {tool.title} means {wanted}")
    return str(version)


def import_in(tool: Tool, python: Path) -> None:
    """Import what a tool needs, in a process of its environment.

    Raises
    ------
    BaselineError if that fails, with its last words.
    """
    try:
        subprocess.run(
            [str(python), "-c", f"{_CLEAN}import {', '.join(tool.needs)}"],
            capture_output=True,
            timeout=_PATIENCE_S,
            check=True,
            text=True,
            env=clean_environment(),
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise BaselineError(
            f"{' and '.join(tool.needs)} cannot be imported by {python}: {_last_words(error)}"
        ) from error


def _last_words(error: Exception) -> str:
    """Return why a process failed, as it says itself if it does."""
    why = getattr(error, "strerror", None) or getattr(error, "stderr", None) or error
    return str(why).strip()[-_SHOWN:]


def clean_environment() -> dict[str, str]:
    """Return the variables of this process without those that would show it our packages."""
    return {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP")}
