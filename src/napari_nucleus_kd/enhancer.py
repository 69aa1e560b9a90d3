"""Enhancement: a network draws every nucleus as it would be seen best, before anything is segmented.

Source: GeNSeg-Net.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from napari_nucleus_kd.channels import NETWORK_CHANNELS
from napari_nucleus_kd.config import OF_STAINS
from napari_nucleus_kd.errors import ModelError
from napari_nucleus_kd.package import list_models, load_model
from napari_nucleus_kd.stains import grey_nuclei
from napari_nucleus_kd.types import Modality, Region

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from napari_nucleus_kd.config import Recipe
    from napari_nucleus_kd.engine import Engine
    from napari_nucleus_kd.package import Model
    from napari_nucleus_kd.types import FloatArray

WINDOW_PX, _OVERLAP_PX = 512, 128  # of the pictures that the network sees; it judges each as a whole
_MARGIN_PX = 32  # of mirrored picture around a window: the network draws nuclei where it sees no more
_DARKEST, _BRIGHTEST = 1.0, 99.8  # percentiles of a picture that become 0 and 1
_MOSTLY_BRIGHT = 0.5  # median of what is a bright background
_LEAST_RANGE = 0.25  # that is taken for contrast; less is stretched as if it were this, and noise with it

Polarity = Literal["bright", "dark"]


def names() -> tuple[str, ...]:
    """Return the names of the enhancers that are shipped or installed."""
    return tuple(model.spec.name for model in list_models("enhancer"))


def usual_polarity(recipe: Recipe, modality: Modality) -> Polarity | None:
    """Return how nuclei look in what a mapping makes of an image: as the recipe says, else as is usual.

    In H&E and IHC they are dark, unless the mapping takes the stains apart. None: the pixels tell; see
    polarity_in.
    """
    if recipe.polarity != "auto":
        return recipe.polarity
    if recipe.mapping in OF_STAINS:
        return "bright"
    return None if modality is Modality.FLUORESCENCE else "dark"


def polarity_in(picture: FloatArray) -> Polarity:
    """Return how nuclei look in a picture: dark if most of it is bright, as a background is in bright-field.

    Parameters
    ----------
    picture : (3, Y, X) in [0, 1], or some pixels of it, scaled so that its darkest and brightest ones are
        about 0 and 1. Not changed.
    """
    return "dark" if np.median(grey_nuclei(picture, dark=False)) > _MOSTLY_BRIGHT else "bright"


def seen_by_enhancers(picture: FloatArray, *, dark: bool, stained: bool) -> FloatArray:
    """Return what an enhancer sees of a picture: grey, nuclei bright, its contrast stretched.

    Stains that absorb little leave little contrast once they are grey. Of stained tissue red is seen, which
    haematoxylin absorbs, DAB half as much, and eosin hardly; else luminance. Of bright nuclei the square root
    is seen: faint ones show beside bright ones, and the noise of light is alike in both.

    Parameters
    ----------
    picture : (3, Y, X) float32 in [0, 1], of any size: a window, or a crop. Not changed.
    dark : see stains.grey_nuclei.
    stained : whether it is a colour picture of stained tissue.

    Returns
    -------
    (Y, X) float32 in [0, 1]
    """
    grey = 1 - picture[0] if stained and dark else grey_nuclei(picture, dark=dark)
    low, high = np.percentile(grey, (_DARKEST, _BRIGHTEST))
    stretched: FloatArray = (grey - np.float32(low)) / np.float32(max(high - low, _LEAST_RANGE))
    np.clip(stretched, 0, 1, out=stretched)
    return stretched if dark else np.sqrt(stretched, out=stretched)


@dataclass(frozen=True, slots=True)
class Enhancer:
    """A network that draws nuclei anew, on a device.

    Attributes
    ----------
    dark : whether nuclei are dark in the pictures that it is given.
    stained : whether these are of stained tissue, in colour.
    """

    model: Model
    engine: Engine
    dark: bool
    stained: bool

    @property
    def description(self) -> str:
        """Model, polarity and device, for people."""
        spec, looks = self.model.spec, "dark on bright" if self.dark else "bright on dark"
        how = f"{spec.name} {spec.version} on {self.engine.description}"
        return f"enhanced by {how}; nuclei were taken as {looks}"

    def __call__(self, picture: FloatArray) -> FloatArray:
        """Return a picture with every nucleus enhanced.

        Parameters
        ----------
        picture : (3, Y, X) float32 in [0, 1]. Not changed.

        Returns
        -------
        (3, Y, X) float32 in [0, 1]: grey, nuclei bright on black.
        """
        _, height, width = picture.shape
        if not height or not width:
            return picture
        bands = [rows for _, rows in self.bands(lambda part: picture[:, *part.slices], (height, width))]
        return np.repeat(np.concatenate(bands)[None], NETWORK_CHANNELS, axis=0)

    def windows(self, shape_yx: tuple[int, int]) -> int:
        """Return how many windows the network sees of a picture."""
        height, width = shape_yx
        return len(_starts(height)) * len(_starts(width))

    def bands(
        self, read: Callable[[Region], FloatArray], shape_yx: tuple[int, int]
    ) -> Generator[tuple[int, FloatArray], None, None]:
        """Enhance a picture of any height from the top to the bottom.

        Windows overlap by a quarter, over which one fades into the next, so that there are no seams.

        Parameters
        ----------
        read : returns a part of the picture, (3, h, w) float32 in [0, 1].

        Yields
        ------
        After each window how many were done, and rows (n, X) float32 that are finished: n is 0 but after the
        last window of a row of windows.
        """
        height, width = shape_yx
        starts, columns, edge = _starts(height), _starts(width), min(height, WINDOW_PX)
        pending = np.zeros((2, edge, width), np.float32)  # what was drawn, weighted, and the weights
        done = 0
        for y, after in zip(starts, (*starts[1:], height), strict=True):
            for x in columns:
                window = Region(y, x, y + edge, min(x + WINDOW_PX, width))
                part = seen_by_enhancers(read(window), dark=self.dark, stained=self.stained)
                weight = np.multiply.outer(*(_ramp(n) for n in part.shape))
                here = pending[:, :, x : x + WINDOW_PX]
                here += np.stack([self._drawn(part) * weight, weight])
                done += 1
                if x != columns[-1]:
                    yield done, np.zeros((0, width), np.float32)
            ready = after - y
            yield done, pending[0, :ready] / pending[1, :ready]
            rest = pending[:, ready:]
            pending = np.concatenate([rest, np.zeros((2, ready, width), np.float32)], axis=1)

    def _drawn(self, grey: FloatArray) -> FloatArray:
        """Return what the network makes of one window, (Y, X)."""
        height, width = grey.shape
        step = self.model.spec.multiple_px
        margins = [(_MARGIN_PX, _MARGIN_PX + -(edge + 2 * _MARGIN_PX) % step) for edge in grey.shape]
        padded = np.pad(grey, margins, mode="symmetric")
        drawn: FloatArray = self.engine.run(np.repeat(padded[None], NETWORK_CHANNELS, axis=0))[0]
        return drawn[_MARGIN_PX:, _MARGIN_PX:][:height, :width]


def load_enhancer(name: str) -> Model:
    """Return an enhancer by name or folder.

    Raises
    ------
    ModelError : there is none.
    """
    model = load_model(name)
    if model.role != "enhancer":
        there = ", ".join(names()) or "none; nucleus-kd train --kind enhancer makes one"
        what = "an adapter" if model.role == "adapter" else "a model"
        raise ModelError(
            f"{name} is no enhancer but {what}; choose from those there are ({there}), or the folder of one"
        )
    return model


def open_enhancer(recipe: Recipe, modality: Modality, look: Callable[[], FloatArray]) -> Enhancer | None:
    """Return the enhancer that a recipe asks for, on its device; None if it asks for none.

    Parameters
    ----------
    look : returns pixels of what the mapping makes of the image, see polarity_in; called only if need be.

    Raises
    ------
    ModelError : there is no such enhancer, or it is not the one that the recipe was made with.
    """
    if recipe.enhance is None:
        return None
    from napari_nucleus_kd.engine import open_engine  # PyTorch, which a window does not wait for

    model = load_enhancer(recipe.enhance)
    if recipe.enhance_hash not in (None, model.hash):
        raise ModelError(
            f"the recipe was made with other weights of {recipe.enhance}; get those, or remove enhance_hash "
            "from the recipe to accept a new result"
        )
    polarity = usual_polarity(recipe, modality) or polarity_in(look())
    stained = modality is not Modality.FLUORESCENCE
    return Enhancer(model, open_engine(model, recipe.device), polarity == "dark", stained)


def _starts(length: int) -> list[int]:
    """Return where windows begin along an axis, evenly spread, so that they overlap by enough."""
    spare = max(0, length - WINDOW_PX)
    more = -(-spare // (WINDOW_PX - _OVERLAP_PX))
    return [spare * i // max(1, more) for i in range(more + 1)]


def _ramp(length: int) -> FloatArray:
    """Return how much each pixel of a window counts along an axis: less towards both ends."""
    place = np.arange(length, dtype=np.float32)
    return np.minimum(1, (np.minimum(place, place[::-1]) + 1) / _OVERLAP_PX)
