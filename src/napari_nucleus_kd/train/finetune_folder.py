"""The folder of a fine-tuning run: what it was begun with and learns from, one program at it, its removal."""

from __future__ import annotations

import re
import shutil
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from napari_nucleus_kd.config import Settings
from napari_nucleus_kd.errors import SettingsError, WriteError
from napari_nucleus_kd.io.atomic import make_folder, write_text
from napari_nucleus_kd.package import FILES
from napari_nucleus_kd.project import SUMMARY, read_training, training_steps
from napari_nucleus_kd.train.finetune_settings import FinetuneSettings

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from napari_nucleus_kd.project import Project, TrainingData
    from napari_nucleus_kd.types import Progress

CANDIDATE = "candidate"  # name of the model in the folder; its own it gets when it is accepted
_DATA = "data"  # folder in it, of what is learnt from
_BEGUN, _LOCK, _CHECKPOINT = "finetune.json", "run.lock", "checkpoint.pt"
_WRITTEN = (_BEGUN, _LOCK, _CHECKPOINT, "recipe.json", "log.csv", "curves.png")  # by a run
_LEFT = re.compile(rf"\.(judged-.*|{CANDIDATE}-.*|.*\.partial)")  # by a run that was killed
_LITTER = (".DS_Store", "Thumbs.db", "desktop.ini")


class _Begun(Settings):
    """What a run was begun with."""

    model: str
    settings: FinetuneSettings


def run_folder(project: Path) -> Path:
    """Return the usual folder of a project's run, of which it has one at a time."""
    return project / "finetune"


def begun(output: Path) -> tuple[str, FinetuneSettings] | None:
    """Return the model and the settings of the run in a folder, to go on with it; None if there is none.

    A run that is done is there until it is rejected; going on with it gives its result again.

    Raises
    ------
    SettingsError : the folder holds a run that cannot be read.
    """
    if not (output / _BEGUN).exists():
        return None
    try:
        found = _Begun.model_validate_json((output / _BEGUN).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError(f"{output / _BEGUN} cannot be read; reject this run: {error}") from error
    return found.model, found.settings


def goes_on(output: Path) -> bool:
    """Tell whether the run in a folder has learnt something; it then goes on with the data that it has."""
    return (output / _CHECKPOINT).exists()


def note_begun(output: Path, model: str, settings: FinetuneSettings) -> None:
    """Note what a run is begun with; of one that goes on, only another number of steps is noted.

    Raises
    ------
    SettingsError : the folder holds a run that cannot be read. WriteError : the disk refuses.
    """
    found = begun(output)
    if found is not None and goes_on(output):
        before = found[1].model_copy(update={"steps": settings.steps})
        if (found[0], before) != (model, settings):
            return  # the run refuses these, or they do not shape it
    write_text(output / _BEGUN, _Begun(model=model, settings=settings).model_dump_json(indent=1))


def data_steps(project: Project, output: Path) -> Generator[Progress, None, TrainingData]:
    """Write what is verified in a project into a run's folder; a run that goes on keeps what it began with.

    What was saved last is taken: save first. Data of a run that has learnt nothing yet are written anew.

    Returns
    -------
    Training data; if more was saved since they were written, their notes say so.

    Raises
    ------
    SettingsError : the run in the folder learns from other images than the project's; another window or
        program is at it; see also project.training_steps.
    ProjectError, ReadError, WriteError : see project.training_steps.
    """
    with alone(output):
        if goes_on(output):
            return _kept(project, output)
        _remove_data(output)
        return (yield from training_steps(project, output / _DATA))


def _kept(project: Project, output: Path) -> TrainingData:
    """Return what a run that goes on learns from."""
    data = read_training(output / _DATA)
    if not data.is_of(project.images):
        raise SettingsError(
            f"the run in {output} learns from other images than those of {project.folder.name}; choose "
            "another output folder, or discard that run and start anew"
        )
    if data.is_newest(project.images):
        return data
    note = (
        "more was saved since this run began: it learns from what was verified then. To learn from the rest, "
        "finish this run or discard it, and start anew"
    )
    return replace(data, notes=(*data.notes, note))


def _remove_data(output: Path) -> None:
    """Remove what a run was to learn from, if training_steps wrote it."""
    if not _is_data(output / _DATA):
        return
    try:
        shutil.rmtree(output / _DATA)
    except OSError as error:
        raise WriteError(f"{output / _DATA} cannot be removed: {error.strerror or error}") from error


def reject(output: Path) -> None:
    """Remove the folder of a run, accepted or not; one that holds anything else is left alone.

    What file browsers leave in folders does not count.

    Raises
    ------
    SettingsError : the folder holds no run, or something that no run wrote, or the run is going on.
    WriteError : the disk refuses.
    """
    if not output.exists():
        return
    inside = [path for path in sorted(output.iterdir()) if not _is_litter(path)]
    if inside and not any(_is_mark(path) for path in inside):
        raise SettingsError(f"{output} holds no training run; nothing was removed")
    foreign = [path.name for path in inside if not _is_of_a_run(path)]
    if foreign:
        raise SettingsError(
            f"{output} holds {foreign[0]}, which no training run writes; nothing was removed. Take out what "
            "you want to keep, and remove the folder by hand"
        )
    with alone(output):  # nobody is at it
        pass
    try:
        shutil.rmtree(output)
    except OSError as error:
        raise WriteError(f"{output} cannot be removed: {error.strerror or error}") from error


@contextmanager
def alone(output: Path) -> Iterator[None]:
    """Hold the lock of a run, which the system frees when the process ends, however it ends.

    Raises
    ------
    SettingsError : another program holds it. WriteError : the disk refuses.
    """
    from filelock import FileLock, Timeout

    make_folder(output)
    lock = FileLock(str(output / _LOCK), timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise SettingsError(
            f"another window or program is at the run in {output}; wait for it, or stop it there"
        ) from error
    except (OSError, NotImplementedError) as error:
        raise WriteError(
            f"{output} cannot be written: {getattr(error, 'strerror', None) or error}; choose another folder "
            "(--output), on a disk of yours"
        ) from error
    try:
        yield
    finally:
        lock.release()


def remove_left(output: Path) -> None:
    """Remove what a killed run left half-written."""
    for path in output.iterdir():
        if _LEFT.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif _LEFT.fullmatch(path.name):
            path.unlink(missing_ok=True)


def _is_mark(path: Path) -> bool:
    """Tell whether something in a folder shows that a run was there."""
    left = _LEFT.fullmatch(path.name) is not None
    return left or path.name in (_BEGUN, _LOCK, "recipe.json") or _is_data(path)


def _is_data(path: Path) -> bool:
    return path.name == _DATA and (path / SUMMARY).is_file()


def _is_of_a_run(path: Path) -> bool:
    known = path.name in _WRITTEN or _LEFT.fullmatch(path.name) is not None
    return known or _is_data(path) or _is_candidate(path)


def _is_candidate(path: Path) -> bool:
    """Tell whether it is the model that a run made, and nothing else was put into it."""
    if path.name != CANDIDATE or not path.is_dir() or path.is_symlink():
        return False
    inside = (each for each in path.iterdir() if not _is_litter(each))
    return all(each.name in FILES and each.is_file() for each in inside)


def _is_litter(path: Path) -> bool:
    """Tell whether it is a file that file browsers leave in any folder."""
    return path.is_file() and (path.name in _LITTER or path.name.startswith("._"))
