"""Draws marker channels around real nuclei: multiplex images of any panel, whose truth is exact."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from napari_nucleus_kd.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from napari_nucleus_kd.types import FloatArray, LabelArray

_WIDE = 4.0  # standard deviation of a blur, px, from which three means take its place
_SECOND_STAIN = 0.35  # of the panels have a second stain of all nuclei
_NAMES = {
    "nuclear": ("DAPI", "Hoechst 33342", "DRAQ5", "Histone H3", "DNA1", "Ir191", "SYTO 13", "NucBlue"),
    "membrane": ("CD3", "CD4", "CD8", "CD20", "CD45", "E-cadherin", "Na/K-ATPase", "beta-catenin", "CD31"),
    "cytoplasm": ("panCK", "vimentin", "CD68", "SMA", "granzyme B", "cytokeratin 7", "lysozyme", "S100"),
    "some nuclei": ("Ki67", "FOXP3", "PCNA", "p53", "ER", "PR", "T-bet", "SOX10"),
    "matrix": ("collagen I", "collagen IV", "fibronectin", "laminin"),
    "puncta": ("PLA", "RNA 1", "RNA 2", "LAMP1"),
    "autofluorescence": ("AF 488", "autofluorescence", "AF 555"),
    "saturated": ("panCK high", "IgA", "albumin"),
    "dead": ("blank", "empty", "blank 2"),
}
_CHANCES = {
    "membrane": 0.26,
    "cytoplasm": 0.22,
    "some nuclei": 0.16,
    "matrix": 0.08,
    "puncta": 0.06,
    "autofluorescence": 0.08,
    "saturated": 0.06,
    "dead": 0.08,
}


@dataclass(frozen=True, slots=True)
class Simulated:
    """A multiplex image that was drawn.

    Attributes
    ----------
    pixels : (C, Y, X) uint8, uint16 or float32, as a camera gives them.
    names : of the channels, each one once.
    kinds : what each channel shows: one of simulate.KINDS.
    nuclear : index of the channel with the picture of the nuclei.
    """

    pixels: npt.NDArray[Any]
    names: tuple[str, ...]
    kinds: tuple[str, ...]
    nuclear: int


def simulate(
    nuclei: FloatArray,
    labels: LabelArray,
    rng: np.random.Generator,
    channels: int,
    kinds: tuple[str, ...] | None = None,
) -> Simulated:
    """Draw the channels of a multiplex image in which the nuclei are those of a picture.

    One channel is the picture itself, as another microscope could have taken it. The others show markers of
    membranes, cytoplasm and some of the nuclei, matrix, puncta and autofluorescence, or are saturated or
    dead; some are shifted, blurred or leak into their neighbours. Their order and names are random.

    Parameters
    ----------
    nuclei : (Y, X) float32 in [0, 1], bright nuclei on a dark background. Not changed.
    labels : (Y, X) of the nuclei in it, 0 is background. Not changed.
    rng : the same state gives the same image.
    channels : how many, at least one.
    kinds : of the other channels, as far as these go; the rest is random.

    Raises
    ------
    SettingsError : the arrays do not fit together, or there is no such kind.

    >>> picture, labels = np.eye(32, dtype=np.float32), np.eye(32, dtype=np.int32)
    >>> image = simulate(picture, labels, np.random.default_rng(0), 5)
    >>> image.pixels.shape, image.kinds[image.nuclear]
    ((5, 32, 32), 'nuclear')
    """
    asked = kinds or ()
    if nuclei.ndim != 2 or nuclei.shape != labels.shape or channels < 1 + len(asked):
        raise SettingsError(
            f"a picture {nuclei.shape}, labels {labels.shape} and {channels} channels make no image; give a "
            "picture (Y, X), its labels of the same shape, and a channel for each kind and the nuclei"
        )
    if unknown := sorted(set(asked) - set(KINDS)):
        raise SettingsError(f"no kind of channel {', '.join(unknown)}; choose from {', '.join(KINDS)}")
    others = [*asked, *_random_kinds(channels - 1 - len(asked), rng)]
    scene = _Scene.of(nuclei, labels, rng)
    amounts = np.stack([nuclei, *(_MARKERS[kind](scene, rng) for kind in others)])
    order = rng.permutation(channels)
    shown = tuple(["nuclear", *others][i] for i in order)
    amounts = _leak(amounts[order], shown, rng)
    seen = np.stack([_through_the_lens(channel, rng) for channel in amounts])
    return Simulated(_camera(seen, shown, rng), _named(shown, rng), shown, int(np.argmin(order)))


def _random_kinds(count: int, rng: np.random.Generator) -> list[str]:
    names, chances = list(_CHANCES), np.array(list(_CHANCES.values()))
    drawn = [str(kind) for kind in rng.choice(names, count, p=chances / chances.sum())]
    if drawn and rng.random() < _SECOND_STAIN:
        drawn[0] = "nuclear"
    return drawn


@dataclass(frozen=True, slots=True)
class _Scene:
    """What all markers of an image have in common.

    Attributes
    ----------
    owner : (Y, X) label of the nearest nucleus.
    away : (Y, X) distance to it, px.
    diameter : of a typical nucleus, px.
    """

    nuclei: FloatArray
    labels: LabelArray
    owner: LabelArray
    away: FloatArray
    diameter: float
    count: int

    @classmethod
    def of(cls, nuclei: FloatArray, labels: LabelArray, rng: np.random.Generator) -> _Scene:
        areas = np.bincount(labels.ravel())[1:]
        found = areas[areas > 0]
        diameter = 2 * float(np.sqrt(np.median(found) / np.pi)) if found.size else 20.0
        if not found.size:
            away = np.full(labels.shape, 1e3, np.float32)
            return cls(nuclei, labels, labels, away, diameter, 1)
        away, nearest = ndimage.distance_transform_edt(labels == 0, return_indices=True)
        owner = labels[tuple(nearest)]
        return cls(nuclei, labels, owner, away.astype(np.float32), diameter, int(labels.max()) + 1)

    def per_cell(self, share: float, rng: np.random.Generator) -> FloatArray:
        """Return an amount for each label: of a share of the cells, in areas, differing in strength."""
        amount = (rng.random(self.count) < share) * rng.uniform(rng.uniform(0.2, 1), 1, self.count)
        amount[0] = 0
        return amount.astype(np.float32)

    def cell(self, rng: np.random.Generator) -> FloatArray:
        """Return where cells are, (Y, X) in [0, 1]."""
        reach = self.diameter * rng.uniform(0.15, 0.7)
        softness = max(0.5, 0.08 * self.diameter)
        inside: FloatArray = 1 / (1 + np.exp(np.clip((self.away - reach) / softness, -30, 30)))
        return inside


def _another_nuclear_stain(scene: _Scene, rng: np.random.Generator) -> FloatArray:
    """All nuclei, as an antibody against histones shows them: more alike, and less sharp."""
    body = ndimage.gaussian_filter((scene.labels > 0).astype(np.float32), rng.uniform(0.6, 1.6))
    texture = (1 - (mix := rng.uniform(0.2, 0.8))) + mix * scene.nuclei / max(0.1, float(scene.nuclei.max()))
    strength = rng.uniform(rng.uniform(0.4, 0.9), 1, scene.count).astype(np.float32)
    return np.asarray(body * texture * strength[scene.owner], np.float32)


def _membrane(scene: _Scene, rng: np.random.Generator) -> FloatArray:
    """Rings around cells: where two cells meet, and where one ends."""
    reach, width = scene.diameter * rng.uniform(0.1, 0.6), max(0.7, scene.diameter * rng.uniform(0.03, 0.09))
    met = (scene.owner != np.roll(scene.owner, 1, 0)) | (scene.owner != np.roll(scene.owner, 1, 1))
    between = ndimage.gaussian_filter((met & (scene.away < reach)).astype(np.float32), width) * 2.5 * width
    rim = np.exp(-(((scene.away - reach) / width) ** 2) / 2)
    positive = scene.per_cell(rng.uniform(0.1, 1), rng)[scene.owner]
    return np.asarray((between + rim) * positive * _grain(scene, rng), np.float32)


def _cytoplasm(scene: _Scene, rng: np.random.Generator) -> FloatArray:
    """Bodies of some cells, most of them darker where the nucleus is."""
    hole = rng.uniform(0, 1) * ndimage.gaussian_filter((scene.labels > 0).astype(np.float32), 1.0)
    positive = scene.per_cell(rng.uniform(0.1, 1), rng)[scene.owner]
    return np.asarray(scene.cell(rng) * (1 - hole) * positive * _grain(scene, rng), np.float32)


def _some_nuclei(scene: _Scene, rng: np.random.Generator) -> FloatArray:
    """Draw some of the nuclei: a marker of proliferation, or of a lineage."""
    positive = scene.per_cell(rng.uniform(0.02, 0.6), rng)
    return _another_nuclear_stain(scene, rng) * positive[scene.owner]


def _matrix(scene: _Scene, rng: np.random.Generator) -> FloatArray:
    """Fibres between the cells."""
    fine, coarse = rng.uniform(0.6, 1.5), scene.diameter * rng.uniform(0.3, 1)
    widths = (fine, coarse) if rng.random() < 0.5 else (coarse, fine)
    lines = _blur(rng.standard_normal(scene.labels.shape, np.float32), widths)
    lines = np.clip(lines / (lines.std() + 1e-6), 0, 3) / 3
    return np.asarray(lines * (scene.labels == 0) * _hills(scene.labels.shape, rng), np.float32)


def _puncta(scene: _Scene, rng: np.random.Generator) -> FloatArray:
    """Spots, as of single molecules."""
    spots = (rng.random(scene.labels.shape) < rng.uniform(0.0005, 0.01)).astype(np.float32)
    spots *= scene.per_cell(rng.uniform(0.2, 1), rng)[scene.owner] * (scene.away < scene.diameter)
    width = rng.uniform(0.6, 1.4)
    return np.asarray(ndimage.gaussian_filter(spots, width) * 2 * np.pi * width**2, np.float32)


def _autofluorescence(scene: _Scene, rng: np.random.Generator) -> FloatArray:
    """Wide hills, with a trace of the tissue in them."""
    tissue = _blur(scene.nuclei, (scene.diameter * rng.uniform(0.3, 1),) * 2)
    trace = rng.uniform(0, 0.3) * scene.cell(rng)
    return np.asarray(_hills(scene.labels.shape, rng) * rng.uniform(0.2, 1) + tissue + trace, np.float32)


def _saturated(scene: _Scene, rng: np.random.Generator) -> FloatArray:
    """Draw a marker that is far too bright for the camera."""
    marker = _BRIGHT[rng.integers(len(_BRIGHT))](scene, rng)
    return np.asarray(np.clip(marker * rng.uniform(5, 50), 0, 1), np.float32)


def _dead(scene: _Scene, rng: np.random.Generator) -> FloatArray:
    """Nothing."""
    return np.zeros(scene.labels.shape, np.float32)


_BRIGHT = (_cytoplasm, _autofluorescence, _membrane, _some_nuclei, _another_nuclear_stain)
_MARKERS: dict[str, Callable[[_Scene, np.random.Generator], FloatArray]] = {
    "nuclear": _another_nuclear_stain,
    "membrane": _membrane,
    "cytoplasm": _cytoplasm,
    "some nuclei": _some_nuclei,
    "matrix": _matrix,
    "puncta": _puncta,
    "autofluorescence": _autofluorescence,
    "saturated": _saturated,
    "dead": _dead,
}
KINDS = tuple(_MARKERS)


def _grain(scene: _Scene, rng: np.random.Generator) -> FloatArray:
    """Return the texture of a marker, about 1."""
    noise = rng.standard_normal(scene.labels.shape, np.float32)
    noise = ndimage.gaussian_filter(noise, rng.uniform(0.7, 2.5))
    return np.asarray(np.clip(1 + rng.uniform(0, 0.5) * noise / (noise.std() + 1e-6), 0, None), np.float32)


def _hills(shape: tuple[int, ...], rng: np.random.Generator) -> FloatArray:
    """Return wide hills and valleys in [0, 1]."""
    heights = rng.uniform(0, 1, (4, 4)).astype(np.float32)
    rows, columns = (_shares(length) for length in shape)
    return np.asarray(rows @ heights @ columns.T, np.float32)


def _shares(length: int) -> FloatArray:
    """Return the shares (length, 4) that four heights have in each point of a smooth line."""
    at = np.linspace(0, 3, length, dtype=np.float32)[:, None] - np.arange(4, dtype=np.float32)
    shares = np.exp(-2 * at**2)
    return np.asarray(shares / shares.sum(axis=1, keepdims=True), np.float32)


def _blur(picture: FloatArray, widths: tuple[float, float]) -> FloatArray:
    """Blur by a standard deviation, px, along either axis; a wide one by three means, which is as good."""
    for axis, width in enumerate(widths):
        if width < _WIDE:
            picture = ndimage.gaussian_filter1d(picture, width, axis)
            continue
        for _ in range(3):
            picture = ndimage.uniform_filter1d(picture, round(math.sqrt(4 * width**2 + 1)), axis)
    return picture


def _leak(amounts: FloatArray, kinds: tuple[str, ...], rng: np.random.Generator) -> FloatArray:
    """Let some channels leak into the next: their spectra overlap."""
    out = amounts.copy()
    for i in range(len(amounts) - 1):
        for of, into in ((i, i + 1), (i + 1, i)):
            if rng.random() < 0.25 and kinds[into] != "dead":
                out[into] += rng.uniform(0.02, 0.3) * amounts[of]
    return out


def _through_the_lens(channel: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Shift, blur and shade a channel a little, as another round of imaging does."""
    if rng.random() < 0.3:
        channel = ndimage.shift(channel, rng.normal(0, 1.2, 2), order=1, mode="nearest")
    if rng.random() < 0.4:
        channel = ndimage.gaussian_filter(channel, rng.uniform(0.3, 1.3))
    if rng.random() < 0.2:
        channel = channel * (1 - rng.uniform(0, 0.6) * _hills(channel.shape, rng))
    return channel


