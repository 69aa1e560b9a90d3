"""What microscope and camera do to a specimen."""

from __future__ import annotations

import numpy as np
from scipy import fft, ndimage

# Colour that each dye absorbs (red, green, blue), unit length; near Ruifrok and Johnston 2001.
HAEMATOXYLIN = np.array([0.62, 0.73, 0.30])
EOSIN = np.array([0.12, 0.95, 0.30])
BLOOD = np.array([0.05, 0.72, 0.69])

# Luminance table of the JPEG standard (ISO/IEC 10918-1, table K.1).
JPEG_TABLE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    float,
)


def camera(
    rng: np.random.Generator, photons: np.ndarray, *, gain: float, offset: float, read: float
) -> np.ndarray:
    """Photons to camera counts: shot noise, read noise (in counts), offset; uint16."""
    counts = rng.poisson(np.maximum(photons, 0)) * gain + rng.normal(offset, read, photons.shape)
    return np.clip(np.rint(counts), 0, 65535).astype(np.uint16)


def illumination(shape_yx: tuple[int, int], centre: tuple[float, float], fall: float) -> np.ndarray:
    """Light that falls off from a centre (fractions of the picture) to 1 - fall at distance 0.7; (Y, X)."""
    y, x = np.mgrid[0 : shape_yx[0], 0 : shape_yx[1]]
    far = ((y / shape_yx[0] - centre[0]) ** 2 + (x / shape_yx[1] - centre[1]) ** 2) / 0.5
    return 1 - fall * far


def absorb(dyes: list[tuple[np.ndarray, np.ndarray]], light: np.ndarray) -> np.ndarray:
    """Light that is left behind the dyes (Beer-Lambert).

    dyes : amount (Y, X) in optical density, and the (3,) colour that the dye absorbs.
    light : (3,) red, green and blue of the empty slide.

    Returns
    -------
    (Y, X, 3) float.
    """
    density = sum(amount[..., None] * colour for amount, colour in dyes)
    return light * 10.0 ** (-np.asarray(density))


def jpeg(rgb: np.ndarray, quality: float = 85) -> np.ndarray:
    """Round an (Y, X, 3) picture as a JPEG of this quality does, 8 x 8 pixels at a time; uint8.

    Y and X must be multiples of 8.
    """
    height, width, _ = rgb.shape
    table = np.maximum(JPEG_TABLE * (200 - 2 * quality) / 100, 1)
    planes = np.moveaxis(rgb @ _TO_YCC.T, -1, 0) - 128
    blocks = planes.reshape(3, height // 8, 8, width // 8, 8).transpose(0, 1, 3, 2, 4)
    rounded = np.rint(fft.dctn(blocks, axes=(3, 4), norm="ortho") / table) * table
    blocks = fft.idctn(rounded, axes=(3, 4), norm="ortho")
    planes = blocks.transpose(0, 1, 3, 2, 4).reshape(planes.shape) + 128
    back = np.moveaxis(planes, 0, -1) @ np.linalg.inv(_TO_YCC).T
    return np.clip(np.rint(back), 0, 255).astype(np.uint8)


# Without the usual +128 on the colour planes: it cancels here.
_TO_YCC = np.array([[0.299, 0.587, 0.114], [-0.169, -0.331, 0.5], [0.5, -0.419, -0.081]])


def blur(picture: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur of a (Y, X) picture, sigma in pixels."""
    return ndimage.gaussian_filter(picture, sigma, mode="reflect")
