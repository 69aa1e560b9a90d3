"""Tables come back as they were written; nothing is half-written."""

import csv
import os

import numpy as np
import pytest

from napari_nucleus_kd.cells import measure_cells
from napari_nucleus_kd.errors import WriteError
from napari_nucleus_kd.io import tables
from napari_nucleus_kd.io.tables import save_table, to_anndata


@pytest.fixture
def columns(draw):
    """What is measured of some nuclei in two channels, with rings, at 0.5 um a pixel."""
    pixels, labels = draw(120, 140)
    labels[labels == 3] = 0
    stack = np.stack([pixels, 255 - pixels])
    return measure_cells(labels, stack, channel_names=["DAPI", "CD3 / T cell"], pixel_size_um=0.5, ring_um=2)


def test_csv_comes_back(columns, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "_CELLS", 100)  # written in many parts
    path = save_table(columns, tmp_path / "a.csv")
    with path.open(newline="", encoding="utf-8") as file:
        head, *rows = list(csv.reader(file))
    assert head == list(columns)
    read = np.array(rows, float)
    np.testing.assert_allclose(read, np.stack(list(columns.values()), 1), rtol=1e-6)


def test_parquet_comes_back(columns, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra tables")
    path = save_table(columns, tmp_path / "a.parquet", pixel_size_um=0.5, image_name="tonsil.ome.tif")
    read = parquet.read_table(path)
    assert read.column_names == list(columns)
    for name, values in columns.items():
        np.testing.assert_array_equal(read[name].to_numpy(), values)
    assert read.schema.metadata[b"pixel_size_um"] == b"0.5"
    assert read.schema.metadata[b"image"] == b"tonsil.ome.tif"


@pytest.mark.parametrize(("size_um", "unit"), [(0.5, "um"), (None, "px")])
def test_anndata_comes_back(columns, tmp_path, size_um, unit):
    anndata = pytest.importorskip("anndata", reason="needs the extra tables")
    path = save_table(columns, tmp_path / "a.h5ad", pixel_size_um=size_um, image_name="tonsil.ome.tif")
    read = anndata.read_h5ad(path)
    assert list(read.var_names) == ["DAPI", "CD3 / T cell"]
    assert list(read.obs_names) == [str(label) for label in columns["label"]]
    assert read.X.dtype == np.float32
    np.testing.assert_allclose(read.X[:, 1], columns["mean CD3 / T cell"], rtol=1e-6)
    np.testing.assert_array_equal(read.raw.X, read.X)
    np.testing.assert_allclose(
        read[:, "DAPI"].layers["ring_p95"].ravel(), columns["ring p95 DAPI"], rtol=1e-6
    )
    assert set(read.layers) == {
        *("median", "p95", "integrated"),
        *(f"{part}_{name}" for part in ("ring", "cell") for name in ("mean", "median", "p95", "integrated")),
    }
    np.testing.assert_array_equal(read.obs["label"], columns["label"])
    np.testing.assert_allclose(read.obs["area_um2"], columns["area_um2"])
    places = np.stack([columns["centroid_x"], columns["centroid_y"]], 1) * (size_um or 1)
    np.testing.assert_allclose(read.obsm["spatial"], places)
    np.testing.assert_allclose(read.obs[[f"centroid_x_{unit}", f"centroid_y_{unit}"]], places)
    np.testing.assert_allclose(read.obs[["X_centroid", "Y_centroid"]], places)
    assert not {"centroid_x", "centroid_y"} & set(read.obs)
    assert read.uns["napari-nucleus-kd"] == {"unit": unit, "pixel_size": size_um or 1.0}
    assert set(read.obs["imageid"]) == {"tonsil.ome.tif"}


def test_of_no_nuclei_an_empty_anndata_is_written(tmp_path):
    anndata = pytest.importorskip("anndata", reason="needs the extra tables")
    columns = measure_cells(np.zeros((9, 9), int), np.zeros((2, 9, 9)))
    assert anndata.read_h5ad(save_table(columns, tmp_path / "a.h5ad")).shape == (0, 2)


def test_what_a_person_noted_goes_along(columns, tmp_path):
    pytest.importorskip("anndata", reason="needs the extra tables")
    noted = columns | {"cell_type": np.array(["T"] * len(columns["label"]))}
    assert set(to_anndata(noted).obs["cell_type"]) == {"T"}
    assert "T" in save_table(noted, tmp_path / "a.csv").read_text()


@pytest.mark.parametrize("ending", ["csv", "parquet", "h5ad"])
def test_what_is_there_stays_unless_one_says_so(columns, tmp_path, ending):
    if tables.TABLE_SUFFIXES[f".{ending}"]:
        pytest.importorskip(tables.TABLE_SUFFIXES[f".{ending}"], reason="needs the extra tables")
    path = tmp_path / f"a.{ending}"
    path.write_text("mine")
    with pytest.raises(WriteError, match="exists"):
        save_table(columns, path)
    assert path.read_text() == "mine"
    save_table(columns, path, overwrite=True)
    assert path.read_bytes() != b"mine"
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("ending", ["csv", "parquet", "h5ad"])
def test_a_full_disk_leaves_what_was_there(columns, tmp_path, ending, monkeypatch):
    if tables.TABLE_SUFFIXES[f".{ending}"]:
        pytest.importorskip(tables.TABLE_SUFFIXES[f".{ending}"], reason="needs the extra tables")
    path = tmp_path / f"a.{ending}"
    path.write_text("mine")

    def full(partial, *_, **__):
        partial.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tables, "write_columns", full)
    monkeypatch.setattr(tables, "_write_parquet", full)
    if ending == "h5ad":
        monkeypatch.setattr("anndata.AnnData.write_h5ad", lambda self, partial, **_: full(partial))
    with pytest.raises(WriteError, match="No space left"):
        save_table(columns, path, overwrite=True)
    assert path.read_text() == "mine" and os.listdir(tmp_path) == [path.name]


def test_a_missing_library_is_named_with_the_remedy(columns, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "find_spec", lambda name: None)
    with pytest.raises(WriteError, match=r"anndata, .*pip install 'napari-nucleus-kd\[tables\]'"):
        save_table(columns, tmp_path / "a.h5ad")
    save_table(columns, tmp_path / "a.csv")


@pytest.mark.parametrize(("name", "said"), [("a.xlsx", "no suffix for a table"), ("no/a.csv", "no folder")])
def test_a_place_that_cannot_be_written_is_refused(columns, tmp_path, name, said):
    with pytest.raises(WriteError, match=said):
        save_table(columns, tmp_path / name)
