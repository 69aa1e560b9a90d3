"""What a correction acts on: the shown plane of the selected Labels layer, or why there is none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_nucleus_kd.errors import EditError
from napari_nucleus_kd.types import Region
from napari_nucleus_kd.widgets._layers import (
    FROM_KEY,
    PLANE_KEY,
    RECIPE_KEY,
    VERIFIED_KEY,
    shown_index,
    to_image,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt
    from napari.components import ViewerModel
    from napari.layers import Labels, Layer

    from napari_nucleus_kd.edit import Edit
    from napari_nucleus_kd.types import Image
    from napari_nucleus_kd.widgets._layers import Plane, Source
    from napari_nucleus_kd.widgets._session import Session

LOCKED_KEY = "nucleus_kd_locked"  # in the metadata of layers that are only shown: why, for a person
PASSING_KEY = "nucleus_kd_passing"  # in the metadata of layers that we show for a moment only
_SAME_GRID = 0.01  # pixels; layers whose pixels lie closer than this are on one grid


@dataclass(frozen=True, eq=False, slots=True)
class Target:
    """One plane of a Labels layer.

    Attributes
    ----------
    axes : the two axes of the data that are shown, rising.
    point : data index on every axis; those of the shown axes mean nothing.
    """

    layer: Labels
    axes: tuple[int, int]
    point: tuple[int, ...]

    @classmethod
    def in_new(cls, layer: Labels, plane: Plane) -> Target:
        """Return the plane of a layer that was made for it: one pixel thick on the axes that are hidden."""
        point = (0 if axis in plane.hidden else at for axis, at in enumerate(plane.point))
        return cls(layer, plane.axes, tuple(point))

    @property
    def labels(self) -> Any:
        """The plane, (Y, X): a view of numpy data, else something that is indexed like an array."""
        if isinstance(self.layer.data, np.ndarray):
            return self.layer.data[self._index(slice(None), slice(None))]
        return _LazyPlane(self)

    @property
    def key(self) -> tuple[int, ...]:
        """Tells the planes of one layer apart."""
        return (*self.axes, *(at for axis, at in enumerate(self.point) if axis not in self.axes))

    def _index(self, y: Any, x: Any) -> tuple[Any, ...]:
        shown = dict(zip(self.axes, (y, x), strict=True))
        return tuple(shown.get(axis, at) for axis, at in enumerate(self.point))

    def at(self, position: Sequence[float]) -> tuple[float, float]:
        """Return the pixel (y, x) at a position in the world."""
        data = self.layer.world_to_data(np.asarray(position, float)[-self.layer.ndim :])
        return float(data[self.axes[0]]), float(data[self.axes[1]])

    def world(self, at: tuple[float, float]) -> npt.NDArray[np.float64]:
        """Return the position in the world of a pixel (y, x), as long as the layer has axes."""
        return np.asarray(self.layer.data_to_world(self._index(*at)), float)

    def apply(self, change: Edit) -> None:
        """Make a correction, as one step of the layer's own history."""
        rows = change.rows.astype(np.intp)
        index = self._index(rows, change.cols)
        whole = tuple(np.broadcast_to(at, rows.shape).astype(np.intp) for at in index)
        self.layer.data_setitem(whole, change.after)

    def taken_in(self, corner: tuple[int, int]) -> Callable[[Region], npt.NDArray[np.bool_]]:
        """Return a function that says which pixels of a region of the image have a nucleus or lie outside.

        Parameters
        ----------
        corner : where the first pixel of the labels lies in the image.
        """
        labels = self.labels

        def taken(region: Region) -> npt.NDArray[np.bool_]:
            found = np.ones(region.shape_yx, bool)
            part = region.within(Region(*corner, *corner))
            inner = part.grown(0, labels.shape)
            if min(inner.shape_yx) > 0:
                found[inner.within(part).slices] = np.asarray(labels[inner.slices]) != 0
            return found

        return taken


