"""GeNSeg-Net's segmentation as a segmenter: a U-Net of three classes, and watershed inside the edges."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from napari_nucleus_kd.channels import NETWORK_CHANNELS
from napari_nucleus_kd.ideal import nuclei_in
from napari_nucleus_kd.metrics import median_diameter
from napari_nucleus_kd.segmenters.base import PackageSegmenter, kept_nuclei
from napari_nucleus_kd.stains import grey_nuclei
from napari_nucleus_kd.types import Maps, Nuclei

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_nucleus_kd.config import DecodeSettings
    from napari_nucleus_kd.engine import Engine
    from napari_nucleus_kd.package import Model
    from napari_nucleus_kd.types import FloatArray

_CONTEXT_PX = 128  # how far around a pixel the U-Net looks


class ThreeClassSegmenter(PackageSegmenter):
    """A package of three classes on an engine; see segmenters.base.Segmenter for the methods.

    It takes pictures as they are, without rescaling, best those that an enhancer drew. Of the decode
    settings it takes `min_score`, `min_area_px` and `fill_holes`.

    Parameters
    ----------
    dark : whether nuclei are dark in the pictures that it is given, which are then turned around.

    Source: GeNSeg-Net, section 3.3.
    """

    def __init__(self, model: Model, engine: Engine, *, dark: bool = False):
        super().__init__(model, engine)
        self._dark = dark

    def scale(self, diameter_px: float | None) -> float:
        """Return 1: nothing is rescaled."""
        return 1.0

    def align_px(self, diameter_px: float | None) -> int:
        """Return the step of the network's blocks."""
        return self._spec.multiple_px

    def halo_px(self, diameter_px: float | None) -> int:
        """Return room for two nuclei, in whole blocks."""
        step = self._spec.multiple_px
        return math.ceil(2 * (diameter_px or self.default_diameter_px) / step) * step

    def context_px(self, diameter_px: float | None) -> int:
        """Return how far the network sees around a pixel."""
        return _CONTEXT_PX

    def maps(self, tile: FloatArray, diameter_px: float | None) -> Maps:
        """Return the foreground (what is no background) and the three classes of a (3, Y, X) tile."""
        _, height, width = tile.shape
        step = self._spec.multiple_px
        grey = grey_nuclei(tile, dark=self._dark)  # as in training
        padded = np.pad(grey, [(0, -height % step), (0, -width % step)], mode="symmetric")
        seen = np.repeat(padded[None], NETWORK_CHANNELS, axis=0)
        classes = self._engine.run(seen)[:, :height, :width]
        values = np.concatenate([1 - classes[:1], classes])
        return Maps(values, ("foreground", *self._spec.maps), (height, width), 1.0, diameter_px)

    def decode(self, maps: Maps, settings: DecodeSettings) -> Nuclei:
        """Let each nucleus body grow into the edges around it; a nucleus scores as its foreground does."""
        labels = nuclei_in(maps.values[1:], max(1, settings.min_area_px), fill_holes=settings.fill_holes)
        numbers = np.arange(1, int(labels.max(initial=0)) + 1)
        scores = np.asarray(ndimage.mean(maps["foreground"], labels, numbers), np.float32).reshape(-1)
        return Nuclei(*kept_nuclei(labels, scores, scores >= settings.min_score))

    def diameter_in(self, maps: Maps) -> float | None:
        """Return the median diameter of the nuclei that are found."""
        return median_diameter(self.decode(maps, self.decode_defaults).labels)

    def estimate_diameter(self, patches: Sequence[FloatArray]) -> float | None:
        """Return the median of the patches' diameters."""
        found = [self.diameter_in(self.maps(patch, None)) for patch in patches]
        known = [diameter for diameter in found if diameter is not None]
        return float(np.median(known)) if known else None
