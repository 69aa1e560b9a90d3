"""Images with several channels: training sees of them what segmenting does."""

import csv

import numpy as np
import pytest
from skimage.io import imread

from napari_nucleus_kd.config import Recipe
from napari_nucleus_kd.errors import ReadError
from napari_nucleus_kd.evaluate import evaluate_steps
from napari_nucleus_kd.index import read_index
from napari_nucleus_kd.io import read
from napari_nucleus_kd.io.images import write_image
from napari_nucleus_kd.networks.student import StudentConfig
from napari_nucleus_kd.pipeline import segment
from napari_nucleus_kd.train.data import load_steps
from napari_nucleus_kd.train.run import run_steps
from napari_nucleus_kd.train.settings import CropSettings, TrainSettings
from napari_nucleus_kd.types import finish as take_all

TINY = TrainSettings(
    name="tiny",
    student=StudentConfig(widths=(8, 8), decoder_widths=(8,), head_width=8),
    crops=CropSettings(batch=1, crop_px=64),
    steps=1,
    check_batches=1,
    workers=0,
    precision="32-true",
    device="cpu",
)


def with_marker(index, names):
    """Put a marker that is bright between the nuclei before every grey picture; returns the index."""
    rows = list(csv.DictReader(index.read_text().splitlines()))
    for row in rows:
        if row["modality"] != "fluorescence":
            continue
        nuclei = imread(index.parent / row["image"])
        row["image"] = row["image"].replace(".png", ".ome.tif")
        marker = np.where(imread(index.parent / row["labels"]) > 0, 5, 200 + nuclei % 7).astype(np.uint8)
        pixels = np.stack([marker, nuclei])
        write_image(index.parent / row["image"], pixels, rgb=False, pixel_size_um=None, channels=names)
    with index.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return index


def test_only_the_nuclear_channel_is_learnt_from(index):
    alone = {s.name.split(".")[0]: s.pixels() for s in take_all(load_steps(index, "train"))}
    for sample in take_all(load_steps(with_marker(index, ["CD3", "DAPI"]), "train")):
        np.testing.assert_array_equal(sample.pixels(), alone[sample.name.split(".")[0]])


def test_unnamed_channels_are_asked_for_before_anything_is_written(index, tmp_path, finish):
    with_marker(index, ["a", "b"])
    with pytest.raises(ReadError, match=r"no channel is named like a nuclear stain; choose.*0: a, 1: b"):
        finish(run_steps(TINY, index, tmp_path / "run"))
    assert not (tmp_path / "run").exists()
    chosen = TINY.model_copy(update={"channels": ("b",)})  # one image is in colour: there it means nothing
    model, _ = finish(run_steps(chosen, index, tmp_path / "run"))
    assert model.spec.metrics["s0"]["images"] == [1.0]
    with pytest.raises(ReadError, match="has no channel 'CD3'"):
        finish(run_steps(TINY.model_copy(update={"channels": ("CD3",)}), index, tmp_path / "other"))


def test_evaluate_takes_the_channel_that_is_chosen(index):
    with_marker(index, ["a", "b"])
    (row,) = read_index(index, "val")
    recipe = Recipe(segmenter="classical", channels=("b",))
    (score,) = take_all(evaluate_steps(index, "val", recipe))
    assert score.values["pred_count"] == segment(read(row.image), recipe).nuclei.count
    with pytest.raises(ReadError, match="named like a nuclear stain"):
        take_all(evaluate_steps(index, "val", Recipe(segmenter="classical")))
