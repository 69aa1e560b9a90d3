"""What a run needs, worked out from an image and a recipe: segmenter, input scaling, diameter."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from napari_nucleus_kd import segmenters
from napari_nucleus_kd.channels import InputMap, distinct_names, sample_blocks, sample_pixels
from napari_nucleus_kd.config import OF_NUCLEAR_CHANNELS, OF_STAINS
from napari_nucleus_kd.enhancer import open_enhancer
from napari_nucleus_kd.errors import ModelError, SettingsError
from napari_nucleus_kd.mappings import BUILT_IN, fit_mapping
from napari_nucleus_kd.modality import suggest_modality
from napari_nucleus_kd.panel import has_own_names, planes_question
from napari_nucleus_kd.tiling import run_tiles
from napari_nucleus_kd.types import Modality, Progress, Region

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    import numpy.typing as npt

    from napari_nucleus_kd.config import Recipe
    from napari_nucleus_kd.enhancer import Enhancer
    from napari_nucleus_kd.segmenters import Segmenter
    from napari_nucleus_kd.tiling import LabelTarget
    from napari_nucleus_kd.types import Array, FloatArray, Image, Maps, Nuclei

ENHANCED_CHANNEL = "enhanced"  # name of the only one of an enhanced picture
_CLEAR = 0.4  # weight of a channel that an adapter is sure of, also beside a second stain
_SAME_SIZE = 0.01  # pixel sizes that differ by less are the same
_COMPARED_BLOCKS, _COMPARED_STEP = 4, 4  # 4 x 4 blocks of a large image, every fourth pixel of them
_PATCH_PX, _PATCHES, _CANDIDATES = 512, 4, 4  # the best 4 of up to 4 x 4 patches tell the diameter


class RowTarget(Protocol):
    """Where an enhanced picture goes: a numpy or zarr array."""

    def __setitem__(self, index: Any, value: Any, /) -> None:
        """Write a rectangle."""


@dataclass(frozen=True, slots=True)
class Job:
    """One run, ready to start.

    Attributes
    ----------
    pixels : (K, Y, X) used channels of the region, numpy or lazy.
    recipe : resolved, but for the diameter while that is None.
    notes : what was chosen for the person, in words.
    enhancer : draws the nuclei anew before the segmenter sees them; None: nothing does, or it is done.
    """

    pixels: Array
    region: Region
    segmenter: Segmenter
    input: InputMap
    recipe: Recipe
    notes: tuple[str, ...]
    enhancer: Enhancer | None = None

    def tile(self, pixels: npt.NDArray[Any]) -> FloatArray:
        """Return the network's input for pixels of the used channels, enhanced if that is asked for."""
        picture = self.input.scale(pixels)
        return picture if self.enhancer is None else self.enhancer(picture)

    def enhanced_steps(self, out: RowTarget) -> Generator[Progress, None, Job]:
        """Enhance the whole region once, for a run in tiles.

        Parameters
        ----------
        out : (1, Y, X) uint8 of the region; receives the picture, 255 for 1.

        Yields
        ------
        Progress before the first window and after each.

        Returns
        -------
        The job as it goes on with that picture.
        """
        if self.enhancer is None:
            return self
        shape, y = self.region.shape_yx, 0
        total = self.enhancer.windows(shape)
        read = partial(_scaled, self)
        yield Progress(0, total, f"enhancing: part 1 of {total}")
        for done, rows in self.enhancer.bands(read, shape):
            if len(rows):
                out[0, y : y + len(rows)] = np.round(255 * rows).astype(np.uint8)
                y += len(rows)
            yield Progress(done, total, f"enhancing: part {min(done + 1, total)} of {total}")
        return self.seeing(out)

    def seeing(self, enhanced: RowTarget) -> Job:
        """Return the job as it goes on with what enhanced_steps wrote."""
        notes = self.notes if self.enhancer is None else (*self.notes, *self.enhancer.engine.notes)
        seen = InputMap((0,), rgb=False, low=(0.0,), high=(255.0,))
        return replace(self, pixels=cast("Array", enhanced), input=seen, notes=notes, enhancer=None)

    def maps(self, pixels: npt.NDArray[Any], inside: Region) -> Maps:
        """Return the maps of a part of one tile of the used channels."""
        return _cropped(self.segmenter.maps(self.tile(pixels), self.recipe.diameter_px), inside)

    def decode(self, maps: Maps) -> Nuclei:
        """Return the nuclei of one tile's maps."""
        return self.segmenter.decode(maps, self.recipe.decode)

    def run_tiles(self, out: LabelTarget, **options: Any) -> Generator[Progress, None, int]:
        """Find the nuclei tile by tile; see tiling.run_tiles."""
        diameter = self.recipe.diameter_px
        return run_tiles(
            self.pixels,
            self.decode,
            prepare=self.maps,
            tile_px=self.recipe.tile_px,
            halo_px=self.segmenter.halo_px(diameter),
            context_px=self.segmenter.context_px(diameter),
            align_px=self.segmenter.align_px(diameter),
            out=out,
            **options,
        )

    def with_diameter(self, diameter_px: float, note: str) -> Job:
        """Return the job with its diameter known."""
        recipe = self.recipe.model_copy(update={"diameter_px": float(diameter_px)})
        return replace(self, recipe=recipe, notes=(*self.notes, note))

    def all_notes(self) -> tuple[str, ...]:
        """Return the notes, with what the segmenter had to change while it ran."""
        return (*self.notes, *self.segmenter.notes)