class _LazyPlane:
    """A plane of data that are no numpy array, such as zarr; what is asked for is read."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._data = target.layer.data
        self.shape = tuple(int(self._data.shape[axis]) for axis in target.axes)
        self.dtype = np.dtype(self._data.dtype)

    def __getitem__(self, index: Any) -> Any:
        y, x = index if isinstance(index, tuple) else (index, slice(None))
        return np.asarray(self._data[self._target._index(y, x)])


def target_of(viewer: ViewerModel) -> Target:
    """Return what corrections act on now.

    Raises
    ------
    EditError : nothing that can be corrected is selected; says what to do.
    """
    layer = viewer.layers.selection.active
    if layer is None:
        raise EditError("Select the Labels layer with the nuclei to correct in the list of layers.")
    if type(layer).__name__ != "Labels":
        raise EditError(_other_kind(layer))
    if VERIFIED_KEY in layer.metadata:
        raise EditError(
            "Here you mark what you have verified: paint with the brush (key 2), take away with the eraser "
            "(key 1). “Paint verified” or the list of layers leads back to the nuclei."
        )
    if LOCKED_KEY in layer.metadata:
        raise EditError(f"“{layer.name}” is only shown: {layer.metadata[LOCKED_KEY]}.")
    if reason := in_file(layer):
        raise EditError(reason)
    if not layer.editable:
        raise EditError(f"“{layer.name}” is locked against changes; set its editable to True.")
    if not layer.visible:
        raise EditError(f"“{layer.name}” is hidden; show it with the eye in the list of layers.")
    if viewer.dims.ndisplay != 2:
        raise EditError("The viewer shows a volume; switch to planes (Ctrl+Y) to correct.")
    axes, point = shown_index(layer, viewer)
    if axes is None:
        raise EditError(f"The viewer shows other axes than “{layer.name}” has; roll them back (Ctrl+E).")
    shape = layer.data.shape
    if any(not 0 <= point[axis] < shape[axis] for axis in range(layer.ndim) if axis not in axes):
        raise EditError(f"“{layer.name}” has nothing in the plane that is shown; scroll to its plane.")
    return Target(layer, axes, point)


def _other_kind(layer: Layer) -> str:
    kind = type(layer).__name__
    remedy = "select the Labels layer with the nuclei in the list of layers"
    if kind == "Image" and not layer.rgb and RECIPE_KEY not in layer.metadata:
        remedy += ", or make one of it if it holds labels (right-click, Convert to Labels)"
    return f"“{layer.name}” is a layer of kind {kind}, which has no nuclei to correct; {remedy}."


def in_file(layer: Labels) -> str:
    """Say why the pixels of a Labels layer cannot be changed unless they are copied; "" if they can."""
    words = f"“{layer.name}” cannot be changed: "
    remedy = "; copy it to memory and correct the copy."
    if layer.multiscale:
        return f"{words}it is a pyramid of several resolutions{remedy}"
    data = layer.data
    kind = type(data).__module__.partition(".")[0]
    if not isinstance(data, np.ndarray) and kind != "zarr":
        return f"{words}it is read from a file piece by piece ({kind}){remedy}"
    writeable = data.flags.writeable if isinstance(data, np.ndarray) else not data.read_only
    if not writeable:
        return f"{words}its file was opened for reading only{remedy}"
    return ""


@dataclass(frozen=True, eq=False, slots=True)
class Under:
    """The image that labels belong to.

    Attributes
    ----------
    corner : where the first pixel of the labels lies in it.
    key : tells images and planes of them apart.
    """

    image: Image
    corner: tuple[int, int]
    key: tuple[Any, ...]

    def part(self, shape_yx: Sequence[int]) -> Region:
        """Return the part of the image that labels of this shape cover."""
        (y, x), (height, width) = self.corner, shape_yx
        return Region(y, x, y + height, x + width).grown(0, self.image.shape_yx)


def image_under(target: Target, session: Session) -> Under:
    """Return the image that labels belong to.

    Raises
    ------
    EditError : there is no image, another plane of it is shown, or its pixels and those of the labels do not
        match.
    """
    source = _source(target.layer, session)
    if source is None:
        raise EditError(
            "there is no image to look at under these nuclei; open it, or draw the outline of the nucleus"
        )
    image = source.opened or to_image(source, session.viewer)
    _require_plane(target.layer, source, image)
    layer = source.layers[0]
    axes, point = shown_index(layer, session.viewer)
    placed = None if axes is None else [_image_pixel(target, source, axes, at) for at in _CORNER]
    if placed is None or not np.allclose(np.subtract(placed, placed[0]), _CORNER, atol=_SAME_GRID):
        raise EditError(
            f"the pixels of “{target.layer.name}” and {image.name} differ in size or direction; "
            "draw the outline of the nucleus"
        )
    y, x = placed[0]
    hidden = tuple(at for axis, at in enumerate(point) if axes is None or axis not in axes)
    return Under(image, (round(y), round(x)), (source.key, id(layer.data), hidden))


def _require_plane(layer: Labels, source: Source, image: Image) -> None:
    """Raise EditError if labels were made of another plane of their image than the one that is shown."""
    made_of = layer.metadata.get(PLANE_KEY)
    if made_of is None or made_of == image.notes or layer.metadata.get(FROM_KEY) != source.key:
        return
    other = ", ".join(note for note in made_of if note not in image.notes)
    shown = ", ".join(note for note in image.notes if note not in made_of)
    raise EditError(f"“{layer.name}” is of {other}, and {shown} is shown; go to that plane first")


_CORNER = ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0))


def _source(layer: Labels, session: Session) -> Source | None:
    """Return the image that labels belong to; of labels that nobody made here the image in hand."""
    known = layer.metadata.get(FROM_KEY)
    if known is None:
        return session.source
    return next((source for source in session.sources() if source.key == known), None)


def _image_pixel(
    target: Target, source: Source, axes: tuple[int, int], at: tuple[float, float]
) -> tuple[float, float]:
    """Return where a pixel of the labels lies in the image."""
    world, layer = target.world(at), source.layers[0]
    missing = max(0, layer.ndim - len(world))
    data = layer.world_to_data(np.concatenate([np.zeros(missing), world])[-layer.ndim :])
    return float(data[axes[0]]), float(data[axes[1]])
