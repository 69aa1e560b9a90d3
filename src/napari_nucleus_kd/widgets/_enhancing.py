"""What runs in threads for the Enhance widget, and what comes of it; needs no Qt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_nucleus_kd.errors import ModelError
from napari_nucleus_kd.mistakes import Mistakes, Verdict, mistakes
from napari_nucleus_kd.mistakes import picture as picture_of
from napari_nucleus_kd.types import Progress, named
from napari_nucleus_kd.widgets import _steps
from napari_nucleus_kd.widgets._layers import FROM_KEY, PLANE_KEY, made_from
from napari_nucleus_kd.widgets._show import placed
from napari_nucleus_kd.widgets._verdicts import add_verdicts
from napari_nucleus_kd.words import count

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    import numpy.typing as npt
    from napari.components import ViewerModel
    from napari.layers import Image as ImageLayer
    from napari.layers import Layer

    from napari_nucleus_kd.config import Recipe
    from napari_nucleus_kd.types import Array, Image, Region
    from napari_nucleus_kd.widgets._layers import Plane, Source
    from napari_nucleus_kd.widgets._steps import Found

_WORDS_KEY = "nucleus_kd_differences"  # what became of the nuclei, on the layer that shows it
SHOWN_PX = 1024  # edge of what is shown side by side, at most
DIFFERENCES = {
    Verdict.CORRECT: "alike",
    Verdict.MISSED: "only without",
    Verdict.SPURIOUS: "only enhanced",
    Verdict.SPLIT: "split",
    Verdict.MERGED: "merged",
}


@dataclass(frozen=True, slots=True)
class Enhanced:
    """An enhanced part of an image.

    Attributes
    ----------
    picture : (Y, X) uint8.
    recipe : resolved; its region is the part.
    before, after : (h, w, 3) uint8, what the network sees of the part and what is drawn, made smaller.
    """

    picture: npt.NDArray[np.uint8]
    recipe: Recipe
    before: npt.NDArray[np.uint8]
    after: npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Both:
    """The nuclei of one part of an image, found without and with enhancement.

    Attributes
    ----------
    verdicts : (Y, X) uint8, where they differ: see mistakes.picture, the first being what is without.
    """

    without: Found
    enhanced: Found
    found: Mistakes
    verdicts: npt.NDArray[np.uint8]

    def words(self) -> str:
        """Say how many nuclei there are, and what became of those that were found without enhancement."""
        first, second = (len(ids) for ids in (self.found.true_ids, self.found.pred_ids))
        said = []
        for verdict, word in DIFFERENCES.items():
            before, after = (int(np.sum(side == verdict)) for side in (self.found.true, self.found.pred))
            both = verdict in (Verdict.SPLIT, Verdict.MERGED)  # the others are as many, or on one side only
            if before or after:
                said.append(f"{before} {word} into {after}" if both else f"{max(before, after)} {word}")
        became = f": {', '.join(said)}" if said else ""
        return f"{count(first, 'nucleus', 'nuclei')} without, {second} enhanced{became}."


def enhanced_steps(image: Image, recipe: Recipe) -> Generator[Progress, None, Enhanced]:
    """Enhance a part of an image, and make it and what it was drawn from small enough to be shown."""
    from napari_nucleus_kd.pipeline import enhance_steps, seen

    drawn, resolved = yield from enhance_steps(image, recipe)
    yield Progress(0, 0, "showing both")
    before, _ = seen(image, resolved.enhanced_by(None))
    picture = np.asarray(drawn.pixels)
    return Enhanced(picture[0], resolved, _small(255 * before), _small(np.repeat(picture, 3, axis=0)))


def differ(one: Recipe, other: Recipe) -> bool:
    """Tell whether two recipes give different pictures of the same part of an image."""
    from napari_nucleus_kd.pipeline import of_picture

    try:
        first, second = (of_picture(each.model_copy(update={"region": None})) for each in (one, other))
    except ModelError:  # nothing can be made with a model that is not there
        return True
    return first != second


def _small(picture: Array) -> npt.NDArray[np.uint8]:
    """Return (3, Y, X) up to 255 as (h, w, 3), each pixel the mean of as many as needed."""
    channels, height, width = picture.shape
    step = -(-max(height, width) // SHOWN_PX)
    rows, columns = max(1, height // step), max(1, width // step)
    cut = np.asarray(picture)[:, : rows * step, : columns * step]
    blocks = cut.reshape(channels, rows, cut.shape[1] // rows, columns, cut.shape[2] // columns)
    small: npt.NDArray[np.uint8] = np.round(blocks.mean((2, 4), dtype=np.float32)).astype(np.uint8)
    return np.ascontiguousarray(np.moveaxis(small, 0, -1))


def both_steps(image: Image, recipe: Recipe) -> Generator[Progress, None, Both]:
    """Find the nuclei of a part of an image without and with the enhancer of a recipe."""
    plain = recipe.enhanced_by(None)
    first = yield from named("as it is", _steps.memory_steps(image, plain))
    second = yield from named("enhanced", _steps.memory_steps(image, recipe))
    yield Progress(0, 0, "comparing the nuclei")
    labels = first.result.nuclei.labels, second.result.nuclei.labels
    found = mistakes(*labels)
    return Both(first, second, found, picture_of(*labels, found))


def add_enhanced(viewer: ViewerModel, plane: Plane, enhanced: Enhanced) -> ImageLayer:
    """Add an enhanced picture as an image of its own, in place of the former one of its name.

    It lies on the image, and holds no recipe, so that it can be segmented as any other image.
    """
    from napari.layers import Image as ImageLayer

    name = f"{plane.source.name} enhanced"
    former = [
        layer
        for layer in made_from(plane.source, viewer.layers)
        if isinstance(layer, ImageLayer) and layer.name == name
    ]
    layer = ImageLayer(
        np.expand_dims(enhanced.picture, plane.hidden),
        name=name,
        colormap="gray",
        contrast_limits=(0, 255),
        metadata={FROM_KEY: plane.source.key},
        **placed(plane, enhanced.recipe.region),
    )
    viewer.add_layer(layer)  # first: if the former one is in hand, this one follows it
    _put_in_place(viewer, layer, former, name)
    on = [viewer.layers.index(each) for each in plane.source.layers if each in viewer.layers]
    if on:  # they may be gone by now
        viewer.layers.move(viewer.layers.index(layer), max(on) + 1)  # below all labels of the image
    return layer


def add_differences(
    viewer: ViewerModel, plane: Plane, image: Image, both: Both, region: Region | None
) -> None:
    """Add a layer of where the nuclei of both differ, in place of the former one of the same plane."""
    name, former = f"Where they differ ({plane.source.name})", _differences(viewer, plane.source, image)
    layer = add_verdicts(viewer, plane, both.verdicts, region, name)
    layer.metadata.update({PLANE_KEY: image.notes, _WORDS_KEY: both.words()})
    _put_in_place(viewer, layer, former, name)


def _put_in_place(viewer: ViewerModel, layer: Layer, former: Sequence[Layer], name: str) -> None:
    for each in former:
        viewer.layers.remove(each)
    layer.name = name  # napari numbered it while the former one was there


def told_differences(viewer: ViewerModel, source: Source, image: Image) -> str:
    """Return what a layer of differences of an image, as it is shown, says; "" if there is none."""
    layers = _differences(viewer, source, image)
    below = "Both are layers of labels, below the one of where they differ."
    return f"{layers[-1].metadata[_WORDS_KEY]}\n{below}" if layers else ""


def _differences(viewer: ViewerModel, source: Source, image: Image) -> list[Layer]:
    made = made_from(source, viewer.layers)
    return [e for e in made if _WORDS_KEY in e.metadata and e.metadata[PLANE_KEY] == image.notes]
