"""From image to nuclei: in memory here, and of any size on disk in ondisk.py.

Image -> InputMap -> Segmenter.maps -> Segmenter.decode -> Nuclei
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_nucleus_kd import io, segmenters
from napari_nucleus_kd.config import Recipe, recipe_from
from napari_nucleus_kd.errors import SettingsError, WriteError
from napari_nucleus_kd.io.atomic import beside, write_text
from napari_nucleus_kd.io.images import write_image
from napari_nucleus_kd.job import ENHANCED_CHANNEL, measure_diameter, prepare, settle_diameter, used_channels
from napari_nucleus_kd.measure import features
from napari_nucleus_kd.ondisk import read_notes, read_table, segment_to_zarr_steps
from napari_nucleus_kd.types import Channel, Image, Maps, Nuclei, Progress, Region, finish
from napari_nucleus_kd.words import count

if TYPE_CHECKING:
    import os
    from collections.abc import Generator

    import numpy.typing as npt

    from napari_nucleus_kd.config import DecodeSettings
    from napari_nucleus_kd.job import Job
    from napari_nucleus_kd.segmenters import Segmenter
    from napari_nucleus_kd.tiling import TileDone
    from napari_nucleus_kd.types import FloatArray

__all__ = [
    "Result",
    "enhance",
    "enhance_steps",
    "measure_result",
    "read_notes",
    "read_table",
    "redecode",
    "save",
    "seen",
    "segment",
    "segment_steps",
    "segment_to_zarr_steps",
    "to_image",
]

ENHANCER = "nucleus-enhancer"
_SEGMENTS = ("segmenter", "model", "weights", "model_hash", "decode", "tile_px", "diameter_px", "diameter_um")
_FEW_CHANNELS = 32  # an array whose last axis is no longer, and the others are, has its channels last
ONE_TILE_PX = 2048  # regions up to this edge run in one go, and their maps are kept


@dataclass(frozen=True, slots=True)
class Result:
    """What a run found.

    Attributes
    ----------
    nuclei : labels of the region.
    maps : what the network said; None for regions larger than 2048 px, which run in tiles.
    region : the part of the image that was segmented.
    recipe : resolved: running it again on the same image gives the same labels.
    notes : choices and fallbacks, for a person.
    seconds : how long it took.
    diameter_px : typical nucleus diameter that was used.
    segmenter : what ran; None loads it again when it is needed.
    """

    nuclei: Nuclei
    maps: Maps | None
    region: Region
    recipe: Recipe
    notes: tuple[str, ...]
    seconds: float
    diameter_px: float
    segmenter: Segmenter | None = field(default=None, repr=False, compare=False)


def segment(
    image: Image | npt.NDArray[Any],
    recipe: Recipe | None = None,
    **settings: Any,
) -> Result:
    """Find the nuclei of an image.

    Parameters
    ----------
    image : from `read`, or an array: (Y, X), (C, Y, X), or (Y, X, 3) colour.
    recipe : every setting; None takes the defaults.
    **settings : fields of Recipe that replace the recipe's, for example diameter_px=18 or
        region=Region(0, 0, 512, 512).

    Raises
    ------
    SettingsError, ModelError, DeviceError, UnknownSegmenterError

    >>> spots = np.zeros((64, 64), np.uint8)
    >>> spots[10:20, 10:20] = spots[30:44, 30:42] = 200
    >>> segment(spots, segmenter="classical").nuclei.count
    2
    """
    recipe = recipe or Recipe()
    if settings:
        recipe = recipe_from({n: getattr(recipe, n) for n in recipe.model_fields_set} | settings)
    return finish(segment_steps(to_image(image), recipe))


def segment_steps(image: Image, recipe: Recipe | None = None) -> Generator[Progress, None, Result]:
    """Find the nuclei of an image step by step; the labels are kept in memory.

    Yields
    ------
    Progress

    Returns
    -------
    Result

    Raises
    ------
    See `segment`.
    """
    began = time.perf_counter()
    yield Progress(0, 0, "opening the model")
    job = prepare(image, recipe or Recipe())
    if job.enhancer is not None:
        job = yield from job.enhanced_steps(np.empty((1, *job.region.shape_yx), np.uint8))
    if max(job.region.shape_yx) <= ONE_TILE_PX:
        job, maps, nuclei = yield from _in_one_go(job)
    else:
        maps = None
        job, nuclei = yield from _in_tiles(job)
    assert job.recipe.diameter_px is not None
    seconds = time.perf_counter() - began
    return Result(
        nuclei,
        maps,
        job.region,
        job.recipe,
        job.all_notes(),
        seconds,
        job.recipe.diameter_px,
        job.segmenter,
    )


def enhance(image: Image | npt.NDArray[Any], recipe: Recipe | None = None, **settings: Any) -> Image:
    """Draw every nucleus of an image as it would be seen best.

    Parameters
    ----------
    image : see `segment`.
    recipe : its enhancer, polarity, mapping, channels and region decide; without an enhancer it is ENHANCER.
    **settings : fields of Recipe that replace the recipe's.

    Returns
    -------
    Image of the region, with one channel, uint8: nuclei bright on black. Its notes say what was chosen.

    Raises
    ------
    See `segment`.

    Source: GeNSeg-Net.
    """
    recipe = recipe or Recipe()
    if settings:
        recipe = recipe_from({n: getattr(recipe, n) for n in recipe.model_fields_set} | settings)
    return finish(enhance_steps(to_image(image), recipe))[0]


def of_picture(recipe: Recipe) -> Recipe:
    """Return the settings that an enhanced picture depends on; those that only segment are as by default.

    Raises
    ------
    ModelError : the recipe names a model that is not there, and no percentiles.
    """
    segments = {name: getattr(Recipe(), name) for name in _SEGMENTS}
    return recipe.model_copy(update={**segments, "percentiles": segmenters.percentiles(recipe)})


def enhance_steps(image: Image, recipe: Recipe) -> Generator[Progress, None, tuple[Image, Recipe]]:
    """Enhance an image step by step; see `enhance`.

    Returns
    -------
    The enhanced image, and the recipe with what was measured.
    """
    yield Progress(0, 0, "opening the enhancer")
    if recipe.enhance is None:
        recipe = recipe.model_copy(update={"enhance": ENHANCER})
    # Nothing is segmented, so no model is opened.
    job = prepare(image, of_picture(recipe).model_copy(update={"segmenter": "classical"}))
    pixels = np.empty((1, *job.region.shape_yx), np.uint8)
    done = yield from job.enhanced_steps(pixels)
    resolved = job.recipe.model_copy(update={name: getattr(recipe, name) for name in _SEGMENTS})
    notes = (*image.notes, *(note for note in done.notes if note != job.segmenter.description))
    picture = Image(
        (pixels,),
        (Channel(ENHANCED_CHANNEL),),
        pixel_size_um=resolved.pixel_size_um,
        name=image.name,
        notes=notes,
        corner_yx=(job.region.y0, job.region.x0),
    )
    return picture, resolved


def redecode(result: Result, settings: DecodeSettings) -> Result:
    """Return the result with other decode settings; the network does not run again.

    Raises
    ------
    SettingsError if the maps were not kept (regions larger than 2048 px).
    """
    if result.maps is None:
        raise SettingsError(
            f"the maps of {result.region.shape_yx[0]} x {result.region.shape_yx[1]} pixels were not kept; "
            f"try settings on a region up to {ONE_TILE_PX} px, then run the whole again"
        )
    began = time.perf_counter()
    segmenter = result.segmenter or segmenters.load(result.recipe.segmenter, result.recipe)
    nuclei = segmenter.decode(result.maps, settings)
    recipe = result.recipe.model_copy(update={"decode": settings})
    seconds = time.perf_counter() - began
    return replace(result, nuclei=nuclei, recipe=recipe, seconds=seconds, segmenter=segmenter)


def seen(image: Image | npt.NDArray[Any], recipe: Recipe | None = None) -> tuple[FloatArray, Recipe]:
    """Return what the network sees of an image.

    Parameters
    ----------
    image : see `segment`.
    recipe : its mapping, channels and region decide; None takes the defaults.

    Returns
    -------
    (3, Y, X) float32 in [0, 1] for the region, and the recipe with what was measured: channels, their scaling
    and their weights in a blend.

    Raises
    ------
    See `segment`.
    """
    job = prepare(to_image(image), recipe or Recipe())
    return job.tile(np.asarray(job.pixels)), job.recipe


def measure_result(result: Result, image: Image) -> dict[str, npt.NDArray[Any]]:
    """Measure each nucleus, with its intensity in the channels that were used; see measure.features."""
    pixels, names = used_channels(image, result.recipe)
    return features(
        result.nuclei.labels,
        pixels,
        channel_names=names,
        pixel_size_um=result.recipe.pixel_size_um,
        scores=result.nuclei.scores,
    )


def save(result: Result | Image, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Write the labels, and beside them the recipe as `<name>_recipe.json`; or an image, as of `enhance`.

    Parameters
    ----------
    path : .tif, .tiff or .ome.tif for OME-TIFF; labels also .ome.zarr for OME-Zarr.

    Returns
    -------
    Path of the labels, or of the image.

    Raises
    ------
    WriteError if a file exists and overwrite is False, or cannot be written.
    SettingsError if it is nothing of these.
    """
    path = Path(path)
    if isinstance(result, Image):
        return _save_image(result, path, overwrite=overwrite)
    if not isinstance(result, Result):
        raise SettingsError(
            f"save takes what segment, read or enhance return, not {type(result).__name__}; labels alone are "
            "written by io.save_labels"
        )
    recipe = path.with_name(f"{_stem(path)}_recipe.json")
    if recipe.exists() and not overwrite:
        raise WriteError(f"{recipe} exists; choose another name, or say overwrite=True")
    text = result.recipe.model_dump_json(indent=2)
    written = io.save_labels(
        result.nuclei.labels,
        path,
        pixel_size_um=result.recipe.pixel_size_um,
        corner_yx=(result.region.y0, result.region.x0),
        overwrite=overwrite,
        recipe=text,
    )
    write_text(recipe, text + "\n")
    return written