def _camera(amounts: FloatArray, kinds: tuple[str, ...], rng: np.random.Generator) -> npt.NDArray[Any]:
    """Return what a camera of 8 or 16 bits makes of amounts in about [0, 1], or a program in floats."""
    shape = (len(amounts), 1, 1)
    photons, dark = (
        np.asarray(found, np.float32)
        for found in (10 ** rng.uniform(1.5, 3.5, shape), rng.uniform(0.002, 0.02, shape))
    )
    noise = rng.standard_normal(amounts.shape, np.float32)
    seen = np.clip(amounts, 0, None)
    seen = seen + noise * np.sqrt(seen / photons + dark**2)
    top = (255, 65535, None)[rng.integers(3)]
    if top is None:
        return np.asarray(seen * 10 ** rng.uniform(-1, 3), np.float32)
    full = np.where(np.array(kinds) == "saturated", 1.0, rng.uniform(0.1, 0.9, len(kinds)))
    gain, offset = (
        np.asarray(top * found, np.float32) for found in (full.reshape(shape), rng.uniform(0, 0.03, shape))
    )
    counts = seen * gain + offset
    return np.asarray(np.clip(np.round(counts), 0, top), np.uint8 if top == 255 else np.uint16)


def _named(kinds: tuple[str, ...], rng: np.random.Generator) -> tuple[str, ...]:
    """Return a name for each channel, numbered where one is drawn again."""
    drawn = [str(rng.choice(_NAMES[kind])) for kind in kinds]
    return tuple(
        name if drawn.count(name) == 1 else f"{name} ({drawn[: i + 1].count(name)})"
        for i, name in enumerate(drawn)
    )
