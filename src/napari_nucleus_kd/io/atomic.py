"""Put finished files and folders under their names: whole, or not at all."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import threading
import time
import uuid
from contextlib import contextmanager, suppress
from io import StringIO
from typing import TYPE_CHECKING

from napari_nucleus_kd.errors import WriteError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_SCRATCH, _SCRATCH_NUMBER = ".scratch-", 8  # the dot hides it; so many digits behind it
_LEFT_S = 3600  # older ones were left by a program that was killed


def make_folder(path: Path) -> None:
    """Make a folder and those above it, unless it is there.

    Raises
    ------
    WriteError : the disk refuses.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(
            f"{path} cannot be made: {error.strerror or error}; choose another folder"
        ) from error


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """Give a new hidden folder in another one, to prepare something in; it goes, or is moved, in the end.

    One that a killed program left there goes, too.

    Raises
    ------
    OSError : the disk refuses.
    """
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.glob(_SCRATCH + "?" * _SCRATCH_NUMBER):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > _LEFT_S:
                shutil.rmtree(left, ignore_errors=True)
    folder = parent / f"{_SCRATCH}{uuid.uuid4().hex[:_SCRATCH_NUMBER]}"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def put_in_place(partial: Path, path: Path) -> None:
    """Move a finished file or folder to its name.

    A folder that is there is set aside, and goes only once that worked.

    Raises
    ------
    OSError : the disk refuses; what was there stays.
    """
    if path.exists() and not path.is_dir():
        partial.replace(path)
        return
    if not path.exists():
        partial.rename(path)
        return
    aside = partial.with_name(partial.name + "-old")
    shutil.rmtree(aside, ignore_errors=True)
    path.rename(aside)
    try:
        partial.rename(path)
    except BaseException:
        aside.rename(path)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def discard(path: Path) -> None:
    """Remove what is left of an unfinished file or folder, if that can be: why not has been told by then."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """Give a place beside a file to write to; what was written there is then moved to the file's name.

    Raises
    ------
    WriteError : the disk refuses; what was there stays.
    """
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        raise WriteError(
            f"{path} cannot be written: {error.strerror or error}; check space and permissions"
        ) from error
    finally:
        discard(partial)


@contextmanager
def scratch_beside(path: Path, remedy: str = "check space and permissions") -> Iterator[Path]:
    """Give an empty folder beside a name, to write in; who writes moves what is finished to its name.

    The folder, or what is left of it, is removed at the end.

    Parameters
    ----------
    path : where the finished file or folder is to be.
    remedy : last words of the error.

    Raises
    ------
    WriteError : the disk refuses; what was there stays.
    """
    scratch = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        scratch.mkdir(parents=True)
        yield scratch
    except OSError as error:
        raise WriteError(f"{path} cannot be written: {error.strerror or error}; {remedy}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, beside its name first.

    Raises
    ------
    WriteError : the disk refuses; what was there stays.
    """
    with beside(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_csv(path: Path, rows: Iterable[Iterable[object]]) -> None:
    """Write rows, the first of them the names of the columns, as a CSV file, beside its name first.

    Raises
    ------
    WriteError : the disk refuses; what was there stays.
    """
    text = StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text(path, text.getvalue())


def settle(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk itself, so that a power cut keeps them.

    Raises
    ------
    OSError : the disk refuses a file. Folders that cannot be waited for, as on Windows, are let pass.
    """
    if not path.is_dir():
        with path.open("r+b") as file:
            os.fsync(file.fileno())
        return
    with suppress(OSError):
        names = os.open(path, os.O_RDONLY)
        try:
            os.fsync(names)
        finally:
            os.close(names)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Put Ctrl-C off until the end of the block, so that files that belong together are written together."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed = []
    before = signal.signal(signal.SIGINT, lambda *_: pressed.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt
