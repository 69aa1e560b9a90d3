"""The layer that says what a person has verified: a tint over the image, painted, boxed or by the nucleus."""

from __future__ import annotations

import math
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from napari_nucleus_kd import edit
from napari_nucleus_kd.types import Region
from napari_nucleus_kd.widgets._layers import FROM_KEY, VERIFIED_KEY
from napari_nucleus_kd.widgets._show import placed

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt
    from napari.components import ViewerModel
    from napari.layers import Labels

    from napari_nucleus_kd.widgets._layers import Plane
    from napari_nucleus_kd.widgets._places import Place

    Index = tuple[Any, ...]  # of pixels, one array an axis

MARGIN_PX = 4  # of background around a nucleus that is verified with it
_COLOR, _OPACITY = "#009e73", 0.25  # Okabe and Ito's green, which no nucleus has


def add_verified_layer(
    viewer: ViewerModel, plane: Plane, mask: npt.NDArray[np.uint8], under: Labels | None
) -> Labels:
    """Add the layer below the nuclei; what was selected stays so.

    Parameters
    ----------
    mask : (Y, X) of the whole image, not 0 where it was verified. The layer takes it over.
    under : the layer with the nuclei.
    """
    from napari.layers import Labels
    from napari.utils.colormaps import DirectLabelColormap

    active = viewer.layers.selection.active
    layer = Labels(
        np.expand_dims(mask, plane.hidden),
        name=f"{plane.source.name} verified",
        colormap=DirectLabelColormap(color_dict={0: "transparent", None: _COLOR}),
        opacity=_OPACITY,
        metadata={VERIFIED_KEY: True, FROM_KEY: plane.source.key},
        **placed(plane, None),
    )
    layer.brush_size = 40  # areas are painted, not outlines
    viewer.add_layer(layer)
    if under is not None and under in viewer.layers:
        viewer.layers.move(len(viewer.layers) - 1, viewer.layers.index(under))
    if active is not None:
        viewer.layers.selection.active = active
    return layer


class VerifiedMask:
    """The pixels of the layer, as a plane.

    Parameters
    ----------
    axes : of the plane in the data of the layer; the others are one pixel thick.
    of : the layer whose nuclei were verified; others over the same image nobody has seen.
    """

    def __init__(self, layer: Labels, axes: tuple[int, int], of: Labels) -> None:
        self.layer, self.axes, self.of = layer, axes, of

    @property
    def pixels(self) -> npt.NDArray[np.uint8]:
        """(Y, X), a view."""
        index = tuple(slice(None) if axis in self.axes else 0 for axis in range(self.layer.ndim))
        found: npt.NDArray[np.uint8] = self.layer.data[index]
        return found

    def set(self, part: Region, on: bool) -> None:
        """Mark a region as verified or not, in one step to undo."""
        part = part.grown(0, self.pixels.shape)
        inside = self.pixels[part.slices]
        before = inside != 0
        if (before == on).all():
            return
        shown = dict(zip(self.axes, part.slices, strict=True))
        index = tuple(shown.get(axis, slice(0, 1)) for axis in range(self.layer.ndim))
        # Layer.data_setitem takes a position for each pixel: some gigabytes for a box of 10,000 x 10,000.
        self.layer._save_history((index, _Bits(before.reshape(self.layer.data[index].shape)), int(on)))
        inside[...] = on
        self.layer.refresh()

    def _set_in(self, part: Region, mask: npt.NDArray[np.bool_]) -> Index:
        """Mark a mask in a region as verified; returns where it was not, in the data of the layer."""
        whole, part = part, part.grown(0, self.pixels.shape)
        mask = mask[part.within(whole).slices]  # labels may reach beyond the image
        rows, cols = np.nonzero(mask & (self.pixels[part.slices] == 0))
        index = self._index(rows + part.y0, cols + part.x0)
        if len(rows):
            self.layer.data_setitem(index, 1)
        return index

    def _index(self, rows: Any, cols: Any) -> Index:
        shown = dict(zip(self.axes, (rows, cols), strict=True))
        return tuple(
            np.asarray(shown.get(axis, np.zeros_like(rows)), np.intp) for axis in range(self.layer.ndim)
        )

    def set_nuclei(self, labels: Any, places: Iterable[Place], corner: tuple[int, int]) -> list[Index]:
        """Mark nuclei, each with a margin of background around it, as verified, in one step to undo.

        Parameters
        ----------
        labels : (Y, X) of a part of the image.
        places : a pixel of each nucleus in there.
        corner : where the part begins in the image.

        Returns
        -------
        Of each nucleus what was not verified before, see `take_back`.
        """
        marked: list[Index] = []
        with self.layer.block_history():
            for place in places:
                number = int(labels[place])
                if not number:
                    continue
                part = edit.extent(labels, place).grown(MARGIN_PX, labels.shape)
                around = np.asarray(labels[part.slices])
                nucleus = around == number
                near = ndimage.binary_dilation(nucleus, iterations=MARGIN_PX) & (around == 0)
                y, x = corner
                moved = Region(part.y0 + y, part.x0 + x, part.y1 + y, part.x1 + x)
                marked.append(self._set_in(moved, nucleus | near))
        return marked

    def take_back(self, marked: Iterable[Index]) -> None:
        """Mark what `set_nuclei` marked as not verified again, in one step to undo."""
        with self.layer.block_history():
            for index in filter(None, marked):
                self.layer.data_setitem(index, 0)


class _Bits:
    """A mask, packed: NumPy takes it for the array itself."""

    def __init__(self, mask: npt.NDArray[np.bool_]) -> None:
        self._shape, self._packed = mask.shape, zlib.compress(np.packbits(mask).tobytes(), 1)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[np.uint8]:
        bits = np.frombuffer(zlib.decompress(self._packed), np.uint8)
        return np.unpackbits(bits, count=math.prod(self._shape)).reshape(self._shape)
