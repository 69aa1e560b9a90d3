"""Data sets as people bring them: each fault is named with file, rule and remedy, and the rest just works."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
from skimage.io import imsave
from typer.testing import CliRunner

from napari_nucleus_kd.cli import app
from napari_nucleus_kd.errors import LabelsError, ReadError
from napari_nucleus_kd.folders import index_steps
from napari_nucleus_kd.index import check_rows_steps, read_index, read_labels
from napari_nucleus_kd.train.data import Batches, load_steps
from napari_nucleus_kd.train.settings import CropSettings
from napari_nucleus_kd.types import finish as take_all

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SIZE = (96, 112)
TINY = {
    "name": "tiny",
    "student": {"widths": [8, 8, 8], "decoder_widths": [8, 8], "head_width": 8},
    "crops": {"batch": 2, "crop_px": 64},
    "steps": 2,
    "check_every": 2,
    "check_batches": 1,
    "workers": 0,
    "precision": "32-true",
    "device": "cpu",
}


def grid(first: int = 0) -> np.ndarray:
    """Return 30 square nuclei of 12 x 12 pixels, 6 pixels apart; some of them shifted."""
    labels = np.zeros(SIZE, np.uint16)
    for i in range(30):
        y, x = 4 + 18 * (i // 6) + (i + first) % 3, 4 + 18 * (i % 6) - first
        labels[y : y + 12, x : x + 12] = i + 1
    return labels


LABELS = grid(1)


def picture(labels: np.ndarray, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 30, labels.shape)
    return (20 + noise + 150 * (labels > 0)).astype(np.uint8)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Four good images; tests spoil the one called b."""
    folder = tmp_path / "data"
    folder.mkdir()
    for i, name in enumerate("abcd"):
        labels = grid(i)
        tifffile.imwrite(folder / f"{name}.tif", picture(labels, i))
        tifffile.imwrite(folder / f"{name}_labels.tif", labels)
    return folder


def train(data: Path, *more: str) -> tuple[int, str]:
    """Return exit code and output of `nucleus-kd train`; any other error than ours fails the test."""
    config = data.parent / "config.json"
    config.write_text(json.dumps(TINY))
    output = data.parent / "run"
    arguments = ["train", "--data", str(data), "--output", str(output), str(config), *more]
    done = CliRunner().invoke(app, arguments)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, " ".join(done.output.split())


def evaluate(data: Path) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["evaluate", "--data", str(data), "--segmenter", "classical"])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, " ".join(done.output.split())


def labelled(labels: np.ndarray, **options: object) -> Callable[[Path], None]:
    return lambda folder: tifffile.imwrite(folder / "b_labels.tif", labels, **options)


def shown(pixels: np.ndarray) -> Callable[[Path], None]:
    return lambda folder: tifffile.imwrite(folder / "b.tif", pixels)


def as_jpeg(folder: Path) -> None:
    (folder / "b_labels.tif").unlink()
    imsave(folder / "b_labels.jpg", LABELS.astype(np.uint8), check_contrast=False)


FAULTS = {
    "no label image": (lambda d: (d / "b_labels.tif").unlink(), "b.tif has no label image", "Add what is"),
    "no image": (lambda d: (d / "b.tif").unlink(), "b_labels.tif has no image", "Add what is missing"),
    "another size": (labelled(LABELS[::2]), "b.tif: is (96, 112) pixels, its labels are (48", "of this very"),
    "scaled": (
        labelled(LABELS / np.float32(255)),
        "b_labels.tif: labels must be whole",
        "Export the numbers",
    ),
    "NaN": (labelled(np.where(LABELS, LABELS, np.nan)), "not all of them finite", "Export the numbers"),
    "colours": (
        labelled(np.stack([LABELS] * 3, -1).astype(np.uint8), photometric="rgb"),
        "b_labels.tif: has 3 channels",
        "not their colours",
    ),
    "jpeg": (as_jpeg, "b_labels.jpg: JPEG does not keep", "as PNG or TIFF"),
    "mask": (labelled((LABELS > 0).astype(np.uint8)), "one number for 30 separate", "skimage.measure.label"),
    "classes": (
        labelled(np.where(LABELS, LABELS % 3 + 1, 0).astype(np.uint8)),
        "b_labels.tif: 3 of 3 numbers stand for several separate pieces",
        "its own number",
    ),
    "constant": (shown(np.full(SIZE, 7, np.uint8)), "b.tif: every pixel is the same", "leave it out"),
    "all NaN": (shown(np.full(SIZE, np.nan, np.float32)), "b.tif: every pixel", "export the image again"),
    "all infinite": (shown(np.full(SIZE, np.inf, np.float32)), "none is finite", "export the image again"),
}


