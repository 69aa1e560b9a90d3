"""Cellpose and StarDist as segmenters: their networks, and their own way from maps to nuclei."""

from __future__ import annotations

import math
import weakref
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_nucleus_kd.baselines import (
    TOOLS,
    Tool,
    Worker,
    environment_state,
    weight_files,
    weights_digest,
)
from napari_nucleus_kd.config import DecodeSettings, Recipe
from napari_nucleus_kd.errors import DeviceError, ModelError
from napari_nucleus_kd.segmenters.base import MORE_LOOKS, OWN_PERCENTILES, kept_nuclei, same_scale
from napari_nucleus_kd.stains import haematoxylin
from napari_nucleus_kd.types import Maps, Modality, Nuclei
from napari_nucleus_kd.words import count

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_nucleus_kd.types import FloatArray, LabelArray

_BLOCK = 32  # network pixels that become whole image pixels: scales are rounded to that
_MIN_SCALE, _MAX_SCALE = 0.1, 4.0
_CONTEXT_PX = 64  # network pixels; both see a little further, with little weight
_MIN_AREA_PX = 15  # Cellpose's own; StarDist leaves none out
_UNMIXED = "it sees no colours: it was given the haematoxylin (colour deconvolution)"
_STARDIST_PX, _STARDIST_RANGE = 25.0, (10.0, 60.0)  # StarDist has no size of its own: nuclei of its data


def load(recipe: Recipe) -> BaselineSegmenter:
    """Open the recipe's weights in the tool's own environment.

    Raises
    ------
    ModelError if no weights are named: none are taken by default. DeviceError, BaselineError
    """
    tool = TOOLS[recipe.segmenter]
    if not recipe.weights:
        raise ModelError(
            f"{tool.title} needs weights: a file or folder, or the name of a model that it downloads itself "
            "(--weights, setting weights)"
        )
    if recipe.device.split(":")[0] not in tool.devices:
        raise DeviceError(f"{tool.title} does not run on {recipe.device}; take {', '.join(tool.devices)}")
    opened = partial(_opened, tool, recipe.weights, recipe.device)
    return BaselineSegmenter(recipe.segmenter, opened, recipe.looks)


_MOST_OPEN = 4
# The newest processes, for starting one takes seconds; by tool, weights and device: the state of the files
# and the environment it was started with, and its fingerprint.
_OPEN: dict[tuple[str, str, str], tuple[object, Worker, str]] = {}


def _opened(tool: Tool, weights: str, device: str) -> tuple[Worker, str]:
    """Return a process with these weights, the one that is there or a new one, and their fingerprint."""
    place = Path(weights).absolute()
    stats = [(file, file.stat()) for file in weight_files(place)]
    if stats:
        weights = str(place)
    files = [(file, stat.st_mtime_ns, stat.st_size) for file, stat in stats]
    state = files, environment_state(tool.name)
    key = tool.name, weights, device
    known = _OPEN.pop(key, None)
    if known is None or known[0] != state or not known[1].is_alive:
        while len(_OPEN) >= _MOST_OPEN:
            _OPEN.pop(next(iter(_OPEN)))
        worker = Worker(tool, weights, device)
        digest = weights_digest(worker.about.weights, f"{tool.served_as} {worker.about.version}")
        known = state, worker, digest
    _OPEN[key] = known
    return known[1:]