def _save_image(image: Image, path: Path, *, overwrite: bool) -> Path:
    if path.suffix.lower() not in (".tif", ".tiff"):
        raise WriteError(f"{path}: images are written as OME-TIFF; let the name end with .ome.tif")
    if path.exists() and not overwrite:
        raise WriteError(f"{path} exists; choose another name, or say overwrite=True")
    names = [channel.name for channel in image.channels]
    with beside(path) as partial:
        pixels = np.asarray(image.pixels)
        size, corner = image.pixel_size_um, image.corner_yx
        write_image(partial, pixels, rgb=image.rgb, pixel_size_um=size, channels=names, corner_yx=corner)
    return path


def to_image(image: Image | npt.NDArray[Any]) -> Image:
    """Return an Image; arrays are (Y, X), (C, Y, X), or (Y, X, 3 or 4) colour.

    >>> to_image(np.zeros((8, 9, 3), np.uint8)).rgb
    True
    """
    if isinstance(image, Image):
        return image
    array = np.asarray(image)
    if array.ndim not in (2, 3) or not array.size or array.dtype.kind not in "buif":
        raise SettingsError(
            "an image must be what read(path) returns, or a numeric array (Y, X), (C, Y, X) or (Y, X, 3), "
            f"not {array.shape} {array.dtype}"
        )
    colour = array.ndim == 3 and array.shape[-1] in (3, 4) and min(array.shape[:2]) > 4
    if array.ndim == 3 and not colour and array.shape[-1] <= _FEW_CHANNELS < min(array.shape[:2]):
        raise SettingsError(
            f"an array of {array.shape} looks like (Y, X, C); channels come first: np.moveaxis(array, -1, 0)"
        )
    if colour:
        names = ("red", "green", "blue")
        pixels = np.moveaxis(array[..., :3], -1, 0)
        return Image((pixels,), tuple(Channel(n) for n in names), rgb=True)
    pixels = array[None] if array.ndim == 2 else array
    return Image((pixels,), tuple(Channel(f"channel {i + 1}") for i in range(len(pixels))))


