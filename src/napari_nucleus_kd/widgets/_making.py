"""Making a project of labels in a thread; needs no Qt."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import napari_nucleus_kd
from napari_nucleus_kd.errors import ProjectError
from napari_nucleus_kd.types import Progress

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari_nucleus_kd.config import Recipe
    from napari_nucleus_kd.project import Part, Project, ProjectImage
    from napari_nucleus_kd.types import Image, Modality
    from napari_nucleus_kd.widgets._open_projects import OpenProjects


_PACKAGE = Path(napari_nucleus_kd.__file__).parent


@dataclass(frozen=True, slots=True)
class Origin:
    """Where labels come from.

    Attributes
    ----------
    modality : None asks the pixels.
    recipe : of the run that they began with. Of others it says only the channels that a person chose, if any,
        see is_of_run.
    """

    modality: Modality | None
    recipe: Recipe | None


@dataclass(frozen=True, slots=True)
class Place:
    """Where an image is.

    Attributes
    ----------
    z : plane of a stack; None of a single plane.
    is_new : it is in no file yet, and is to be written there.
    part_of, corner : file that it is a part of, and where it lies there (y, x); None: of none.
    """

    path: Path
    z: int | None = None
    is_new: bool = False
    part_of: Path | None = None
    corner: tuple[int, int] = (0, 0)


def chosen_origin(chosen: Recipe, known: Origin) -> Origin:
    """Return the origin of labels that no run made: what a person chose in Segment, else what is known."""
    from napari_nucleus_kd.config import Recipe

    recipe = known.recipe
    if chosen.channels:
        recipe = (recipe or Recipe()).model_copy(update={"channels": chosen.channels})
    return Origin(chosen.modality or known.modality, recipe)


def is_of_run(recipe: Recipe | None) -> bool:
    """Tell whether a recipe is of a run: those say the diameter that was used."""
    return recipe is not None and recipe.diameter_px is not None


def file_of(image: Image) -> Path | None:
    """Return the file of an image beside which a project may lie; None of samples, which are to be copied."""
    path = image.source
    return None if path is None or path.is_relative_to(_PACKAGE) else path.absolute()


def keep_steps(
    image: Image,
    place: Place,
    labels: Any,
    origin: Origin,
    projects: OpenProjects,
    verified: Any = None,
) -> Generator[Progress, None, tuple[Project, ProjectImage]]:
    """Add an image to the project of its folder, or make one.

    Parameters
    ----------
    labels : (Y, X) of the whole image.
    projects : takes the one that the image is added to; the caller leaves it.
    verified : (Y, X), not 0 where the labels were verified before; None: nowhere.

    Raises
    ------
    ProjectError : it is damaged, or has this image already.
    WriteError : the folder cannot be written. ReadError, LabelsError
    """
    from napari_nucleus_kd.modality import suggest_modality
    from napari_nucleus_kd.project import Part, fingerprint

    part = None
    if place.part_of is not None:
        part = Part(fingerprint=fingerprint(place.part_of)[0], y0=place.corner[0], x0=place.corner[1])
        _require_apart(place.path, part, image.shape_yx)
    if place.is_new:
        _require_unknown(place.path)
        yield from write_image_steps(image, place.path)
    modality = origin.modality or suggest_modality(image)[0]
    yield Progress(0, 0, f"Making a project for {place.path.name}")
    project = _project_for(place.path, modality, projects)
    try:
        reference = project.refer_to(place.path, z=place.z)
        added = yield from project.add_steps(
            reference, labels, verified, modality=modality, recipe=origin.recipe, part=part
        )
    except BaseException:
        projects.leave(project)
        raise
    return project, added


def _require_apart(path: Path, part: Part, shape_yx: tuple[int, int]) -> None:
    """Raise ProjectError if a project beside a file that is to be written has a part that overlaps it."""
    from napari_nucleus_kd.project import SUFFIX, is_project, overlapping

    for folder in filter(is_project, sorted(path.parent.glob(f"*{SUFFIX}"))):
        try:
            other = overlapping(folder, part, shape_yx)
        except ProjectError:
            continue  # it is damaged, which does not matter here
        if other:
            raise ProjectError(
                f"a part that overlaps this one is in {folder.name} already: open {other} and go on there, "
                "or segment a place beside it. What is in both would be learnt from and judged by"
            )


def _require_unknown(path: Path) -> None:
    """Raise ProjectError if a project beside a file that is to be written has one of this name."""
    from napari_nucleus_kd.project import SUFFIX, has_file, is_project, project_folder

    for folder in filter(is_project, sorted(path.parent.glob(f"*{SUFFIX}"))):
        try:
            known = has_file(folder, path)
        except ProjectError:
            if folder == project_folder(path):
                raise
            continue  # another one is damaged, which does not matter here
        if known:
            raise ProjectError(
                f"{folder.name} has labels of an image {path.name}, which was not written over. Choose "
                "another name"
            )


def _project_for(path: Path, modality: Modality, projects: OpenProjects) -> Project:
    """Return the project of an image: of its name, else one beside it with such images, else a new one.

    One that another window has open is left to that, unless it has the image's name.
    """
    *beside, usual = _folders_for(path)
    for folder in beside:
        try:
            project = projects.take(folder)
        except ProjectError:
            continue  # it is damaged, which does not matter here
        if project.writable and all(image.record.modality is modality for image in project.images):
            return project
        projects.leave(project)
    return projects.take(usual)


def likely_offset(path: Path) -> int:
    """Return the offset of an image's tiles once it is kept, see tiles_of; it may come to another project."""
    from napari_nucleus_kd.project import next_offset

    return next_offset(_folders_for(path)[0])


def _folders_for(path: Path) -> list[Path]:
    """Return where the project of an image may be: its own folder last, alone if that is there."""
    from napari_nucleus_kd.project import SUFFIX, is_project, project_folder

    usual = project_folder(path)
    beside = [] if is_project(usual) else sorted(filter(is_project, path.parent.glob(f"*{SUFFIX}")))
    return [*beside, usual]


def write_image_steps(image: Image, path: Path) -> Generator[Progress, None, None]:
    """Write an image that is in no file as OME-TIFF, so that a project can lie beside it.

    Raises
    ------
    WriteError : the disk refuses.
    """
    from napari_nucleus_kd.io.atomic import beside
    from napari_nucleus_kd.io.images import write_image

    yield Progress(0, 0, f"Writing {path.name}")
    names = [] if image.rgb else [channel.name for channel in image.channels]
    with beside(path) as partial:
        write_image(
            partial,
            np.asarray(image.pixels),
            rgb=image.rgb,
            pixel_size_um=image.pixel_size_um,
            channels=names,
        )
