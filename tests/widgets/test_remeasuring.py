"""Measuring corrected nuclei anew."""

import numpy as np
import pytest

from napari_nucleus_kd.pipeline import segment
from napari_nucleus_kd.widgets._layers import FROM_KEY, RECIPE_KEY, source_key
from napari_nucleus_kd.widgets._tools import TOOLS
from napari_nucleus_kd.widgets.correct import CorrectWidget

TOOL = {tool.word: tool for tool in TOOLS}


@pytest.fixture
def widget(viewer, session, settle, qtbot):
    settle(session)
    widget = CorrectWidget(viewer)
    qtbot.addWidget(widget)
    widget.show()
    return widget


@pytest.fixture
def measured(widget, settle):
    """Return a function that presses the button, waits, and returns the table of the layer in hand."""

    def measure():
        widget.measure.click()
        settle(widget.session)
        assert widget.session.workspace.problem is None
        return widget.corrections.layer.features.set_index("index")

    return measure


def test_corrected_nuclei_are_measured_and_the_scores_of_the_others_stay(
    widget, viewer, session, settle, draw, measured
):
    pixels, _ = draw(120, 140)
    image = viewer.add_image(pixels, name="cells", scale=(0.5, 0.5), units=("um", "um"))
    settle(session)
    session.workspace.set_recipe(segmenter="classical")
    result = segment(pixels, session.workspace.recipe)
    labels = result.nuclei.labels
    metadata = {FROM_KEY: source_key(image), RECIPE_KEY: result.recipe}
    part = labels[20:, 30:].copy()  # of a region, as Segment leaves them
    layer = viewer.add_labels(
        part.copy(), scale=image.scale, translate=(10, 15), units=("um", "um"), metadata=metadata
    )
    numbers = np.unique(part)[1:]
    scores, areas = np.linspace(0.5, 0.9, len(numbers)), np.bincount(part.ravel())[numbers] / 4
    layer.features = {"index": numbers, "score": scores, "area_um2": areas}
    gone, grown, same, cut = numbers[:4]
    for word, number in (("Delete", gone), ("Grow", grown)):
        at = layer.data_to_world(np.argwhere(part == number)[0])
        widget.corrections.act(TOOL[word], [tuple(at)])
    y, x = np.argwhere((part == cut) & (np.roll(part, 1, 1) == 0))[0]
    layer.data_setitem((np.array([y, y]), np.array([x - 1, x])), 999)
    settle(session)
    table = measured()
    assert set(table.index) == set(numbers) - {gone} | {999}
    assert np.isnan(table.score[cut]), "another one took pixels of it"
    assert table.area_um2[grown] == (layer.data == grown).sum() / 4 > (part == grown).sum() / 4
    assert np.isnan(table.score[grown]) and table.score[same] == pytest.approx(scores[2])
    (name,) = (name for name in table if name.startswith("mean "))
    assert table[name][grown] == pytest.approx(pixels[20:, 30:][layer.data == grown].mean())
    assert f"{len(numbers)} nuclei measured." in widget.said.text()


def test_what_a_person_noted_and_nuclei_of_other_planes_stay_in_the_table(widget, viewer, measured):
    stack = np.zeros((2, 40, 50), np.uint8)
    stack[0, 5:15, 5:15], stack[0, 20:25, 5:15], stack[1, 5:15, 5:10] = 7, 8, 9
    layer = viewer.add_labels(stack)
    layer.features = {
        "index": [7, 8, 9, 10],
        "cell_type": ["T", "B", "M", "?"],
        "area_px2": 1.0,
        "area_um2": 2.0,
        "mean DAPI": 3.0,
        "score": [0.5, 0.6, 0.7, 0.8],
    }
    viewer.dims.set_point(0, 0)
    viewer.layers.selection.active = layer
    widget.corrections.act(TOOL["Delete"], [(0, 22, 10)])
    widget.corrections.act(TOOL["Grow"], [(0, 10, 10)])
    table = measured()
    assert table.cell_type.to_dict() == {7: "T", 9: "M"}, "8 was deleted, 10 is nowhere"
    assert table.area_px2[7] > 100 and table.area_px2[9] == 1
    before = table[["score", "area_um2", "mean DAPI"]]
    assert before.loc[7].isna().all() and before.loc[9].tolist() == [0.7, 2, 3]


def test_without_an_image_shapes_are_measured_and_that_is_said(widget, viewer, measured):
    labels = np.zeros((40, 50), np.uint8)
    labels[5:15, 5:15] = 7
    viewer.add_labels(labels)
    table = measured()
    assert table.area_px2.to_dict() == {7: 100.0} and not [n for n in table if n.startswith("mean")]
    assert "1 nucleus measured" in widget.said.text() and "no image" in widget.said.text()


def test_nothing_there_is_measured_as_nothing(widget, viewer, measured):
    viewer.add_labels(np.zeros((40, 50), np.uint8))
    assert len(measured()) == 0
    viewer.layers.clear()
    assert not widget.measure.isEnabled()
