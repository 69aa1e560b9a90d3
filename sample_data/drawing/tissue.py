"""What lies between the nuclei of the H&E picture: fibres, cytoplasm, mucus, blood, empty spaces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .fields import cloud, comb, ramp, smooth_noise
from .glands import EPITHELIUM_PX
from .scene import Scene
from .shapes import Form

if TYPE_CHECKING:
    from .glands import Anatomy

GOBLET = Form(25, 3, (1.1, 1.6))
RED_CELL = Form(21, 2, (1.0, 1.45))
EVERYWHERE = (slice(None), slice(None))


@dataclass
class Stains:
    """Amount of each dye in optical density, all (Y, X); painted on in place."""

    haematoxylin: np.ndarray
    eosin: np.ndarray
    blood: np.ndarray

    def cover(
        self, window: tuple[slice, slice], part: np.ndarray, amounts: tuple[np.ndarray | float, ...]
    ) -> None:
        """Paint over: amounts of haematoxylin, eosin and blood for the covered part of each pixel."""
        for plane, amount in zip((self.haematoxylin, self.eosin, self.blood), amounts, strict=True):
            plane[window] += part * (amount - plane[window])


def paint_ground(rng: np.random.Generator, a: Anatomy) -> Stains:
    """Everything but cells: epithelial cytoplasm, fibres, empty spaces."""
    shape = a.depth.shape
    fibre = comb(smooth_noise(rng, shape, 1.0), a.flow, 26)
    bundle = comb(smooth_noise(rng, shape, 3.2), a.flow, 40)
    loose = bundle + 0.45 * fibre + 0.6 * smooth_noise(rng, shape, 40) + 0.35 * smooth_noise(rng, shape, 4)
    cleft = ramp(loose, -0.5, -1.7) * (1 - 0.6 * a.crowd)
    grain = cloud(rng, shape, (0.8, 2.0, 5.0))
    eosin = 0.165 + 0.03 * bundle + 0.04 * fibre + 0.032 * grain + 0.02 * smooth_noise(rng, shape, 50)
    eosin = np.clip(eosin, 0.04, None) * (1 - 0.85 * cleft)
    stains = Stains((0.055 + 0.012 * grain) * (1 - 0.8 * cleft) + 0.05 * a.crowd, eosin, np.zeros(shape))
    _paint_epithelium(rng, a, stains)
    for distance, wall in ((a.fat, 2.2), (a.vessel, 6.0)):
        edge = np.exp(-(((distance + wall / 2) / (wall / 2)) ** 2))
        stains.cover(EVERYWHERE, edge * (a.depth < 0), (0.06, 0.26 + 0.04 * fibre, 0.0))
        stains.cover(EVERYWHERE, np.clip(distance + 0.5, 0, 1), (0.0, 0.01, 0.0))
    return stains


def _paint_epithelium(rng: np.random.Generator, a: Anatomy, stains: Stains) -> None:
    shape = a.depth.shape
    streak = comb(smooth_noise(rng, shape, 1.3), a.normal, 14)
    froth = cloud(rng, shape, (0.9, 2.0, 5.0))
    apical = ramp(a.depth, 30, EPITHELIUM_PX - 10)
    patch = smooth_noise(rng, shape, 45)
    haematoxylin = 0.15 - 0.07 * apical + 0.02 * patch + 0.02 * streak + 0.02 * froth
    eosin = 0.20 + 0.02 * apical - 0.02 * patch + 0.03 * streak + 0.035 * froth
    brush = np.exp(-(((a.lumen + 2.5) / 2.2) ** 2))
    inside = np.clip(a.depth + 0.5, 0, 1)
    eosin = np.clip(eosin, 0, None) + 0.14 * brush
    stains.cover(EVERYWHERE, inside, (np.clip(haematoxylin, 0, None), eosin, 0.0))
    membrane = np.exp(-(((a.depth + 1.0) / 1.5) ** 2))
    stains.eosin += 0.12 * membrane
    torn = ramp(smooth_noise(rng, shape, 28), 0.5, 1.2) * np.exp(-(((a.depth + 6) / 3.0) ** 4))
    stains.cover(EVERYWHERE, torn, (0.0, 0.02, 0.0))
    mucus = 0.09 * ramp(cloud(rng, shape, (1.5, 5.0, 16.0)), 0.2, 2.2)
    stains.cover(EVERYWHERE, np.clip(a.lumen / 1.6 + 0.5, 0, 1), (mucus, 0.01 + mucus, 0.0))


def paint_goblets(rng: np.random.Generator, a: Anatomy, stains: Stains) -> np.ndarray:
    """Pale mucus droplets in the upper half of the epithelium; the pixels that they take, bool."""
    scene = Scene(a.depth.shape, min_area=150)
    rows, columns = np.nonzero((a.depth > 40) & (a.lumen < -8))
    for index in rng.permutation(rows.size)[:80] if rows.size else ():
        y, x = rows[index], columns[index]
        angle = a.normal[y, x] + rng.normal(0, 0.15)
        scene.place(GOBLET.draw(rng, (y, x), angle), "goblet", gap=9)
    for goblet in scene.nuclei:
        s = goblet.stamp
        froth = smooth_noise(rng, s.depth.shape, 2.0)
        part = 0.9 * s.cover * (a.depth[s.window] > 20)
        stains.cover(s.window, part, (0.06 + 0.02 * froth, 0.045 + 0.015 * froth, 0.0))
        stains.eosin[s.window] += 0.09 * np.exp(-((s.depth / 1.3) ** 2))
        stains.haematoxylin[s.window] += 0.04 * np.exp(-((s.depth / 1.3) ** 2))
    return scene.labels > 0


def paint_blood(rng: np.random.Generator, a: Anatomy, stains: Stains) -> None:
    """Red cells, without nuclei, in the vessels and a few astray in the stroma."""
    scene = Scene(a.depth.shape)
    places = np.argwhere(a.vessel > 7)
    stray = np.argwhere((a.stroma) & (a.depth < -12))
    for source, count in ((places, 260), (stray, 7)):
        for y, x in source[rng.integers(0, len(source), count)] if len(source) else ():
            scene.place(RED_CELL.draw(rng, (y, x)), "red", overlap=0.05)
    for cell in scene.nuclei:
        s = cell.stamp
        dimple = 1 - 0.25 * np.exp(-((s.radius / 0.45) ** 2))
        part = s.cover * ((a.vessel[s.window] > 0) | (a.depth[s.window] < -8)) * (a.fat[s.window] < -2)
        stains.cover(s.window, part, (0.0, 0.12, 0.26 * dimple * rng.uniform(0.8, 1.15)))
