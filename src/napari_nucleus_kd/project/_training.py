"""What a person verified as training data: small images with labels, and a CSV index of them."""

from __future__ import annotations

import re
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile

from napari_nucleus_kd.channels import NETWORK_CHANNELS, fit_input, given_input
from napari_nucleus_kd.config import Recipe
from napari_nucleus_kd.errors import ProjectError, ReadError, SettingsError, WriteError
from napari_nucleus_kd.index import COLUMNS, SEEN_COLUMNS
from napari_nucleus_kd.io import save_labels
from napari_nucleus_kd.io.atomic import make_folder, scratch_beside, write_csv
from napari_nucleus_kd.io.images import write_image
from napari_nucleus_kd.io.samples import sample
from napari_nucleus_kd.project._data import INDEX, Origin, Summary, read_training
from napari_nucleus_kd.project._tiles import JUDGED_EACH, TILE_PX, Role, Verified, tiles_of
from napari_nucleus_kd.types import Modality, Progress
from napari_nucleus_kd.words import count

if TYPE_CHECKING:
    import os
    from collections.abc import Generator

    import numpy.typing as npt

    from napari_nucleus_kd.channels import InputMap
    from napari_nucleus_kd.project._data import TrainingData
    from napari_nucleus_kd.project._format import ImageRecord
    from napari_nucleus_kd.project._image import ProjectImage
    from napari_nucleus_kd.project._project import Project
    from napari_nucleus_kd.project._tiles import Crop
    from napari_nucleus_kd.types import Image, Region

ENOUGH = 20  # nuclei, below which nothing can be judged, or watched during training
_TELLING = 5  # nuclei, from which on they say how large those of an image are
_OWN = "napari-nucleus-kd/"  # no project is called so: its name is that of a folder
UNKNOWN = f"{_OWN}unverified"  # source of the tiles in which nothing is verified
SAMPLES = {  # what any model should go on seeing as it did, and of which kind it is; their source is
    "fluorescence": Modality.FLUORESCENCE,
    "he": Modality.HE,
    "ihc": Modality.IHC,
}
REHEARSED = f"{_OWN}samples"
_MOST_UNKNOWN = 8  # of these, of each image
_NEARLY = 0.9  # share of a tile: who verified so much of it meant all
_NAME = re.compile(r"(image-[0-9]{4,})_y([0-9]+)_x([0-9]+)\.ome\.tif")


@dataclass
class _Written:
    """Crops written so far: rows of the index and nuclei (image, number) by role; and loose pieces.

    Attributes
    ----------
    unknown : rows of tiles in which nothing is verified, and of samples.
    made_of : the images, as they were when they were read.
    kinds : of the images in which something is verified.
    left_out : why images could not be read.
    nearly : tiles kept for judging that are verified but for some pixels.
    """

    rows: dict[Role, list[tuple[str, ...]]] = field(default_factory=lambda: {role: [] for role in Role})
    unknown: list[tuple[str, ...]] = field(default_factory=list)
    nuclei: dict[Role, set[tuple[str, int]]] = field(default_factory=lambda: {role: set() for role in Role})
    loose: int = 0
    made_of: list[Origin] = field(default_factory=list)
    kinds: set[Modality] = field(default_factory=set)
    left_out: list[str] = field(default_factory=list)
    nearly: list[str] = field(default_factory=list)


def training_steps(
    project: Project, folder: str | os.PathLike[str]
) -> Generator[Progress, None, TrainingData]:
    """Write the verified parts of a project's images as data to train on and to judge by.

    Images are cut into tiles of about 256 pixels. One in five, by its place (the same in all planes of a
    file, and in copies of it), is kept to judge by: only if it is completely verified, and what is verified
    in it is never learnt from. The others are learnt from where they are verified, and are written with 32 to
    128 pixels of context, which teaches where it is verified, too. Context may lie in a tile that judges: a
    student sees those pixels, and a teacher may say what is in them, but not what was verified. A nucleus of
    which less than half is verified does not teach, neither does one that reaches into a tile that judges.
    Pixels are the image's own, of those channels that its recipe or its modality takes. The index says how
    the whole image is scaled: so what is learnt from, and judged by, looks as it does when the whole image is
    segmented. It says the diameter of its nuclei, too: the median of those that are verified, with fewer than
    five that of the recipe.

    A few tiles of each image in which nothing is verified, and the sample images of this package of other
    kinds than what is verified, are written without labels: a teacher says what is in them, so that a student
    does not forget it. Their sources are UNKNOWN and REHEARSED.

    What was saved last is read; save first.

    Parameters
    ----------
    folder : where to write; it must not be there, or be empty.

    Returns
    -------
    Training data. With fewer than 20 nuclei to judge by there are no "val" rows; with fewer than 20 to watch
    during training, the "train" rows are the "tune" rows, too. Images that are missing, changed or damaged,
    or whose channels do not fit, are left out, and noted, if others teach.

    Raises
    ------
    ProjectError : nothing verified can be learnt from, or of no image: all are missing, changed or damaged,
        or their channels do not fit.
    WriteError : the folder is not empty, or the disk refuses; nothing is left of it then.
    """
    place = Path(folder).expanduser().absolute()
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise WriteError(f"{place} is there and not empty; choose another folder")
    with scratch_beside(place) as partial:
        written = _Written()
        for image in project.images:
            try:
                yield from _image_steps(project, image, partial, written)
            except (ProjectError, ReadError, SettingsError) as error:
                written.left_out.append(str(error))
        _write_samples(written, partial)
        _settle(written, partial, project)
        if place.exists():
            place.rmdir()
        partial.rename(place)
    return read_training(place)