def prepare(image: Image, recipe: Recipe) -> Job:
    """Choose channels, scaling and model for an image.

    Scaling is measured on the whole image, so a region gives the nuclei that the whole gives there; but for
    an enhancer, which sees windows of the region.

    Raises
    ------
    SettingsError if a channel, region or diameter does not fit the image.
    ModelError if the model is missing or not the one the recipe was made with.
    UnknownSegmenterError, DeviceError
    """
    region = checked_region(recipe.region or Region(0, 0, *image.shape_yx), image)
    modality, notes = recipe.modality, []
    if modality is None:
        modality, reason = suggest_modality(image)
        notes.append(f"{modality}: {reason}")
    elif modality is Modality.FLUORESCENCE and image.rgb:
        looks, reason = suggest_modality(image)
        if looks is not modality:
            notes.append(f"taken as fluorescence as the settings say, but it looks like {looks}: {reason}")
    segmenter = segmenters.load(recipe.segmenter, recipe.model_copy(update={"modality": modality}))
    _check_model(recipe, segmenter)
    notes.append(segmenter.description)
    percentiles = recipe.percentiles if _was_set(recipe, "percentiles") else segmenter.percentiles
    input_map, measured = fit_mapping(image, recipe, modality, percentiles)
    notes += _seen_notes(image, recipe, input_map)
    if stains := measured.get("stains"):
        first, second = (" ".join(f"{part:.2f}" for part in stain) for stain in stains)
        notes.append(f"haematoxylin taken apart by the stains {first} and {second}")
    pixel_size = recipe.pixel_size_um or image.pixel_size_um
    if pixel_size and image.pixel_size_um and abs(pixel_size / image.pixel_size_um - 1) > _SAME_SIZE:
        notes.append(
            f"pixels are taken as {pixel_size:g} um as the settings say, the file says "
            f"{image.pixel_size_um:g} um; leave the pixel size out of the settings to take the file's"
        )
    enhancer = open_enhancer(recipe, modality, partial(_some_pixels, image, input_map))
    if enhancer is not None:
        notes += [enhancer.description, *_doubts_of_enhancing(image, modality, recipe)]
        polarity = "dark" if enhancer.dark else "bright"
        measured |= {"enhance_hash": enhancer.model.hash, "polarity": polarity}
    resolved = recipe.model_copy(
        update={
            "modality": modality,
            "model_hash": segmenter.model_hash,
            "channels": input_map.channels,
            **measured,
            "percentiles": percentiles,
            "scaling_low": input_map.low,
            "scaling_high": input_map.high,
            "pixel_size_um": pixel_size,
            "diameter_px": _diameter(recipe, pixel_size),
            "diameter_um": None,
            "decode": recipe.decode if _was_set(recipe, "decode") else segmenter.decode_defaults,
        }
    )
    pixels = input_map.select(image.pixels)
    if region.shape_yx != image.shape_yx:
        pixels = pixels[:, *region.slices]
    return Job(pixels, region, segmenter, input_map, resolved, tuple(notes), enhancer)