class BaselineSegmenter:
    """Another tool in a process of its own; see segmenters.base.Segmenter for the methods.

    The tool gets the channels, scaling and diameter that the student would get; if its network sees no
    colours, it gets the haematoxylin of H&E and IHC pictures, for such networks have learnt bright nuclei.
    Its maps are decoded by its own code with its own thresholds, but that DecodeSettings.foreground replaces
    its probability threshold; split and fill_holes mean nothing to it.

    Parameters
    ----------
    opened : returns a process with the weights, a new one if the last was ended, and their fingerprint.
    modality : how the pictures are made.
    """

    def __init__(self, name: str, opened: Callable[[], tuple[Worker, str]], modality: Modality):
        self._worker, digest = opened()
        self.name, self._about, self._opened = name, self._worker.about, opened
        self._unmixes = modality is not Modality.FLUORESCENCE and not self._about.colour
        self.notes: tuple[str, ...] = (_UNMIXED,) if self._unmixes else ()
        self.model_hash: str | None = digest  # of the version, too: another one finds other nuclei
        self.parameters: int | None = self._about.parameters
        self.decode_defaults = DecodeSettings(
            foreground=min(max(self._about.foreground, 0.01), 0.99),
            min_area_px=0 if self._is_stardist else _MIN_AREA_PX,
        )
        self.percentiles = OWN_PERCENTILES.get(name, Recipe().percentiles)
        self.default_diameter_px = self._about.default_diameter_px or _STARDIST_PX
        self._decoded: tuple[weakref.ref[FloatArray], tuple[float, int], LabelArray] | None = None

    def _tool(self) -> Worker:
        """Return the process; a new one if it was ended, as by a Cancel elsewhere."""
        if not self._worker.is_alive:
            worker, digest = self._opened()
            if digest != self.model_hash:
                raise ModelError(f"{self._about.weights} changed since they were opened; segment again")
            self._worker = worker
        return self._worker

    @property
    def running(self) -> object:
        """The process."""
        return self._worker

    @property
    def _is_stardist(self) -> bool:
        return self._about.diameter_px is None

    @property
    def description(self) -> str:
        """Tool, weights and device, for people."""
        about = self._about
        title = TOOLS[self.name].title.split()[0]
        with_threads = f" with {count(about.threads, 'thread')}" if about.device == "cpu" else ""
        where = f"on {about.device}{with_threads} in a process of its own"
        return f"{title} {about.version}, {about.weights.name}, {where}"

    def _enlarged(self, diameter_px: float | None) -> float:
        """Return the factor by which the network sees a picture enlarged."""
        return _BLOCK / self.align_px(diameter_px)

    def scale(self, diameter_px: float | None) -> float:
        """Return the map pixels for a pixel of the picture."""
        return self._enlarged(diameter_px) / self._about.grid

    def align_px(self, diameter_px: float | None) -> int:
        """Return the image pixels that become a block of network pixels."""
        diameter, wanted = diameter_px or self.default_diameter_px, self._about.diameter_px
        if wanted is None:  # it is used at any size that it has learnt
            smallest, largest = _STARDIST_RANGE
            wanted = diameter if smallest <= diameter <= largest else _STARDIST_PX
        scale = min(max(wanted / diameter, _MIN_SCALE), _MAX_SCALE)
        return max(1, round(_BLOCK / scale))

    def halo_px(self, diameter_px: float | None) -> int:
        """Return the room around a tile that a nucleus of the tile may need, in whole blocks."""
        step = self.align_px(diameter_px)
        return math.ceil(1.2 * (diameter_px or self.default_diameter_px) / step) * step

    def context_px(self, diameter_px: float | None) -> int:
        """Return how far the network sees around a pixel, in whole blocks."""
        return math.ceil(_CONTEXT_PX / _BLOCK) * self.align_px(diameter_px)

    def maps(self, tile: FloatArray, diameter_px: float | None) -> Maps:
        """Return the network's maps of a (3, Y, X) tile."""
        if self._unmixes:
            tile = np.broadcast_to(haematoxylin(tile), tile.shape)
        (height, width), scale = tile.shape[1:], self.scale(diameter_px)
        step = self.align_px(diameter_px)
        step = self._about.grid if step == _BLOCK else step
        pad = [(0, 0), (0, -height % step), (0, -width % step)]
        # As each pads by itself. Seen mirrored, a nucleus that the border cuts has its middle at the border,
        # and Cellpose drops it, for its flows do not lead to the middle of what is left.
        if self._is_stardist and height and width:
            padded = np.pad(tile, pad, mode="reflect")
        else:
            padded = np.pad(tile, pad, mode="constant")
        size = round(padded.shape[1] * scale), round(padded.shape[2] * scale)
        values = self._tool().maps(np.ascontiguousarray(padded, np.float32), size)
        values = np.ascontiguousarray(values[:, : math.ceil(height * scale), : math.ceil(width * scale)])
        return Maps(values, self._about.maps, (height, width), scale, diameter_px)

    def decode(self, maps: Maps, settings: DecodeSettings) -> Nuclei:
        """Let the tool turn maps into nuclei; leave out those of a low score."""
        found = self._labels(maps, settings.foreground, settings.min_area_px)
        return _scored(found.copy(), maps, settings.min_score)  # these are kept, those may be edited

    def _labels(self, maps: Maps, foreground: float, min_area_px: int) -> LabelArray:
        """Return the tool's labels of maps; of the same ones it is not asked twice, as for their diameter."""
        known = self._decoded
        if known is None or known[0]() is not maps.values or known[1] != (foreground, min_area_px):
            labels = self._tool().decode(maps.values, maps.shape_yx, maps.scale, foreground, min_area_px)
            self._decoded = known = weakref.ref(maps.values), (foreground, min_area_px), labels
        return known[2]

    def diameter_in(self, maps: Maps) -> float | None:
        """Return the median diameter of the nuclei in maps, if that is about the size seen at this scale."""
        diameter = self._typical(maps)
        return diameter if diameter is not None and same_scale(self.scale(diameter), maps.scale) else None

    def estimate_diameter(self, patches: Sequence[FloatArray]) -> float | None:
        """Look at the patches as for the tool's own size, then as for what was found, until that settles."""
        own = self.default_diameter_px
        first = {self.align_px(size): size for size in (own, own / 2, 2 * own)}  # may be one scale
        diameter = None
        for size in first.values():
            seen, diameter = self.scale(size), self._look(patches, size)
            if diameter is not None:
                break
        for _ in range(MORE_LOOKS):
            if diameter is None or same_scale(self.scale(diameter), seen):
                break
            seen, diameter = self.scale(diameter), self._look(patches, diameter) or diameter
        return diameter

    def _look(self, patches: Sequence[FloatArray], diameter_px: float) -> float | None:
        """Return the median of the patches' diameters, seen as for nuclei of a size."""
        found = [self._typical(self.maps(patch, diameter_px)) for patch in patches]
        known = [diameter for diameter in found if diameter is not None]
        return float(np.median(known)) if known else None

    def _typical(self, maps: Maps) -> float | None:
        """Return the median diameter of the nuclei that maps show."""
        found = self._labels(maps, self.decode_defaults.foreground, self.decode_defaults.min_area_px)
        area = np.bincount(found.ravel())[1:]
        area = area[area > 0]
        return float(2 * np.sqrt(np.median(area) / np.pi)) if area.size else None


def _scored(labels: LabelArray, maps: Maps, min_score: float) -> Nuclei:
    """Return nuclei numbered from 1, each scored by its mean probability."""
    y, x = (
        np.minimum(((np.arange(n) + 0.5) * maps.scale).astype(int), size - 1)
        for n, size in zip(maps.shape_yx, maps.values.shape[1:], strict=True)
    )
    probability = maps["foreground"][np.ix_(y, x)]
    area = np.bincount(labels.ravel(), minlength=1)
    mean = np.bincount(labels.ravel(), probability.ravel(), minlength=1) / np.maximum(area, 1)
    score: FloatArray = mean.clip(0, 1).astype(np.float32)
    kept = (area > 0) & (score >= min_score)
    return Nuclei(*kept_nuclei(labels, score[1:], kept[1:]))
