"""The Measure widget: its table, the nuclei it leads to, their colours, what it saves."""

import time

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication

from napari_nucleus_kd.cells import measure_cells
from napari_nucleus_kd.types import Progress
from napari_nucleus_kd.widgets import measure as measure_module
from napari_nucleus_kd.widgets._layers import VERIFIED_KEY, camera_of
from napari_nucleus_kd.widgets._table import ColumnsModel, NucleusTable
from napari_nucleus_kd.widgets.measure import MeasureWidget


@pytest.fixture
def labels(draw):
    """(Y, X) int32 nuclei of the picture `nuclei`, with a gap in their numbers."""
    labels = draw(182, 208)[1]
    labels[labels == 4] = 0
    return labels


@pytest.fixture
def widget(viewer, session, qtbot, settle, nuclei_file, labels):
    """The widget over two channels at 0.5 um a pixel, and their nuclei."""
    session.open(nuclei_file)
    settle(session)
    viewer.add_labels(labels, name="cells", scale=(0.5, 0.5), units=("um", "um"))
    widget = MeasureWidget(viewer)
    qtbot.addWidget(widget)
    widget.show()
    return widget


@pytest.fixture
def measured(widget, settle):
    widget.ring.setValue(1.5)
    widget.task.button.click()
    settle(widget.session)
    assert widget.workspace.problem is None
    return widget


def column(widget, name):
    model = widget.table.columns
    at = model.names.index(name)
    return [model.data(model.index(line, at)) for line in range(model.rowCount())]


def test_it_measures_what_python_does(measured, viewer, nuclei, labels):
    layer = viewer.layers["cells"]
    stack = np.stack([nuclei, np.zeros_like(nuclei)])
    wanted = measure_cells(labels, stack, channel_names=["DAPI", "CD3"], pixel_size_um=0.5, ring_um=1.5)
    features = layer.features
    np.testing.assert_array_equal(features["index"], wanted.pop("label"))
    for name, values in wanted.items():
        np.testing.assert_array_equal(features[name], values)
    assert measured.table.columns.rowCount() == len(features)
    assert column(measured, "label") == [str(label) for label in features["index"]]
    assert "nuclei of “cells” measured" in measured.said.text()
    assert "2 channels, 0.5 µm/px" in measured.plan.text()


def test_only_ticked_channels_are_measured(widget, viewer, settle):
    widget.channels.item(0).setCheckState(Qt.CheckState.Unchecked)
    widget.percentile.setValue(80)
    widget.start()
    settle(widget.session)
    names = list(viewer.layers["cells"].features)
    assert "p80 CD3" in names and not [name for name in names if "DAPI" in name or "ring" in name]


def test_a_line_leads_to_its_nucleus_and_a_nucleus_to_its_line(measured, viewer, labels):
    layer, table = viewer.layers["cells"], measured.table
    table.sortByColumn(table.columns.names.index("area_um2"), Qt.SortOrder.DescendingOrder)
    table.selectRow(0)
    largest = np.bincount(labels[labels > 0]).argmax()
    assert layer.selected_label == largest
    centre = layer.data_to_world(np.argwhere(labels == largest).mean(0))
    np.testing.assert_allclose(camera_of(viewer).center[-2:], centre)
    before = camera_of(viewer).center
    layer.selected_label = 7  # as picking in the canvas does
    assert table.columns.row(table.currentIndex().row())["label"] == 7
    assert camera_of(viewer).center == before, "the view stays where the person clicked"
    layer.selected_label = 999
    assert not table.selectionModel().hasSelection()


def test_the_nuclei_get_colours_and_their_own_back(measured, viewer):
    layer, colour = viewer.layers["cells"], measured.colour
    own = layer.colormap
    features = layer.features
    dark, bright = (int(features["index"][getattr(features["mean DAPI"], f)()]) for f in ("idxmin", "idxmax"))
    colour.setCurrentIndex(colour.findData("mean DAPI"))
    colour.activated.emit(colour.currentIndex())
    low, high = layer.get_color(dark)[:3], layer.get_color(bright)[:3]
    assert low[2] > low[0] and high[0] > 0.8 > high[2], "dark blue and yellow"
    assert "Dark:" in measured.legend.text()
    assert layer.colormap.map(0)[3] == 0
    colour.setCurrentIndex(0)
    colour.activated.emit(0)
    assert layer.colormap is own and measured.legend.text() == ""


@pytest.mark.parametrize("ending", ["csv", "parquet", "h5ad"])
def test_the_table_is_saved(measured, settle, tmp_path, ending):
    if ending != "csv":
        pytest.importorskip(
            {"parquet": "pyarrow", "h5ad": "anndata"}[ending], reason="needs the extra tables"
        )
    path = tmp_path / f"a.{ending}"
    measured.save(path)
    settle(measured.session)
    assert measured.workspace.problem is None
    assert path.is_file() and str(path) in measured.said.text()
    if ending == "h5ad":
        import anndata

        read = anndata.read_h5ad(path)
        centroid = measured.in_hand.layer.features["centroid_x"] / 2
        np.testing.assert_allclose(read.obs["centroid_x_um"], centroid)
        assert set(read.obs["imageid"]) == {"two channels.ome.tif"}


def test_a_place_that_cannot_be_written_is_said_in_the_widget(measured, settle, tmp_path):
    measured.save(tmp_path / "nowhere" / "a.csv")
    settle(measured.session)
    assert "no folder" in measured.problem.text.text() and measured.problem.isVisible()


