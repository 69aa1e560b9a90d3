"""Images find their label images by name, or what is missing is said; nothing is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_nucleus_kd.errors import ReadError
from napari_nucleus_kd.pairs import find_pairs


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("images/{}.png", "labels/{}.tif"),
        ("images/{}.png", "masks/{}.png"),
        ("img/{}.tif", "labels/{}_mask.png"),
        ("{}.png", "{}_labels.tif"),
        ("{}.tif", "{}_masks.png"),
        ("{}.tif", "{}_cp_masks.png"),
        ("images/{}.tif", "masks/{}_cp_masks.tif"),
    ],
)
def test_pairs_are_found_by_their_names(images: str, labels: str, tmp_path: Path) -> None:
    expected = []
    for name in ("a", "b.c", "d_1"):
        pair = tmp_path / images.format(name), tmp_path / labels.format(name)
        for path in pair:
            touch(path)
        expected.append(pair)
    (tmp_path / "notes.txt").write_text("no image")
    assert find_pairs(tmp_path) == expected


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["images/a.png", "images/b.png", "labels/a.png"], "b.png has no label image"),
        (["images/a.png", "labels/a.png", "labels/z.png"], "z.png has no image"),
        (["a.png", "a_labels.png", "b.png"], "b.png has no label image"),
        (["images/a.png", "images/a.tif", "labels/a.png"], "have one name"),
        (["notes.txt"], "no image in it"),
        (["images/a.png", "truth/a.png"], "no labels/"),
    ],
)
def test_what_is_alone_or_missing_is_named(files: list[str], said: str, tmp_path: Path) -> None:
    for name in files:
        touch(tmp_path / name)
    with pytest.raises(ReadError, match=said):
        find_pairs(tmp_path)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="nowhere"):
        find_pairs(tmp_path / "nowhere")


def test_two_label_images_of_one_image_are_refused(tmp_path: Path) -> None:
    for name in ("a.png", "a_mask.png", "a_labels.tif"):
        touch(tmp_path / name)
    with pytest.raises(ReadError, match="labels of one image"):
        find_pairs(tmp_path)


def said_of(folder: Path) -> str:
    with pytest.raises(ReadError) as caught:
        find_pairs(folder)
    return str(caught.value)


@pytest.mark.parametrize(("half", "other"), [("images", "labels"), ("masks", "img"), ("Images", "Masks")])
def test_one_half_of_a_pair_asks_for_the_folder_of_both(
    half: str, other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (half, other):
        touch(tmp_path / "set" / name / "a.png")
    assert said_of(tmp_path / "set" / half).endswith(
        f"{half} is one half of a pair, {other}/ lies beside it; did you mean set?"
    )
    (tmp_path / "set" / other).rename(tmp_path / "elsewhere")
    assert "a.png has no label image" in said_of(tmp_path / "set" / half)


def test_one_half_of_a_pair_is_known_from_inside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("images", "labels"):
        touch(tmp_path / name / "a.png")
    monkeypatch.chdir(tmp_path / "images")
    assert said_of(Path()) == ". is one half of a pair, labels/ lies beside it; did you mean ..?"


def test_a_folder_named_images_with_pairs_in_it_is_taken(tmp_path: Path) -> None:
    for name in ("images/a.png", "images/a_mask.png", "labels/z.png"):
        touch(tmp_path / name)
    assert len(find_pairs(tmp_path / "images")) == 1


@pytest.mark.parametrize(
    ("image", "file"),
    [
        ("a.tif", "a_seg.npy"),
        ("images/a.tif", "labels/a_seg.npy"),
        ("images/a.tif", "images/a_seg.npy"),
    ],
)
def test_cellposes_own_files_are_named_with_the_remedy(image: str, file: str, tmp_path: Path) -> None:
    for name in (image, file):
        touch(tmp_path / name)
    said = said_of(tmp_path)
    assert file in said and "'Save masks as PNG/tif'" in said and "a_cp_masks" in said
    assert "no label" not in said


def test_cellposes_own_file_beside_a_label_image_is_left_alone(tmp_path: Path) -> None:
    for name in ("a.tif", "a_cp_masks.png", "a_seg.npy"):
        touch(tmp_path / name)
    assert find_pairs(tmp_path) == [(tmp_path / "a.tif", tmp_path / "a_cp_masks.png")]
