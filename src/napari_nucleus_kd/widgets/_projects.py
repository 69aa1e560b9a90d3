"""The projects that are open in a window, each once; those that a person points to, and their lost images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from napari_nucleus_kd.types import Progress
from napari_nucleus_kd.widgets._kept_steps import count_steps
from napari_nucleus_kd.widgets._open_projects import OpenProjects
from napari_nucleus_kd.workspace import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from napari_nucleus_kd.project import Project
    from napari_nucleus_kd.widgets._kept_steps import Counted
    from napari_nucleus_kd.widgets._session import Session


@dataclass(frozen=True, slots=True)
class Listed:
    """An image of a project.

    Attributes
    ----------
    folder, id : of the project, and in it.
    path, z : where it is, or was.
    lost : why it cannot be opened and what to do, for a person; "" if it can.
    """

    folder: Path
    id: str
    path: Path
    z: int | None
    lost: str


class Projects:
    """Open projects by their folder, and where the project of an image is if it is not beside it.

    Attributes
    ----------
    open : those that are worked on.
    elsewhere : folder of the project of an image that does not lie beside it, by the image's path.
    lost : the image that a person should point to; None if all are where they were.
    """

    def __init__(self, session: Session, step: str) -> None:
        self._session, self._step = session, step
        self.open = OpenProjects()
        self.elsewhere: dict[Path, Path] = {}
        self.lost: Listed | None = None
        self._counted: dict[tuple[Path, str], Counted] = {}  # of images that are not open here
        self._counting = False

    def counts(
        self, project: Project, here: Mapping[str, Counted], changed: Callable[[], None]
    ) -> list[tuple[str, Counted | None]]:
        """Return the images of a project and what is verified of each; None where it is being counted.

        Parameters
        ----------
        here : of images that are open, by their ids; the others are counted in a thread.
        changed : called when they were.
        """
        known = dict(here)
        for image in project.images:
            counted = self._counted.get((project.folder, image.record.id))
            if counted is not None:
                known.setdefault(image.record.id, counted)
        missing = [image.record.id for image in project.images if image.record.id not in known]
        if missing and not self._counting:
            self._counting = True
            self._session.run_beside(
                count_steps(project, missing),
                partial(self._note_counts, project.folder),
                ended=partial(self._counting_ended, changed),
                step=self._step,
            )
        return [
            (Path(image.record.reference.absolute).name, known.get(image.record.id))
            for image in project.images
        ]

    def recount(self, project: Project, number: str) -> None:
        """Note that an image of a project, by its id, has to be counted anew."""
        self._counted.pop((project.folder, number), None)

    def forget_counts(self, project: Project) -> None:
        """Note that no image of a project is open any more: what others save from now on is not heard of."""
        self._counted = {key: known for key, known in self._counted.items() if key[0] != project.folder}

    def _note_counts(self, folder: Path, found: dict[str, Counted]) -> None:
        if folder not in self.open:
            return  # it was closed while they were counted
        self._counted |= {(folder, number): counted for number, counted in found.items()}

    def _counting_ended(self, changed: Callable[[], None]) -> None:
        self._counting = False
        changed()

    def choose(self, folder: Path, ask: Callable[[list[str]], int | None], ended: Callable[[], None]) -> None:
        """Open an image of a project that a person points to, with what was kept of it.

        Parameters
        ----------
        ask : which of several images, by their names; None: not now.
        """

        def listed(images: list[Listed]) -> None:
            which = 0 if len(images) == 1 else ask(_names(images))
            if which is not None:
                self._show(images[which])

        self._session.workspace.problem = None
        self._session.run_beside(list_steps(folder), listed, ended=ended, step=self._step)

    def point_to(self, path: Path, ended: Callable[[], None]) -> None:
        """Say where the lost image is now, and open it."""
        lost = self.lost
        if lost is None:
            return
        self._session.workspace.problem = None
        steps = relocate_steps(lost, path, self.open)
        self._session.run_beside(steps, self._pointed_to, ended=ended, step=self._step)

    def _pointed_to(self, image: Listed) -> None:
        self.lost = None
        if image.lost or not self._session.keeping.opening.pointed_to(image):
            self._show(image)

    def _show(self, image: Listed) -> None:
        self.lost = image if image.lost else None
        if image.lost:
            self._session.workspace.problem = Problem(self._step, image.lost)
            return
        self.elsewhere[image.path] = image.folder
        self._session.open(image.path, image.z)


def _names(images: list[Listed]) -> list[str]:
    """Return a name for each image that no other one has."""
    names = [i.path.name if i.z is None else f"{i.path.name}, z {i.z}" for i in images]
    return [
        name if names.count(name) == 1 else f"{name} ({image.id})"
        for name, image in zip(names, images, strict=True)
    ]


def list_steps(folder: Path) -> Generator[Progress, None, list[Listed]]:
    """List the images of a project.

    Raises
    ------
    ProjectError : it is none, damaged, of a newer version, or empty.
    """
    from napari_nucleus_kd.errors import ProjectError
    from napari_nucleus_kd.project import Project

    yield Progress(0, 0, f"Reading {folder.name}")
    with Project(folder, write=False) as project:
        found = [_listed(project, image.record.id) for image in project.images]
    if not found:
        raise ProjectError(f"{folder.name} has no image yet; open an image, segment it, and press Keep")
    return found


def relocate_steps(lost: Listed, path: Path, projects: OpenProjects) -> Generator[Progress, None, Listed]:
    """Note in a project where an image is now.

    Raises
    ------
    ProjectError : the file is of another size than the labels, or another image of the project, or another
        window has the project open.
    ReadError, WriteError
    """
    from napari_nucleus_kd.errors import ProjectError

    yield Progress(0, 0, f"Looking at {path.name}")
    project = projects.take(lost.folder)
    try:
        image = next(image for image in project.images if image.record.id == lost.id)
        reference = image.record.reference
        there = project.image_of(path, z=reference.z, t=reference.t, series=reference.series)
        if there not in (None, image):
            raise ProjectError(f"{path.name} is another image of this project; choose the one that was moved")
        image.relocate(path)
        return _listed(project, lost.id)
    finally:
        projects.leave(project)


def _listed(project: Project, number: str) -> Listed:
    from napari_nucleus_kd.project import ImageState

    image = next(image for image in project.images if image.record.id == number)
    path, state = image.find()
    lost = "" if state is ImageState.THERE else image.notice()
    return Listed(project.folder, number, path, image.record.reference.z, lost)
