"""Labels come back as they were saved, and a failed save leaves what was there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
import zarr

from napari_nucleus_kd.errors import LabelsError, WriteError
from napari_nucleus_kd.io import labels as module
from napari_nucleus_kd.io import read, save_labels

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ["labels.tif", "labels.tiff", "labels.ome.tif", "labels.ome.zarr", "labels.zarr"]
LABELS = np.random.default_rng(0).integers(0, 300, (700, 1300)).astype(np.int32)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("highest", "dtype"), [(300, np.uint16), (65535, np.uint16), (65536, np.uint32)])
def test_labels_come_back(name: str, highest: int, dtype: type, tmp_path: Path) -> None:
    labels = LABELS.copy()
    labels[5, 7] = highest
    before = labels.copy()
    path = save_labels(labels, tmp_path / name, pixel_size_um=0.25, recipe='{"model": "µ <a>"}')
    image = read(path)
    assert path == tmp_path / name
    assert image.pixels.dtype == dtype
    assert image.pixel_size_um == pytest.approx(0.25)
    np.testing.assert_array_equal(image.pixels.compute()[0], labels)
    np.testing.assert_array_equal(labels, before)
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(1, 1), (16, 3), (513, 20)])
def test_any_size_and_no_pixel_size(name: str, shape: tuple[int, int], tmp_path: Path) -> None:
    labels = np.arange(np.prod(shape), dtype=np.int64).reshape(shape)
    image = read(save_labels(labels, tmp_path / name))
    assert image.pixel_size_um is None
    np.testing.assert_array_equal(image.pixels.compute()[0], labels)


def test_the_tiff_is_tiled_compressed_ome_with_the_recipe(tmp_path: Path) -> None:
    path = save_labels(LABELS, tmp_path / "a.ome.tif", recipe='{"a": 1}')
    with tifffile.TiffFile(path) as tif:
        page = tif.pages[0]
        assert (tif.is_ome, page.is_tiled, page.compression.name) == (True, True, "ADOBE_DEFLATE")
        assert '{"a": 1}' in tif.ome_metadata.replace("&quot;", '"')


def test_the_zarr_is_a_label_image_with_levels_of_true_labels(tmp_path: Path) -> None:
    path = save_labels(LABELS, tmp_path / "a.ome.zarr", pixel_size_um=0.5, recipe='{"a": 1}')
    group = zarr.open_group(str(path), mode="r")
    assert group.attrs["ome"]["version"] == "0.5"
    assert "image-label" in group.attrs["ome"]
    assert group.attrs["napari-nucleus-kd"]["recipe"] == '{"a": 1}'
    levels = read(path).levels
    assert [level.shape for level in levels] == [(1, 700, 1300), (1, 350, 650), (1, 175, 325)]
    np.testing.assert_array_equal(levels[2].compute()[0], LABELS[::4, ::4])


@pytest.mark.parametrize(("um", "at", "unit"), [(0.5, [2.0, 3.5], "µm"), (None, [4, 7], "pixel")])
def test_labels_of_a_part_say_where_it_lies(
    um: float | None, at: list[float], unit: str, tmp_path: Path
) -> None:
    path = save_labels(LABELS, tmp_path / "a.ome.tif", pixel_size_um=um, corner_yx=(4, 7))
    with tifffile.TiffFile(path) as tif:
        plane = tifffile.xml2dict(tif.ome_metadata)["OME"]["Image"]["Pixels"]["Plane"]
    assert [plane["PositionY"], plane["PositionX"]] == at
    assert [plane["PositionYUnit"], plane["PositionXUnit"]] == [unit, unit]
    path = save_labels(LABELS, tmp_path / "a.ome.zarr", pixel_size_um=um, corner_yx=(4, 7))
    levels = zarr.open_group(str(path), mode="r").attrs["ome"]["multiscales"][0]["datasets"]
    # Coarse levels hold every second label from the first on: all begin at the same place.
    assert [level["coordinateTransformations"][1]["translation"] for level in levels] == [at] * 3
    whole = save_labels(LABELS, tmp_path / "whole.ome.tif")
    assert b"Position" not in whole.read_bytes()


@pytest.mark.parametrize("name", ["a.ome.tif", "a.ome.zarr"])
def test_nothing_is_overwritten_unless_asked(name: str, tmp_path: Path) -> None:
    save_labels(LABELS, tmp_path / name)
    with pytest.raises(WriteError, match="exists already"):
        save_labels(LABELS * 0, tmp_path / name)
    np.testing.assert_array_equal(read(tmp_path / name).pixels.compute()[0], LABELS)
    save_labels(LABELS[:9], tmp_path / name, overwrite=True)
    np.testing.assert_array_equal(read(tmp_path / name).pixels.compute()[0], LABELS[:9])
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["a.ome.tif", "a.ome.zarr"])
@pytest.mark.parametrize("there", [False, True])
def test_a_failed_save_leaves_what_was_there(
    name: str, there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if there:
        save_labels(LABELS, tmp_path / name)
    real = module._writer(tmp_path / name)

    def full_disk(labels: Any, path: Path, *rest: Any) -> None:
        real(labels, path, *rest)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_writer", lambda path: full_disk)
    with pytest.raises(WriteError, match="No space left"):
        save_labels(LABELS[:5], tmp_path / name, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == [name] * there
    if there:
        np.testing.assert_array_equal(read(tmp_path / name).pixels.compute()[0], LABELS)


def test_a_folder_that_is_no_zarr_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / "thesis.txt").write_text("years of work")
    with pytest.raises(WriteError, match="something else"):
        save_labels(LABELS, tmp_path / "a.zarr", overwrite=True)
    assert (tmp_path / "a.zarr" / "thesis.txt").exists()


@pytest.mark.parametrize("name", ["a.png", "a", "a.npy"])
def test_an_unknown_suffix_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(WriteError, match=r"\.ome\.tif"):
        save_labels(LABELS, tmp_path / name)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match="no folder"):
        save_labels(LABELS, tmp_path / "no" / "a.tif")


@pytest.mark.parametrize(
    "labels",
    [
        np.zeros((2, 3, 4), int),
        np.zeros((3, 4)),
        np.zeros((3, 4), bool),
        np.full((3, 4), -1),
        np.full((3, 4), 2**32),
        np.zeros((0, 4), int),
    ],
)
def test_what_is_not_labels_is_refused(labels: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(LabelsError):
        save_labels(labels, tmp_path / "a.tif")
    assert list(tmp_path.iterdir()) == []