def _in_one_go(job: Job) -> Generator[Progress, None, tuple[Job, Maps, Nuclei]]:
    segmenter = job.segmenter
    tile = job.tile(np.asarray(job.pixels))
    yield Progress(0, 2, "running the network")
    maps = None
    if job.recipe.diameter_px is None:
        # Most images need no rescaling: then the look at the diameter is the run itself.
        maps = segmenter.maps(tile, None)
        diameter = segmenter.diameter_in(maps)
        job = measure_diameter(job) if diameter is None else settle_diameter(job, diameter)
    diameter = job.recipe.diameter_px
    if maps is None or segmenter.scale(diameter) != maps.scale:
        maps = segmenter.maps(tile, diameter)
    maps = replace(maps, diameter_px=diameter)
    yield Progress(1, 2, "separating the nuclei")
    nuclei = segmenter.decode(maps, job.recipe.decode)
    yield Progress(2, 2, count(nuclei.count, "nucleus", "nuclei"))
    return job, maps, nuclei


def _in_tiles(job: Job) -> Generator[Progress, None, tuple[Job, Nuclei]]:
    yield Progress(0, 0, "estimating the diameter of the nuclei")
    job = measure_diameter(job)
    labels = np.zeros(job.region.shape_yx, np.int32)
    scores: list[FloatArray] = []

    def collect(done: TileDone) -> None:
        if done.scores is not None:
            scores.append(done.scores)

    found = yield from job.run_tiles(labels, on_tile_done=collect)
    joined = np.concatenate(scores) if scores else np.zeros(0, np.float32)
    return job, Nuclei(labels, joined if len(joined) == found else None)


def _stem(path: Path) -> str:
    """Return the name without .ome.tif, .tif, .ome.zarr and the like."""
    name = path.name
    for suffix in (path.suffix, ".ome"):
        if suffix and name.lower().endswith(suffix.lower()):
            name = name[: -len(suffix)]
    return name
