"""Folders of images and label images become an index, or say what is missing."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import numpy as np
import pytest
from skimage.io import imsave

from napari_nucleus_kd.folders import _groups, _splits, index_steps, read_rows
from napari_nucleus_kd.types import Modality

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def write(path: Path, seed: int, *, noise: int = 0) -> None:
    """Write a picture that depends on the seed, or a label image if its name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 200, (40, 48), np.uint8)
    pixels = pixels + np.random.default_rng(noise).integers(0, 9, pixels.shape, np.uint8)
    imsave(path, pixels, check_contrast=False)


def rows_of(index: Path) -> list[dict[str, str]]:
    with index.open(newline="") as file:
        return list(csv.DictReader(file))


def test_images_that_belong_together_stay_on_one_side(tmp_path: Path, finish: Callable) -> None:
    data = tmp_path / "set"
    for slide in range(12):
        for tile in range(3):
            write(data / f"images/slide{slide}_x{tile}_y7.png", 100 * slide + tile)
    for frame in range(6):
        write(data / f"images/{'abcdef'[frame]}.png", 7777, noise=frame)
    for path in list((data / "images").iterdir()):
        write(data / "labels" / path.name, 0)
    index, _ = finish(index_steps(data, tmp_path / "out.csv"))
    rows = rows_of(index)
    assert {row["source"] for row in rows} == {"set"} and len(rows) == 42
    assert all((tmp_path / row["image"]).is_file() and (tmp_path / row["labels"]).is_file() for row in rows)
    sides: dict[str, set[str]] = {}
    for row in rows:
        name = row["image"].split("/")[-1]
        sides.setdefault(name.split("_")[0] if "slide" in name else "frames", set()).add(row["split"])
    assert {len(side) for side in sides.values()} == {1}
    count = {split: sum(row["split"] == split for row in rows) for split in ("train", "tune", "val")}
    assert count["train"] > count["val"] >= 6 and count["tune"] >= 3
    again, _ = finish(index_steps(data, tmp_path / "again.csv"))
    assert again.read_text() == index.read_text()


@pytest.mark.parametrize(("count", "splits"), [(3, {"train", "tune", "val"}), (1, {"train", "tune"})])
def test_few_images_are_split_or_not_at_all(
    count: int, splits: set[str], tmp_path: Path, finish: Callable
) -> None:
    for i in range(count):
        write(tmp_path / f"set/{'xyz'[i]}.png", i)
        write(tmp_path / f"set/{'xyz'[i]}_labels.png", 0)
    index, _ = finish(index_steps(tmp_path / "set", tmp_path / "index.csv"))
    rows = rows_of(index)
    assert {row["split"] for row in rows} == splits
    assert len(rows) == (3 if count == 3 else 2)


@pytest.mark.parametrize(
    "names", ["patient{:02}", "tumor{}", "exp.{:03}", "Snap_20240301_10150{}", "2021-05-0{}", "test{}"]
)
def test_numbers_in_names_are_no_tiles(names: str) -> None:
    thumbs = np.eye(9, dtype=np.float32)
    assert len(set(_groups([names.format(i) for i in range(9)], thumbs))) == 9


@pytest.mark.parametrize("names", ["s_x{}_y0", "s_tile_{}", "s-r1-c{}", "s tile{}"])
def test_tiles_are_known_by_their_names(names: str) -> None:
    assert len(set(_groups([names.format(i) for i in range(9)], np.eye(9, dtype=np.float32)))) == 1


@pytest.mark.parametrize("seed", range(5))
def test_the_largest_group_is_trained_on(seed: int) -> None:
    groups = np.array([0] * 98 + [1, 2])
    splits = [split for (split,) in _splits(groups, seed)]
    assert splits[:98] == ["train"] * 98 and sorted(splits[98:]) == ["tune", "val"]


def test_all_pairs_of_a_folder_are_judged_on(tmp_path: Path) -> None:
    write(tmp_path / "a.png", 0)
    write(tmp_path / "a_labels.png", 0)
    (row,) = read_rows(tmp_path, "val")
    assert (row.name, row.modality, row.source) == ("a.png", Modality.FLUORESCENCE, tmp_path.name)
