"""What a person verified as training data: small images with labels, and a CSV index of them."""

from __future__ import annotations

import shutil
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile

from napari_nucleus_kd.channels import NETWORK_CHANNELS, choose_channels
from napari_nucleus_kd.errors import ProjectError, WriteError
from napari_nucleus_kd.index import COLUMNS
from napari_nucleus_kd.io import save_labels
from napari_nucleus_kd.io.atomic import make_folder, write_csv
from napari_nucleus_kd.project._tiles import TILE_PX, Role, Verified, tiles_of
from napari_nucleus_kd.types import Progress

if TYPE_CHECKING:
    import os
    from collections.abc import Generator

    import numpy.typing as npt

    from napari_nucleus_kd.project._image import ProjectImage
    from napari_nucleus_kd.project._project import Project
    from napari_nucleus_kd.project._tiles import Crop
    from napari_nucleus_kd.types import Image, Region

ENOUGH = 20  # nuclei, below which nothing can be judged, or watched during training
_OME_TYPES = ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float32", "float64")


@dataclass(frozen=True, slots=True)
class TrainingData:
    """What was written.

    Attributes
    ----------
    index : CSV for index.read_index.
    taught : nuclei to learn from.
    judged : nuclei in tiles that are kept to judge by; 0: too few, so nothing can be judged.
    notes : what a person should know, in sentences.
    """

    index: Path
    taught: int
    judged: int
    notes: tuple[str, ...]


@dataclass
class _Written:
    """Crops written so far: rows of the index and nuclei (image, number) by role; and loose pieces."""

    rows: dict[Role, list[tuple[str, ...]]] = field(default_factory=lambda: {role: [] for role in Role})
    nuclei: dict[Role, set[tuple[str, int]]] = field(default_factory=lambda: {role: set() for role in Role})
    loose: int = 0


