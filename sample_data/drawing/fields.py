"""Smooth random fields, and noise combed along a flow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage


def smooth_noise(rng: np.random.Generator, shape_yx: tuple[int, int], sigma: float) -> np.ndarray:
    """Gaussian noise with blobs of about 2 sigma pixels; (Y, X), mean 0, standard deviation 1."""
    step = max(1, int(sigma // 3))  # large blobs are drawn small and enlarged: same look, less time
    coarse = tuple(int(np.ceil(n / step)) + 8 for n in shape_yx)
    noise = ndimage.gaussian_filter(rng.normal(size=coarse), sigma / step, mode="wrap")
    if step > 1:
        noise = ndimage.zoom(noise, step, order=3)
    noise = noise[: shape_yx[0], : shape_yx[1]]
    return (noise - noise.mean()) / noise.std()


def cloud(rng: np.random.Generator, shape_yx: tuple[int, int], sigmas: tuple[float, ...]) -> np.ndarray:
    """Sum of smooth noises, the coarse ones stronger; (Y, X), mean 0, standard deviation 1."""
    weights = np.sqrt(np.asarray(sigmas))
    total = sum(w * smooth_noise(rng, shape_yx, s) for w, s in zip(weights, sigmas, strict=True))
    return (total - total.mean()) / total.std()


def ramp(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Smooth step from 0 at low to 1 at high; low may be the larger one."""
    t = np.clip((values - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def comb(noise: np.ndarray, angle: np.ndarray, length: float, step: float = 1.5) -> np.ndarray:
    """Smear noise along a direction field (line integral convolution); this makes fibres.

    Parameters
    ----------
    noise : (Y, X).
    angle : (Y, X) direction of the fibres in radians; a direction and its opposite are the same.
    length : half-length of the smear, in pixels.
    step : pixels walked at a time.

    Returns
    -------
    (Y, X), mean 0, standard deviation 1.

    Source: Cabral and Leedom, Imaging vector fields using line integral convolution, 1993.
    """
    vectors = np.stack([np.sin(angle), np.cos(angle)])
    total = noise.copy()
    for sign in (1.0, -1.0):
        at = np.indices(noise.shape, dtype=float)
        heading = sign * vectors
        for _ in range(int(length / step)):
            at += step * heading
            # Nearest, not interpolated: between two opposite signs of a line field there is no mean.
            y, x = (np.clip(np.rint(c).astype(int), 0, n - 1) for c, n in zip(at, noise.shape, strict=True))
            total += noise[y, x]
            walked = vectors[:, y, x]
            heading = walked * np.where((walked * heading).sum(0) < 0, -1.0, 1.0)  # keep going forward
    return (total - total.mean()) / total.std()


@dataclass(frozen=True)
class Chromatin:
    """Noise from which each nucleus cuts its own texture.

    Attributes
    ----------
    fine, middle, coarse : (N, N) noise with blobs of growing size, mean 0, standard deviation 1.
    """

    fine: np.ndarray
    middle: np.ndarray
    coarse: np.ndarray

    @classmethod
    def draw(cls, rng: np.random.Generator, scale: float = 1.0, size: int = 512) -> Chromatin:
        """Draw the noise; scale 1 fits nuclei of about 28 pixels."""
        return cls(*(smooth_noise(rng, (size, size), s * scale) for s in (0.8, 1.7, 3.5)))

    def cut(self, rng: np.random.Generator, shape_yx: tuple[int, int]) -> tuple[np.ndarray, ...]:
        """Return one random window of fine, middle and coarse."""
        size = self.fine.shape[0]
        y, x = rng.integers(0, size - shape_yx[0]), rng.integers(0, size - shape_yx[1])
        window = slice(y, y + shape_yx[0]), slice(x, x + shape_yx[1])
        return self.fine[window], self.middle[window], self.coarse[window]


def spots(
    rng: np.random.Generator, u: np.ndarray, v: np.ndarray, count: int, size: float, reach: float = 0.65
) -> np.ndarray:
    """Round spots scattered inside a nucleus; (h, w) in [0, 1].

    u, v : (h, w) position inside the nucleus, -1 to 1.
    size : standard deviation of a spot, in units of u and v.
    reach : greatest distance of a spot from the centre, in the same units.
    """
    total = np.zeros(u.shape)
    for _ in range(count):
        r, phi = reach * np.sqrt(rng.uniform()), rng.uniform(0, 2 * np.pi)
        width = size * rng.uniform(0.7, 1.3)
        squared = (u - r * np.cos(phi)) ** 2 + (v - r * np.sin(phi)) ** 2
        total = np.maximum(total, np.exp(-0.5 * (squared / width**2) ** 1.5))
    return total
