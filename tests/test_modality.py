"""The suggested modality, on drawn and on real pictures."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest

from napari_nucleus_kd.io import read
from napari_nucleus_kd.modality import has_bright_background, suggest_modality
from napari_nucleus_kd.types import Channel, Image, Modality

DATA = Path(os.environ.get("NUCLEUS_KD_DATA", "data"))
HAEMATOXYLIN, EOSIN, DAB = (0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78)


def colour(pixels: np.ndarray) -> Image:
    return Image((pixels,), tuple(Channel(n) for n in ("red", "green", "blue")), rgb=True)


def stained(
    *shares: tuple[tuple[float, float, float], float], dtype: type = np.uint8, white: int = 255
) -> Image:
    """Draw a slide: each stain on a share of the pixels, the rest glass."""
    rng = np.random.default_rng(0)
    density = np.zeros((3, 100, 100))
    where = rng.random((100, 100))
    start = 0.0
    for vector, share in shares:
        here = (where >= start) & (where < start + share)
        density += np.array(vector)[:, None, None] * here * 0.8
        start += share
    return colour((10**-density * white * 0.95).astype(dtype))


@pytest.mark.parametrize(("dtype", "white"), [(np.uint8, 255), (np.uint16, 65535), (np.uint16, 4095)])
def test_stains_are_told_apart_at_every_bit_depth(dtype: type, white: int) -> None:
    def suggest(*shares: tuple[tuple[float, float, float], float]) -> Modality:
        return suggest_modality(stained(*shares, dtype=dtype, white=white))[0]

    assert suggest((HAEMATOXYLIN, 0.2), (EOSIN, 0.4)) is Modality.HE
    assert suggest((HAEMATOXYLIN, 0.3), (DAB, 0.1)) is Modality.IHC
    assert suggest((HAEMATOXYLIN, 0.3), (DAB, 0.02)) is Modality.IHC
    assert suggest() is Modality.HE


def test_dark_and_grey_pictures_are_fluorescence() -> None:
    dark = np.zeros((3, 50, 50), np.uint8)
    dark[2, 10:20, 10:20] = 255
    choice, reason = suggest_modality(colour(dark))
    assert choice is Modality.FLUORESCENCE
    assert "dark background" in reason
    grey = Image((np.full((1, 50, 50), 200, np.uint8),), (Channel("channel 1"),))
    choice, reason = suggest_modality(grey)
    assert choice is Modality.FLUORESCENCE
    assert "bright" in reason


def test_only_the_coarsest_level_is_looked_at() -> None:
    bright = np.full((3, 10, 10), 250, np.uint8)
    assert has_bright_background((np.zeros((3, 80, 80), np.uint8), bright))


def test_of_a_large_image_without_a_pyramid_a_small_part_is_read() -> None:
    read_px: list[int] = []

    def block(block_info: Any = None) -> np.ndarray:
        part = np.full(block_info[None]["chunk-shape"], 240, np.uint8)
        read_px.append(part[0].size)
        return part

    chunks = ((3,), (500,) * 40, (500,) * 40)
    slide = da.map_blocks(block, chunks=chunks, dtype=np.uint8, meta=np.empty((0, 0, 0), np.uint8))
    assert suggest_modality(colour(slide))[0] is Modality.HE
    assert 0 < sum(read_px) < 0.2 * 20000**2


def test_the_immunohistochemistry_of_scikit_image_is_ihc() -> None:
    from skimage import data

    picture = data.immunohistochemistry()
    choice, reason = suggest_modality(colour(np.moveaxis(picture, 2, 0)))
    assert choice is Modality.IHC
    assert "brown" in reason


@pytest.mark.skipif(not (DATA / "consep").is_dir(), reason="no folder consep in NUCLEUS_KD_DATA")
def test_real_h_and_e() -> None:
    choices = [suggest_modality(read(p))[0] for p in sorted((DATA / "consep" / "images").glob("*.jpg"))]
    assert choices.count(Modality.HE) >= 0.95 * len(choices) > 0


@pytest.mark.skipif(not (DATA / "dsb2018").is_dir(), reason="no folder dsb2018 in NUCLEUS_KD_DATA")
def test_real_fluorescence_and_stained_tissue() -> None:
    with (DATA / "dsb2018" / "index.csv").open() as file:
        rows = [r for r in csv.DictReader(file) if r["modality"] in ("fluorescence", "stained")][::5]
    right = 0
    for row in rows:
        (path,) = (DATA / "dsb2018" / "images").glob(f"{row['id']}.*")
        is_fluorescence = suggest_modality(read(path))[0] is Modality.FLUORESCENCE
        right += is_fluorescence is (row["modality"] == "fluorescence")
    assert right >= 0.98 * len(rows) > 0
