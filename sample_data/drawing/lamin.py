"""A stain of the nuclear envelope (lamin B1) in a cell culture: bright rims around nearly dark nuclei."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .fields import cloud, ramp, smooth_noise
from .files import Drawing
from .optics import blur, camera, illumination
from .scene import Scene
from .shapes import Form

if TYPE_CHECKING:
    from .shapes import Stamp

PIXEL_SIZE_UM = 0.325
PEAK_PHOTONS = 260.0
FORM = Form(27, 3.5, (1.05, 1.6), roughness=0.05, bend=0.1)


def draw(seed: int = 5, size: int = 512) -> Drawing:
    """Draw the lamin sample; size is the edge in pixels."""
    rng = np.random.default_rng(seed)
    shape = (size, size)
    sheet = ramp(cloud(rng, shape, (size / 12, size / 5)), -1.3, -0.2)
    scene = Scene(shape, min_area=60)
    for _ in range(int(5200 * (size / 512) ** 2)):
        centre = rng.uniform(-8, size + 8, 2)
        y, x = np.clip(centre.astype(int), 0, size - 1)
        if rng.uniform() < sheet[y, x]:
            scene.place(FORM.draw(rng, centre), "resting", overlap=0.06)
    light = 0.04 * (1 + 0.3 * cloud(rng, shape, (2.0, 6.0, 15.0))) * (0.4 + 0.6 * blur(sheet, 6))
    for nucleus in scene.nuclei:
        s = nucleus.stamp
        light[s.window] += np.exp(0.35 * rng.normal()) * _envelope(rng, s)
    photons = PEAK_PHOTONS * np.maximum(blur(light, 1.0), 0) * illumination(shape, (0.5, 0.45), 0.3)
    picture = camera(rng, photons, gain=2.2, offset=100, read=3)
    return Drawing("lamin", picture[None], scene.labels, PIXEL_SIZE_UM, ("Lamin B1",), ("#ffffff",))


def _envelope(rng: np.random.Generator, s: Stamp) -> np.ndarray:
    """Light of one nucleus: its rim, folds that run in from it, and little of what is above and below."""
    uneven = np.clip(1 + 0.25 * smooth_noise(rng, s.depth.shape, 4.0), 0.4, None)
    rim = np.exp(-(((s.depth - 1.3) / 1.2) ** 2)) * (s.depth > -1.5)
    inside = 0.13 * np.clip(1 + 0.2 * smooth_noise(rng, s.depth.shape, 2.0), 0, None)
    folds = np.zeros_like(s.depth)
    for _ in range(rng.poisson(0.5)):
        angle, off = rng.uniform(0, np.pi), rng.normal(0, 0.35)
        away = s.u * np.sin(angle) - s.v * np.cos(angle) - off
        folds += 0.45 * np.exp(-((away / 0.09) ** 2)) * (s.u * np.cos(angle) + s.v * np.sin(angle) > 0.1)
    return s.cover * (inside + folds) + uneven * rim
