"""A nuclear stain in a thick tissue section: crowded islands, loose tissue, dividing cells, depth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .fields import Chromatin, cloud, ramp, smooth_noise, spots
from .files import Drawing
from .optics import blur, camera, illumination
from .scene import Scene
from .shapes import Form, stamp

if TYPE_CHECKING:
    from .scene import Nucleus

PIXEL_SIZE_UM = 0.325
FOCUS_SIGMAS = (0.0, 1.3, 2.6)  # blur of the labelled layers, in pixels
PEAK_PHOTONS = 420.0
FORMS = {
    "resting": Form(29, 4, (1.05, 1.65), roughness=0.05, bend=0.1),
    "spindle": Form(24, 3, (2.0, 3.4), roughness=0.03, bend=0.15),
    "plate": Form(19.5, 1, (2.2, 3.0), roughness=0.09, bend=0.12),
    "half plate": Form(17, 0.7, (2.2, 3.0), roughness=0.09, bend=0.2),
    "deep": Form(29, 5, (1.1, 1.6)),
}


def draw(seed: int = 11, size: int = 512) -> Drawing:
    """Draw the fluorescence sample; size is the edge in pixels."""
    rng = np.random.default_rng(seed)
    shape = (size, size)
    crowd = ramp(cloud(rng, shape, (size / 14, size / 7)), -0.55, 0.35)
    crowd *= ramp(smooth_noise(rng, shape, size / 9), 1.9, 1.5)  # a few empty spaces
    scene = _place(rng, shape, crowd)
    photons = PEAK_PHOTONS * (_in_focus(rng, scene) + _haze(rng, crowd))
    photons *= illumination(shape, (0.42, 0.58), 0.35)
    picture = camera(rng, blur(photons, 0.85), gain=2.2, offset=100, read=3)
    return Drawing("fluorescence", picture[None], scene.labels, PIXEL_SIZE_UM, ("DAPI",), ("#4c7dff",))


def _place(rng: np.random.Generator, shape: tuple[int, int], crowd: np.ndarray) -> Scene:
    scene = Scene(shape, min_area=60)
    flow = np.pi * smooth_noise(rng, shape, shape[0] / 5)
    for _ in range(max(1, shape[0] // 85)):
        _divide(rng, scene, crowd)
    for _ in range(int(5200 * (shape[0] / 512) ** 2)):
        centre = rng.uniform(-8, shape[0] + 8, 2)
        y, x = np.clip(centre.astype(int), 0, shape[0] - 1)
        if rng.uniform() < crowd[y, x] ** 1.5:
            outline = FORMS["resting"].draw(rng, centre, flow[y, x] + rng.normal(0, 0.5))
            scene.place(outline, "resting", overlap=0.14)
        elif rng.uniform() < 0.055:
            outline = FORMS["spindle"].draw(rng, centre, flow[y, x] + rng.normal(0, 0.2))
            scene.place(outline, "spindle", overlap=0.05)
    return scene


def _divide(rng: np.random.Generator, scene: Scene, crowd: np.ndarray) -> None:
    """Place one dividing cell in a crowded spot: a plate, or two separating ones."""
    places = np.argwhere(crowd > 0.6)
    if places.size == 0:
        return
    centre = places[rng.integers(len(places))] + rng.uniform(size=2)
    angle = rng.uniform(0, np.pi)
    across = np.array([np.cos(angle), -np.sin(angle)])
    if rng.uniform() < 0.6:
        scene.place(FORMS["plate"].draw(rng, centre, angle), "dividing", gap=1)
        return
    apart = rng.uniform(8, 12)
    for side in (-apart, apart):
        scene.place(FORMS["half plate"].draw(rng, centre + side * across, angle), "dividing", gap=1)


def _in_focus(rng: np.random.Generator, scene: Scene) -> np.ndarray:
    """Sum the labelled nuclei over the focal layers; (Y, X), about 1 in a bright nucleus."""
    chromatin = Chromatin.draw(rng)
    layers = np.zeros((len(FOCUS_SIGMAS), *scene.shape_yx))
    for nucleus in scene.nuclei:
        sharp = nucleus.kind == "dividing"
        layer = 0 if sharp else rng.choice(len(FOCUS_SIGMAS), p=(0.66, 0.24, 0.10))
        layers[layer][nucleus.stamp.window] += _paint(rng, nucleus, chromatin) * (1.0, 0.85, 0.75)[layer]
    return np.sum([blur(layer, sigma) for layer, sigma in zip(layers, FOCUS_SIGMAS, strict=True)], axis=0)


def _paint(rng: np.random.Generator, nucleus: Nucleus, chromatin: Chromatin) -> np.ndarray:
    s = nucleus.stamp
    fine, middle, coarse = chromatin.cut(rng, s.depth.shape)
    if nucleus.kind == "dividing":
        return s.cover * 1.7 * np.clip(1 + 0.12 * fine + 0.15 * middle, 0.4, None)
    dome = np.clip(1.08 - 0.35 * np.clip(s.radius, 0, 1) ** 3, 0, None)
    grain = 1 + 0.07 * fine + 0.13 * middle + 0.11 * coarse
    bright = 0.45 * spots(rng, s.u, s.v, rng.integers(3, 9), 0.10, reach=0.8)
    rim = 0.14 * np.exp(-(((s.depth - 1.8) / 1.3) ** 2))
    dark = 0.5 * spots(rng, s.u, s.v, rng.integers(0, 4), 0.17, reach=0.55)
    level = 0.62 * np.exp(0.28 * rng.normal()) * (0.9 if nucleus.kind == "spindle" else 1.0)
    return s.cover * level * np.clip((dome * grain + bright + rim) * (1 - dark), 0.08, None)


def _haze(rng: np.random.Generator, crowd: np.ndarray) -> np.ndarray:
    """Light from above and below the plane: blurred beyond recognition, so it has no labels; (Y, X)."""
    shape = crowd.shape
    deep = np.zeros(shape)
    for _ in range(int(260 * (shape[0] / 512) ** 2)):
        centre = rng.uniform(0, shape[0], 2)
        y, x = centre.astype(int)
        s = stamp(FORMS["deep"].draw(rng, centre), shape)
        if s is not None and rng.uniform() < crowd[y, x]:
            deep[s.window] += s.cover * rng.uniform(0.2, 0.6)
    tissue = 0.05 * (1 + 0.3 * cloud(rng, shape, (1.5, 4.0, 12.0))) * (0.5 + 0.5 * blur(crowd, 6))
    return 0.5 * blur(deep, 7) + 0.3 * blur(deep, 22) + np.clip(tissue, 0, None) + 0.02
