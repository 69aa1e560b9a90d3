"""From napari layers to core types: which images are there, which plane and part of them is seen."""

from __future__ import annotations

from dataclasses import dataclass
from inspect import signature
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_nucleus_kd.types import Channel, Image, Region

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt
    from napari.components import ViewerModel
    from napari.layers import Image as ImageLayer
    from napari.layers import Layer

    from napari_nucleus_kd.types import Array

# Keys in layer.metadata.
IMAGE_KEY = "nucleus_kd_image"  # types.Image, on layers of an image that we opened
ID_KEY = "nucleus_kd_id"  # str, the same on all channel layers of one image
CHANNEL_KEY = "nucleus_kd_channel"  # int, which channel of the image a layer shows
FROM_KEY = "nucleus_kd_from"  # str, Source.key of the image that a result was computed from
RECIPE_KEY = "nucleus_kd_recipe"  # config.Recipe, resolved, on every result
PLANE_KEY = "nucleus_kd_plane"  # types.Image.notes of the plane that labels were made of, on labels
VERIFIED_KEY = "nucleus_kd_verified"  # True, on layers that say what a person has verified

MICROMETRE = "micrometer"
_NEARLY = 0.98  # share of each edge: who sees so much of an image means all of it


@dataclass(frozen=True, slots=True)
class Source:
    """One image among the layers of a viewer: all channels of an image that we read, or one other layer.

    Attributes
    ----------
    key : tells images apart; stays when layers are renamed or their data change.
    name : for people.
    layers : at least one, in the order of the layer list.
    """

    key: str
    name: str
    layers: tuple[ImageLayer, ...]

    @property
    def opened(self) -> Image | None:
        """The image as our reader gave it; None for layers of another origin."""
        image = self.layers[0].metadata.get(IMAGE_KEY)
        return image if isinstance(image, Image) else None


@dataclass(frozen=True, slots=True)
class Plane:
    """The plane of a source that a viewer showed at some moment.

    Attributes
    ----------
    axes : the two displayed axes of its layers, rising; the last two while the viewer shows volumes.
    point : data index on every axis; those of the displayed axes mean nothing.
    """

    source: Source
    axes: tuple[int, int]
    point: tuple[int, ...]

    @property
    def hidden(self) -> tuple[int, ...]:
        """The axes along which the plane is one pixel thick."""
        return tuple(axis for axis in range(len(self.point)) if axis not in self.axes)


def source_key(layer: Layer) -> str:
    """Return the key of the image that a layer belongs to."""
    return str(layer.metadata.get(ID_KEY, layer.unique_id))


def sources(layers: Iterable[Layer]) -> list[Source]:
    """List the images among the layers; the channels of one image that we read are one source."""
    groups: dict[str, list[ImageLayer]] = {}
    for layer in layers:
        # By name: importing napari.layers costs seconds, and readers import this module.
        if type(layer).__name__ == "Image" and layer.ndim >= 2 and RECIPE_KEY not in layer.metadata:
            groups.setdefault(source_key(layer), []).append(layer)
    return [Source(key, _name(group), tuple(group)) for key, group in groups.items()]


def _name(layers: list[ImageLayer]) -> str:
    image = layers[0].metadata.get(IMAGE_KEY)
    return image.name if isinstance(image, Image) and len(image.channels) > 1 else str(layers[0].name)


def made_from(source: Source, layers: Iterable[Layer]) -> list[Layer]:
    """List the layers that were computed from an image."""
    return [layer for layer in layers if layer.metadata.get(FROM_KEY) == source.key]


