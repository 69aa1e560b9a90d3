"""Images that are written are read as they were."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_nucleus_kd.io import read
from napari_nucleus_kd.io.images import write_image

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("dtype", "stored"),
    [
        *(("uint8", "uint8"), ("uint16", "uint16"), ("float64", "float64")),
        *(("bool", "float32"), ("int64", "float32"), ("float16", "float32")),
    ],
)
def test_channels_names_and_pixel_size_come_back(tmp_path: Path, dtype: str, stored: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 200, (2, 30, 50)).astype(dtype)
    write_image(tmp_path / "a.ome.tif", pixels, rgb=False, pixel_size_um=0.25, channels=["DAPI", "CD3"])
    image = read(tmp_path / "a.ome.tif")
    np.testing.assert_array_equal(np.asarray(image.pixels), pixels.astype(stored))
    assert image.pixels.dtype == stored and not image.rgb and image.pixel_size_um == pytest.approx(0.25)
    assert [channel.name for channel in image.channels] == ["DAPI", "CD3"]


def test_a_colour_picture_stays_one(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 200, (3, 30, 50)).astype(np.uint8)
    write_image(tmp_path / "a.ome.tif", pixels, rgb=True, pixel_size_um=None)
    image = read(tmp_path / "a.ome.tif")
    np.testing.assert_array_equal(np.asarray(image.pixels), pixels)
    assert image.rgb and image.pixel_size_um is None