def training_steps(
    project: Project, folder: str | os.PathLike[str]
) -> Generator[Progress, None, TrainingData]:
    """Write the verified parts of a project's images as data to train on and to judge by.

    Images are cut into tiles of about 256 pixels. One in five, by its place, is kept to judge by: only if it
    is completely verified, and never learnt from. The others are learnt from where they are verified, and
    are written with 32 to 128 pixels of context that does not teach. A nucleus of which a pixel is not
    verified does not teach, neither does one that reaches into a tile that judges. Pixels and channels are
    the image's own, those channels that its recipe or its modality takes.

    Parameters
    ----------
    folder : where to write; it must not be there, or be empty.

    Returns
    -------
    Training data. With fewer than 20 nuclei to judge by there are no "val" rows; with fewer than 20 to watch
    during training, the "train" rows are the "tune" rows, too.

    Raises
    ------
    ProjectError : nothing verified can be learnt from; an image is missing, changed or damaged.
    SettingsError : the channels do not fit. ReadError : an image cannot be read.
    WriteError : the folder is not empty, or the disk refuses; nothing is left of it then.
    """
    place = Path(folder).expanduser().absolute()
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise WriteError(f"{place} is there and not empty; choose another folder")
    make_folder(place.parent)
    partial = place.with_name(f".{place.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        written = _Written()
        for image in project.images:
            yield from _image_steps(image, project.folder.stem, partial, written)
        notes = _settle(written, partial, project)
        if place.exists():
            place.rmdir()
        partial.rename(place)
    except OSError as error:
        raise WriteError(
            f"{place} cannot be written: {error.strerror or error}; check space and permissions"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    nuclei = written.nuclei
    return TrainingData(place / "index.csv", len(nuclei[Role.TRAIN]), len(nuclei[Role.VAL]), notes)


def _image_steps(
    entry: ProjectImage, source: str, folder: Path, written: _Written
) -> Generator[Progress, None, None]:
    """Write the crops of one image."""
    labels, verified = yield from entry.load_steps()
    if entry.damage:
        raise ProjectError(entry.damage)
    if not verified.any():
        return
    record, image = entry.record, entry.read_image()
    wanted = None if record.recipe is None else record.recipe.channels
    channels = choose_channels(image, wanted, record.modality)
    tiles = list(tiles_of(record.shape_yx, int(record.id.removeprefix("image-"))))
    known = Verified(labels, verified, tiles)
    for name in ("images", "labels", "valid"):
        make_folder(folder / name)
    for done, tile in enumerate(tiles, 1):
        crop = known.judging(tile) if tile.role is Role.VAL else known.teaching(tile)
        if crop is not None:
            name = f"{record.id}_y{tile.region.y0}_x{tile.region.x0}"
            files = _write(folder, name, _pixels(image, channels, crop.region), crop, image)
            split = tile.role
            written.rows[split].append((*files[:2], record.modality.value, source, split.value, files[2]))
            written.nuclei[split] |= {(record.id, number) for number in crop.numbers}
            written.loose += crop.loose
        yield Progress(done, len(tiles), f"writing what is verified of {image.name}")


def _pixels(image: Image, channels: tuple[int, ...], region: Region) -> npt.NDArray[Any]:
    """Return the channels that are used of a region, (C, Y, X), in a number type that OME-TIFF knows."""
    pixels = np.asarray(image.pixels[:, *region.slices])[list(channels)]
    return pixels if pixels.dtype.name in _OME_TYPES else pixels.astype(np.float32)


def _write(
    folder: Path, name: str, pixels: npt.NDArray[Any], crop: Crop, image: Image
) -> tuple[str, str, str]:
    """Write image, labels and valid pixels; return their names in the index."""
    rgb = image.rgb and len(pixels) == NETWORK_CHANNELS
    words: dict[str, Any] = {"axes": "YXS" if rgb else "CYX"}
    um = image.pixel_size_um
    if um is not None:
        words |= {
            "PhysicalSizeX": um,
            "PhysicalSizeXUnit": "µm",
            "PhysicalSizeY": um,
            "PhysicalSizeYUnit": "µm",
        }
    tifffile.imwrite(
        folder / "images" / f"{name}.ome.tif",
        np.moveaxis(pixels, 0, -1) if rgb else pixels,
        ome=True,
        photometric="rgb" if rgb else "minisblack",
        compression="zlib",
        metadata=words,
    )
    save_labels(crop.labels, folder / "labels" / f"{name}.tif", pixel_size_um=um)
    valid = ""
    if crop.valid is not None:
        valid = f"valid/{name}.tif"
        tifffile.imwrite(folder / valid, crop.valid.astype(np.uint8), compression="zlib")
    return f"images/{name}.ome.tif", f"labels/{name}.tif", valid


def _settle(written: _Written, folder: Path, project: Project) -> tuple[str, ...]:
    """Decide on the splits and write the index; return what a person should know."""
    rows, nuclei, notes = written.rows, written.nuclei, []
    if not nuclei[Role.TRAIN] | nuclei[Role.TUNE]:
        raise ProjectError(
            f"{project.folder.name}: no nucleus is completely verified where models may learn; check whole "
            "areas of several hundred pixels, nuclei and background, and mark them as verified"
        )
    if len(nuclei[Role.VAL]) < ENOUGH:
        notes.append(
            f"nothing can be judged: {len(nuclei[Role.VAL])} verified nuclei are in tiles kept for that, and "
            f"{ENOUGH} are needed. Verify larger areas completely: 2 x 3 tiles of {TILE_PX} pixels or more"
        )
        rows[Role.VAL], nuclei[Role.VAL] = [], set()
    learnt = [*rows[Role.TRAIN], *rows[Role.TUNE]]
    if len(nuclei[Role.TUNE]) < ENOUGH or not nuclei[Role.TRAIN]:
        rows[Role.TRAIN] = [_as(Role.TRAIN, row) for row in learnt]
        rows[Role.TUNE] = [_as(Role.TUNE, row) for row in learnt]
        nuclei[Role.TRAIN] = nuclei[Role.TRAIN] | nuclei[Role.TUNE]
        notes.append("too little is verified to set some aside: training is watched on what it learns from")
    if written.loose:
        notes.append(
            f"{written.loose} pieces share the number of another one; each is taken as a nucleus. Join them, "
            "or delete stray pixels"
        )
    everything = [row for role in Role for row in rows[role]]
    _remove_unlisted(folder, everything)
    write_csv(folder / "index.csv", [(*COLUMNS, "valid"), *everything])
    return tuple(notes)


def _as(role: Role, row: tuple[str, ...]) -> tuple[str, ...]:
    split = COLUMNS.index("split")
    return (*row[:split], role.value, *row[split + 1 :])


def _remove_unlisted(folder: Path, rows: list[tuple[str, ...]]) -> None:
    listed = {folder / name for row in rows for name in row}
    for path in (*folder.glob("images/*"), *folder.glob("labels/*"), *folder.glob("valid/*")):
        if path not in listed:
            path.unlink()
