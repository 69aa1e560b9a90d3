"""Projects in threads: found, opened, made and saved; needs no Qt."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_nucleus_kd.errors import ProjectError
from napari_nucleus_kd.types import Progress, Region

if TYPE_CHECKING:
    from collections.abc import Collection, Generator
    from pathlib import Path

    import numpy.typing as npt

    from napari_nucleus_kd.project import Project, ProjectImage
    from napari_nucleus_kd.types import LabelArray
    from napari_nucleus_kd.widgets._open_projects import OpenProjects

_HOLDER = "holder.json"  # there while a project is open for writing, and after a crash


@dataclass(frozen=True, eq=False, slots=True)
class Opened:
    """An image of a project with what was kept of it.

    Attributes
    ----------
    labels, verified : (Y, X) int32 and uint8, new arrays.
    counted : see count.
    saved : when it was saved last.
    crashed : the program that had it open before did not close it.
    changed : why its file is not the one that was labelled, and what to do; "" if it is.
    """

    project: Project
    image: ProjectImage
    labels: LabelArray
    verified: npt.NDArray[np.uint8]
    counted: Counted
    saved: datetime
    crashed: bool
    changed: str


@dataclass(frozen=True, slots=True)
class Counted:
    """What is verified of an image.

    Attributes
    ----------
    nuclei : how many are verified completely.
    share : of the pixels, 0 to 1.
    """

    nuclei: int = 0
    share: float = 0.0


class Whole:
    """Labels of a part of an image as if they were of all of it: background around.

    Parameters
    ----------
    part : (Y, X), what is indexed like an array.
    corner : where its first pixel lies in the image.
    shape : of the image.
    """

    def __init__(self, part: Any, corner: tuple[int, int], shape: tuple[int, int]) -> None:
        self._part, self._corner, self.shape = part, corner, shape

    def __getitem__(self, index: Any) -> npt.NDArray[Any]:
        (y0, y1, _), (x0, x1, _) = (
            part.indices(length) for part, length in zip(index, self.shape, strict=True)
        )
        asked = Region(y0, x0, y1, x1)
        found = np.zeros(asked.shape_yx, self._part.dtype)
        inner = asked.within(Region(*self._corner, *self._corner)).grown(0, self._part.shape)
        if min(inner.shape_yx) > 0:
            y, x = inner.y0 + self._corner[0] - y0, inner.x0 + self._corner[1] - x0
            height, width = inner.shape_yx
            found[y : y + height, x : x + width] = np.asarray(self._part[inner.slices])
        return found


def find_steps(
    path: Path, z: int | None, projects: OpenProjects, elsewhere: Path | None = None
) -> Generator[Progress, None, Opened | None]:
    """Look beside an image for the project that it is in, and open it.

    Parameters
    ----------
    z : plane of the file that is shown; None if it has one.
    elsewhere : folder of its project, if that is known not to be beside it.

    Returns
    -------
    None if no project has this image.

    Raises
    ------
    ProjectError : the project of this name is damaged or of a newer version.
    """
    from napari_nucleus_kd.project import SUFFIX, has_image, is_project, project_folder

    usual = project_folder(path)
    beside = sorted(path.parent.glob(f"*{SUFFIX}"), key=lambda place: place != usual)
    for folder in beside if elsewhere is None else [elsewhere]:
        try:
            if is_project(folder) and has_image(folder, path, z=z):
                return (yield from open_steps(folder, path, z, projects))
        except ProjectError:
            if folder == usual:
                raise
    return None


def open_steps(
    folder: Path, path: Path, z: int | None, projects: OpenProjects
) -> Generator[Progress, None, Opened]:
    """Open a project and read what was kept of one of its images.

    Raises
    ------
    ProjectError : it does not have this image, is damaged, or of a newer version.
    """
    from napari_nucleus_kd.project import ImageState

    yield Progress(0, 0, f"Reading {folder.name}")
    crashed = folder not in projects and (folder / _HOLDER).exists()
    project = projects.take(folder)
    try:
        image = project.image_of(path, z=z)
        if image is None:
            raise ProjectError(f"{folder.name} does not have {path.name} any more; open the image again")
        labels, checked = yield from image.load_steps()
        changed = "" if image.find()[1] is ImageState.THERE else image.notice()
    except BaseException:
        projects.leave(project)
        raise
    verified = checked.view(np.uint8)
    counted = count(labels, verified)
    crashed = crashed and project.writable
    return Opened(project, image, labels, verified, counted, image.saved_at, crashed, changed)


def save_steps(
    image: ProjectImage, labels: Any, verified: Any, corrected: Collection[int]
) -> Generator[Progress, None, tuple[datetime, Counted]]:
    """Save what was touched, and which nuclei a person corrected.

    Returns
    -------
    When it was done, and what is verified.

    Raises
    ------
    ProjectError, WriteError, LabelsError : see ProjectImage.save.
    """
    yield Progress(0, 0, "Saving")
    image.save(labels, verified)
    image.note_corrected(corrected)
    return datetime.now(), count(labels, verified)


def count_steps(project: Project, numbers: list[str]) -> Generator[Progress, None, dict[str, Counted]]:
    """Count what is verified of some images of a project, by their ids; nothing of those that are damaged."""
    found = {}
    for image in project.images:
        if image.record.id in numbers:
            try:
                labels, verified = yield from image.load_steps()
            except ProjectError:
                found[image.record.id] = Counted()
                continue
            found[image.record.id] = count(labels, verified)
    return found


def count(labels: Any, verified: Any) -> Counted:
    """Count the nuclei all of whose pixels are verified, and the share of the pixels that is."""
    from napari_nucleus_kd.project import count_verified

    return Counted(*count_verified(labels, verified))


class Merged(NamedTuple):
    """Kept labels, and new ones in the place of some.

    Attributes
    ----------
    labels : (Y, X) int32; kept nuclei keep their numbers, the others get numbers after them.
    came : which number each of these others had, by the one that it has.
    gone : numbers of the kept nuclei that are no more.
    """

    labels: npt.NDArray[np.int32]
    came: dict[int, int]
    gone: frozenset[int]


def merged_steps(
    kept: Any, verified: Any, found: Any, part: Region, mine: Collection[int] = ()
) -> Generator[Progress, None, Merged]:
    """Put new labels of a part of an image in the place of kept ones, but for what a person did.

    Nuclei with a verified pixel, or one outside of the part, stay as they are, and those that a person
    corrected. Of the new ones those come in that have less than half of their pixels under these or in what
    is verified, without these pixels.

    Parameters
    ----------
    kept, verified, found : (Y, X) of the whole image, indexed like arrays.
    part : where new labels were looked for.
    mine : numbers of the kept nuclei that a person corrected.

    """
    import fastremap

    yield Progress(0, 2, "Taking in the new nuclei")
    old, checked, new = np.asarray(kept[:, :]), np.asarray(verified[:, :]) != 0, np.asarray(found[:, :])
    fixed = np.ones(old.shape, bool)
    fixed[part.slices] = checked[part.slices]
    staying = fastremap.unique(old[fixed])
    stays = np.isin(old, [*staying[staying > 0], *mine])
    yield Progress(1, 2, "Taking in the new nuclei")
    new, renumbered = fastremap.renumber(new, in_place=False)
    closed = stays | fixed
    area = np.bincount(new.ravel())
    under = np.bincount(new[closed], minlength=len(area))
    comes = under < area / 2
    comes[0] = False
    merged: npt.NDArray[np.int32] = np.where(stays, old, 0).astype(np.int32)
    room = comes[new] & ~closed
    last = max(int(old.max(initial=0)), 0, *mine)  # no new one takes the number of one that is gone
    merged[room] = new[room].astype(np.int32) + last
    came = {last + number: was for was, number in renumbered.items() if comes[number]}
    return Merged(merged, came, frozenset(fastremap.unique(old[~stays]).tolist()) - {0})
