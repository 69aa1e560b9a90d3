"""What is wrong with annotated images is said of the right file, by what it looks like."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
from scipy.ndimage import gaussian_filter

from napari_nucleus_kd.errors import LabelsError, ReadError
from napari_nucleus_kd.faults import named, shown
from napari_nucleus_kd.folders import index_steps, unlabelled_steps
from napari_nucleus_kd.index import Row, check_rows_steps, read_index, read_labels
from napari_nucleus_kd.types import Modality
from napari_nucleus_kd.types import finish as take_all

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("here/a.tif", "a.tif"),
        ("here/runs/../../there/a.tif", os.path.join("..", "there", "a.tif")),
        ("here/link/a.tif", os.path.join("..", "there", "a.tif")),
        ("there/linked.tif", os.path.join("..", "there", "linked.tif")),
    ],
)
def test_a_place_is_shown_without_detours(
    place: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("here/runs", "there"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "here/link").symlink_to(tmp_path / "there")
    (tmp_path / "there/linked.tif").symlink_to(tmp_path / "here/other.tif")
    monkeypatch.chdir(tmp_path / "here")
    assert shown(tmp_path / place) == expected


def test_a_place_far_away_is_shown_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path.joinpath(*["d"] * 60)
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    assert shown(tmp_path / "a.tif") == str(tmp_path.resolve() / "a.tif")


@pytest.mark.parametrize("rule", ["a.tif is empty", "{}/sub/a.tif is empty", "decoder is empty"])
def test_an_error_of_a_file_begins_with_its_place_once(
    rule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ReadError) as caught, named(tmp_path / "sub/a.tif"):
        raise ReadError(rule.format(tmp_path))
    place = os.path.join("sub", "a.tif")
    expected = f"{place}: decoder is empty" if rule.startswith("decoder") else f"{place} is empty"
    assert str(caught.value) == expected


@pytest.fixture
def pair(draw: Callable, tmp_path: Path) -> Row:
    """A picture and its labels of some twenty nuclei, in two folders."""
    pixels, labels = draw(128, 136)
    for folder, content in (("images", pixels), ("labels", labels.astype(np.uint16))):
        (tmp_path / folder).mkdir()
        tifffile.imwrite(tmp_path / folder / "a.tif", content)
    return Row(tmp_path / "images/a.tif", tmp_path / "labels/a.tif", Modality.FLUORESCENCE, "set")


def test_a_sound_pair_is_taken(pair: Row) -> None:
    assert take_all(check_rows_steps([pair], judged=[])) == []
    assert take_all(check_rows_steps([], judged=[pair])) == []


def test_an_unreadable_file_is_named_with_its_folder(
    pair: Row, monkeypatch: pytest.MonkeyPatch, finish: Callable
) -> None:
    folder = pair.image.parent.parent
    monkeypatch.chdir(folder)
    place = os.path.join("images", "a.tif")
    pair.image.write_bytes(b"")
    with pytest.raises(ReadError) as caught:
        take_all(check_rows_steps([pair], judged=[]))
    assert str(caught.value).startswith(f"{place} is empty")
    with pytest.raises(ReadError) as caught:
        finish(index_steps(folder, folder / "runs/index.csv"))
    assert str(caught.value).startswith(f"{place} is empty")
    assert not (folder / "runs").exists()


def test_an_index_elsewhere_names_files_without_detours(
    pair: Row, monkeypatch: pytest.MonkeyPatch, finish: Callable
) -> None:
    folder = pair.image.parent.parent
    monkeypatch.chdir(folder)
    index, _ = finish(index_steps(folder, folder / "runs/x/index.csv"))
    assert "../../labels/a.tif" in index.read_text(), "the index itself stays relative to its folder"
    (row,) = read_index(index, "train")
    assert (row.image, row.labels) == (pair.image, pair.labels)
    tifffile.imwrite(pair.labels, np.zeros((8, 8), np.uint8))
    with pytest.raises(ReadError) as caught:
        take_all(check_rows_steps([row], judged=[]))
    assert str(caught.value).startswith(f"{os.path.join('images', 'a.tif')}: is (128, 136) pixels")


def pictures() -> dict[str, Callable]:
    """Return what may lie where labels should be, made of pixels (uint8) and labels."""
    rgb = {"photometric": "rgb"}
    return {
        "8 bit": lambda pixels, _: (pixels, {}),
        "16 bit": lambda pixels, _: (pixels.astype(np.uint16) * 201, {}),
        "16 bit noise": lambda pixels, _: (noise(pixels), {}),
        "float": lambda pixels, _: (pixels / np.float32(7), {}),
        "negative": lambda pixels, _: (pixels.astype(np.int16) - 40, {}),
        "colour": lambda pixels, _: (np.stack([pixels, pixels // 2, 255 - pixels], -1), rgb),
    }


def noise(pixels: np.ndarray) -> np.ndarray:
    """Return a picture in which hardly a number stands in two places."""
    return np.random.default_rng(0).permutation(pixels.size).astype(np.uint16).reshape(pixels.shape)


@pytest.mark.parametrize("make", pictures().values(), ids=pictures())
def test_a_picture_in_place_of_labels_is_called_a_picture(make: Callable, pair: Row, draw: Callable) -> None:
    assert pair.labels is not None
    content, options = make(*draw(128, 136))
    tifffile.imwrite(pair.labels, content, **options)
    with pytest.raises(ReadError, match="looks like a picture") as caught:
        take_all(check_rows_steps([pair], judged=[]))
    assert "were the two exchanged?" in str(caught.value)


@pytest.mark.parametrize("make", pictures().values(), ids=pictures())
def test_exchanged_images_and_labels_are_told_as_such(make: Callable, pair: Row, draw: Callable) -> None:
    assert pair.labels is not None
    pixels, labels = draw(128, 136)
    tifffile.imwrite(pair.image, labels.astype(np.uint16))
    content, options = make(pixels, labels)
    tifffile.imwrite(pair.labels, content, **options)
    with pytest.raises(ReadError) as caught:
        take_all(check_rows_steps([pair], judged=[]))
    assert str(caught.value).startswith(
        f"{shown(pair.image)} holds labels and {shown(pair.labels)} does not: they look exchanged. "
    )


@pytest.mark.parametrize("scale", [1, 255])
def test_probabilities_are_called_so(scale: int, pair: Row, draw: Callable) -> None:
    assert pair.labels is not None
    soft = gaussian_filter((draw(128, 136)[1] > 0).astype(np.float32), 1.5).clip(0, 1) * scale
    tifffile.imwrite(pair.labels, soft if scale == 1 else soft.astype(np.uint8))
    with pytest.raises(
        LabelsError, match=r"a map of probabilities.*skimage\.measure\.label\(probability > 0\.5\)"
    ):
        read_labels(pair.labels)


def test_scaled_labels_are_no_probabilities(pair: Row, draw: Callable) -> None:
    assert pair.labels is not None
    many = np.kron(np.arange(64).reshape(8, 8), np.pad(np.ones((10, 10)), 3)).astype(np.float32)
    tifffile.imwrite(pair.labels, many / 255)
    with pytest.raises(LabelsError, match="Export the numbers of the nuclei as they are: not scaled"):
        read_labels(pair.labels)


def test_colours_of_labels_are_no_picture(pair: Row) -> None:
    assert pair.labels is not None
    many = np.kron(np.arange(64).reshape(8, 8), np.pad(np.ones((10, 10)), 3)).astype(np.uint8)
    tifffile.imwrite(pair.labels, np.stack([many * 3, many, many], -1), photometric="rgb")
    with pytest.raises(LabelsError, match=r"has 3 channels; .* not their colours"):
        read_labels(pair.labels)


def test_specks_beside_most_nuclei_are_no_picture(tmp_path: Path) -> None:
    """Labels drawn by hand: two specks of one pixel beside each of 64 nuclei, with its number."""
    nucleus = np.pad(np.ones((10, 10)), 3)
    nucleus[0, 0] = nucleus[-1, -1] = 1
    labels = np.kron(np.arange(64).reshape(8, 8), nucleus).astype(np.uint8)
    tifffile.imwrite(tmp_path / "l.tif", labels)
    np.testing.assert_array_equal(read_labels(tmp_path / "l.tif"), labels)


@pytest.mark.parametrize("background", [1, 65535])
def test_a_background_with_a_number_is_refused(background: int, pair: Row, draw: Callable) -> None:
    assert pair.labels is not None
    labels = draw(128, 136)[1].astype(np.uint16) + 1
    tifffile.imwrite(pair.labels, np.where(labels == 1, background, labels).astype(np.uint16))
    with pytest.raises(
        LabelsError, match=rf"l.*: no pixel is 0, and \d\d% of them .* {background}, .* Set it"
    ):
        read_labels(pair.labels)


def test_labels_that_leave_no_background_are_taken(tmp_path: Path) -> None:
    cells = np.kron(np.arange(1, 17).reshape(4, 4), np.ones((20, 20))).astype(np.uint8)
    for name, labels in (("cells", cells), ("one", np.ones((20, 20), np.uint8))):
        tifffile.imwrite(tmp_path / f"{name}.tif", labels)
        np.testing.assert_array_equal(read_labels(tmp_path / f"{name}.tif"), labels)


def test_images_without_any_nucleus_judge_nothing(pair: Row) -> None:
    assert pair.labels is not None
    tifffile.imwrite(pair.labels, np.zeros((128, 136), np.uint16))
    with pytest.raises(ReadError, match="all other labels to judge by are empty; annotate some nuclei"):
        take_all(check_rows_steps([], judged=[pair]))


def test_the_label_image_as_its_own_picture_is_refused(pair: Row, draw: Callable) -> None:
    tifffile.imwrite(pair.image, draw(128, 136)[1].astype(np.uint16))
    with pytest.raises(ReadError, match="it is the label image, not the picture"):
        take_all(check_rows_steps([pair], judged=[]))


def test_missing_labels_of_a_teacher_are_named_before_anything_is_read(
    pair: Row, tmp_path: Path, finish: Callable
) -> None:
    steps = unlabelled_steps(
        tmp_path / "no.csv", tmp_path / "images", tmp_path / "out.csv", tmp_path / "told"
    )
    with pytest.raises(ReadError, match=r"^labels:.*told: there is no such folder; give the folder"):
        finish(steps)
    (tmp_path / "told").mkdir()
    index, _ = finish(index_steps(tmp_path, tmp_path / "index.csv"))
    with pytest.raises(ReadError, match=r"there is no folder .*more; check its name"):
        finish(unlabelled_steps(index, tmp_path / "more", tmp_path / "out.csv", tmp_path / "told"))
