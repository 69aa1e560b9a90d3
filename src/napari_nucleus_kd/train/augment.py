"""What a microscope, a stain and a camera may do to a picture; all on (3, H, W) float32 in [0, 1].

Every function takes a numpy Generator, so the same seed gives the same picture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cc3d
import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional as F

from napari_nucleus_kd.stains import DAB, HAEMATOXYLIN
from napari_nucleus_kd.types import Modality

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_nucleus_kd.types import FloatArray, LabelArray


def warp(
    image: npt.NDArray[np.floating], labels: LabelArray, size_px: int, scale: float, rng: np.random.Generator
) -> tuple[FloatArray, LabelArray]:
    """Cut a randomly placed, turned, mirrored, stretched and bent square out of an image.

    Parameters
    ----------
    image : (C, Y, X) float16 or float32
    labels : (Y, X) int32
    size_px : edge of the square that is returned.
    scale : magnification; 2 doubles the diameter of every nucleus.

    Returns
    -------
    (C, size, size) float32 and (size, size) int32. Outside the image both continue as mirror pictures.
    """
    angle = rng.uniform(0, 2 * np.pi)
    stretch = np.exp(rng.normal(0, 0.08, 2))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = turn @ np.diag([rng.choice([-1.0, 1.0]), 1.0]) @ np.diag(stretch) / scale
    center = _center(labels, rng)
    line = np.arange(size_px) - (size_px - 1) / 2
    grid = np.stack(np.meshgrid(line, line, indexing="xy"), -1)  # (S, S, 2) as x, y
    if rng.random() < 0.3:
        grid = grid + _bend(size_px, rng)
    xy = grid @ matrix.T + center[::-1]
    corner, image, labels = _surroundings(xy, image, labels)
    size = np.array(labels.shape[::-1])
    there = np.mod(xy - corner + 0.5, 2 * size)
    there = np.minimum(there, 2 * size - there)  # mirrored at the sides
    source = torch.from_numpy(image[None].astype(np.float32))
    pool = 1 if scale > 0.7 else 2 if scale > 0.35 else 4  # against aliasing
    if pool > 1:
        source = F.pad(source, (0, int(-size[0] % pool), 0, int(-size[1] % pool)), "replicate")
        source = F.avg_pool2d(source, pool)
    picture = _sampled(source, there / pool, "bilinear")
    marks = _sampled(torch.from_numpy(labels[None, None].astype(np.float32)), there, "nearest")
    # Mirroring made copies of nuclei under one label; each is a nucleus of its own.
    pieces = cc3d.connected_components(marks[0, 0].numpy().astype(np.int32), connectivity=8)
    return picture[0].numpy(), pieces.astype(np.int32)


def _sampled(source: torch.Tensor, xy: npt.NDArray[np.float64], mode: str) -> torch.Tensor:
    """Return (1, C, H, W) pictures at (S, S, 2) points, in pixels from their corner."""
    at = xy / np.array(source.shape[:1:-1]) * 2 - 1
    return F.grid_sample(
        source, torch.from_numpy(at[None].astype(np.float32)), mode, "border", align_corners=False
    )


def _surroundings(
    xy: npt.NDArray[np.float64], image: npt.NDArray[np.floating], labels: LabelArray
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.floating], LabelArray]:
    """Return the part of the image that points lie in, and its corner as x, y.

    A side of the part is a side of the image wherever a point lies beyond it, so that mirroring there
    gives the same picture.
    """
    size = np.array(labels.shape[::-1])
    low = np.array([np.floor(xy[..., i].min()) for i in (0, 1)], np.intp) // 4 * 4 - 8
    high = np.array([np.ceil(xy[..., i].max()) for i in (0, 1)], np.intp) + 8
    beyond = (low < 0) | (high > size)
    low, high = np.where(beyond, 0, low), np.where(beyond, size, high)
    part = slice(low[1], high[1]), slice(low[0], high[0])
    return low, image[:, *part], labels[part]


def _center(labels: LabelArray, rng: np.random.Generator) -> FloatArray:
    """Y and x of a pixel: in a random nucleus two times out of three, else anywhere."""
    if rng.random() < 0.67 and labels.any():
        inside = np.flatnonzero(labels)
        return np.array(np.unravel_index(rng.choice(inside), labels.shape), np.float32)
    return np.array([rng.uniform(0, n) for n in labels.shape], np.float32)


def _bend(size_px: int, rng: np.random.Generator) -> FloatArray:
    coarse = torch.from_numpy(rng.normal(0, 4, (1, 2, 6, 6)).astype(np.float32))
    smooth = F.interpolate(coarse, size=(size_px, size_px), mode="bicubic", align_corners=True)
    return np.moveaxis(smooth[0].numpy(), 0, -1)


def recolor(
    image: FloatArray,
    labels: LabelArray,
    modality: Modality,
    rng: np.random.Generator,
    *,
    complete: bool = True,
    turned: bool = True,
) -> FloatArray:
    """Vary stain, light, focus and noise as the modality allows; returns a new array.

    Only where all nuclei are annotated (`complete`) can stain be painted on and around them. A few pictures
    are `turned` to dark on bright, or back, for networks that are not told which they see.
    """
    if modality is Modality.FLUORESCENCE:
        image = _fluorescent(image, rng, turned)
    else:
        image = _stained(image, labels if complete else np.zeros_like(labels), rng, turned)
    image = np.clip(image, 0, 1) ** np.float32(np.exp(rng.normal(0, 0.3)))
    if rng.random() < 0.3:
        image = ndimage.gaussian_filter(image, (0, *[rng.uniform(0.3, 1.6)] * 2))
    image = image * np.float32(np.exp(rng.normal(0, 0.1))) + np.float32(rng.normal(0, 0.03))
    if rng.random() < 0.4:
        shared = rng.random() < 0.5 or modality is Modality.FLUORESCENCE
        shape = (1, *image.shape[1:]) if shared else image.shape
        noise = rng.standard_normal(shape, np.float32) * np.float32(rng.uniform(0.005, 0.08))
        image = image + noise * np.sqrt(np.clip(image, 0.05, 1))
    clipped: FloatArray = np.clip(image, 0, 1).astype(np.float32)
    return clipped


def _fluorescent(image: FloatArray, rng: np.random.Generator, turned: bool) -> FloatArray:
    if rng.random() < 0.3:  # uneven light
        shade = torch.from_numpy(rng.uniform(0.4, 1, (1, 1, 3, 3)).astype(np.float32))
        image = image * F.interpolate(shade, image.shape[1:], mode="bicubic", align_corners=True)[0].numpy()
    if rng.random() < 0.2:  # haze
        image = image + _glow(image, rng.uniform(8, 25)) * np.float32(rng.uniform(0.2, 1))
    if rng.random() < 0.15:  # false colour
        weights = rng.uniform(0, 1, 3)
        weights[rng.integers(3)] = 1
        image = image * weights[:, None, None].astype(np.float32)
    return 1 - image if rng.random() < 0.08 and turned else image


def _glow(image: FloatArray, sigma_px: float) -> FloatArray:
    """Blur widely; on a quarter of the resolution, where it looks the same."""
    small = F.avg_pool2d(torch.from_numpy(image)[None], 4)[0].numpy()
    small = ndimage.gaussian_filter(small, (0, sigma_px / 4, sigma_px / 4), truncate=3)
    glow: FloatArray = F.interpolate(torch.from_numpy(small)[None], image.shape[1:], mode="bilinear")[
        0
    ].numpy()
    return glow


def _stained(image: FloatArray, labels: LabelArray, rng: np.random.Generator, turned: bool) -> FloatArray:
    density = -np.log(np.clip(image, 0.01, 1))  # (3, H, W) optical density
    if rng.random() < 0.35 and labels.any():
        density = _immuno(density, labels, rng)
    mix = np.eye(3) + rng.normal(0, 0.08, (3, 3))
    gain = np.exp(rng.normal(0, 0.15, 3)) * np.exp(rng.normal(0, 0.2))
    density = np.einsum("ij,jhw->ihw", (mix * gain[:, None]).astype(np.float32), density)
    image = np.exp(-np.clip(density, 0, None))
    chance = rng.random()
    if chance < 0.08:
        image = np.repeat(image.mean(0, keepdims=True), 3, 0)
    elif chance < 0.12:
        image = image[rng.permutation(3)]
    return 1 - image if rng.random() < 0.04 and turned else image


def _immuno(density: FloatArray, labels: LabelArray, rng: np.random.Generator) -> FloatArray:
    """Make IHC of H&E: stain nuclei or what is around them brown, and pale the rest."""
    amount = density.mean(0)
    nucleus = ndimage.gaussian_filter((labels > 0).astype(np.float32), 0.8)
    paint = _brown_nuclei if rng.random() < 0.6 else _brown_cells
    brown, blue = paint(amount, nucleus, labels, rng)
    greyness = rng.uniform(0, 0.6)  # counterstains go from violet to blue-grey
    counterstain = (1 - greyness) * HAEMATOXYLIN + greyness * HAEMATOXYLIN.mean()
    brownish = DAB + rng.normal(0, 0.04, 3).astype(np.float32)
    tint = rng.uniform(0, 0.12) * rng.dirichlet((1, 1, 1))  # of the glass, as the scanner sees it
    stains = brown * brownish[:, None, None] + blue * counterstain[:, None, None] + tint[:, None, None]
    return np.asarray(stains, np.float32)


def _brown_nuclei(
    amount: FloatArray, nucleus: FloatArray, labels: LabelArray, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Return the amounts of brown and blue where some nuclei are positive and the rest blue.

    Positive nuclei differ in strength, the strongest hide their texture; some stain leaks around them.
    """
    count = int(labels.max()) + 1
    positive = (rng.random(count) < rng.uniform(0.05, 0.9)) * rng.uniform(rng.uniform(0.3, 1), 1, count)
    positive[0] = 0
    share = ndimage.gaussian_filter(positive[labels].astype(np.float32), rng.uniform(0.6, 1.2))
    around = rng.uniform(0.02, 0.6)  # how much of the tissue between the nuclei is seen at all
    strength = amount * (around + (1 - rng.uniform(0.2, 0.6)) * nucleus) * 1.8
    hiding = rng.uniform(0, 0.8)
    brown = share * ((1 - hiding) * strength * rng.uniform(0.8, 2.2) + hiding * rng.uniform(0.6, 1.8))
    leak = ndimage.gaussian_filter(share, 6) * rng.uniform(0, 0.25) * (amount / (amount.mean() + 0.05))
    return brown + leak, strength * (1 - share) * rng.uniform(0.4, 1.1)


