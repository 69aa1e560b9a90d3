"""Colours nuclei by a column of their table, and gives them their own colours back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt
    from napari.layers import Labels
    from napari.utils.colormaps import DirectLabelColormap

_OWN_KEY = "nucleus_kd_own_colours"  # in layer.metadata: the colour map of a layer before it was coloured
_STEPS = 64  # shades, few enough that drawing stays quick
_UNKNOWN = (0.5, 0.5, 0.5, 1.0)  # of nuclei without a value
_PERCENTILES = 1, 99


@dataclass(frozen=True, slots=True)
class Scale:
    """Values that get the darkest and the brightest colour."""

    low: float
    high: float


def scale_of(values: npt.NDArray[Any]) -> Scale | None:
    """Return from where to where colours go: percentiles 1 to 99; None of what is no number."""
    if values.dtype.kind not in "biuf":
        return None
    finite = values[np.isfinite(values)].astype(np.float64)
    if not finite.size:
        return None
    low, high = (float(value) for value in np.percentile(finite, _PERCENTILES))
    return Scale(low, high)


def colour(layer: Labels, labels: npt.NDArray[Any], values: npt.NDArray[Any], scale: Scale) -> None:
    """Colour nuclei by a value, dark blue to yellow (viridis, safe for the colour-blind); grey without one.

    Parameters
    ----------
    labels, values : (N,) of each nucleus.
    """
    layer.metadata.setdefault(_OWN_KEY, layer.colormap)
    layer.colormap = _colormap(labels, values.astype(np.float64), scale)


def uncolour(layer: Labels) -> None:
    """Give nuclei the colours back that they had before."""
    own = layer.metadata.pop(_OWN_KEY, None)
    if own is not None:
        layer.colormap = own


def _colormap(labels: npt.NDArray[Any], values: npt.NDArray[np.float64], scale: Scale) -> DirectLabelColormap:
    from matplotlib import colormaps
    from napari.utils.colormaps import DirectLabelColormap

    shades = np.vstack([colormaps["viridis"](np.linspace(0, 1, _STEPS)), [_UNKNOWN]]).astype(np.float32)
    share = (values - scale.low) / ((scale.high - scale.low) or 1.0)
    step = np.where(np.isfinite(values), np.clip(np.nan_to_num(share), 0, 1) * (_STEPS - 1), _STEPS)
    colormap = DirectLabelColormap(color_dict={None: _UNKNOWN, 0: (0, 0, 0, 0)})
    # Past the check of napari, which takes seconds for so many colours; these are what it makes of them.
    colormap.color_dict.update(zip(labels.tolist(), shades[np.rint(step).astype(int)], strict=True))
    return colormap
