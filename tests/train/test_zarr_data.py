"""OME-Zarr images and labels are learnt from, wherever the labels lie."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
import zarr
from typer.testing import CliRunner

from napari_nucleus_kd.cli import app
from napari_nucleus_kd.errors import ReadError
from napari_nucleus_kd.folders import find_pairs, index_steps
from napari_nucleus_kd.index import check_rows_steps, read_index, read_labels
from napari_nucleus_kd.io import label_groups, read, save_labels
from napari_nucleus_kd.networks.student import StudentConfig
from napari_nucleus_kd.train.data import load_steps
from napari_nucleus_kd.train.run import run_steps
from napari_nucleus_kd.train.settings import CropSettings, TrainSettings
from napari_nucleus_kd.types import finish as take_all

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TINY = TrainSettings(
    name="tiny",
    student=StudentConfig(widths=(8, 8, 8), decoder_widths=(8, 8), head_width=8),
    crops=CropSettings(batch=2, crop_px=64),
    steps=2,
    check_every=2,
    check_batches=1,
    workers=0,
    precision="32-true",
    device="cpu",
)


def write_image(path: Path, plane: np.ndarray, version: str, words: dict | None = None) -> None:
    """Write one plane as an OME-Zarr of five axes (0.4) or two (0.5)."""
    group = zarr.open_group(str(path), mode="w", zarr_format=2 if version == "0.4" else 3)
    axes = "tczyx" if version == "0.4" else "yx"
    group.create_array("0", data=plane.reshape((1,) * (len(axes) - 2) + plane.shape))
    kinds = {"t": "time", "c": "channel"}
    scale = {"type": "scale", "scale": [1] * len(axes)}
    multiscale = {
        "version": version,
        "axes": [{"name": axis, "type": kinds.get(axis, "space")} for axis in axes],
        "datasets": [{"path": "0", "coordinateTransformations": [scale]}],
    }
    found = {"multiscales": [multiscale], **(words or {})}
    group.attrs.update(found if version == "0.4" else {"ome": {"version": version, **found}})


def write_inside(path: Path, labels: dict[str, np.ndarray], version: str) -> None:
    """Write labels into an OME-Zarr image, as its specification says."""
    group = zarr.open_group(str(path / "labels"), mode="w", zarr_format=2 if version == "0.4" else 3)
    listed = {"labels": list(labels)}
    group.attrs.update(listed if version == "0.4" else {"ome": {"version": version, **listed}})
    for name, plane in labels.items():
        write_image(path / "labels" / name, plane, version, {"image-label": {"version": version}})


@pytest.fixture
def pictures(draw: Callable) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return {name: draw(90, 100, seed) for seed, name in enumerate("abcd")}


def write_set(folder: Path, pictures: dict, version: str = "0.5") -> Path:
    """Write a folder of images that hold their labels."""
    folder.mkdir()
    for name, (pixels, labels) in pictures.items():
        write_image(folder / f"{name}.ome.zarr", pixels, version)
        write_inside(folder / f"{name}.ome.zarr", {"nuclei": labels}, version)
    return folder


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_labels_inside_the_images_are_found(version: str, pictures: dict, tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", pictures, version)
    pairs = find_pairs(folder)
    assert pairs == [
        (folder / f"{n}.ome.zarr", folder / f"{n}.ome.zarr" / "labels" / "nuclei") for n in "abcd"
    ]
    for (image, labels), (pixels, truth) in zip(pairs, pictures.values(), strict=True):
        np.testing.assert_array_equal(np.asarray(read(image).pixels)[0], pixels)
        np.testing.assert_array_equal(read_labels(labels), truth)


def test_labels_inside_images_in_a_folder_of_their_own_are_found(pictures: dict, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    folder = write_set(tmp_path / "set/images", pictures)
    assert find_pairs(tmp_path / "set") == find_pairs(folder)


def test_an_image_with_its_labels_is_a_data_set(pictures: dict, tmp_path: Path, finish: Callable) -> None:
    image = write_set(tmp_path / "set", pictures) / "a.ome.zarr"
    assert find_pairs(image) == [(image, image / "labels/nuclei")]
    model, _ = finish(run_steps(TINY, image, tmp_path / "run"))
    assert "Not judged" in model.card


@pytest.mark.parametrize("layout", ["{}_labels.ome.zarr", "{}_masks.zarr"])
def test_labels_beside_the_images_are_found(layout: str, pictures: dict, tmp_path: Path) -> None:
    for name, (pixels, labels) in pictures.items():
        write_image(tmp_path / f"{name}.ome.zarr", pixels, "0.5")
        save_labels(labels, tmp_path / layout.format(name))
    assert find_pairs(tmp_path) == [
        (tmp_path / f"{n}.ome.zarr", tmp_path / layout.format(n)) for n in pictures
    ]


def test_a_run_on_zarr_is_that_on_the_arrays(pictures: dict, tmp_path: Path, finish: Callable) -> None:
    folder = write_set(tmp_path / "set", pictures)
    model, _ = finish(run_steps(TINY, folder, tmp_path / "run"))
    assert model.spec.metrics["set"]["images"] == [1.0]
    index = tmp_path / "run/index.csv"
    assert "../set/a.ome.zarr,../set/a.ome.zarr/labels/nuclei,fluorescence,set," in index.read_text()
    for split in ("train", "tune", "val"):
        for sample in take_all(load_steps(index, split)):
            np.testing.assert_array_equal(sample.labels, pictures[sample.name[0]][1])


def test_what_segment_writes_is_learnt_from(pictures: dict, tmp_path: Path, finish: Callable) -> None:
    """Images are segmented to OME-Zarr beside themselves; corrected or not, they are a data set."""
    folder = write_set(tmp_path / "set", pictures)
    for name in pictures:
        shutil.rmtree(folder / f"{name}.ome.zarr" / "labels")
    arguments = [
        "segment",
        str(folder),
        "-o",
        str(folder),
        "--format",
        "ome-zarr",
        "--segmenter",
        "classical",
    ]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    pairs = find_pairs(folder)
    assert [labels.name for _, labels in pairs] == [f"{name}_labels.ome.zarr" for name in pictures]
    index, _ = finish(index_steps(folder, tmp_path / "index.csv"))
    assert all((sample.labels > 0).any() for sample in take_all(load_steps(index, "train")))


def test_of_several_label_images_one_must_be_named(pictures: dict, tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", pictures)
    write_inside(folder / "b.ome.zarr", {"cells": pictures["b"][1] * 0, "nuclei": pictures["b"][1]}, "0.5")
    assert label_groups(folder / "b.ome.zarr") == ("cells", "nuclei")
    with pytest.raises(ReadError, match=r"b\.ome\.zarr: has several labels, cells, nuclei; .*CSV index"):
        find_pairs(folder)
    rows = [f"{n}.ome.zarr,{n}.ome.zarr/labels/nuclei,fluorescence,set,train" for n in pictures]
    index = folder / "index.csv"
    index.write_text("\n".join(["image,labels,modality,source,split", *rows]))
    assert take_all(check_rows_steps(read_index(index, "train"), judged=[])) == []
    np.testing.assert_array_equal(take_all(load_steps(index, "train"))[1].labels, pictures["b"][1])


def test_labels_inside_and_beside_are_too_many(pictures: dict, tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", pictures)
    save_labels(pictures["a"][1], folder / "a_labels.ome.zarr")
    with pytest.raises(ReadError, match=r"a\.ome\.zarr: has several labels, nuclei, a_labels\.ome\.zarr"):
        find_pairs(folder)


def test_an_image_without_labels_is_named(pictures: dict, tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", pictures)
    shutil.rmtree(folder / "c.ome.zarr" / "labels")
    assert label_groups(folder / "c.ome.zarr") == ()
    with pytest.raises(ReadError, match=r"c\.ome\.zarr has no label image"):
        find_pairs(folder)


def test_labels_that_are_listed_and_not_there_are_named(pictures: dict, tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", pictures)
    shutil.rmtree(folder / "c.ome.zarr/labels/nuclei")
    rows = [f"{n}.ome.zarr,{n}.ome.zarr/labels/nuclei,fluorescence,set,train" for n in pictures]
    (folder / "index.csv").write_text("\n".join(["image,labels,modality,source,split", *rows]))
    with pytest.raises(ReadError, match=r"c\.ome\.zarr/labels/nuclei is not there"):
        take_all(check_rows_steps(read_index(folder / "index.csv", "train"), judged=[]))


def test_changed_zarr_data_are_other_data(pictures: dict, tmp_path: Path, finish: Callable) -> None:
    folder = write_set(tmp_path / "set", pictures)
    index, _ = finish(index_steps(folder, tmp_path / "index.csv"))

    def data() -> str:
        return TINY.learned_from(index)["data"]

    before = data()
    write_inside(folder / "a.ome.zarr", {"nuclei": pictures["a"][1]}, "0.5")
    assert data() == before, "the same labels, written again"
    prediction = folder / "a.ome.zarr/labels/prediction"
    write_image(prediction, pictures["b"][1], "0.5")
    assert data() == before, "labels that nobody learns from"
    labels = zarr.open_array(str(folder / "a.ome.zarr/labels/nuclei/0"), mode="r+")
    labels[3, 3] = 77
    changed = data()
    assert changed != before, "one pixel of the labels"
    write_image(folder / "extra.zarr", pictures["c"][0], "0.5")
    shutil.rmtree(folder / "b.ome.zarr/0")
    shutil.move(folder / "extra.zarr/0", folder / "b.ome.zarr/0")
    assert data() != changed, "another image"