def test_the_dialog_adds_the_ending(measured, settle, tmp_path, monkeypatch):
    asked = str(tmp_path / "a"), "CSV (*.csv)"
    monkeypatch.setattr(measure_module.QFileDialog, "getSaveFileName", lambda *_: asked)
    measured.export.click()
    settle(measured.session)
    assert (tmp_path / "a.csv").is_file()


def test_cancel_leaves_the_table_as_it_was(widget, viewer, qtbot, settle, monkeypatch):
    def endless(*_, **__):
        while True:
            time.sleep(0.01)
            yield Progress(1, 3, "measuring")

    monkeypatch.setattr(measure_module, "table_steps", endless)
    widget.start()
    qtbot.waitUntil(lambda: widget.task.cancel.isVisible())
    widget.task.cancel.click()
    settle(widget.session)
    assert viewer.layers["cells"].features.empty and widget.results.isHidden()


def test_the_selected_layer_is_in_hand(widget, viewer, labels):
    assert widget.in_hand.layer is viewer.layers["cells"]
    other = viewer.add_labels(labels // 2, name="other", features={"index": [1, 2], "cell_type": ["T", "B"]})
    assert widget.in_hand.layer is other and column(widget, "cell_type") == ["T", "B"]
    viewer.layers.selection.active = viewer.layers[0]
    assert widget.in_hand.layer is other, "an image has no nuclei"
    viewer.add_labels(labels, metadata={VERIFIED_KEY: True})
    assert widget.in_hand.layer is other
    viewer.layers.remove(other)
    assert widget.in_hand.layer is viewer.layers["cells"]
    viewer.layers.remove("cells")
    assert widget.in_hand.layer is None and not widget.task.button.isEnabled()


def test_labels_without_an_image_get_areas_and_shapes(viewer, session, qtbot, settle, labels):
    viewer.add_labels(labels, scale=(0.5, 0.5), units=("um", "um"))
    widget = MeasureWidget(viewer)
    qtbot.addWidget(widget)
    assert "areas and shapes only: there is no image" in widget.plan.text()
    widget.ring.setValue(1)
    widget.start()
    settle(session)
    features = viewer.layers[0].features
    assert features["area_um2"].sum() == (labels > 0).sum() / 4
    assert not [name for name in features if "mean" in name]


def test_a_plane_of_a_stack_and_a_pyramid_are_measured(viewer, session, qtbot, settle, nuclei, labels):
    dask = pytest.importorskip("dask.array")
    viewer.add_image(np.stack([nuclei, 255 - nuclei]), name="stack")
    settle(session)
    lazy = dask.from_array(np.stack([0 * labels, labels]), chunks=(1, 64, 64))
    layer = viewer.add_labels([lazy, lazy[:, ::2, ::2]], multiscale=True, name="cells")
    widget = MeasureWidget(viewer)
    qtbot.addWidget(widget)
    viewer.dims.current_step = (1, 0, 0)
    widget.start()
    settle(session)
    assert session.workspace.problem is None
    (name,) = (name for name in layer.features if name.startswith("mean "))
    wanted = measure_cells(labels, 255 - nuclei[None])["mean channel 1"]
    np.testing.assert_array_equal(layer.features[name], wanted)


def test_what_was_known_before_stays_and_stale_numbers_go(measured, viewer, settle):
    layer = viewer.layers["cells"]
    layer.features = layer.features.assign(cell_type="T")
    layer.data_setitem(tuple(np.argwhere(layer.data == 7)[:5].T), 0)
    measured.ring.setValue(0)
    measured.start()
    settle(measured.session)
    table = layer.features.set_index("index")
    assert (table["cell_type"] == "T").all()
    assert np.isnan(table["ring mean DAPI"][7]) and np.isfinite(table["ring mean DAPI"][8])


def test_columns_are_sorted_with_what_is_missing_last(qtbot):
    table = NucleusTable()
    qtbot.addWidget(table)
    table.show_columns({"label": np.array([5, 6, 7]), "mean": np.array([2.0, np.nan, 3.0])})
    model = table.columns
    for order, wanted in (
        (Qt.SortOrder.AscendingOrder, [5, 7, 6]),
        (Qt.SortOrder.DescendingOrder, [7, 5, 6]),
    ):
        table.sortByColumn(1, order)
        assert [model.row(line)["label"] for line in range(3)] == wanted
    assert [model.data(model.index(line, 1)) for line in range(3)] == ["3", "2", ""]
    assert model.headerData(1, Qt.Orientation.Horizontal) == "mean"


def test_a_hundred_thousand_rows_stay_quick(qtbot):
    table = NucleusTable()
    qtbot.addWidget(table)
    rng = np.random.default_rng(0)
    columns = {"label": np.arange(1, 100_001)} | {f"mean {i}": rng.random(100_000) for i in range(120)}
    table.show()
    began = time.process_time()
    table.show_columns(columns)
    table.sortByColumn(3, Qt.SortOrder.DescendingOrder)
    table.choose(70_000)
    QApplication.processEvents()
    assert time.process_time() - began < 1
    assert isinstance(table.columns, ColumnsModel)
    assert table.columns.row(table.currentIndex().row())["label"] == 70_000


def test_a_hundred_thousand_nuclei_are_coloured_quickly(viewer):
    from napari_nucleus_kd.widgets import _colouring

    labels = np.kron(np.arange(1, 100_001).reshape(250, 400), np.ones((3, 3), np.int32)).astype(np.int32)
    layer = viewer.add_labels(labels)
    values = np.random.default_rng(0).random(100_000)
    began = time.process_time()
    _colouring.colour(layer, np.arange(1, 100_001), values, _colouring.scale_of(values))
    assert time.process_time() - began < 3
    assert not np.allclose(layer.get_color(1 + values.argmax()), layer.get_color(1 + values.argmin()))
