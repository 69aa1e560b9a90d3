"""Ideal nuclei: what an enhancer makes of a picture, and the three classes that are found in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import edt
import fastremap
import numpy as np
from scipy import ndimage

from napari_nucleus_kd.instances import close_holes

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_nucleus_kd.types import FloatArray, LabelArray

BACKGROUND, BODY, EDGE = range(3)
PENDING = 0.25  # intensity where two nuclei share a boundary
_RIM = 0.5  # intensity at the boundary of a nucleus; 1 is that of its middle
_HALF_EDGE_PX = 2  # of the edge class, inside a nucleus and outside of it


def ideal_nuclei(labels: LabelArray) -> FloatArray:
    """Draw nuclei as they would be seen best: solid, brightest in the middle, fading towards their edge.

    How bright a pixel is goes with its distance to the boundary. Pixels of nuclei that touch another one get
    one intensity, PENDING, on both sides of the boundary; a nucleus of which nothing else is left keeps its
    deepest ones.

    Parameters
    ----------
    labels : (Y, X) whole numbers, 0 is background. Not changed.

    Returns
    -------
    (Y, X) float32 in [0, 1]; background is 0.

    Source: GeNSeg-Net, section 3.1.

    >>> drawn = ideal_nuclei(np.pad(np.full((5, 5), 1, np.int32), 2))
    >>> float(drawn[4, 4]), float(drawn[0, 0]), bool(drawn[2, 2] < drawn[3, 3] < 1)
    (1.0, 0.0, True)
    """
    share, _ = _depth(labels)
    drawn = np.where(labels > 0, _RIM + (1 - _RIM) * share, 0)
    pending = (labels > 0) & between_nuclei(labels, 1)
    is_thin = ~np.isin(labels, np.unique(labels[~pending]))
    drawn[pending & ~(is_thin & (share == 1))] = PENDING
    return drawn.astype(np.float32)


def three_classes(labels: LabelArray) -> npt.NDArray[np.uint8]:
    """Return BACKGROUND, BODY or EDGE of each pixel; an edge has two pixels inside and two outside.

    A nucleus without any deeper pixel keeps its deepest ones as a body, so that none is lost.

    Parameters
    ----------
    labels : (Y, X) whole numbers, 0 is background. Not changed.

    Source: GeNSeg-Net, sections 3.3 and 4.1.
    """
    share, depth = _depth(labels)
    outside = edt.edt(labels == 0) if labels.any() else np.full(labels.shape, np.inf)
    classes = np.where(labels > 0, BODY, BACKGROUND).astype(np.uint8)
    classes[(labels == 0) & (outside <= _HALF_EDGE_PX)] = EDGE
    classes[(labels > 0) & (depth <= _HALF_EDGE_PX) & (share < 1)] = EDGE
    return classes


def between_nuclei(labels: LabelArray, reach_px: int) -> npt.NDArray[np.bool_]:
    """Return the pixels, of nuclei or not, that have two nuclei within reach, also diagonally."""
    size = 2 * reach_px + 1
    highest = ndimage.maximum_filter(labels, size)
    lowest = ndimage.minimum_filter(np.where(labels > 0, labels, labels.max(initial=0)), size)
    found: npt.NDArray[np.bool_] = (highest > 0) & (highest != lowest)
    return found


def _depth(labels: LabelArray) -> tuple[FloatArray, FloatArray]:
    """Return how deep each pixel lies in its nucleus: as a share of the deepest one, and in pixels.

    The pixels at the edge are 1 deep; the border of the picture is no edge, so a nucleus that fills it is
    deepest everywhere.
    """
    numbered, _ = fastremap.renumber(np.ascontiguousarray(labels), in_place=False)
    depth: FloatArray = edt.edt(numbered, black_border=False)
    deepest = np.zeros(int(numbered.max(initial=0)) + 1, np.float32)
    np.maximum.at(deepest, numbered.ravel(), depth.ravel())
    most = deepest[numbered]
    share = np.divide(depth, most, out=np.ones_like(depth), where=np.isfinite(most) & (most > 0))
    return share, depth


def nuclei_in(classes: FloatArray, min_area_px: int = 20, *, fill_holes: bool = True) -> LabelArray:
    """Return the nuclei that three classes show: each body grows by watershed inside the edges around it.

    Parameters
    ----------
    classes : (3, Y, X) probabilities of BACKGROUND, BODY and EDGE.
    min_area_px : smaller nuclei are left out.
    fill_holes : whether background inside a single nucleus belongs to it.

    Returns
    -------
    (Y, X) int32, 1..n

    Source: GeNSeg-Net, section 3.3.
    """
    from skimage.segmentation import watershed

    chosen = classes.argmax(axis=0)
    bodies, _ = ndimage.label(chosen == BODY)
    # An edge reaches two pixels outside of the nucleus, so it grows over the inner half only.
    reach = (chosen == BODY) | ((chosen == EDGE) & (edt.edt(chosen != BODY) <= _HALF_EDGE_PX))
    grown = watershed(-classes[BODY], bodies, mask=reach)
    area = np.bincount(grown.ravel())
    kept = area >= min_area_px
    kept[0] = False
    numbers = np.where(kept, np.cumsum(kept), 0)
    found: LabelArray = numbers[grown].astype(np.int32)
    if fill_holes:
        close_holes(found)
    return found
