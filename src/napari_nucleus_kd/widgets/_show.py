"""From core types to napari layers: images, labels with their features, probabilities."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np

from napari_nucleus_kd.channels import nuclear_channels, sample_pixels
from napari_nucleus_kd.panel import channel_color
from napari_nucleus_kd.widgets._layers import (
    CHANNEL_KEY,
    FROM_KEY,
    ID_KEY,
    IMAGE_KEY,
    MICROMETRE,
    RECIPE_KEY,
    made_from,
)
from napari_nucleus_kd.widgets._making import is_of_run

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari.components import ViewerModel
    from napari.layers import Image as ImageLayer
    from napari.layers import Labels, Layer
    from napari.utils.colormaps import CyclicLabelColormap

    from napari_nucleus_kd.config import Recipe
    from napari_nucleus_kd.pipeline import Result
    from napari_nucleus_kd.types import FloatArray, Image, Region
    from napari_nucleus_kd.widgets._layers import Plane, Source
    from napari_nucleus_kd.widgets._steps import Stored

    LayerData = tuple[Any, dict[str, Any], str]

_SHOWN_AT_FIRST = 3
_SAMPLE_PX = 512
_LABEL_OPACITY = 0.6
_OUTLINE_PX = 2
_COLORS = 48  # of nuclei; neighbours seldom get the same
_PROBABILITY_OPACITY = 0.7


def spatial(size_um: float | None) -> dict[str, Any]:
    """Return scale and units of a layer whose pixels have this edge, in micrometres if known."""
    if size_um is None:
        return {"scale": (1.0, 1.0), "units": ("pixel", "pixel")}
    return {"scale": (size_um, size_um), "units": (MICROMETRE, MICROMETRE)}


def layer_data(image: Image) -> list[LayerData]:
    """Turn an image into napari layer data: one RGB layer, or one layer a channel.

    Contrast limits are measured here on a small sample, so that napari need not read the file for them.
    """
    common = {**spatial(image.pixel_size_um), "multiscale": len(image.levels) > 1}
    metadata = {IMAGE_KEY: image, ID_KEY: str(uuid4())}
    if image.rgb:
        keywords = {**common, "name": image.name, "rgb": True, "metadata": {**metadata, CHANNEL_KEY: 0}}
        return [(layer_values(image, 0), keywords, "image")]
    shown, sample = _shown_channels(image), _sample(image)
    return [
        (
            layer_values(image, index),
            {
                **common,
                "name": channel_layer_name(image, index),
                "colormap": channel_color(image, index),
                "contrast_limits": _contrast(sample[index]),
                "blending": "additive",
                "visible": index in shown,
                "metadata": {**metadata, CHANNEL_KEY: index},
            },
            "image",
        )
        for index in range(len(image.channels))
    ]


def layer_values(image: Image, channel: int) -> Any:
    """Return what a layer shows: (Y, X) of one channel or (Y, X, 3) of colour, as a list if multiscale."""
    levels = [level.transpose(1, 2, 0) if image.rgb else level[channel] for level in image.levels]
    return levels if len(levels) > 1 else levels[0]


def channel_layer_name(image: Image, index: int) -> str:
    """Return the layer name of a channel; the channel comes first because lists cut the end off."""
    return image.name if len(image.channels) == 1 else f"{image.channels[index].name} ({image.name})"


def _shown_channels(image: Image) -> set[int]:
    nuclear = nuclear_channels([channel.name for channel in image.channels])
    order = [*nuclear, *(i for i in range(len(image.channels)) if i not in nuclear)]
    return set(order[:_SHOWN_AT_FIRST])


def _sample(image: Image) -> np.ndarray[Any, Any]:
    """Read a sample (C, N) of the coarsest level that still has some detail."""
    fit = [level for level in image.levels if min(level.shape[1:]) >= _SAMPLE_PX]
    level = fit[-1] if fit else image.levels[0]
    return sample_pixels(level, tuple(range(level.shape[0])))


def _contrast(sample: np.ndarray[Any, Any]) -> tuple[float, float]:
    finite = sample[np.isfinite(sample)] if sample.dtype.kind == "f" else sample
    if not finite.size:
        return 0.0, 1.0
    low, high = (float(value) for value in np.percentile(finite, (0.5, 99.9)))
    return (low, high) if high > low else (low, low + 1.0)


def set_pixel_size(source: Source, layers: Iterable[Layer], size_um: float | None) -> Image:
    """Give an image that we opened its pixel size; its layers and what was made from them stay aligned.

    Parameters
    ----------
    layers : all layers of the viewer.
    size_um : None for unknown; the layers are then scaled in pixels.

    Returns
    -------
    The image with its pixel size, which the layers now carry.
    """
    opened = source.opened
    if opened is None:
        raise ValueError(f"{source.name} was not opened by this plugin: its layer properties hold its scale")
    image = replace(opened, pixel_size_um=size_um)
    factor = (size_um or 1.0) / (opened.pixel_size_um or 1.0)
    unit = "pixel" if size_um is None else MICROMETRE
    for layer in (*source.layers, *made_from(source, layers)):
        layer.translate = layer.translate * factor
        layer.scale = layer.scale * factor
        layer.units = (unit,) * layer.ndim
    for layer in source.layers:
        layer.metadata[IMAGE_KEY] = image
    return image


def swap_image(source: Source, image: Image) -> None:
    """Show another image of the same channels, such as another z plane, in the layers of a source."""
    for layer in source.layers:
        layer.data = layer_values(image, layer.metadata[CHANNEL_KEY])
        layer.metadata[IMAGE_KEY] = image


def placed(plane: Plane, region: Region | None) -> dict[str, Any]:
    """Return scale, translate, rotate, shear, affine and units of a picture of a region of a plane."""
    from napari.utils.transforms import Affine

    layer = plane.source.layers[0]
    offset = np.array([at if axis in plane.hidden else 0 for axis, at in enumerate(plane.point)], float)
    if region is not None:
        offset[list(plane.axes)] = region.y0, region.x0
    own = Affine(scale=layer.scale, translate=layer.translate, rotate=layer.rotate, shear=layer.shear)
    return {
        "scale": tuple(layer.scale),
        "translate": tuple(own(offset)),
        "rotate": layer.rotate,
        "shear": layer.shear,
        "affine": layer.affine,
        "units": layer.units,
    }


def add_labels(
    viewer: ViewerModel, plane: Plane, result: Result, table: dict[str, Any], *, outlines: bool
) -> Labels:
    """Add the nuclei of a result as a Labels layer over its image.

    The array is a copy where the result can be decoded again: then it must be told whether a person
    edited the layer.

    Parameters
    ----------
    plane : that was segmented; the labels of a stack's plane are one pixel thick and lie in it.
    table : columns of `layer.features`; "index" holds the labels.
    outlines : draw outlines, not filled nuclei.
    """
    from napari.layers import Labels

    how = "" if result.recipe.enhance is None else ", enhanced"
    labels = result.nuclei.labels if result.maps is None else result.nuclei.labels.copy()
    layer = Labels(
        np.expand_dims(labels, plane.hidden),
        name=f"{plane.source.name} nuclei{how}",
        features=table,
        colormap=_bright_colors(),
        metadata=_result_metadata(plane.source, result.recipe),
        **placed(plane, result.region),
    )
    draw(layer, outlines)
    viewer.add_layer(layer)
    return layer


def add_kept_labels(
    viewer: ViewerModel, plane: Plane, labels: Any, recipe: Recipe | None, *, outlines: bool
) -> Labels:
    """Add the nuclei that were kept of a whole image.

    Parameters
    ----------
    labels : (Y, X) int; the layer takes them over.
    recipe : of the run that they began with, if one is known; else the layer must not say that there was one.
    """
    from napari.layers import Labels

    metadata: dict[str, Any] = {FROM_KEY: plane.source.key}
    layer = Labels(
        np.expand_dims(labels, plane.hidden),
        name=f"{plane.source.name} nuclei",
        colormap=_bright_colors(),
        metadata={**metadata, RECIPE_KEY: recipe} if is_of_run(recipe) else metadata,
        **placed(plane, None),
    )
    draw(layer, outlines)
    viewer.add_layer(layer)
    return layer


def draw(layer: Labels, outlines: bool) -> None:
    """Draw nuclei as outlines, which leave the image to be seen, or filled."""
    layer.contour = _OUTLINE_PX if outlines else 0
    layer.opacity = 1.0 if outlines else _LABEL_OPACITY


def _bright_colors() -> CyclicLabelColormap:
    """Return colours from orange to cyan: seen on black and blue as well as on purple and brown."""
    from colorsys import hsv_to_rgb

    from napari.utils.colormaps import CyclicLabelColormap

    order = np.random.default_rng(0).permutation(_COLORS)
    hues = 0.08 + 0.44 * order / _COLORS
    colors = [(*hsv_to_rgb(hue, 1 - 0.45 * (i % 2), 1), 1.0) for i, hue in enumerate(hues)]
    return CyclicLabelColormap(np.array([(0, 0, 0, 0), *colors], np.float32))


def _result_metadata(source: Source, recipe: Recipe) -> dict[str, Any]:
    return {FROM_KEY: source.key, RECIPE_KEY: recipe}


def update_labels(layer: Labels, result: Result, table: dict[str, Any]) -> None:
    """Show another result in the layer of a former one."""
    layer.data = result.nuclei.labels.reshape(layer.data.shape).copy()
    layer._reset_history()  # else Redo would stamp corrections of the former nuclei on these
    layer.features = table
    layer.metadata[RECIPE_KEY] = result.recipe


def add_probability(viewer: ViewerModel, plane: Plane, result: Result) -> ImageLayer:
    """Add how probable each pixel is nucleus, at the network's resolution.

    Raises
    ------
    ValueError if the result keeps no maps.
    """
    from napari.layers import Image as ImageLayer

    if result.maps is None:
        raise ValueError("this result keeps no maps")
    picture = result.maps["foreground"]
    keywords = placed(plane, result.region)
    scale, translate = np.array(keywords["scale"]), np.array(keywords["translate"])
    for axis in plane.axes:
        # Positions are pixel centres: the centre of a coarse pixel lies between those that it covers.
        translate[axis] += scale[axis] * (1 / result.maps.scale - 1) / 2
        scale[axis] /= result.maps.scale
    layer = ImageLayer(
        np.expand_dims(picture, plane.hidden),
        name=f"{plane.source.name} nucleus probability",
        colormap="magma",
        contrast_limits=(0.0, 1.0),
        opacity=_PROBABILITY_OPACITY,
        metadata=_result_metadata(plane.source, result.recipe),
        **{**keywords, "scale": tuple(scale), "translate": tuple(translate)},
    )
    viewer.add_layer(layer)
    return layer


def add_seen(viewer: ViewerModel, plane: Plane, picture: FloatArray, recipe: Recipe) -> ImageLayer:
    """Add what a network sees, (3, Y, X) in [0, 1], in grey where its three channels are alike."""
    from napari.layers import Image as ImageLayer

    is_grey = bool((picture == picture[0]).all())
    shown = picture[0] if is_grey else np.moveaxis(picture, 0, -1)
    look: dict[str, Any] = {"contrast_limits": (0.0, 1.0), "colormap": "gray"} if is_grey else {}
    name = f"{recipe.mapping}: {plane.source.name} as the network sees it"
    for layer in [layer for layer in viewer.layers if layer.name == name]:  # what was shown before
        viewer.layers.remove(layer)
    layer = ImageLayer(
        np.expand_dims(shown, plane.hidden),
        name=name,
        rgb=not is_grey,
        metadata=_result_metadata(plane.source, recipe),
        **look,
        **placed(plane, recipe.region),
    )
    viewer.add_layer(layer)
    return layer


def add_stored_labels(viewer: ViewerModel, plane: Plane, stored: Stored, *, outlines: bool) -> Labels:
    """Add labels that lie in an OME-Zarr as a lazy layer."""
    from napari.layers import Labels

    pictures = [np.expand_dims(level, plane.hidden) for level in stored.levels]
    layer = Labels(
        pictures if len(pictures) > 1 else pictures[0],
        multiscale=len(pictures) > 1,
        name=f"{plane.source.name} nuclei",
        features=stored.table,
        colormap=_bright_colors(),
        metadata={**_result_metadata(plane.source, stored.recipe), "path": str(stored.path)},
        **placed(plane, stored.recipe.region),
    )
    draw(layer, outlines)
    viewer.add_layer(layer)
    return layer
