"""What every segmenter can do."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from napari_nucleus_kd.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from napari_nucleus_kd.config import DecodeSettings, Recipe
    from napari_nucleus_kd.engine import Engine
    from napari_nucleus_kd.package import Model
    from napari_nucleus_kd.types import FloatArray, LabelArray, Maps, Nuclei

# Scaled to 0 and 1, of tools that learnt from other ones than those of a Recipe.
OWN_PERCENTILES = {"cellpose": (1.0, 99.0), "cellpose4": (1.0, 99.0)}
MORE_LOOKS = 3  # for the diameter, at the scale that the last look suggests
_SAME_SCALE = 0.12  # log of the ratio of scales that are not worth another look


def same_scale(one: float, other: float) -> bool:
    """Tell whether two scales are so near that another look for the diameter would tell nothing new."""
    return abs(math.log(one / other)) < _SAME_SCALE


def refuse_weights(recipe: Recipe) -> None:
    """Raise SettingsError if a recipe names weights for a segmenter that takes none."""
    if recipe.weights is not None:
        raise SettingsError(
            f"weights {recipe.weights!r} mean nothing to the segmenter {recipe.segmenter}; choose cellpose, "
            "cellpose4 or stardist as segmenter, or leave the weights out (a model of this program is model)"
        )


def kept_nuclei(
    labels: LabelArray, scores: FloatArray, kept: npt.NDArray[np.bool_]
) -> tuple[LabelArray, FloatArray]:
    """Return those of nuclei 1..n that are kept, numbered without gaps, and their scores."""
    if kept.all():
        return labels, scores
    number = np.concatenate([[0], np.where(kept, np.cumsum(kept), 0)]).astype(np.int32)
    return number[labels], scores[kept]


@runtime_checkable
class Segmenter(Protocol):
    """Finds nuclei in one tile in memory; knows no files, tiles or GUI.

    A tile is (3, Y, X) float32 in [0, 1], as channels.InputMap makes it. Diameters are in image
    pixels; None stands for the diameter the segmenter was made for.
    """

    @property
    def name(self) -> str:
        """Name in the registry."""

    @property
    def description(self) -> str:
        """Model and device, for people."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What did not go as chosen, for people."""

    @property
    def running(self) -> object:
        """What holds the opened weights, always the same while they stay open; can be weakly referenced."""

    @property
    def model_hash(self) -> str | None:
        """SHA-256 of the weights; None without weights."""

    @property
    def parameters(self) -> int | None:
        """Numbers that were learnt; None without weights."""

    @property
    def decode_defaults(self) -> DecodeSettings:
        """Decode settings that suit this segmenter."""

    @property
    def percentiles(self) -> tuple[float, float]:
        """Percentiles that are scaled to 0 and 1, as in training."""

    @property
    def default_diameter_px(self) -> float:
        """Nucleus diameter to assume where none is known."""

    def scale(self, diameter_px: float | None) -> float:
        """Return the factor by which tiles are enlarged before the network sees them."""

    def align_px(self, diameter_px: float | None) -> int:
        """Return the step that tile origins keep, so that results do not depend on the tile."""

    def halo_px(self, diameter_px: float | None) -> int:
        """Return the room around a tile that a nucleus of the tile may need."""

    def context_px(self, diameter_px: float | None) -> int:
        """Return how far the segmenter sees around a pixel."""

    def estimate_diameter(self, patches: Sequence[FloatArray]) -> float | None:
        """Return the typical nucleus diameter in patches of one image; None if there are no nuclei."""

    def diameter_in(self, maps: Maps) -> float | None:
        """Return the diameter that maps made with diameter None show; None if they cannot tell."""

    def maps(self, tile: FloatArray, diameter_px: float | None) -> Maps:
        """Return the maps of one tile."""

    def decode(self, maps: Maps, settings: DecodeSettings) -> Nuclei:
        """Turn maps into nuclei, at image resolution."""


class PackageSegmenter:
    """What segmenters of a package on an engine share; see Segmenter."""

    name = "student"

    def __init__(self, model: Model, engine: Engine):
        self._engine = engine
        self._spec = model.spec
        self.model_hash: str | None = model.hash
        self.parameters: int | None = model.parameters
        self.decode_defaults = model.spec.decode
        self.percentiles = model.spec.percentiles
        self.default_diameter_px = model.spec.diameter_px

    @property
    def description(self) -> str:
        """Model and device, for people."""
        return f"{self._spec.name} {self._spec.version} on {self._engine.description}"

    @property
    def running(self) -> object:
        """The engine."""
        return self._engine

    @property
    def notes(self) -> tuple[str, ...]:
        """What did not go as chosen, for people."""
        return tuple(self._engine.notes)
