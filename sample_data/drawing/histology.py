"""Haematoxylin and eosin: glands in a fibrous stroma with lymphocytes, vessels and fat."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .fields import Chromatin, ramp, smooth_noise, spots
from .files import Drawing
from .glands import plan
from .optics import BLOOD, EOSIN, HAEMATOXYLIN, absorb, blur, jpeg
from .scene import Scene
from .shapes import Form
from .tissue import paint_blood, paint_goblets, paint_ground

if TYPE_CHECKING:
    from .glands import Anatomy
    from .scene import Nucleus
    from .shapes import Stamp
    from .tissue import Stains

PIXEL_SIZE_UM = 0.25
LIGHT = np.array([243.0, 240.0, 244.0])  # of the empty slide
FORMS = {
    "epithelial": Form(26, 2.6, (1.35, 2.3), roughness=0.045, bend=0.12),
    "dividing": Form(21, 1.5, (1.7, 2.3), roughness=0.1, bend=0.1),
    "fibroblast": Form(19.5, 2, (2.2, 4.6), roughness=0.035, bend=0.17),
    "lymphocyte": Form(22, 2.3, (1.0, 1.5), roughness=0.045, bend=0.06),
    "endothelial": Form(16, 1, (3.0, 4.5), roughness=0.03, bend=0.15),
}


def draw(seed: int = 12, size: int = 768) -> Drawing:
    """Draw the H&E sample; size is the edge in pixels, a multiple of 8."""
    if size % 8:
        raise ValueError(f"size is {size}; it must be a multiple of 8, the edge of a JPEG block")
    rng = np.random.default_rng(seed)
    anatomy = plan(rng, (size, size))
    stains = paint_ground(rng, anatomy)
    goblets = paint_goblets(rng, anatomy, stains)
    paint_blood(rng, anatomy, stains)
    scene = _place(rng, anatomy, goblets)
    _paint_nuclei(rng, scene, stains)
    return Drawing("he", _expose(rng, stains), scene.labels, PIXEL_SIZE_UM)


def _place(rng: np.random.Generator, a: Anatomy, goblets: np.ndarray) -> Scene:
    scene = Scene(a.depth.shape, min_area=40)
    scene.labels[goblets | (a.fat > 2) | (a.vessel > 4)] = -1  # no nucleus there
    _place_endothelium(rng, a, scene)
    _place_lymphocytes(rng, a, scene)
    _place_epithelium(rng, a, scene)
    _place_fibroblasts(rng, a, scene)
    scene.labels[scene.labels < 0] = 0
    return scene


def _pick(rng: np.random.Generator, allowed: np.ndarray, count: int) -> np.ndarray:
    """Return up to count random positions where allowed, (n, 2) float y, x."""
    places = np.argwhere(allowed)
    if len(places) == 0:
        return np.empty((0, 2))
    return places[rng.integers(0, len(places), count)] + rng.uniform(-0.5, 0.5, (count, 2))


def _per_area(a: Anatomy, count: float) -> int:
    """Scale a number meant for 768 x 768 pixels to this picture."""
    return max(1, int(count * a.depth.size / 768**2))


def _place_epithelium(rng: np.random.Generator, a: Anatomy, scene: Scene) -> None:
    allowed = (a.depth > 13) & (a.depth < 54) & (a.lumen < -22)
    for y, x in _pick(rng, allowed, _per_area(a, 9000)):
        at = int(y), int(x)
        if rng.uniform() < ramp(a.depth[at], 56, 26):
            outline = FORMS["epithelial"].draw(rng, (y, x), a.normal[at] + rng.normal(0, 0.16))
            scene.place(outline, "dark" if rng.uniform() < 0.16 else "vesicular", overlap=0.2)
    for y, x in _pick(rng, (a.depth > 45) & (a.lumen < -14) & (a.depth < 62), _per_area(a, 5)):
        scene.place(FORMS["dividing"].draw(rng, (y, x)), "dividing", gap=2)


def _place_fibroblasts(rng: np.random.Generator, a: Anatomy, scene: Scene) -> None:
    for y, x in _pick(rng, a.stroma & (a.depth < -6), _per_area(a, 330)):
        outline = FORMS["fibroblast"].draw(rng, (y, x), a.flow[int(y), int(x)] + rng.normal(0, 0.12))
        scene.place(outline, "spindle" if rng.uniform() < 0.7 else "vesicular", overlap=0.05)


def _place_lymphocytes(rng: np.random.Generator, a: Anatomy, scene: Scene) -> None:
    crowded = a.stroma & (a.crowd > rng.uniform(0.1, 0.9, a.crowd.shape))
    for allowed, count in ((crowded, 1500), (a.stroma & (a.depth < -12), 130)):
        for y, x in _pick(rng, allowed, _per_area(a, count)):
            scene.place(FORMS["lymphocyte"].draw(rng, (y, x)), "lymphocyte", overlap=0.03)


def _place_endothelium(rng: np.random.Generator, a: Anatomy, scene: Scene) -> None:
    """Flat nuclei in the walls of vessels and, fewer, pressed against fat cells."""
    rings = ((a.vessel > -6) & (a.vessel < -3), 90), ((a.fat > -4) & (a.fat < -2), 20)
    for ring, count in rings:
        for y, x in _pick(rng, ring & (a.depth < -8), _per_area(a, count)):
            scene.place(FORMS["endothelial"].draw(rng, (y, x), a.flow[int(y), int(x)]), "spindle", gap=2)


def _paint_nuclei(rng: np.random.Generator, scene: Scene, stains: Stains) -> None:
    chromatin = Chromatin.draw(rng)
    for nucleus in scene.nuclei:
        s = nucleus.stamp
        if nucleus.kind == "lymphocyte":
            _paint_halo(rng, s, stains)
        soft = 1.0 if rng.uniform() < 0.7 else 2.5  # some lie a little out of focus
        part = np.clip(s.depth / soft + 0.5, 0, 1)
        amount = _nuclear_stain(rng, nucleus, chromatin)
        under = stains.haematoxylin[s.window] * 0.3  # the section is thick: what lies behind shows through
        stains.cover(s.window, part, (np.clip(amount + under, 0.05, None), rng.uniform(0.14, 0.26), 0.0))


def _paint_halo(rng: np.random.Generator, s: Stamp, stains: Stains) -> None:
    """Thin pale cytoplasm around a lymphocyte, often shrunk away from its neighbours."""
    ring = 0.6 * rng.uniform() * np.exp(-(((s.depth + 2.2) / 1.8) ** 2))
    stains.cover(s.window, ring, (0.02, 0.06, 0.0))


def _nuclear_stain(rng: np.random.Generator, nucleus: Nucleus, chromatin: Chromatin) -> np.ndarray:
    """Haematoxylin of one nucleus in optical density, (h, w)."""
    s = nucleus.stamp
    fine, middle, coarse = chromatin.cut(rng, s.depth.shape)
    rim = np.exp(-(((s.depth - 1.6) / 1.2) ** 2))
    clumps = ramp(middle + 0.5 * fine, 0.2, 1.6)
    strength = np.exp(0.2 * rng.normal())
    if nucleus.kind == "dividing":
        return 1.15 + 0.08 * middle
    if nucleus.kind == "lymphocyte":
        return strength * (0.46 + 0.36 * clumps + 0.06 * fine + 0.06 * coarse + 0.1 * rim)
    if nucleus.kind == "spindle":
        return strength * (0.42 + 0.10 * coarse + 0.10 * middle + 0.06 * fine + 0.12 * rim)
    if nucleus.kind == "dark":
        return strength * (0.66 + 0.10 * coarse + 0.10 * middle + 0.05 * fine)
    nucleoli = spots(rng, s.u, s.v, rng.integers(0, 3), 0.13, reach=0.5)
    body = 0.29 + 0.05 * coarse + 0.05 * fine + 0.26 * clumps
    return strength * (body + 0.26 * rim + 0.38 * nucleoli)


def _expose(rng: np.random.Generator, stains: Stains) -> np.ndarray:
    """Dyes to the scanner's picture, (Y, X, 3) uint8."""
    shape = stains.eosin.shape
    uneven = 1 + 0.06 * smooth_noise(rng, shape, 120)
    dyes = [
        (np.clip(stains.haematoxylin, 0, None) * uneven, HAEMATOXYLIN),
        (np.clip(stains.eosin, 0, None) * (2 - uneven), EOSIN),
        (stains.blood, BLOOD),
    ]
    light = _blur_rgb(absorb(dyes, LIGHT), 0.75)
    light += 0.5 * (light - _blur_rgb(light, 1.5))  # as scanners sharpen
    grain = 2.0 * smooth_noise(rng, shape, 0.6)[..., None] + rng.normal(0, 0.8, light.shape)
    visible = 1.2 - light.mean(-1, keepdims=True) / LIGHT.mean()  # little grain where the slide is empty
    return jpeg(np.clip(light + 1.6 * np.clip(visible, 0, 1) * grain, 0, 255))


def _blur_rgb(rgb: np.ndarray, sigma: float) -> np.ndarray:
    return np.stack([blur(rgb[..., c], sigma) for c in range(3)], axis=-1)
