"""Suggest how a picture was made, from its pixels; a person has the last word."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_nucleus_kd.channels import sample_pixels
from napari_nucleus_kd.types import Array, FloatArray, Image, Modality

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

SAMPLE_PIXELS = 1 << 18
BRIGHT = 0.35  # median brightness; stained tissue 0.43 to 0.95, fluorescence near 0
STAINED = 0.3  # summed optical density above which a pixel is tissue, not glass
_MOST_OF_A_CAMERA = 3  # channels; a multiplex image is never brightfield, and reading all of it is slow
BROWN_SHARE = 0.03  # of the stained pixels; measured: H&E at most 0.02, IHC at least 0.068


def suggest_modality(image: Image) -> tuple[Modality, str]:
    """Suggest a modality from the coarsest level.

    A colour picture with a bright background is stained tissue: IHC where brown (DAB) pixels make
    up at least 3 % of the stained ones, else H&E. Everything else is fluorescence.

    Returns
    -------
    The modality, and the reason in words for a person.
    """
    if not image.rgb:
        reason = "not a colour picture"
        if len(image.channels) <= _MOST_OF_A_CAMERA and has_bright_background(image.levels):
            reason += ", though its background is bright: check that nuclei are brighter than it"
        return Modality.FLUORESCENCE, reason
    sample = _sample(image.levels)
    if np.median(sample.mean(axis=0)) < BRIGHT:
        return Modality.FLUORESCENCE, "a colour picture with a dark background"
    brown, stained = _brown_share(sample)
    if not stained:
        return Modality.HE, "a colour picture with a bright background and hardly any stain"
    share = f"{100 * brown:.0f} % of the stained pixels are brown (DAB)"
    if brown >= BROWN_SHARE:
        return Modality.IHC, f"bright background and {share}"
    return Modality.HE, f"bright background and only {share}"


def has_bright_background(levels: Sequence[Array]) -> bool:
    """Whether the median pixel of the coarsest of these (C, Y, X) levels is bright."""
    return bool(np.median(_sample(levels).mean(axis=0)) >= BRIGHT)


def _sample(levels: Sequence[Array]) -> FloatArray:
    """Return (C, N) float32 in [0, 1]: about SAMPLE_PIXELS pixels at most, spread over the coarsest level.

    Without a pyramid that is the whole image, of which only some blocks are read.
    """
    coarsest = levels[-1]
    pixels = sample_pixels(coarsest, tuple(range(coarsest.shape[0])))
    pixels = np.where(np.isfinite(pixels), pixels, 0)
    step = -(-pixels.shape[1] // SAMPLE_PIXELS) | 1  # odd: an even one would see the same columns in each row
    return pixels[:, ::step].astype(np.float32) / _full_scale(pixels)


def _full_scale(pixels: npt.NDArray[Any]) -> float:
    """Value of white: the bit depth's maximum (12 bits in uint16 count as 12)."""
    if pixels.dtype == np.uint8:
        return 255.0
    highest = float(pixels.max(initial=0))
    if pixels.dtype.kind == "f" or highest <= 1:
        return max(1.0, highest)
    return float(2 ** int(highest).bit_length() - 1)


def _brown_share(sample: FloatArray) -> tuple[float, bool]:
    """Return the share of stained pixels that are brown, and whether any pixel is stained.

    DAB absorbs blue most; eosin and haematoxylin absorb green most. This parts them better than
    the DAB and eosin densities of colour deconvolution, which mix where stains overlap.
    """
    red, green, blue = -np.log10(np.clip(sample, 1 / 255, 1))
    stained = red + green + blue > STAINED
    brown = stained & (blue > 1.1 * green) & (blue > 1.2 * red)
    count = int(stained.sum())
    return (float(brown.sum() / count), True) if count >= 0.001 * stained.size else (0.0, False)