def measure_diameter(job: Job) -> Job:
    """Return the job with a diameter: the recipe's, else estimated on patches of the region."""
    if job.recipe.diameter_px is not None:
        return job
    patches = richest_patches(job.pixels.shape[1:], lambda yx: job.tile(np.asarray(job.pixels[:, *yx])))
    return settle_diameter(job, job.segmenter.estimate_diameter(patches))


def used_channels(image: Image, recipe: Recipe) -> tuple[Array, list[str]]:
    """Return the channels that a resolved recipe uses, (C, Y, X) of its region, and their names."""
    used = list(dict.fromkeys(int(c) for c in recipe.channels or ()))
    pixels = image.pixels
    if recipe.region is not None:
        pixels = pixels[:, *recipe.region.slices]
    if used != list(range(len(image.channels))):  # picking channels copies an array in memory
        pixels = pixels[used]
    names = distinct_names([channel.name for channel in image.channels])
    return pixels, [names[c] for c in used]


def settle_diameter(job: Job, estimate: float | None) -> Job:
    """Return the job with an estimated diameter, or the segmenter's own if there is no estimate."""
    if estimate is None:
        default = job.segmenter.default_diameter_px
        return job.with_diameter(default, f"no nuclei to measure; took a diameter of {default:g} px")
    rounded = round(estimate, 2)
    return job.with_diameter(rounded, f"nuclei are about {rounded:.1f} px across (estimated)")


def _seen_notes(image: Image, recipe: Recipe, seen: InputMap) -> list[str]:
    """Say which channels the network sees, how much of each, and what may be wrong with them."""
    names = distinct_names([channel.name for channel in image.channels])
    notes = [
        f"{names[c]} shows nothing: all that was looked at is one value, or no number"
        + ("; choose another channel" if len(names) > 1 else "")
        for c in seen.blank
    ]
    if not seen.weights:
        several = len(names) > 1 and not image.rgb
        return [*(["seen: " + ", ".join(names[c] for c in seen.channels)] if several else []), *notes]
    shares = sorted(zip(seen.weights, seen.channels, strict=True), reverse=True)
    notes = ["seen: " + ", ".join(f"{names[c]} {share:.0%}" for share, c in shares), *notes]
    if recipe.mapping not in OF_NUCLEAR_CHANNELS and (question := _planes(image, names)):
        notes.append(question)
    if recipe.mapping not in BUILT_IN and len(image.channels) > 1 and shares[0][0] < _CLEAR:
        notes.append(
            f"no channel clearly shows all nuclei to {recipe.mapping}: look at what the network sees, "
            "or name the nuclear channel"
        )
    return notes


def _doubts_of_enhancing(image: Image, modality: Modality, recipe: Recipe) -> list[str]:
    """Say what may go wrong where an image is enhanced."""
    doubts = []
    if modality is Modality.IHC and recipe.mapping not in OF_STAINS:
        doubts.append(
            "brown (DAB) may be drawn as nuclei, and pale blue nuclei not: the mapping haematoxylin takes "
            "the stains apart first"
        )
    if [channel.name for channel in image.channels] == [ENHANCED_CHANNEL]:
        doubts.append("the image seems to be enhanced already; give the one that it was made from")
    return doubts


