"""One nucleus where a person points: the model is asked again there, and believed more readily.

A nucleus that a run missed is often there in the network's maps, only below the threshold. So the
threshold falls until a nucleus holds the point. Positions are (y, x) in pixels of the image.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage
from skimage.morphology import disk

from napari_nucleus_kd.errors import EditError
from napari_nucleus_kd.instances import largest_piece, pieces_of
from napari_nucleus_kd.job import measure_diameter, prepare
from napari_nucleus_kd.types import Region

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

    from napari_nucleus_kd.config import DecodeSettings, Recipe
    from napari_nucleus_kd.job import Job
    from napari_nucleus_kd.types import FloatArray, Image, LabelArray, Maps

    Mask = npt.NDArray[np.bool_]
    Taken = Callable[[Region], Mask]

_LEVELS = (0.5, 0.35, 0.25, 0.18, 0.13, 0.09, 0.06, 0.05)  # foreground thresholds, tried after the recipe's
# A nucleus that the model is sure of has the outline that a run gives it. Of others the edge lies at this
# share of their own peak: on H&E, half of it gave outlines a quarter too small, a quarter of it fits.
_SURE, _EDGE = 0.9, 0.25
_LARGEST, _SMALLEST = 2.0, 0.3  # diameters, in typical ones, that are believed
_RAGGED = 0.1  # typical diameters: what is thinner of an outline that the model is unsure of goes,
_LEFT = 0.6  # if so much of its area is left
_FREE = 0.5  # share of a nucleus that no other one has; less is the rim of one that is there already
_FILLED = 0.25  # share of a box that a nucleus fills, or else the threshold falls on
_AROUND = 2  # typical diameters that are looked at around a point, besides what the network needs to see
_BOX_PX = 1024  # longest edge of a box


class Adder:
    """Asks the model of a recipe for single nuclei of one image; the model stays open between questions.

    One thread at a time may ask.

    Parameters
    ----------
    image : the image that the labels belong to.
    recipe : best the resolved one of the labels; its region does not matter.
    """

    def __init__(self, image: Image, recipe: Recipe) -> None:
        self.image, self.recipe = image, recipe
        self._job: Job | None = None

    def at(self, point: tuple[float, float], taken: Taken) -> tuple[Region, Mask]:
        """Find the nucleus at a point.

        Parameters
        ----------
        taken : says of a region of the image, (h, w) bool, which pixels no new nucleus may have.

        Returns
        -------
        Where it lies in the image, and its pixels in there.

        Raises
        ------
        EditError : the model sees no nucleus there, one far too large, or one that has been taken.
        SettingsError, ModelError, DeviceError : the recipe cannot be run on this image here.
        """
        y, x = (round(c) for c in point)
        height, width = self.image.shape_yx
        if not (0 <= y < height and 0 <= x < width):
            raise EditError(f"y {y}, x {x} lies outside {self.image.name}; click inside the image")
        window, maps = self._look(Region(y, x, y + 1, x + 1))
        mask, typical = self._mask_at((y - window.y0, x - window.x0), maps), self._diameter_px()
        if mask is None:
            raise EditError("the model sees no nucleus at this point; draw its outline instead")
        if not mask.any():
            raise EditError("the model is too unsure of the outline here; draw it instead")
        across = _diameter(mask)
        if across > _LARGEST * typical:
            raise EditError(
                f"what the model sees at this point is {across:.0f} px across, a typical nucleus "
                f"{typical:.0f}; draw its outline instead"
            )
        pieces = pieces_of(mask & ~taken(window))
        free: Mask = (pieces == pieces[y - window.y0, x - window.x0]) & (pieces > 0)
        if free.sum() < _FREE * mask.sum():
            raise EditError(
                "the model sees only the rim of a nucleus that has a label already; grow or redraw that one"
            )
        return _tight(window, free)

    def in_box(self, box: Region, taken: Taken) -> tuple[Region, Mask]:
        """Find the one nucleus in a box, whatever the model would part it into; see `at`.

        Raises
        ------
        EditError : the box is very large or outside the image, or the model sees no nucleus in it.
        SettingsError, ModelError, DeviceError : the recipe cannot be run on this image here.
        """
        box = box.grown(0, self.image.shape_yx)
        if min(box.shape_yx) < 1:
            raise EditError(f"the box encloses no pixel of {self.image.name}; drag it around a nucleus")
        if max(box.shape_yx) > _BOX_PX:
            raise EditError(f"the box is {max(box.shape_yx)} px long; drag it around one nucleus")
        window, maps = self._look(box)
        inner = box.within(window).slices
        free, best = ~taken(box), np.zeros(box.shape_yx, bool)
        for _, labels in self._falling(maps):
            mask = largest_piece((labels[inner] > 0) & free)
            best = mask if mask.sum() > best.sum() else best
            if best.sum() >= _FILLED * best.size:
                break
        if _diameter(best) < _SMALLEST * self._diameter_px():
            raise EditError("the model sees no nucleus in this box; draw its outline instead")
        return _tight(box, best)

    def _opened(self) -> Job:
        if self._job is None:
            whole = self.recipe.model_copy(update={"region": None})
            self._job = measure_diameter(prepare(self.image, whole))
        return self._job

    def _diameter_px(self) -> float:
        diameter = self._opened().recipe.diameter_px
        assert diameter is not None
        return diameter

    def _look(self, part: Region) -> tuple[Region, Maps]:
        """Return the maps of a part of the image with what is around it, and where these lie."""
        job, diameter = self._opened(), self._diameter_px()
        height, width = self.image.shape_yx
        reach = job.segmenter.context_px(diameter) + math.ceil(_AROUND * diameter)
        step = job.segmenter.align_px(diameter)  # so that the network sees what it saw in the run
        window = Region(
            max(0, (part.y0 - reach) // step * step),
            max(0, (part.x0 - reach) // step * step),
            min(height, part.y1 + reach),
            min(width, part.x1 + reach),
        )
        pixels = np.asarray(job.pixels[:, *window.slices])
        return window, job.maps(pixels, Region(0, 0, *window.shape_yx))

    def _falling(self, maps: Maps) -> Iterator[tuple[float, LabelArray]]:
        """Yield thresholds from the recipe's down, and the labels that each gives."""
        first = self._opened().recipe.decode.foreground
        for level in (first, *(level for level in _LEVELS if level < first)):
            yield level, self._decoded(maps, level)

    def _decoded(self, maps: Maps, foreground: float) -> LabelArray:
        job = self._opened()
        loose: dict[str, Any] = {"foreground": foreground, "min_score": 0.0, "min_area_px": 0}
        settings: DecodeSettings = job.recipe.decode.model_copy(update=loose)
        labels = job.segmenter.decode(maps, settings).labels
        # What is nucleus, but in too few pixels or too unsure of its middle to be decoded.
        left = pieces_of((_foreground(maps) > foreground) & (labels == 0))
        return np.where(left > 0, left + labels.max(initial=0), labels).astype(np.int32)

    def _mask_at(self, at: tuple[int, int], maps: Maps) -> Mask | None:
        """Return the nucleus at a pixel of the window by the highest threshold that shows one there."""
        smallest = _SMALLEST * self._diameter_px()
        for level, labels in self._falling(maps):
            mask: Mask = labels == labels[at]
            if not labels[at] or _diameter(mask) < smallest:
                continue
            peak = float(_foreground(maps)[mask].max())
            edge = _EDGE * peak
            if peak > _SURE or edge >= level:
                return mask
            lower = self._decoded(maps, max(edge, _LEVELS[-1]))
            wider: Mask = lower == lower[at]
            # Below its edge it may run into a neighbour: then the first look was better.
            fits = lower[at] and _diameter(wider) <= _LARGEST * self._diameter_px()
            return _rounded(wider if fits else mask, at, _RAGGED * self._diameter_px())
        return None


