"""A project: a folder with the labels of some images and what a person verified of them."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from napari_nucleus_kd.errors import ProjectError, WriteError
from napari_nucleus_kd.io import image_suffix, read
from napari_nucleus_kd.io.atomic import make_folder
from napari_nucleus_kd.project._arrays import as_labels, as_mask, check_shapes, digests
from napari_nucleus_kd.project._base import base_path, write_base_steps
from napari_nucleus_kd.project._format import (
    FILE,
    ImageRecord,
    Part,
    ProjectFile,
    read_file,
    remove_unfinished,
    write_file,
)
from napari_nucleus_kd.project._image import ProjectImage
from napari_nucleus_kd.project._lock import ProjectLock
from napari_nucleus_kd.project._reference import ImageReference, index_of, refer_to
from napari_nucleus_kd.types import Region

if TYPE_CHECKING:
    import os
    from collections.abc import Generator, Iterable
    from types import TracebackType

    from napari_nucleus_kd.config import Recipe
    from napari_nucleus_kd.project._arrays import Plane
    from napari_nucleus_kd.project._base import Pair
    from napari_nucleus_kd.project._journal import Block
    from napari_nucleus_kd.types import Modality, Progress

SUFFIX = ".nucleus-kd"
_IMAGE = "image-"  # folder of an image; its number follows


def project_folder(image: Path) -> Path:
    """Return the usual place of an image's project: beside it.

    >>> project_folder(Path("slides/tonsil.ome.tif")).as_posix()
    'slides/tonsil.nucleus-kd'
    """
    return image.with_name(image.name[: -len(image_suffix(image)) or None] + SUFFIX)


def is_project(folder: Path) -> bool:
    """Tell whether a folder holds a project."""
    return (folder / FILE).is_file()


def has_image(
    folder: Path, path: str | os.PathLike[str], *, z: int | None = None, t: int = 0, series: int = 0
) -> bool:
    """Tell whether the project in a folder has an image, without opening it; see Project.image_of.

    Raises
    ------
    ProjectError : there is no project, or it is damaged.
    """
    references = [record.reference for record in read_file(folder).images]
    return index_of(references, folder, path, z=z, t=t, series=series) is not None


def has_file(folder: Path, path: str | os.PathLike[str]) -> bool:
    """Tell whether the project in a folder has any plane of an image file; see has_image."""
    place = Path(path).expanduser().resolve()
    return any(record.reference.is_at(place, folder) for record in read_file(folder).images)


def overlapping(folder: Path, part: Part, shape_yx: tuple[int, int]) -> str:
    """Return the file name of a part in a project that shares pixels with a part; "" if none does.

    A nucleus in both would teach in one of them what it judges in the other.

    Parameters
    ----------
    shape_yx : of the part.

    Raises
    ------
    ProjectError : there is no project, or it is damaged.
    """
    region = _region(part, shape_yx)
    for record in read_file(folder).images:
        if record.part is None or record.part.fingerprint != part.fingerprint:
            continue
        if min(region.common(_region(record.part, record.shape_yx)).shape_yx) > 0:
            return record.reference.find(folder)[0].name
    return ""


def _region(part: Part, shape_yx: tuple[int, int]) -> Region:
    return Region(part.y0, part.x0, part.y0 + shape_yx[0], part.x0 + shape_yx[1])


class Project:
    """An open project; close it, or use it with `with`, so that others may write it.

    Parameters
    ----------
    folder : of a project that is there; see create.
    write : True demands that it can be changed, False only looks; None changes it if that is possible.

    Attributes
    ----------
    images : in the order in which they were added.
    refusal : why it is open for looking only and what to do, for a person; "" if it is open for writing.

    Raises
    ------
    ProjectError : there is no project, it is damaged or of a newer version, or writing was demanded and
        another window writes it, or the disk allows none.
    """

    def __init__(self, folder: str | os.PathLike[str], *, write: bool | None = None):
        self.folder = Path(folder).expanduser().absolute()
        self._file = read_file(self.folder)
        self._lock = ProjectLock(self.folder) if write is not False else None
        self.refusal = "it was opened for looking only" if self._lock is None else self._lock.refusal
        if write and self.refusal:
            raise ProjectError(self.refusal)
        self.busy = threading.RLock()  # held while something is saved
        try:
            self._file = read_file(self.folder)  # it may have changed until the lock was had
            if self.writable:
                remove_unfinished(self.folder)
            self.images = tuple(ProjectImage(self, record) for record in self._file.images)
        except BaseException:
            self.close()
            raise

    @classmethod
    def create(cls, folder: str | os.PathLike[str]) -> Self:
        """Make an empty project and open it for writing.

        Raises
        ------
        WriteError : the folder is there and not empty, or cannot be made. ProjectError : see the class.
        """
        place = Path(folder).expanduser().absolute()
        make_folder(place)
        remove_unfinished(place)  # of a program that was killed while it did this
        if any(place.iterdir()):
            raise WriteError(f"{place} is there and not empty; open it, or choose another name")
        write_file(place, ProjectFile())
        return cls(place, write=True)

    @classmethod
    def open_or_create(cls, folder: str | os.PathLike[str]) -> Self:
        """Open a project, for writing if that is possible; make it if there is none.

        Raises
        ------
        ProjectError, WriteError : see the class and create.
        """
        place = Path(folder).expanduser().absolute()
        return cls(place) if is_project(place) else cls.create(place)

    def __enter__(self) -> Self:
        """Return the project itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Let others write the project, once a save in another thread is done; what is not saved is lost."""
        with self.busy:
            self.refusal = self.refusal or f"{self.folder.name} was closed; open it again to change it"
            if self._lock is not None:
                self._lock.release()

    @property
    def writable(self) -> bool:
        """Whether it is open for writing."""
        return not self.refusal

    @property
    def notices(self) -> tuple[str, ...]:
        """What a person should know: why it cannot be changed, damage, images that are gone or changed."""
        found = (self.refusal, *(image.notice() for image in self.images))
        return tuple(text for text in found if text)

    def image_of(
        self, path: str | os.PathLike[str], *, z: int | None = None, t: int = 0, series: int = 0
    ) -> ProjectImage | None:
        """Return what the project has of an image; None if it has not been added.

        Parameters
        ----------
        z, t, series : the plane, as in io.read.
        """
        references = [image.record.reference for image in self.images]
        found = index_of(references, self.folder, path, z=z, t=t, series=series)
        return None if found is None else self.images[found]

    def offset_of(self, image: ProjectImage) -> int:
        """Return the offset of the roles of an image's tiles, see tiles_of.

        It is that of the first image of the same file: else a plane that lies above or below one that judges,
        or a copy of it, would teach what is judged. It is kept when an image is added, so that it stays when
        a file is found elsewhere; projects of older versions have none.
        """
        return image.record.offset or self._offset(image.record.reference, image.record.id)

    def _offset(self, reference: ImageReference, image_id: str) -> int:
        alike = (i.record for i in self.images if i.record.reference.fingerprint == reference.fingerprint)
        first = next(alike, None)
        if first is None:
            return int(image_id.removeprefix(_IMAGE))
        return first.offset or int(first.id.removeprefix(_IMAGE))

    def refer_to(
        self, path: str | os.PathLike[str], *, z: int | None = None, t: int = 0, series: int = 0
    ) -> ImageReference:
        """Return a reference to an image, for add_steps; z, t and series as in io.read.

        Raises
        ------
        ProjectError : it cannot be read.
        """
        return refer_to(path, self.folder, z=z, t=t, series=series)

    def add_steps(
        self,
        reference: ImageReference,
        labels: Plane,
        verified: Plane | None = None,
        *,
        modality: Modality,
        recipe: Recipe | None = None,
        part: Part | None = None,
    ) -> Generator[Progress, None, ProjectImage]:
        """Add an image with its labels.

        Parameters
        ----------
        reference : see refer_to; of the middle plane of a stack its number is noted, not None.
        labels : (Y, X) whole numbers, 0 is background; NumPy, zarr or dask. Not changed.
        verified : (Y, X) bool, where a person has checked the pixels; None: nowhere.
        recipe : of the segmentation that the labels came from.
        part : where it lies in a larger image that it was cut out of; see overlapping.

        Returns
        -------
        The image, which is in `images` now. If this is stopped before, nothing of it is left; if it is
        killed, or the project cannot name it, a folder that does not count.

        Raises
        ------
        ProjectError : it is open for looking only, or has this image. LabelsError : the arrays do not fit.
        ReadError, WriteError
        """
        self.require_writable()
        self._require_new(reference)
        path, _ = reference.find(self.folder)
        image = read(path, z=reference.z, t=reference.t, series=reference.series)
        reference = reference.model_copy(update={"z": image.z})
        shape = image.shape_yx
        check_shapes(shape, labels, labels if verified is None else verified)
        folder = self._new_folder()
        record = ImageRecord(
            id=folder.name,
            reference=reference,
            shape_yx=shape,
            pixel_size_um=image.pixel_size_um,
            modality=modality,
            part=part,
            recipe=recipe,
            offset=self._offset(reference, folder.name),
        )

        known: dict[Block, bytes] = {}

        def content(region: Region) -> Pair:
            numbers = as_labels(labels[region.slices])
            checked = np.zeros(numbers.shape, bool) if verified is None else as_mask(verified[region.slices])
            known.update(digests(region, numbers, checked))
            return numbers, checked

        try:
            make_folder(folder / "journal")
            yield from write_base_steps(base_path(folder, 1), shape, record.pixel_size_um, content)
            self._require_new(reference)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        with self.busy:
            self.require_writable()
            self.put(record)
            added = ProjectImage(self, record, known)
            self.images = (*self.images, added)
        return added

    def require_writable(self) -> None:
        """Raise ProjectError unless it is open for writing."""
        if self.refusal:
            raise ProjectError(f"{self.folder.name} cannot be changed: {self.refusal}")

    def current(self, image_id: str) -> ImageRecord:
        """Return what project.json says of an image now.

        Raises
        ------
        ProjectError : it cannot be read, or the image is not there any more.
        """
        file = self._file if self.writable else read_file(self.folder)
        record = file.record(image_id)
        if record is None:
            raise ProjectError(f"{self.folder} has no {image_id} any more; open it again")
        return record

    def put(self, record: ImageRecord) -> None:
        """Write what project.json says of an image.

        Raises
        ------
        WriteError : the disk refuses; what was there stays.
        """
        with self.busy:
            file = self._file.updated(record)
            write_file(self.folder, file)
            self._file = file

    def _require_new(self, reference: ImageReference) -> None:
        """Raise ProjectError if an image has been added."""
        path, _ = reference.find(self.folder)
        if self.image_of(path, z=reference.z, t=reference.t, series=reference.series) is not None:
            raise ProjectError(f"{path.name} is in the project already; correct it there")

    def _new_folder(self) -> Path:
        """Make a folder for an image; one that is there, listed or not, is never used again."""
        with self.busy:  # two images that are added at once get two
            listed = (image.record.id for image in self.images)
            folder = self.folder / f"{_IMAGE}{next_offset(self.folder, listed):04d}"
            make_folder(folder)
        return folder


def next_offset(folder: Path, listed: Iterable[str] = ()) -> int:
    """Return the number, and so the offset, of the image that is added next to the project in a folder.

    A plane of an image that is there has that one's offset, see Project.offset_of. Needs no project there.

    Parameters
    ----------
    listed : ids of images whose folders may be missing.
    """
    names = [*listed, *(path.name for path in folder.glob(f"{_IMAGE}*"))]
    digits = [name.removeprefix(_IMAGE) for name in names]
    return max((int(text) for text in digits if text.isdigit()), default=0) + 1