def _planes(image: Image, names: Sequence[str]) -> str:
    """Ask whether the channels that a mapping mixes are planes of a stack; "" if nothing says so."""
    if has_own_names(names):
        return ""
    every = tuple(range(len(names)))
    blocks = sample_blocks(image.pixels, every, _COMPARED_BLOCKS)
    thin = [b[:, ::_COMPARED_STEP, ::_COMPARED_STEP].reshape(len(b), -1) for b in blocks]
    return planes_question(names, np.nan_to_num(np.concatenate(thin, axis=1).astype(np.float32)))


def richest_patches(
    shape_yx: Sequence[int], cut: Callable[[tuple[slice, slice]], FloatArray]
) -> list[FloatArray]:
    """Return the patches of a picture with most signal, the first of the grid winning ties.

    Parameters
    ----------
    cut : returns the patch (3, Y, X) at a place.
    """
    height, width = shape_yx
    grid = [
        cut((slice(y, y + _PATCH_PX), slice(x, x + _PATCH_PX)))
        for y in _starts(height)
        for x in _starts(width)
    ]
    return sorted(grid, key=lambda patch: -float(patch.std()))[:_PATCHES]


def _starts(length: int) -> list[int]:
    count = max(1, min(_CANDIDATES, length // _PATCH_PX))
    spare = max(0, length - _PATCH_PX)
    return [spare * i // max(1, count - 1) for i in range(count)] if count > 1 else [spare // 2]


def checked_region(region: Region, image: Image) -> Region:
    """Return a region; raise SettingsError if it is empty or not inside an image."""
    height, width = image.shape_yx
    if not (0 <= region.y0 < region.y1 <= height and 0 <= region.x0 < region.x1 <= width):
        raise SettingsError(
            f"region y {region.y0} to {region.y1}, x {region.x0} to {region.x1} is empty or not inside "
            f"{image.name} ({height} x {width} pixels)"
        )
    return region


def _check_model(recipe: Recipe, segmenter: Segmenter) -> None:
    if recipe.model_hash is not None and recipe.model_hash != segmenter.model_hash:
        raise ModelError(
            f"the recipe was made with other weights of {recipe.weights or recipe.model!r}, or by another "
            f"version ({recipe.model_hash[:12]}..., here {str(segmenter.model_hash)[:12]}...); get those, or "
            "remove model_hash from the recipe to accept a new result"
        )


def _diameter(recipe: Recipe, pixel_size_um: float | None) -> float | None:
    if recipe.diameter_px is not None or recipe.diameter_um is None:
        return recipe.diameter_px
    if pixel_size_um is None:
        raise SettingsError(
            f"diameter_um {recipe.diameter_um:g} needs a pixel size, and the image has none; "
            "give pixel_size_um, or the diameter in pixels (diameter_px)"
        )
    diameter = recipe.diameter_um / pixel_size_um
    if diameter <= 1:
        raise SettingsError(
            f"nuclei of {recipe.diameter_um:g} um are {diameter:.2g} pixels at {pixel_size_um:g} um a pixel, "
            "too small to find; check the pixel size"
        )
    return diameter


def _some_pixels(image: Image, seen: InputMap) -> FloatArray:
    """Return pixels of what the network sees of an image, (3, 1, N)."""
    return seen.scale(sample_pixels(image.pixels, seen.channels)[:, None])


def _scaled(job: Job, part: Region) -> FloatArray:
    return job.input.scale(np.asarray(job.pixels[:, *part.slices]))


def _cropped(maps: Maps, inside: Region) -> Maps:
    """Return the maps of a region that begins on the segmenter's grid."""
    y, x = round(inside.y0 * maps.scale), round(inside.x0 * maps.scale)
    height, width = (math.ceil(n * maps.scale) for n in inside.shape_yx)
    values = maps.values[:, y : y + height, x : x + width]
    return replace(maps, values=np.ascontiguousarray(values), shape_yx=inside.shape_yx)


def _was_set(recipe: Recipe, name: str) -> bool:
    return name in recipe.model_fields_set