def _brown_cells(
    amount: FloatArray, nucleus: FloatArray, labels: LabelArray, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Return the amounts of brown and blue where cytoplasm and membranes are positive in some areas."""
    away, nearest = ndimage.distance_transform_edt(labels == 0, return_indices=True)
    owner = labels[tuple(nearest)]
    edge = (owner != np.roll(owner, 1, 0)) | (owner != np.roll(owner, 1, 1))
    reach = rng.uniform(4, 25)
    cell = 1 / (1 + np.exp((away - reach) / 2))
    membrane = ndimage.gaussian_filter(edge.astype(np.float32), rng.uniform(0.7, 1.5)) * 3
    area = _smooth_field(labels.shape, rng) > rng.uniform(-0.8, 0.5)
    grain = amount / (ndimage.gaussian_filter(amount, 6) + 0.05)  # the texture of the tissue
    body = rng.uniform(0.2, 1.8) * grain
    around = cell * area * (body + rng.uniform(0, 1.2) * membrane)
    brown = around * (1 - nucleus * rng.uniform(0.5, 1))
    blue = amount * (nucleus * rng.uniform(0.5, 1.4) + (1 - nucleus) * rng.uniform(0, 0.25))
    return brown, blue


def _smooth_field(shape: tuple[int, ...], rng: np.random.Generator) -> FloatArray:
    """Return a picture of wide hills and valleys about 0."""
    coarse = torch.from_numpy(rng.normal(0, 1, (1, 1, 4, 4)).astype(np.float32))
    field: FloatArray = F.interpolate(coarse, size=shape, mode="bicubic", align_corners=True)[0, 0].numpy()
    return field