def shown_index(layer: Layer, viewer: ViewerModel) -> tuple[tuple[int, int] | None, tuple[int, ...]]:
    """Find what of a layer the viewer shows now.

    Returns
    -------
    The two displayed axes of the layer, rising, None while volumes or other axes are shown; and the data
    index on every axis, which may lie outside the data.
    """
    ndim = layer.ndim
    offset = viewer.dims.ndim - ndim
    shown = sorted(axis - offset for axis in viewer.dims.displayed)
    axes = (shown[0], shown[1]) if len(shown) == 2 and shown[0] >= 0 else None
    raw = np.rint(np.asarray(layer.world_to_data(np.asarray(viewer.dims.point)[-ndim:]))).astype(int)
    return axes, tuple(int(at) for at in raw)


def shown_plane(source: Source, viewer: ViewerModel) -> Plane:
    """Find the plane of a source that the viewer shows now."""
    layer = source.layers[0]
    axes, raw = shown_index(layer, viewer)
    shape = full_resolution(layer).shape
    point = tuple(int(np.clip(at, 0, size - 1)) for at, size in zip(raw, shape, strict=False))
    return Plane(source, axes or (layer.ndim - 2, layer.ndim - 1), point)


def camera_of(viewer: ViewerModel) -> Any:
    """Return the viewer's camera; napari 0.9 moved it into the scene."""
    return viewer.scene.camera if hasattr(viewer, "scene") else viewer.camera


def center_on(viewer: ViewerModel, layer: Layer, world: npt.ArrayLike, zoom: float | None = None) -> None:
    """Move the view to a place in a layer's world, one number an axis of the layer.

    The cursor is then what lies under the mouse now; napari keeps what lay there before, until it moves.
    """
    offset, at = viewer.dims.ndim - layer.ndim, np.asarray(world)
    camera, shown = camera_of(viewer), list(viewer.dims.displayed)
    cursor, known = np.zeros(viewer.dims.ndim), viewer.cursor.position[-viewer.dims.ndim :]
    cursor[-len(known) :] = known  # may be of other axes until the mouse moves
    from_middle = (cursor[shown] - camera.center[-len(shown) :]) * camera.zoom
    if zoom is not None:
        camera.zoom = zoom
    camera.center = (0.0, *(float(at[axis - offset]) for axis in shown))
    cursor[shown] = camera.center[-len(shown) :] + from_middle / camera.zoom
    viewer.cursor.position = tuple(cursor.tolist())


def show_whole(viewer: ViewerModel, source: Source) -> None:
    """Move the view so that it shows all of an image."""
    if "layers" in signature(viewer.reset_view).parameters:
        viewer.reset_view(layers=source.layers)
    else:  # former versions of napari show all layers, hidden ones too
        viewer.reset_view()


def full_resolution(layer: Layer) -> Any:
    """Return the full-resolution data of a layer."""
    return layer.data[0] if layer.multiscale else layer.data


def to_image(source: Source, viewer: ViewerModel) -> Image:
    """Take the shown plane of any napari image layer as an Image; nothing is computed.

    Parameters
    ----------
    source : its first layer is taken: 2-D or more, grey or RGB(A), multiscale or not, over numpy, dask,
        zarr or the like.
    viewer : says which plane is shown.

    Returns
    -------
    Image named after the layer; its pixel size is known only where the layer's units are a length.
    """
    layer, plane = source.layers[0], shown_plane(source, viewer)
    y, x = plane.axes
    full = full_resolution(layer).shape
    levels = list(layer.data) if layer.multiscale else [layer.data]
    names = ("red", "green", "blue") if layer.rgb else (layer.name,)
    return Image(
        levels=tuple(_cut(level, plane, full, layer.rgb) for level in levels),
        channels=tuple(Channel(name) for name in names),
        rgb=bool(layer.rgb),
        pixel_size_um=pixel_size_um((layer.scale[y], layer.scale[x]), (layer.units[y], layer.units[x])),
        name=layer.name,
        notes=tuple(
            f"plane {plane.point[axis]} of {full[axis]} on axis {axis}, counted from 0"
            for axis in plane.hidden
        ),
    )


