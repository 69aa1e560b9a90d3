"""What project.json says: the images of a project, how they were segmented and where their labels begin."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from napari_nucleus_kd.config import Recipe, Settings, complaint
from napari_nucleus_kd.errors import ProjectError
from napari_nucleus_kd.io.atomic import beside, settle
from napari_nucleus_kd.project._lock import HOLDER
from napari_nucleus_kd.project._reference import ImageReference
from napari_nucleus_kd.types import Modality

if TYPE_CHECKING:
    from pathlib import Path

FORMAT = 1
FILE = "project.json"
_MAX_BYTES = 256 * 1024**2  # a larger one is no project
_SHOWN = 500  # characters of what is wrong with it
_Pixels = Annotated[int, Field(ge=1)]


class Part(Settings):
    """Where an image that was cut out of a larger one lies in that."""

    fingerprint: str = Field(description="Of the larger image, see ImageReference")
    y0: int = Field(ge=0)
    x0: int = Field(ge=0)


class ImageRecord(Settings):
    """One image of a project.

    No path to the project's own files is kept: they follow from the numbers, so that a file from elsewhere
    cannot name places outside the project.
    """

    id: str = Field(pattern="^image-[0-9]{4,}$", description="Name of its folder in the project")
    reference: ImageReference
    shape_yx: tuple[_Pixels, _Pixels]
    pixel_size_um: float | None = Field(None, gt=0)
    modality: Modality
    part: Part | None = Field(None, description="Of a larger image; None: it is no part, or nobody said so")
    recipe: Recipe | None = Field(None, description="Of the segmentation that the labels began with")
    offset: int | None = Field(
        None, ge=1, description="Of the roles of its tiles; None: see Project.offset_of"
    )
    base: int = Field(1, ge=1, description="Number of the complete labels")
    corrected: tuple[int, ...] = Field((), description="Numbers of the nuclei that a person corrected")
    first_entry: int = Field(1, ge=1, description="Number of the first journal entry after them")

    @model_validator(mode="before")
    @classmethod
    def _without_state(cls, values: object) -> object:
        """Take records as they were first written, with a `state` that nobody used."""
        if isinstance(values, dict) and values.get("state") == {}:
            return {name: value for name, value in values.items() if name != "state"}
        return values


class ProjectFile(Settings):
    """Content of project.json."""

    format: Literal[1] = 1
    images: tuple[ImageRecord, ...] = ()

    @field_validator("images")
    @classmethod
    def _each_once(cls, images: tuple[ImageRecord, ...]) -> tuple[ImageRecord, ...]:
        if len({image.id for image in images}) < len(images):
            raise ValueError("two images have one id")
        return images

    def record(self, image_id: str) -> ImageRecord | None:
        """Return what is said of an image; None if it is not there."""
        return next((image for image in self.images if image.id == image_id), None)

    def updated(self, record: ImageRecord) -> ProjectFile:
        """Return the file with what it says of one image replaced, or added."""
        images = {image.id: image for image in self.images} | {record.id: record}
        return self.model_copy(update={"images": tuple(images.values())})


def read_file(folder: Path) -> ProjectFile:
    """Read project.json.

    Raises
    ------
    ProjectError : there is none, it is damaged, or of a newer version.
    """
    path = folder / FILE
    if not path.is_file():
        what = f"it has no {FILE}" if folder.exists() else "there is no such folder"
        raise ProjectError(f"{folder} is no project: {what}. Choose a folder *.nucleus-kd")
    remedy = "restore the file from a backup; the labels beside it are untouched"
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ProjectError(f"{path} has more than {_MAX_BYTES} bytes, which no project has; {remedy}")
        values: Any = json.loads(path.read_text(encoding="utf-8"))
        version = values.get("format") if isinstance(values, dict) else None
        if isinstance(version, int) and version > FORMAT:
            raise ProjectError(
                f"{path} is of format {version}, this version of the program knows {FORMAT}; update "
                "napari-nucleus-kd to open it"
            )
        return ProjectFile.model_validate(values)
    except OSError as error:
        raise ProjectError(
            f"{path} cannot be read: {error.strerror or error}; check its permissions"
        ) from error
    except RecursionError as error:
        raise ProjectError(f"{path} is damaged: nested without end; {remedy}") from error
    except ValidationError as error:
        raise ProjectError(
            f"{path} is damaged: {complaint(error)[:_SHOWN]}; if a newer version of the program wrote it, "
            f"update; else {remedy}"
        ) from error
    except ValueError as error:
        raise ProjectError(f"{path} is damaged: {error}; {remedy}") from error


def write_file(folder: Path, content: ProjectFile) -> None:
    """Write project.json; when this returns it is on the disk.

    Raises
    ------
    WriteError : the disk refuses; what was there stays.
    """
    with beside(folder / FILE) as partial:
        partial.write_text(content.model_dump_json(indent=1), encoding="utf-8")
        settle(partial)
    settle(folder)


def remove_unfinished(folder: Path) -> None:
    """Remove what a killed program left beside project.json, and of images that it was adding."""
    for name in (FILE, HOLDER):
        for path in folder.glob(f".{name}.*.partial"):
            with suppress(OSError):
                path.unlink()
    for path in folder.glob("image-*/.base-*.partial"):
        if not path.parent.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