@pytest.mark.parametrize(("spoil", "rule", "remedy"), FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("command", [train, evaluate])
def test_a_fault_is_named_with_its_remedy_and_nothing_is_begun(
    spoil: Callable, rule: str, remedy: str, command: Callable, data: Path
) -> None:
    spoil(data)
    code, said = command(data)
    assert code == 1, said
    assert rule in said and remedy in said and "Traceback" not in said
    left = {path.name for path in (data.parent / "run").glob("*")}
    assert left <= {"index.csv"}, "the index tells what was found; it is complete or not there"


def test_an_empty_folder_is_named_and_leaves_no_output(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    code, said = train(tmp_path / "data")
    assert code == 1 and "no image in it; it needs images/ and labels/" in said
    assert not (tmp_path / "run").exists()


def test_an_output_that_cannot_be_made_is_named(data: Path) -> None:
    code, said = train(data, "--output", str(data / "a.tif" / "run"))
    assert code == 1 and "a.tif/run cannot be made" in said and "choose another folder" in said


def test_labels_without_any_nucleus_teach_nothing(data: Path) -> None:
    for name in "abcd":
        tifffile.imwrite(data / f"{name}_labels.tif", np.zeros(SIZE, np.uint8))
    code, said = train(data)
    assert code == 1 and "labels to learn from are empty; annotate some nuclei" in said


ODD = {
    "no nucleus": (picture(np.zeros(SIZE)), np.zeros(SIZE, np.uint8)),
    "one even colour and no nucleus": (np.full(SIZE, 7, np.uint8), np.zeros(SIZE, np.uint8)),
    "numbers saved as float": (picture(LABELS), LABELS.astype(np.float64)),
    "NaN and infinities among the pixels": (
        np.where(np.arange(112) % 5 == 0, [[np.nan], [np.inf], [-np.inf]] * 32, picture(LABELS)),
        LABELS,
    ),
    "two pixels high": (picture(LABELS)[20:22], LABELS[20:22]),
}


@pytest.mark.parametrize(("pixels", "labels"), ODD.values(), ids=ODD)
def test_odd_images_are_learnt_from_and_judged(pixels: np.ndarray, labels: np.ndarray, data: Path) -> None:
    tifffile.imwrite(data / "b.tif", pixels)
    tifffile.imwrite(data / "b_labels.tif", labels)
    code, said = train(data)
    assert code == 0, said
    code, said = evaluate(data)
    assert code == 0, said


@pytest.mark.parametrize("modality", ["fluorescence", "H&E", "IHC"])
def test_no_image_makes_a_batch_with_nan(modality: str, data: Path) -> None:
    """Inputs and targets are finite whatever is in the file, so no loss is NaN because of an image."""
    strange = {
        "a": np.full(SIZE, np.nan),
        "b": np.full(SIZE, 7.0),
        "c": np.where(np.arange(112) % 3 == 0, np.inf, picture(LABELS)),
        "d": np.where(picture(LABELS) > 100, 3e38, -3e38),
    }
    lines = ["image,labels,modality,source,split"]
    for name, pixels in strange.items():
        tifffile.imwrite(data / f"{name}.tif", pixels.astype(np.float32))
        lines.append(f"{name}.tif,{name}_labels.tif,{modality},{name},train")
    index = data / "index.csv"
    index.write_text("\n".join(lines))
    with np.errstate(all="ignore"):
        samples = take_all(load_steps(index, "train"))
    batches = Batches(samples, CropSettings(batch=4, crop_px=64, wide_share=0.5), 0)
    for step in range(8):
        for part in batches[step]:
            assert part.isfinite().all()
        assert batches[step].x.min() >= 0 and batches[step].x.max() <= 1


def test_one_image_is_learnt_from_and_says_that_nothing_was_judged(data: Path) -> None:
    for name in "bcd":
        (data / f"{name}.tif").unlink()
        (data / f"{name}_labels.tif").unlink()
    code, said = train(data)
    assert code == 0 and "Not judged: too few images" in said


def test_the_first_faults_are_told_together_and_once(data: Path) -> None:
    """With two images each is in two splits; its fault is told once."""
    for name in "cd":
        (data / f"{name}.tif").unlink()
        (data / f"{name}_labels.tif").unlink()
    for name in "ab":
        tifffile.imwrite(data / f"{name}_labels.tif", LABELS[:50])
    code, said = train(data)
    assert code == 1 and [said.count(f"{name}.tif: is (96, 112)") for name in "ab"] == [1, 1]


def shared(count: int) -> np.ndarray:
    """Return 30 nuclei of which so many have the number of another one."""
    labels = LABELS.copy()
    for i in range(count):
        labels[labels == 30 - i] = 1 + i
    return labels


@pytest.mark.parametrize(("count", "refused"), [(1, False), (2, False), (3, True), (15, True)])
def test_a_tenth_of_the_numbers_may_be_used_twice(count: int, refused: bool, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "l.tif", shared(count))
    if not refused:
        np.testing.assert_array_equal(read_labels(tmp_path / "l.tif"), shared(count))
        return
    with pytest.raises(
        LabelsError, match=f"{count} of {30 - count} numbers stand for several separate pieces"
    ):
        read_labels(tmp_path / "l.tif")


def test_numbers_used_twice_are_told_and_stand_in_the_card(
    data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tifffile.imwrite(data / "b_labels.tif", shared(2))
    with caplog.at_level(logging.WARNING, "napari_nucleus_kd"):
        code, said = train(data)
    assert code == 0, said
    note = "2 separate pieces with the number of another one, in 1 of 4 images (b.tif): training takes each"
    assert note in caplog.text
    assert note in (data.parent / "run/tiny/card.md").read_text()


def test_crumbs_beside_nuclei_are_no_fault_and_are_told(data: Path, finish: Callable) -> None:
    """One nucleus with crumbs of two pixels in many places is usual in labels drawn by hand."""
    labels = LABELS.copy()
    for number in range(1, 31):
        y, x = np.argwhere(LABELS == number)[-1]
        labels[y + 3, x - 1 : x + 1] = number
    tifffile.imwrite(data / "b_labels.tif", labels)
    index, _ = finish(index_steps(data, data / "index.csv"))
    rows = [row for split in ("train", "tune", "val") for row in read_index(index, split)]
    assert take_all(check_rows_steps(rows, judged=[]))[0].startswith("30 separate pieces")


def test_one_nucleus_in_two_pieces_is_no_mask(tmp_path: Path) -> None:
    labels = np.where(LABELS <= 2, LABELS > 0, 0).astype(np.uint8)
    tifffile.imwrite(tmp_path / "l.tif", labels)
    assert read_labels(tmp_path / "l.tif").max() == 1


def test_pieces_that_meet_at_a_corner_are_one(tmp_path: Path) -> None:
    labels = np.kron(np.eye(8), np.full((5, 5), 3)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "l.tif", labels)
    assert read_labels(tmp_path / "l.tif").max() == 3


@pytest.mark.parametrize("as_copy", [False, True])
def test_what_is_learnt_from_does_not_judge(as_copy: bool, data: Path) -> None:
    name = "a"
    if as_copy:
        name = "e"
        for ending in (".tif", "_labels.tif"):
            (data / f"e{ending}").write_bytes((data / f"a{ending}").read_bytes())
    splits = [("a", "train"), ("b", "train"), ("c", "tune"), (name, "val")]
    rows = [f"{image}.tif,{image}_labels.tif,fluorescence,s,{split}" for image, split in splits]
    (data / "index.csv").write_text("\n".join(["image,labels,modality,source,split", *rows]))
    code, said = train(data / "index.csv")
    assert code == 1 and "they are one picture; give it one split" in said
    assert f"data/{name}.tif judges" in said and not (data / "run").exists()


def test_what_is_wrong_with_an_image_of_a_csv_index_is_told_too(data: Path) -> None:
    index = data / "index.csv"
    rows = [f"{name}.tif,{name}_labels.tif,fluorescence,s,train" for name in "abcd"]
    index.write_text("\n".join(["image,labels,modality,source,split", *rows]))
    shown(np.full(SIZE, 7, np.uint8))(data)
    with pytest.raises(ReadError, match=r"b\.tif: every pixel is the same"):
        take_all(check_rows_steps(read_index(index, "train"), judged=[]))