def _cut(level: Any, plane: Plane, full: Sequence[int], rgb: bool) -> Array:
    """Cut the plane out of a pyramid level as (C, Y, X)."""
    data = as_array(level)
    # A coarser level may have fewer planes as well.
    index = tuple(
        plane.point[axis] * data.shape[axis] // full[axis] if axis in plane.hidden else slice(None)
        for axis in range(len(plane.point))
    )
    picture: Array = data[index]
    return picture[..., :3].transpose(2, 0, 1) if rgb else picture[None]  # alpha carries no stain


def is_array(data: Any) -> bool:
    """Tell whether layer data are numpy or dask; other kinds, such as zarr, cannot do all that these can."""
    return isinstance(data, np.ndarray) or type(data).__module__.startswith("dask.")


def as_array(data: Any) -> Array:
    """Return layer data as numpy or dask; those of another kind, such as zarr, as dask."""
    if is_array(data):
        array: Array = data
        return array
    import dask.array

    lazy: Array = dask.array.from_array(data)  # type: ignore[no-untyped-call]
    return lazy


def pixel_size_um(scale: Sequence[float], units: Sequence[Any]) -> float | None:
    """Return the edge of a pixel in micrometres; None if it is not square or the units are no length.

    Parameters
    ----------
    scale : size of a pixel along the two axes of a picture.
    units : of these two axes, as pint units or their names.
    """
    from pint import Unit  # napari's; slow to import

    sizes = []
    for size, unit in zip(scale, map(Unit, units), strict=True):
        if not unit.is_compatible_with(MICROMETRE):
            return None
        sizes.append(float((float(size) * unit).to(MICROMETRE).magnitude))
    return sizes[0] if np.isclose(sizes[0], sizes[1], rtol=0.01) and sizes[0] > 0 else None


def is_in_view(source: Source, viewer: ViewerModel) -> bool:
    """Tell whether any of a source lies within the canvas; True while nothing was drawn yet."""
    layer = source.layers[0]
    if viewer.dims.ndisplay != 2:
        return True
    axes = list(shown_plane(source, viewer).axes)
    first, last = np.asarray(layer.corner_pixels)[:, axes]
    if (first != last).all():
        return True
    if (np.asarray(layer.corner_pixels) != 0).any():
        return False  # the part that is seen has no width
    # Nothing drawn yet, or moved out beyond the first corner: then the camera looks elsewhere.
    world = np.asarray(viewer.dims.point, float)
    world[list(viewer.dims.displayed)] = camera_of(viewer).center[-2:]
    center = np.asarray(layer.world_to_data(world[-layer.ndim :]))[axes]
    shape = np.array([full_resolution(layer).shape[axis] for axis in axes])
    return bool(((center >= 0) & (center < shape)).all())


def visible_region(source: Source, viewer: ViewerModel) -> Region | None:
    """Return the part of a source that the canvas shows, in full-resolution pixels.

    Returns
    -------
    None when (nearly) all of it is seen, nothing was drawn yet, or the viewer shows volumes.
    """
    layer = source.layers[0]
    if viewer.dims.ndisplay != 2:
        return None
    axes = shown_plane(source, viewer).axes
    factors = np.ones(layer.ndim)
    if layer.multiscale:
        factors = np.asarray(layer.downsample_factors[layer.data_level])
    first, last = np.asarray(layer.corner_pixels, float) * factors
    spans = []
    for axis in axes:
        size = int(full_resolution(layer).shape[axis])
        start = max(0, int(np.floor(first[axis])))
        # The last corner is the last pixel that is seen.
        spans.append((start, min(size, int(np.ceil(last[axis] + factors[axis])))))
    (y0, y1), (x0, x1) = spans
    sizes = [full_resolution(layer).shape[axis] for axis in axes]
    is_whole = min((y1 - y0) / sizes[0], (x1 - x0) / sizes[1]) >= _NEARLY
    return None if is_whole or last[list(axes)].max() <= 0 else Region(y0, x0, y1, x1)
