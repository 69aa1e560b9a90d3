"""Eight-channel immunofluorescence: carcinoma nests, T and B cells, macrophages."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from .fields import Chromatin, cloud, comb, ramp, smooth_noise, spots
from .files import Drawing
from .optics import blur, camera, illumination
from .scene import Scene
from .shapes import Form

PIXEL_SIZE_UM = 0.5
CHANNELS = ("DAPI", "CD3", "CD8", "CD20", "CD68", "PanCK", "Ki67", "Autofluorescence")
COLORS = ("#3c6eff", "#ff4d4d", "#ffd23f", "#36d1dc", "#ff8c1a", "#3ddc68", "#ff4dd8", "#8c8c8c")
FORMS = {
    "tumour": Form(18.5, 1.8, (1.05, 1.6)),
    "b": Form(13, 1.2, (1.0, 1.3)),
    "helper": Form(12.5, 1.2, (1.0, 1.3)),
    "killer": Form(12.5, 1.2, (1.0, 1.3)),
    "macrophage": Form(15, 1.5, (1.1, 1.8)),
    "spindle": Form(12.5, 1.2, (2.2, 4.0), roughness=0.03),
}
STROMAL = {
    "spindle": 0.42,
    "helper": 0.22,
    "killer": 0.16,
    "macrophage": 0.16,
    "b": 0.04,
}  # shares of the cells
OVERLAP = {"tumour": 0.10, "b": 0.06}
PHOTONS = np.array([260.0, 120.0, 110.0, 130.0, 140.0, 170.0, 150.0, 45.0])  # of a bright structure
FLOOR = np.array([5.0, 7.0, 6.0, 6.0, 7.0, 5.0, 4.0, 6.0])  # photons of the empty slide

# Light of the row's dye that the column's filter also passes: neighbours in the spectrum.
LEAKS = {("DAPI", "CD20"): 0.02, ("CD3", "CD8"): 0.04, ("CD8", "CD3"): 0.03, ("CD20", "CD68"): 0.03,
         ("PanCK", "CD20"): 0.025, ("CD68", "Ki67"): 0.03, ("PanCK", "Ki67"): 0.02}  # fmt: skip
AUTOFLUORESCENCE = np.array([0.03, 0.13, 0.11, 0.14, 0.10, 0.06, 0.05])  # part that the other filters see


@dataclass(frozen=True)
class Habitat:
    """Where cells live, all (Y, X): nests and follicle in [0, 1], tissue in [0, 1], fibre direction."""

    nest: np.ndarray
    follicle: np.ndarray
    tissue: np.ndarray
    flow: np.ndarray


def draw(seed: int = 3, size: int = 512) -> Drawing:
    """Draw the multiplex sample; size is the edge in pixels."""
    rng = np.random.default_rng(seed)
    habitat = _habitat(rng, size)
    scene = _place(rng, habitat)
    light = _glow(rng, scene, habitat)
    for (source, target), part in LEAKS.items():
        light[CHANNELS.index(target)] += part * light[CHANNELS.index(source)]
    light[:-1] += AUTOFLUORESCENCE[:, None, None] * light[-1]
    even = illumination((size, size), (0.5, 0.46), 0.2)
    planes = [
        camera(rng, blur(p * even * PHOTONS[c] + FLOOR[c], 0.75), gain=1.0, offset=40, read=1.2)
        for c, p in enumerate(light)
    ]
    return Drawing("multiplex", np.stack(planes), scene.labels, PIXEL_SIZE_UM, CHANNELS, COLORS)


def _habitat(rng: np.random.Generator, size: int) -> Habitat:
    shape = (size, size)
    nest = ramp(cloud(rng, shape, (size / 26, size / 11)), 0.30, 0.42)
    y, x = np.mgrid[0:size, 0:size] / size
    centre = rng.uniform(0.2, 0.8, 2)
    distance = np.hypot((y - centre[0]) * 1.15, x - centre[1]) + 0.025 * smooth_noise(rng, shape, size / 18)
    follicle = ramp(distance, 0.19, 0.13)
    tissue = ramp(smooth_noise(rng, shape, size / 24), 2.0, 1.6)
    flow = np.pi * (0.5 + 0.22 * smooth_noise(rng, shape, size / 6) + 0.08 * cloud(rng, shape, (8, 20)))
    return Habitat(nest * (1 - follicle), follicle, np.maximum(tissue, follicle), flow)


def _place(rng: np.random.Generator, h: Habitat) -> Scene:
    size = h.nest.shape[0]
    scene = Scene(h.nest.shape, min_area=25)
    for _ in range(int(12000 * (size / 512) ** 2)):
        centre = rng.uniform(-4, size + 4, 2)
        y, x = np.clip(centre.astype(int), 0, size - 1)
        kind = _settle(rng, h, y, x)
        if kind is not None:
            oriented = kind in ("tumour", "spindle")
            angle = h.flow[y, x] + rng.normal(0, 0.3) if oriented else None
            scene.place(FORMS[kind].draw(rng, centre, angle), kind, overlap=OVERLAP.get(kind, 0.05))
    return scene


def _settle(rng: np.random.Generator, h: Habitat, y: int, x: int) -> str | None:
    """Choose which kind of cell may live at a pixel; None if none now."""
    if rng.uniform() > h.tissue[y, x]:
        return None
    if h.nest[y, x] > 0.5:
        return "tumour"
    if rng.uniform() < h.follicle[y, x]:
        return "b"
    return str(rng.choice(list(STROMAL), p=list(STROMAL.values()))) if rng.uniform() < 0.13 else None


def _glow(rng: np.random.Generator, scene: Scene, h: Habitat) -> np.ndarray:
    """Light of each dye before the optics, (8, Y, X), about 1 in a bright structure."""
    cells = Cells.grow(rng, scene)
    light = np.zeros((len(CHANNELS), *scene.shape_yx))
    light[0], light[6] = _nuclear(rng, scene)
    killer = cells.of("killer")
    light[1] = cells.membrane(rng, cells.of("helper") + 0.85 * killer)
    light[2] = cells.membrane(rng, killer)
    light[3] = cells.membrane(rng, cells.of("b"))
    light[4] = cells.granules(rng, cells.of("macrophage"))
    between = (h.nest > 0.6) & (cells.index == 0)
    light[5] = cells.filaments(rng, cells.of("tumour") + 0.55 * between)
    fibres = comb(smooth_noise(rng, h.flow.shape, 0.9), h.flow, 9)
    fibres += 0.7 * cloud(rng, h.flow.shape, (1.5, 6, 25))
    stroma = h.tissue * (1 - 0.6 * blur(h.nest, 2)) * (1 - 0.6 * h.follicle)
    specks = ramp(smooth_noise(rng, h.flow.shape, 1.4), 3.3, 3.9)
    light[7] = np.clip(0.30 + 0.14 * fibres, 0, None) * stroma + 2.5 * specks
    light[0] += 0.10 * blur(light[0], 12) + 0.02 * h.tissue
    for c in range(1, 7):
        light[c] += 0.06 * blur(light[c], 10)
    return light


def _nuclear(rng: np.random.Generator, scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """DAPI and Ki67, each (Y, X)."""
    chromatin = Chromatin.draw(rng, scale=0.6)
    dapi, ki67 = np.zeros(scene.shape_yx), np.zeros(scene.shape_yx)
    cycling = {"tumour": 0.28, "b": 0.30}
    for nucleus in scene.nuclei:
        s = nucleus.stamp
        fine, middle, coarse = chromatin.cut(rng, s.depth.shape)
        small = nucleus.kind in ("b", "helper", "killer")
        dome = np.clip(1.05 - 0.35 * np.clip(s.radius, 0, 1) ** 3, 0, None)
        level = (0.85 if small else 0.6) * np.exp(0.22 * rng.normal())
        part = s.cover * (0.35 + 0.65 * (scene.labels[s.window] == nucleus.label))  # those behind shine less
        grain = 1 + 0.08 * fine + 0.17 * middle + 0.12 * coarse
        nucleoli = spots(rng, s.u, s.v, 0 if small else rng.integers(0, 3), 0.2, reach=0.5)
        dapi[s.window] += part * level * np.clip(dome * grain * (1 - 0.4 * nucleoli), 0.1, None)
        if rng.uniform() < cycling.get(nucleus.kind, 0.02):
            strength = rng.uniform(0.3, 1.1)
            ki67[s.window] += part * strength * np.clip(0.6 + 0.15 * middle + 0.8 * nucleoli, 0.1, None)
    return dapi, ki67


@dataclass(frozen=True)
class Cells:
    """Cell bodies around the nuclei.

    Attributes
    ----------
    index : (Y, X) number of the cell that owns the pixel, 0 is none.
    inside : (Y, X) distance to the cell's edge in pixels, 0 outside.
    nucleus : (Y, X) bool, pixel of a nucleus.
    kinds : kind of cell 1, 2, ...
    """

    index: np.ndarray
    inside: np.ndarray
    nucleus: np.ndarray
    kinds: tuple[str, ...]

    @classmethod
    def grow(cls, rng: np.random.Generator, scene: Scene) -> Cells:
        """Grow each nucleus until it meets a neighbour or reaches the size of its kind."""
        reach = {"tumour": 7.0, "macrophage": 6.5, "spindle": 2.0}
        kinds = tuple(n.kind for n in scene.nuclei)
        limits = np.array([0.0, *(reach.get(k, 2.0) * rng.uniform(0.8, 1.2) for k in kinds)])
        away, nearest = ndimage.distance_transform_edt(scene.labels == 0, return_indices=True)
        owner = scene.labels[tuple(nearest)]
        ragged = np.clip(1 + 0.25 * smooth_noise(rng, scene.shape_yx, 3), 0.4, 1.8)
        index = np.where(away <= limits[owner] * ragged, owner, 0)
        border = np.zeros(index.shape, bool)
        for axis in (0, 1):
            differs = np.diff(index, axis=axis) != 0
            border |= np.pad(differs, [(0, 1) if a == axis else (0, 0) for a in (0, 1)])
        inside = ndimage.distance_transform_edt(~border) * (index > 0)
        return cls(index, inside, scene.labels > 0, kinds)

    def of(self, kind: str) -> np.ndarray:
        """Pixels of the cells of one kind; (Y, X) float 0 or 1."""
        return np.array([0.0, *(float(k == kind) for k in self.kinds)])[self.index]

    def membrane(self, rng: np.random.Generator, amount: np.ndarray) -> np.ndarray:
        """Patchy rings at the cells' edges; (Y, X)."""
        ring = np.exp(-(((self.inside - 0.5) / 1.1) ** 2)) * (self.inside >= 0)
        patchy = np.clip(0.8 + 0.35 * smooth_noise(rng, amount.shape, 1.6), 0.15, None)
        return amount * self._uneven(rng) * patchy * (ring + 0.10)

    def granules(self, rng: np.random.Generator, amount: np.ndarray) -> np.ndarray:
        """Granular cytoplasm, empty nucleus; (Y, X)."""
        grain = np.clip(0.45 + 0.45 * smooth_noise(rng, amount.shape, 0.9), 0.05, None)
        return amount * self._uneven(rng) * grain * np.where(self.nucleus, 0.25, 1.0)

    def filaments(self, rng: np.random.Generator, amount: np.ndarray) -> np.ndarray:
        """Cytoplasm with a web of filaments, denser at the cell's edge, empty nucleus; (Y, X)."""
        web = 1 - np.abs(smooth_noise(rng, amount.shape, 1.3))
        edge = 0.35 * np.exp(-(((self.inside - 0.5) / 1.3) ** 2))
        patch = 1 + 0.25 * smooth_noise(rng, amount.shape, 18)
        level = np.clip(0.5 + 0.22 * web + edge, 0.05, None) * np.where(self.nucleus, 0.22, 1.0)
        return amount * self._uneven(rng) * patch * level

    def _uneven(self, rng: np.random.Generator) -> np.ndarray:
        """Return how strongly each cell expresses a marker; (Y, X), around 1."""
        return np.exp(0.3 * rng.normal(size=len(self.kinds) + 1))[self.index]
