"""Threshold and watershed, without a network: a baseline that needs no model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from napari_nucleus_kd.config import DecodeSettings
from napari_nucleus_kd.segmenters.base import kept_nuclei, refuse_weights
from napari_nucleus_kd.stains import haematoxylin
from napari_nucleus_kd.types import Maps, Modality, Nuclei

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_nucleus_kd.config import Recipe
    from napari_nucleus_kd.types import FloatArray, LabelArray

_SMOOTH_PX = 1.0
_MIN_CONTRAST = 0.1  # an empty tile's threshold would otherwise cut its noise
_SOFT = 0.05  # intensities this far above the threshold are about 73% sure


def load(recipe: Recipe) -> ClassicalSegmenter:
    """Make it for how the recipe's image looks."""
    refuse_weights(recipe)
    return ClassicalSegmenter(recipe.looks)


class ClassicalSegmenter:
    """Otsu threshold, then a watershed on the distance to the background.

    In H&E and IHC it looks at the haematoxylin of the picture. Its only map is the foreground.

    The threshold is each tile's own. So labels of images above 2048 px depend on the recipe's tile_px, and
    a tile with few nuclei may be cut lower than its neighbours; the same recipe still gives the same labels.
    """

    name = "classical"
    notes: tuple[str, ...] = ()
    model_hash: str | None = None
    parameters: int | None = None
    decode_defaults = DecodeSettings()
    percentiles = (1.0, 99.8)
    default_diameter_px = 20.0

    def __init__(self, modality: Modality = Modality.FLUORESCENCE):
        self._modality = modality
        self.description = "Otsu threshold of each tile and watershed, on the CPU"

    @property
    def running(self) -> object:
        """The class: there is nothing to open."""
        return ClassicalSegmenter

    def scale(self, diameter_px: float | None) -> float:
        """Return 1: nothing is rescaled."""
        return 1.0

    def align_px(self, diameter_px: float | None) -> int:
        """Return 1: any origin will do."""
        return 1

    def halo_px(self, diameter_px: float | None) -> int:
        """Return room for two nuclei."""
        return int(np.ceil(2 * (diameter_px or self.default_diameter_px)))

    def context_px(self, diameter_px: float | None) -> int:
        """Return what the smoothing sees."""
        return 8

    def maps(self, tile: FloatArray, diameter_px: float | None) -> Maps:
        """Return the foreground map: 0.5 at Otsu's threshold, rising with the stain."""
        from skimage.filters import threshold_otsu

        smooth = ndimage.gaussian_filter(self._stain(tile), _SMOOTH_PX)
        flat = smooth.size == 0 or np.ptp(smooth) < 1e-6
        threshold = 1.0 if flat else max(float(threshold_otsu(smooth)), _MIN_CONTRAST)
        foreground = 1 / (1 + np.exp(-(smooth - threshold) / _SOFT))
        height, width = tile.shape[1:]
        values = foreground[None].astype(np.float32)
        return Maps(values, ("foreground",), (height, width), 1.0, diameter_px)

    def decode(self, maps: Maps, settings: DecodeSettings) -> Nuclei:
        """Split the thresholded foreground where it narrows."""
        from skimage.measure import label
        from skimage.morphology import h_maxima
        from skimage.segmentation import watershed

        foreground = maps["foreground"]
        mask = foreground >= settings.foreground
        if settings.fill_holes:
            mask = ndimage.binary_fill_holes(mask)
        diameter = maps.diameter_px or self.default_diameter_px
        depth = ndimage.gaussian_filter(ndimage.distance_transform_edt(mask), diameter / 20)
        # A dip this deep between two maxima parts them: a tenth of a radius splits, all of it joins.
        dip = max(0.01, (1 - settings.split) * 0.2 * diameter / 2)
        seeds = label(h_maxima(depth, dip))
        labels = watershed(-depth, seeds, mask=mask)
        return _kept(labels.astype(np.int32), foreground, settings)

    def diameter_in(self, maps: Maps) -> float | None:
        """Return the area-weighted median diameter of connected foreground parts."""
        mask = maps["foreground"] >= 0.5
        parts, count = ndimage.label(mask)
        if count == 0:
            return None
        area = np.bincount(parts.ravel())[1:]
        area = area[area >= DecodeSettings().min_area_px]
        return float(2 * np.sqrt(np.median(area) / np.pi)) if area.size else None

    def estimate_diameter(self, patches: Sequence[FloatArray]) -> float | None:
        """Return the median of the patches' diameters."""
        found = [self.diameter_in(self.maps(patch, None)) for patch in patches]
        known = [d for d in found if d is not None]
        return float(np.median(known)) if known else None

    def _stain(self, tile: FloatArray) -> FloatArray:
        """Return (Y, X) in about [0, 1], high in nuclei."""
        if self._modality is Modality.FLUORESCENCE:
            bright: FloatArray = tile.max(axis=0)
            return bright
        return haematoxylin(tile)


def _kept(labels: LabelArray, foreground: FloatArray, settings: DecodeSettings) -> Nuclei:
    """Score nuclei, remove small and doubtful ones, number the rest 1..n."""
    area = np.bincount(labels.ravel(), minlength=1)
    score = ndimage.maximum(foreground, labels, np.arange(len(area)))
    kept = (area >= max(settings.min_area_px, 1)) & (score >= settings.min_score)
    return Nuclei(*kept_nuclei(labels, np.asarray(score[1:], np.float32), kept[1:]))
