"""The student network as a segmenter: rescale if need be, run, decode."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional as F

from napari_nucleus_kd import instances
from napari_nucleus_kd.engine import open_engine
from napari_nucleus_kd.errors import ModelError
from napari_nucleus_kd.networks.student import CONTEXT_PX
from napari_nucleus_kd.package import THREE_CLASSES, load_model
from napari_nucleus_kd.segmenters.base import (
    MORE_LOOKS,
    PackageSegmenter,
    kept_nuclei,
    refuse_weights,
    same_scale,
)
from napari_nucleus_kd.segmenters.three_classes import ThreeClassSegmenter
from napari_nucleus_kd.types import Maps, Modality, Nuclei

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from napari_nucleus_kd.config import DecodeSettings, Recipe
    from napari_nucleus_kd.engine import Engine
    from napari_nucleus_kd.package import Model
    from napari_nucleus_kd.types import FloatArray, LabelArray

_MAX_SCALE, _MIN_SCALE = 4.0, 0.1
_CONFIDENT = 0.5  # foreground probability of the pixels that tell the diameter
_ENOUGH = 0.002  # share of such pixels below which the diameter is unknown
_FIRST_LOOKS = (1.0, 0.5, 2.0, 0.25)  # magnifications, until nuclei are seen


def load(recipe: Recipe) -> StudentSegmenter | ThreeClassSegmenter:
    """Open the recipe's model on the recipe's device."""
    refuse_weights(recipe)
    model = load_model(recipe.model)
    if model.role != "model":
        place = {"adapter": "as the mapping", "enhancer": "to enhance with"}[model.role]
        raise ModelError(f"{recipe.model} is an {model.role} and finds no nuclei; choose it {place} instead")
    engine = open_engine(model, recipe.device)
    if model.spec.architecture == THREE_CLASSES:
        return ThreeClassSegmenter(model, engine, dark=recipe.looks is not Modality.FLUORESCENCE)
    return StudentSegmenter(model, engine, recipe.modality)


class StudentSegmenter(PackageSegmenter):
    """A network package on an engine; see segmenters.base.Segmenter for the methods.

    Parameters
    ----------
    modality : of the images; the model may know how large their nuclei are. None: unknown.
    """

    def __init__(self, model: Model, engine: Engine, modality: Modality | None = None):
        super().__init__(model, engine)
        self._expected_px = None if modality is None else model.spec.expected_px.get(modality)
        self.default_diameter_px = self._expected_px or model.spec.diameter_px

    def scale(self, diameter_px: float | None) -> float:
        """Return 1 for diameters within the model's range, else what brings them to where it is best.

        Without a diameter it is that of the nuclei that the model expects in such images, or 1.

        The factor is multiple_px / align_px: whole blocks of pixels become whole blocks of the
        network, so tiles that begin at such blocks see exactly the same picture.
        """
        return self._spec.multiple_px / self.align_px(diameter_px)

    def align_px(self, diameter_px: float | None) -> int:
        """Return the image pixels that become one block of multiple_px network pixels."""
        smallest, largest = self._spec.size_range
        diameter_px = diameter_px or self._expected_px
        if diameter_px is None:
            return self._spec.multiple_px
        wanted = min(diameter_px, largest)
        if diameter_px < smallest:
            wanted = self._spec.enlarge_to_px or smallest
        scale = min(max(wanted / diameter_px, _MIN_SCALE), _MAX_SCALE)
        return max(1, round(self._spec.multiple_px / scale))

    def halo_px(self, diameter_px: float | None) -> int:
        """Return the room around a tile that a nucleus of the tile may need, in whole blocks."""
        step = self.align_px(diameter_px)
        return math.ceil(1.2 * (diameter_px or self.default_diameter_px) / step) * step

    def context_px(self, diameter_px: float | None) -> int:
        """Return how far the network sees around a pixel, in whole blocks."""
        step = self.align_px(diameter_px)
        return math.ceil(CONTEXT_PX / self.scale(diameter_px) / step) * step

    def maps(self, tile: FloatArray, diameter_px: float | None) -> Maps:
        """Return the network's maps of a (3, Y, X) tile, at the network's resolution."""
        _, height, width = tile.shape
        step, scale = self.align_px(diameter_px), self.scale(diameter_px)
        pad = [(0, 0), (0, -height % step), (0, -width % step)]
        padded = np.pad(tile, pad, mode="reflect") if height and width else tile
        if scale != 1:
            size = [n // step * self._spec.multiple_px for n in padded.shape[1:]]
            padded = _resize(padded, size)
        values = self._engine.run(padded)[:, : math.ceil(height * scale), : math.ceil(width * scale)]
        return Maps(np.ascontiguousarray(values), self._spec.maps, (height, width), scale, diameter_px)

    def decode(self, maps: Maps, settings: DecodeSettings) -> Nuclei:
        """Turn maps into nuclei at the network's resolution, then bring them to image resolution."""
        by_name = {name: maps[name] for name in maps.names}
        found = instances.decode(by_name, settings, magnification=maps.scale)
        scores = _scores(maps["foreground"], maps["distance"], found)
        sure = scores >= settings.min_score
        if maps.scale == 1:
            return Nuclei(*kept_nuclei(found, scores, sure))
        labels = _at_image_pixels(found, maps)
        if maps.scale < 1:
            labels = _with_fine_edge(found, labels, maps, settings.foreground)
        # Between the pixels nuclei may have got smaller, or lost.
        area = np.bincount(labels.ravel(), minlength=len(scores) + 1)[1:]
        seen = area >= max(1, settings.min_area_px)
        return Nuclei(*kept_nuclei(labels, scores, sure & seen))

    def diameter_in(self, maps: Maps) -> float | None:
        """Return the median predicted diameter in image pixels, if the network saw it at its best scale."""
        diameter = self._typical([maps])
        return diameter if diameter is not None and self._is_best(maps.scale, diameter) else None

    def estimate_diameter(self, patches: Sequence[FloatArray]) -> float | None:
        """Look at the patches; while nuclei seem too small or large to judge, look at another scale.

        What the model expects in such images is believed only if it is seen there.
        """
        if self._expected_px is not None:
            enlarge = self.scale(None)
            diameter = self._typical([self._look(patch, enlarge) for patch in patches])
            if diameter is not None and self._is_best(enlarge, diameter):
                return diameter
        diameter, enlarge = None, 1.0
        for start in _FIRST_LOOKS:
            enlarge = start
            diameter = self._typical([self._look(patch, enlarge) for patch in patches])
            if diameter is not None:
                break
        for _ in range(MORE_LOOKS):
            if diameter is None:
                return None
            if self._is_best(enlarge, diameter):
                break
            enlarge = self.scale(diameter)
            diameter = self._typical([self._look(patch, enlarge) for patch in patches]) or diameter
        return diameter

    def _is_best(self, enlarge: float, diameter_px: float) -> bool:
        """Whether nuclei of this diameter are seen about as large as the model sees them best."""
        return same_scale(self.scale(diameter_px), enlarge)

    def _look(self, patch: FloatArray, enlarge: float) -> Maps:
        """Return maps of a patch seen smaller or larger."""
        multiple = self._spec.multiple_px
        if enlarge > 1:  # the middle is enough
            keep = [max(1, round(n / enlarge)) for n in patch.shape[1:]]
            y, x = ((n - k) // 2 for n, k in zip(patch.shape[1:], keep, strict=True))
            patch = patch[:, y : y + keep[0], x : x + keep[1]]
        size = [max(multiple, round(n * enlarge / multiple) * multiple) for n in patch.shape[1:]]
        if enlarge == 1 == self.scale(None):
            return self.maps(patch, None)
        return Maps(self._engine.run(_resize(patch, size)), self._spec.maps, patch.shape[1:], enlarge)

    def _typical(self, looks: Sequence[Maps]) -> float | None:
        """Return the median predicted diameter of the nuclei in image pixels; None with too few to tell."""
        found = []
        for maps in looks:
            sure = maps["foreground"] > _CONFIDENT
            found.append(np.exp(maps["log_diameter"][sure]) * self._spec.diameter_px / maps.scale)
        diameters = np.sort(np.concatenate(found))
        if diameters.size < _ENOUGH * sum(maps["foreground"].size for maps in looks):
            return None
        # A nucleus counts once, however many pixels it has.
        rank = np.cumsum(diameters**-2.0)
        return float(diameters[np.searchsorted(rank, rank[-1] / 2)])


def _resize(picture: FloatArray, size: list[int]) -> FloatArray:
    """Return (C, H, W) at a new size; bilinear, smoothed first where it gets smaller."""
    with torch.inference_mode():
        batch = torch.from_numpy(np.ascontiguousarray(picture))[None]
        resized = F.interpolate(batch, size=size, mode="bilinear", align_corners=False, antialias=True)
    values: FloatArray = resized[0].numpy()
    return values


def _at_image_pixels(values: npt.NDArray[Any], maps: Maps) -> npt.NDArray[Any]:
    """Pick for each image pixel the value under its centre."""
    y, x = (
        np.minimum(((np.arange(n) + 0.5) * maps.scale).astype(int), size - 1)
        for n, size in zip(maps.shape_yx, values.shape, strict=True)
    )
    return values[np.ix_(y, x)]


def _with_fine_edge(found: LabelArray, labels: LabelArray, maps: Maps, threshold: float) -> LabelArray:
    """Cut enlarged labels along the enlarged foreground, so that their edge has no stairs."""
    from skimage.segmentation import expand_labels

    foreground = maps["foreground"]
    filled = _at_image_pixels((found > 0) & (foreground <= threshold), maps)  # holes that decoding closed
    inside = filled | (_enlarged(foreground, maps) > threshold)
    reach = _at_image_pixels(expand_labels(found, 1.5), maps)
    return np.where(inside, np.where(labels > 0, labels, reach), 0).astype(np.int32)


def _enlarged(values: FloatArray, maps: Maps) -> FloatArray:
    """Return one map at image resolution, bilinear; corners stay where they are."""
    height, width = maps.shape_yx
    with torch.inference_mode():
        # Padding by one keeps the last row, whose size the factor rounds down.
        batch = F.pad(torch.from_numpy(np.ascontiguousarray(values))[None, None], (0, 1, 0, 1), "replicate")
        large = F.interpolate(
            batch,
            scale_factor=1 / maps.scale,
            mode="bilinear",
            align_corners=False,
            recompute_scale_factor=False,
        )
    image: FloatArray = large[0, 0, :height, :width].numpy()
    return image


def _scores(foreground: FloatArray, depth: FloatArray, labels: LabelArray) -> FloatArray:
    """Return how sure the foreground of nuclei 1..n is, most of all where they are deep.

    So the score says little of the edge, and hardly depends on the threshold that was drawn there.
    """
    weight = np.bincount(labels.ravel(), depth.ravel(), minlength=1)[1:]
    total = np.bincount(labels.ravel(), (foreground * depth).ravel(), minlength=1)[1:]
    scores: FloatArray = (total / np.maximum(weight, 1e-6)).astype(np.float32)
    return scores
