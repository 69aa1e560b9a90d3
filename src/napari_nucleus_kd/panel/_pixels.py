"""What a sample of a channel's pixels says of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_nucleus_kd.channels import BLOCK_PX, block_starts, scale_limits
from napari_nucleus_kd.measure import features
from napari_nucleus_kd.types import Region

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from napari_nucleus_kd.types import FloatArray, Image

_GRID = 4  # 4 x 4 blocks of a large image
_WHOLE_PX = 1 << 20  # a coarse level up to this size is looked at, too
_SATURATED = 0.5  # share of pixels at the highest value
_RICHEST = 4  # blocks in which nuclei are looked for
_NUCLEUS_UM, _NUCLEUS_PX = (4.0, 25.0), (8.0, 60.0)  # diameters, with and without a pixel size
_FILLED, _ROUND = 0.85, 0.5  # of a spot: share of its ellipse that it fills, and short over long axis
_CROP_PX = 160  # shown in a thumbnail


@dataclass(frozen=True, slots=True)
class Sample:
    """Some pixels of one channel.

    Attributes
    ----------
    blocks : (B, h, w) of the full resolution, any number type; all B in the same places in every channel.
    values : (N,) all of them and those of the coarsest level, if that is small.
    """

    blocks: npt.NDArray[Any]
    values: npt.NDArray[Any]


def block_places(shape_yx: tuple[int, int]) -> tuple[Region, ...]:
    """Return up to 4 x 4 blocks of up to 256 x 256 pixels, evenly spread over an image."""
    height, width = (min(BLOCK_PX, n) for n in shape_yx)
    starts_y, starts_x = (block_starts(n, _GRID) for n in shape_yx)
    return tuple(Region(y, x, y + height, x + width) for y in starts_y for x in starts_x)


def sample_channel(image: Image, channel: int) -> Sample:
    """Read a sample of one channel; of a lazy image nothing else is read."""
    places = block_places(image.shape_yx)
    blocks = np.stack([np.asarray(image.pixels[(channel, *place.slices)]) for place in places])
    coarse = image.levels[-1]
    if len(image.levels) == 1 or math.prod(coarse.shape[1:]) > _WHOLE_PX:
        return Sample(blocks, blocks.ravel())
    return Sample(blocks, np.concatenate([blocks.ravel(), np.asarray(coarse[channel]).ravel()]))


def fault(values: npt.NDArray[Any]) -> str:
    """Say why these values of a channel show nothing; "" if they may show something.

    >>> fault(np.array([3, 3, 3])), fault(np.array([np.nan])), fault(np.arange(99))
    ('all sampled pixels are 3', 'no sampled pixel is a number', '')
    """
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    if not finite.size:
        return "no sampled pixel is a number"
    low, high = finite.min(), finite.max()
    if low == high:
        return f"all sampled pixels are {high:g}"
    top = float((finite == high).mean())
    if top >= _SATURATED:
        return f"{100 * top:.0f}% of the sampled pixels have the highest value, {high:g}: saturated"
    return ""


def structure(blocks: npt.NDArray[Any]) -> FloatArray:
    """Return how much each of the (B, h, w) blocks varies, (B,) float32 in [0, 1], 1 in the richest."""
    spread = np.nan_to_num(blocks.astype(np.float32), posinf=0, neginf=0).std(axis=(1, 2))
    relative: FloatArray = (spread / max(float(spread.max()), 1e-12)).astype(np.float32)
    return relative


def nuclear_cover(blocks: npt.NDArray[Any], pixel_size_um: float | None) -> tuple[float, float]:
    """Measure how much of a channel looks like nuclei: filled, oval spots of their size.

    What is brighter than its surroundings (Otsu's threshold) is cut at its waists into spots. A filled
    ellipse has the area that its second moments say; nets, rings and branches have less. Holes of the size of
    a nucleus count against a channel: they are in rings and in cytoplasm.

    Parameters
    ----------
    blocks : (B, h, w), any number type.

    Returns
    -------
    Share of the pixels of the four richest blocks that lie in such spots, and share of the bright ones.
    """
    limits = _NUCLEUS_PX if pixel_size_um is None else tuple(d / pixel_size_um for d in _NUCLEUS_UM)
    richest = blocks[np.argsort(-structure(blocks), kind="stable")[:_RICHEST]]
    found = np.array([_spots(block, limits) for block in richest], float)
    covered, bright = found.sum(axis=0)
    return covered / richest.size, covered / max(bright, 1.0)


def _spots(block: npt.NDArray[Any], diameters_px: Sequence[float]) -> tuple[int, int]:
    """Return how many pixels of a block lie in filled, oval spots, and how many are bright or in holes."""
    from scipy import ndimage

    bright = _bright(block, diameters_px[1] / 2)
    if not bright.any():
        return 0, 0
    least, most = (math.pi / 4 * d * d for d in diameters_px)
    area, filled, roundness = _shapes(_cut(bright, diameters_px[0] / 2))
    ovals = (area >= least) & (area <= most) & (filled >= _FILLED) & (roundness >= _ROUND)
    holes, _ = ndimage.label(ndimage.binary_fill_holes(bright) & ~bright)
    sizes = np.bincount(holes.ravel())[1:]
    large = sizes[(sizes >= least) & (sizes <= most)]
    return int(area[ovals].sum()), int(bright.sum() + large.sum())


def _bright(block: npt.NDArray[Any], far_px: float) -> npt.NDArray[np.bool_]:
    """Return which pixels of a block are brighter than what lies around them."""
    from scipy import ndimage
    from skimage.filters import threshold_otsu

    picture = np.nan_to_num(block.astype(np.float32), posinf=0, neginf=0)
    picture = ndimage.gaussian_filter(np.minimum(picture, np.percentile(picture, 99.8)), 1)
    picture -= ndimage.gaussian_filter(picture, far_px)
    if picture.max() <= picture.min():
        return np.zeros(block.shape, bool)
    bright: npt.NDArray[np.bool_] = picture > max(threshold_otsu(picture), 0)
    return bright


def _cut(bright: npt.NDArray[np.bool_], apart_px: float) -> npt.NDArray[np.int32]:
    """Cut what is bright at its waists, into spots whose middles are so far apart."""
    from scipy import ndimage
    from skimage.feature import peak_local_max
    from skimage.segmentation import watershed

    depth = ndimage.gaussian_filter(ndimage.distance_transform_edt(bright), 1)
    apart = max(1, round(apart_px))
    peaks = peak_local_max(depth, min_distance=apart, labels=bright.astype(np.int32), exclude_border=False)
    seeds = np.zeros(bright.shape, np.int32)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    spots: npt.NDArray[np.int32] = watershed(-depth, seeds, mask=bright)
    return spots


def _shapes(labels: npt.NDArray[np.int32]) -> tuple[npt.NDArray[np.float64], ...]:
    """Return area, share of its ellipse that is filled, and short over long axis of every spot."""
    found = features(labels)
    # A pixel is a square, not a point: of second moment 1 / 12.
    long_axis, short_axis = (
        np.hypot(found[f"{axis}_axis_px"], 4 / math.sqrt(12)) for axis in ("major", "minor")
    )
    area = found["area_px2"]
    return area, area / (math.pi / 4 * long_axis * short_axis), short_axis / long_axis


def contrast(image: Image, channel: int, percentiles: tuple[float, float]) -> tuple[float, float]:
    """Return the intensities of a channel at two percentiles, measured on a sample; the second is higher."""
    (low,), (high,) = scale_limits(sample_channel(image, channel).values[None], percentiles)
    return low, high


def thumbnail(image: Image, channel: int, place: Region, size_px: int) -> npt.NDArray[np.uint8]:
    """Return a small grey picture of the middle of one block of a channel, (size, size) uint8.

    Parameters
    ----------
    place : the block, as `Suggestion.place`; the same for all channels, so that they can be compared.
    """
    from skimage.transform import resize

    (height, width), edge = place.shape_yx, min(_CROP_PX, *place.shape_yx)
    y, x = place.y0 + (height - edge) // 2, place.x0 + (width - edge) // 2
    pixels = np.asarray(image.pixels[channel, y : y + edge, x : x + edge]).astype(np.float32)
    finite = pixels[np.isfinite(pixels)]
    low, high = np.percentile(finite, (1, 99.8)) if finite.size else (0, 1)
    if high <= low:
        low, high = low - 1, low + 1  # constant: grey
    scaled = np.clip((np.nan_to_num(pixels) - low) / (high - low), 0, 1)
    small = resize(scaled, (size_px, size_px), anti_aliasing=True)
    picture: npt.NDArray[np.uint8] = (255 * np.clip(small, 0, 1)).astype(np.uint8)
    return picture