def _rounded(mask: Mask, at: tuple[int, int], radius_px: float) -> Mask:
    """Return a mask without holes and without what is thinner than a disk; nothing if little is left."""
    whole = ndimage.binary_fill_holes(mask)
    pieces = pieces_of(ndimage.binary_opening(whole, disk(max(1, round(radius_px)))))
    kept: Mask = (pieces == pieces[at]) & (pieces > 0)
    return kept if kept.sum() > _LEFT * whole.sum() else np.zeros_like(mask)


def _diameter(mask: Mask) -> float:
    """Return the diameter of the disk of the same area, in pixels."""
    return 2 * math.sqrt(float(mask.sum()) / math.pi)


def _foreground(maps: Maps) -> FloatArray:
    """Return the foreground probability at image resolution."""
    foreground: FloatArray = maps["foreground"]
    if maps.scale == 1:
        return foreground
    rows, cols = (
        np.minimum(((np.arange(n) + 0.5) * maps.scale).astype(int), size - 1)
        for n, size in zip(maps.shape_yx, foreground.shape, strict=True)
    )
    return foreground[np.ix_(rows, cols)]


def _tight(window: Region, mask: Mask) -> tuple[Region, Mask]:
    """Cut what is empty off around a mask."""
    rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    y0, y1, x0, x1 = int(rows[0]), int(rows[-1]) + 1, int(cols[0]), int(cols[-1]) + 1
    return Region(window.y0 + y0, window.x0 + x0, window.y0 + y1, window.x0 + x1), mask[y0:y1, x0:x1]