def place_of(name: str) -> tuple[str, int, int]:
    """Return what the file name of a tile says: the image's id, and y and x of the tile's corner, px.

    >>> place_of("image-0001_y256_x0.ome.tif")
    ('image-0001', 256, 0)
    """
    found = _NAME.fullmatch(name)
    if found is None:
        raise ProjectError(f"{name} is no tile of a project; give the name of an image that its index lists")
    return found[1], int(found[2]), int(found[3])


def _image_steps(
    project: Project, entry: ProjectImage, folder: Path, written: _Written
) -> Generator[Progress, None, None]:
    """Write the crops of one image."""
    origin = Origin.of(entry)  # before it is read: what is saved meanwhile counts as saved since
    labels, verified = yield from entry.load_steps()
    written.made_of.append(origin.model_copy(update={"verified": bool(verified.any())}))
    if entry.damage:
        raise ProjectError(entry.damage)
    if not verified.any():
        return
    record, image = entry.record, entry.read_image()
    yield Progress(0, 0, f"looking at what is verified of {image.name}")
    written.kinds |= {record.modality, *(kind for name, kind in SAMPLES.items() if _is_sample(image, name))}
    whole = _input(image, record)
    tiles = list(tiles_of(record.shape_yx, project.offset_of(entry)))
    known = Verified(labels, verified, tiles)
    told = None if record.recipe is None else record.recipe.diameter_px  # perhaps of a model that is wrong
    diameter = known.diameter_px if known.count >= _TELLING else told or known.diameter_px
    diameters = [diameter] if diameter else []
    seen = tuple(_cell(*numbers) for numbers in (whole.low, whole.high, diameters, whole.weights))
    for name in ("images", "labels", "valid"):
        make_folder(folder / name)
    for done, tile in enumerate(tiles, 1):
        crop = known.judging(tile) if tile.role is Role.VAL else known.teaching(tile)
        if crop is not None:
            pixels = _pixels(image, whole.channels, crop.region)
            files = _write(folder, _name(record.id, tile.region), pixels, crop, image)
            split = tile.role
            row = (*files[:2], record.modality.value, project.folder.stem, split.value, files[2], *seen)
            written.rows[split].append(row)
            written.nuclei[split] |= {(record.id, number) for number in crop.numbers}
            written.loose += crop.loose
        elif tile.role is Role.VAL and _NEARLY < (share := verified[tile.region.slices].mean()) < 1:
            y0, x0, y1, x1 = astuple(tile.region)
            written.nearly.append(f"{share:.1%} of y {y0} to {y1}, x {x0} to {x1} in {image.name}")
        yield Progress(done, len(tiles), f"writing what is verified of {image.name}")
    unknown = [t.region for t in tiles if t.role is Role.TRAIN and not verified[t.region.slices].any()]
    for i in np.random.default_rng(0).permutation(len(unknown))[:_MOST_UNKNOWN]:
        pixels = _pixels(image, whole.channels, unknown[i])
        place = _write_pixels(folder, _name(record.id, unknown[i]), pixels, image)
        written.unknown.append((place, "", record.modality.value, UNKNOWN, Role.TRAIN.value, "", *seen))
        yield Progress(len(tiles), len(tiles), f"writing what is unverified of {image.name}")


def _input(image: Image, record: ImageRecord) -> InputMap:
    """Return how the whole image is seen when it is segmented.

    Raises
    ------
    ProjectError : it was seen in a way that cannot be learnt from.
    """
    recipe = record.recipe or Recipe()
    if recipe.enhance is not None:
        raise ProjectError(
            f"{image.name} was segmented enhanced, and no model learns from enhanced images here; segment it "
            "without, and keep that result"
        )
    if recipe.mapping != Recipe().mapping and recipe.channel_weights is None:
        raise ProjectError(
            f"{image.name} was segmented with the mapping {recipe.mapping!r}, and no model can learn from "
            "what that makes of it; segment it with nuclear, blend, mean or an adapter that blends, and keep "
            "that result"
        )
    low, high = recipe.scaling_low, recipe.scaling_high
    weights = recipe.channel_weights or ()
    if recipe.segmenter != "student":  # other tools scale otherwise
        fitted = fit_input(image, recipe.channels, record.modality, Recipe().percentiles)
        return replace(fitted, weights=weights)
    if low is None or high is None or recipe.modality is not record.modality:
        fitted = fit_input(image, recipe.channels, record.modality, recipe.percentiles)
        return replace(fitted, weights=weights)
    return given_input(image, recipe.channels, record.modality, low, high, weights)


