"""Real runs of `nucleus-kd measure`."""

import csv

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

import napari_nucleus_kd as nk
from napari_nucleus_kd.cells import measure_cells
from napari_nucleus_kd.cli import FAILED, USAGE, app


@pytest.fixture
def files(draw, tmp_path):
    """An image of two channels at 0.5 um a pixel, its labels, and both as arrays."""
    pixels, labels = draw(150, 180)
    stack = np.stack([pixels, 255 - pixels])
    size = {f"PhysicalSize{axis}": 0.5 for axis in "XY"} | {f"PhysicalSize{axis}Unit": "µm" for axis in "XY"}
    words = {"axes": "CYX", "Channel": {"Name": ["DAPI", "CD3"]}, **size}
    tifffile.imwrite(tmp_path / "a.ome.tif", stack, metadata=words)
    nk.save_labels(labels, tmp_path / "labels.tif")
    return tmp_path / "a.ome.tif", tmp_path / "labels.tif", stack, labels


def run(*arguments):
    result = CliRunner().invoke(app, ["measure", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def table(path):
    with path.open(newline="", encoding="utf-8") as file:
        head, *rows = list(csv.reader(file))
    return dict(zip(head, np.array(rows, float).T, strict=True))


def same(found, wanted):
    assert list(found) == list(wanted)
    for name, values in wanted.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-6, err_msg=name)


def test_it_writes_what_python_measures(files, tmp_path):
    image, labels, stack, array = files
    out = tmp_path / "cells.csv"
    result = run(image, "--labels", labels, "--ring", 2, "--percentile", 90, "--output", out)
    assert result.exit_code == 0, result.output
    assert f"{len(np.unique(array)) - 1} nuclei, 2 channels" in result.output
    wanted = measure_cells(
        array, stack, channel_names=["DAPI", "CD3"], pixel_size_um=0.5, ring_um=2, percentile=90
    )
    same(table(out), wanted)
    again = run(image, "--labels", labels, "-o", out)
    assert again.exit_code == FAILED and "exists already" in again.output
    assert run(image, "--labels", labels, "-o", out, "--overwrite").exit_code == 0
    assert "ring mean CD3" not in table(out)


def test_channels_and_a_region_are_chosen(files, tmp_path):
    image, _, stack, array = files
    part = array[20:120, 30:150]
    nk.save_labels(part, tmp_path / "part.ome.zarr")
    chosen = ("--channel", "cd3", "--region", 20, 30, 120, 150, "--pixel-size", 0.25)
    result = run(image, "--labels", tmp_path / "part.ome.zarr", *chosen, "-o", tmp_path / "a.csv")
    assert result.exit_code == 0, result.output
    wanted = measure_cells(part, stack[1:, 20:120, 30:150], channel_names=["CD3"], pixel_size_um=0.25)
    same(table(tmp_path / "a.csv"), wanted)


def test_without_a_pixel_size_the_ring_is_in_pixels(files, tmp_path):
    _, labels, stack, _ = files
    tifffile.imwrite(tmp_path / "plain.tif", stack[0])
    refused = run(tmp_path / "plain.tif", "--labels", labels, "--ring", 2, "-o", tmp_path / "a.csv")
    assert refused.exit_code == USAGE and "needs a pixel size" in refused.output
    assert not (tmp_path / "a.csv").exists()
    result = run(tmp_path / "plain.tif", "--labels", labels, "--ring-px", 4, "-o", tmp_path / "a.csv")
    assert result.exit_code == 0 and "lengths are in pixels" in result.output
    assert "ring_area_px2" in table(tmp_path / "a.csv")


def test_anndata_and_parquet_are_written(files, tmp_path):
    anndata = pytest.importorskip("anndata", reason="needs the extra tables")
    pytest.importorskip("pyarrow", reason="needs the extra tables")
    image, labels, *_ = files
    for ending in ("h5ad", "parquet"):
        result = run(image, "--labels", labels, "-o", tmp_path / f"a.{ending}")
        assert result.exit_code == 0, result.output
    read = anndata.read_h5ad(tmp_path / "a.h5ad")
    assert list(read.var_names) == ["DAPI", "CD3"] and set(read.obs["imageid"]) == {"a.ome.tif"}


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (("--channel", "CD8"), USAGE, "has no channel 'CD8'; choose from 0: DAPI, 1: CD3"),
        (("--region", 0, 0, 10, 10), USAGE, "pixel on pixel"),
        (("--region", 0, 0, 1000, 10), USAGE, "not inside"),
        (("--ring", 2, "--ring-px", 3), USAGE, "give one of them"),
        (("-o", "a.txt"), FAILED, "no suffix for a table"),
        (("-o", "nowhere/a.csv"), FAILED, "no folder"),
    ],
)
def test_what_does_not_fit_is_said(files, tmp_path, monkeypatch, options, status, said):
    monkeypatch.chdir(tmp_path)
    image, labels, *_ = files
    result = run(image, "--labels", labels, *(() if "-o" in options else ("-o", "a.csv")), *options)
    assert result.exit_code == status, result.output
    assert said in " ".join(result.output.split())
    assert not (tmp_path / "a.csv").exists()


def test_a_picture_is_no_label_image(files, tmp_path):
    image, *_ = files
    result = run(image, "--labels", image, "-o", tmp_path / "a.csv")
    assert result.exit_code == FAILED and "one channel of whole numbers" in result.output
