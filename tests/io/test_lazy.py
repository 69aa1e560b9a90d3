"""Opening reads no pixels, a region reads only what it touches, and threads do not disturb each other."""

from __future__ import annotations

import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
import zarr

from napari_nucleus_kd.io import _plane, read
from napari_nucleus_kd.io._tiff import TiffSource

if TYPE_CHECKING:
    from pathlib import Path

EDGE = 100_000


def test_a_plain_tiff_far_larger_than_memory_is_read_by_regions(tmp_path: Path) -> None:
    path = tmp_path / "huge.tif"
    tifffile.imwrite(path, np.zeros((1, 1), np.uint16), bigtiff=True, metadata=None)
    with tifffile.TiffFile(path, mode="r+") as tif:
        page = tif.pages[0]
        offset = page.dataoffsets[0]
        for tag, value in (("ImageWidth", EDGE), ("ImageLength", EDGE), ("RowsPerStrip", EDGE)):
            page.tags[tag].overwrite(value)
        page.tags["StripByteCounts"].overwrite(EDGE * EDGE * 2, dtype="Q")
    with path.open("r+b") as file:  # 20 GB with holes in it
        file.truncate(offset + EDGE * EDGE * 2)
        file.seek(offset + (70_000 * EDGE + 90_000) * 2)
        file.write(b"\x07\0")
    tracemalloc.start()
    try:
        image = read(path)
        corner = image.pixels[:, 70_000:70_100, 90_000:90_100].compute()
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()
    assert image.pixels.shape == (1, EDGE, EDGE)
    assert (corner[0, 0, 0], corner.sum()) == (7, 7)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the pixels of each read that reaches a file."""
    read_pixels: list[int] = []
    real = _plane.Plane._read

    def counting(self: Any, *spans: slice) -> Any:
        block = real(self, *spans)
        read_pixels.append(block.size)
        return block

    monkeypatch.setattr(_plane.Plane, "_read", counting)
    return read_pixels


@pytest.mark.parametrize("kind", ["tiled.tif", "pyramid.zarr"])
def test_opening_reads_nothing_and_a_region_little(kind: str, tmp_path: Path, counted: list[int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (2, 3000, 3000), np.uint8)
    path = tmp_path / kind
    if kind == "tiled.tif":
        words = {"axes": "CYX"}
        tifffile.imwrite(
            path, pixels, tile=(256, 256), compression="zlib", photometric="minisblack", metadata=words
        )
    else:
        group = zarr.open_group(str(path), mode="w")
        group.create_array("0", data=pixels, chunks=(1, 256, 256))
        axes = [{"name": a, "type": "channel" if a == "c" else "space"} for a in "cyx"]
        group.attrs["ome"] = {"multiscales": [{"axes": axes, "datasets": [{"path": "0"}]}]}
    image = read(path)
    assert counted == []
    region = image.pixels[1, 1500:1600, 1500:1600].compute()
    np.testing.assert_array_equal(region, pixels[1, 1500:1600, 1500:1600])
    assert sum(counted) <= 4 * 1024 * 1024


def test_the_file_opens_late_and_closes_with_its_last_user(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((300, 300), np.uint8), compression="zlib")
    source = TiffSource(path)
    assert source._file is None
    assert source.array(0, 0).shape == (300, 300)
    handle = source._file.filehandle
    del source
    assert handle.closed


def test_many_threads_read_the_same_pixels(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (900, 900, 3), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, tile=(64, 64), compression="zlib", photometric="rgb")
    image = read(tmp_path / "a.tif")

    def region(seed: int) -> bool:
        y, x = np.random.default_rng(seed).integers(0, 800, 2)
        got = image.pixels[:, y : y + 90, x : x + 90].compute(scheduler="synchronous")
        return bool((got == pixels[y : y + 90, x : x + 90].transpose(2, 0, 1)).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(region, range(24)))