def _cell(*numbers: float) -> str:
    """Return numbers as a cell of an index, exactly."""
    return " ".join(repr(float(number)) for number in numbers)


def _pixels(image: Image, channels: tuple[int, ...], region: Region) -> npt.NDArray[Any]:
    """Return the channels that are used of a region, (C, Y, X)."""
    return np.asarray(image.pixels[:, *region.slices])[list(channels)]


def _name(image_id: str, region: Region) -> str:
    return f"{image_id}_y{region.y0}_x{region.x0}"


def _write_pixels(folder: Path, name: str, pixels: npt.NDArray[Any], image: Image) -> str:
    """Write a part of an image; returns its name in the index."""
    place = f"images/{name}.ome.tif"
    rgb = image.rgb and len(pixels) == NETWORK_CHANNELS
    write_image(folder / place, pixels, rgb=rgb, pixel_size_um=image.pixel_size_um)
    return place


def _write(
    folder: Path, name: str, pixels: npt.NDArray[Any], crop: Crop, image: Image
) -> tuple[str, str, str]:
    """Write image, labels and valid pixels; return their names in the index."""
    save_labels(crop.labels, folder / "labels" / f"{name}.tif", pixel_size_um=image.pixel_size_um)
    valid = ""
    if crop.valid is not None:
        valid = f"valid/{name}.tif"
        tifffile.imwrite(folder / valid, crop.valid.astype(np.uint8), compression="zlib")
    return _write_pixels(folder, name, pixels, image), f"labels/{name}.tif", valid


def _is_sample(image: Image, name: str) -> bool:
    """Tell whether an image is a sample image, pixel by pixel."""
    known = sample(name).pixels
    return image.pixels.shape == known.shape and np.array_equal(np.asarray(image.pixels), np.asarray(known))


def _write_samples(written: _Written, folder: Path) -> None:
    """Write the sample images of other kinds: what a model says of one's own kind a person is correcting."""
    make_folder(folder / "images")
    for name, modality in SAMPLES.items():
        if modality in written.kinds:
            continue
        image = sample(name)
        place = _write_pixels(folder, f"sample-{name}", np.asarray(image.pixels), image)
        written.unknown.append((place, "", modality.value, REHEARSED, Role.TRAIN.value, "", "", "", ""))


def _settle(written: _Written, folder: Path, project: Project) -> None:
    """Decide on the splits; write the index, and what a person should know."""
    rows, nuclei, notes = written.rows, written.nuclei, list[str]()
    if not nuclei[Role.TRAIN] | nuclei[Role.TUNE]:
        if written.left_out:
            raise ProjectError("; ".join(written.left_out))
        raise ProjectError(
            f"{project.folder.name}: no nucleus is verified where models may learn; verify whole "
            "areas of several hundred pixels, nuclei and background, and mark them as verified"
        )
    notes += [f"learnt from the other images only: {problem}" for problem in written.left_out]
    if len(nuclei[Role.VAL]) < ENOUGH:
        notes.append(
            f"nothing can be judged: {len(nuclei[Role.VAL])} verified nuclei are in tiles kept for that, and "
            f"{ENOUGH} are needed. Verify larger areas completely: of {JUDGED_EACH} tiles of {TILE_PX} "
            "pixels, one is kept"
        )
        if written.nearly:
            notes.append(
                "a tile judges only if all of it is verified; this is nearly so: " + "; ".join(written.nearly)
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
            f"{count(written.loose, 'piece')} with the number of another one; each taken as a nucleus. "
            "Join them, or delete stray pixels"
        )
    everything = [*(row for role in Role for row in rows[role]), *written.unknown]
    _remove_unlisted(folder, everything)
    write_csv(folder / INDEX, [(*COLUMNS, "valid", *SEEN_COLUMNS), *everything])
    taught, judged = len(nuclei[Role.TRAIN]), len(nuclei[Role.VAL])
    Summary(taught=taught, judged=judged, notes=tuple(notes), images=tuple(written.made_of)).write(folder)


def _as(role: Role, row: tuple[str, ...]) -> tuple[str, ...]:
    split = COLUMNS.index("split")
    return (*row[:split], role.value, *row[split + 1 :])


def _remove_unlisted(folder: Path, rows: list[tuple[str, ...]]) -> None:
    listed = {folder / name for row in rows for name in row}
    for path in (*folder.glob("images/*"), *folder.glob("labels/*"), *folder.glob("valid/*")):
        if path not in listed:
            path.unlink()
