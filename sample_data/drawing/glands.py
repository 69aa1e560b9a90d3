"""Anatomy of the H&E picture: where glands, lumens, vessels, fat and lymphocytes are, and how fibres run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from .fields import cloud, ramp, smooth_noise
from .optics import blur
from .scene import Scene
from .shapes import Form

EPITHELIUM_PX = 78.0  # from the basement membrane to the lumen: 20 um
GLAND = Form(250, 30, (1.2, 1.9), roughness=0.05, bend=0.2)
FAT = Form(85, 15, (1.0, 1.3), roughness=0.04, bend=0.05)
VESSEL = Form(49, 7, (1.2, 2.2), roughness=0.05, bend=0.2)


@dataclass(frozen=True)
class Anatomy:
    """The plan of the tissue, all maps (Y, X).

    Attributes
    ----------
    depth : distance to the nearest basement membrane in pixels, positive inside a gland.
    lumen : distance to the nearest edge of a lumen in pixels, positive inside.
    normal : direction across the epithelium, radians.
    flow : direction of the stroma's fibres, radians.
    crowd : how much stroma is taken by lymphocytes, 0 to 1.
    fat : distance to the nearest edge of a fat cell, positive inside.
    vessel : distance to the nearest inner edge of a vessel, positive inside.
    """

    depth: np.ndarray
    lumen: np.ndarray
    normal: np.ndarray
    flow: np.ndarray
    crowd: np.ndarray
    fat: np.ndarray
    vessel: np.ndarray

    @property
    def stroma(self) -> np.ndarray:
        """Pixels of connective tissue, bool."""
        return (self.depth < 0) & (self.fat < -1) & (self.vessel < -7)


def plan(rng: np.random.Generator, shape: tuple[int, int]) -> Anatomy:
    """Lay out the tissue at random."""
    everywhere = np.ones(shape, bool)
    depth = signed_distance(_scatter(rng, GLAND, everywhere, tries=40, gap=46, outside=60))
    inner = depth - EPITHELIUM_PX + 7 * smooth_noise(rng, shape, 30) + 2 * cloud(rng, shape, (3, 9))
    lumen = signed_distance(inner > 0)
    fatty = _corner(rng, shape) & (depth < -24)
    fat = signed_distance(_scatter(rng, FAT, fatty, tries=60, gap=3, outside=30))
    between = (depth < -22) & (fat < -20)
    vessel = signed_distance(_scatter(rng, VESSEL, between, tries=30, gap=16, outside=-20, most=3))
    crowd = ramp(smooth_noise(rng, shape, 55), 0.55, 1.25) * ramp(depth, -4, -12)
    normal = _across(depth, 3)
    return Anatomy(depth, lumen, normal, _flow(rng, depth, vessel, fat), crowd, fat, vessel)


def signed_distance(mask: np.ndarray) -> np.ndarray:
    """Distance of each pixel to the edge of a mask, positive inside; (Y, X) float."""
    if not mask.any():
        return np.full(mask.shape, -1e3)
    inside = ndimage.distance_transform_edt(mask) - 0.5
    outside = ndimage.distance_transform_edt(~mask) - 0.5
    return np.where(mask, inside, -outside)


def _scatter(
    rng: np.random.Generator, form: Form, allowed: np.ndarray, *, tries: int, gap: float, outside: float,
    most: int = 1000,
) -> np.ndarray:  # fmt: skip
    """Scatter large things that keep a gap from each other and from what is not allowed; (Y, X) bool.

    outside : how far beyond the picture's edge a centre may lie, in pixels.
    """
    scene = Scene(allowed.shape, min_area=400)
    scene.labels[~allowed] = -1
    for _ in range(tries):
        centre = rng.uniform(-outside, np.asarray(allowed.shape) + outside)
        if len(scene.nuclei) < most:
            scene.place(form.draw(rng, centre), "large", gap=gap)
    mask: np.ndarray = scene.labels > 0
    return mask


def _corner(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Pixels near one corner of the picture, bool."""
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]] / np.reshape(shape, (2, 1, 1))
    corner = rng.integers(0, 2, 2)
    return np.hypot(y - corner[0], x - corner[1]) < 0.5


def _across(distance: np.ndarray, sigma: float) -> np.ndarray:
    """Direction in which a distance map grows, radians."""
    dy, dx = np.gradient(blur(distance, sigma))
    return np.arctan2(dy, dx)


def _flow(rng: np.random.Generator, depth: np.ndarray, vessel: np.ndarray, fat: np.ndarray) -> np.ndarray:
    """Fibres run along the surfaces next to them, and in waves elsewhere."""
    shape = depth.shape
    free = rng.uniform(0, np.pi) + 0.8 * smooth_noise(rng, shape, 90) + 0.35 * cloud(rng, shape, (14, 30))
    total = np.exp(2j * free)
    for distance, reach, weight in ((depth, 45, 3.0), (vessel, 25, 4.0), (fat, 20, 3.0)):
        along = _across(distance, 6) + np.pi / 2 + 0.25 * smooth_noise(rng, shape, 12)
        total = total + weight * np.exp(-np.abs(distance) / reach) * np.exp(2j * along)
    return np.angle(total) / 2
