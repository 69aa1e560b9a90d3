import numpy as np
import pytest

from napari_nucleus_kd.widgets._layers import shown_plane
from napari_nucleus_kd.widgets._measure import LAYER_NAME, line_length_px
from napari_nucleus_kd.widgets.segment import SegmentWidget


@pytest.fixture
def control(viewer, session, qtbot, settle, nuclei_file):
    widget = SegmentWidget(viewer)
    qtbot.addWidget(widget)
    session.open(nuclei_file)
    settle(session)
    return widget.diameter


def _draw(viewer, ends):
    viewer.layers[LAYER_NAME].add(np.asarray(ends, float), shape_type="line")


def test_a_line_sets_the_diameter_and_goes_away(control, viewer, session):
    active = viewer.layers.selection.active
    control.measure.click()
    assert control.measure.isChecked()
    _draw(viewer, [(10, 10), (13, 14)])  # 5 um at 0.5 um a pixel
    control.tool.finish()
    assert session.workspace.recipe.diameter_px == pytest.approx(10)
    assert LAYER_NAME not in viewer.layers
    assert viewer.layers.selection.active is active
    assert not control.measure.isChecked()


def test_in_um_the_line_is_kept_in_um(control, viewer, session):
    control.unit.setCurrentIndex(1)
    control.measure.click()
    _draw(viewer, [(10, 10), (10, 18)])
    control.tool.finish()
    assert session.workspace.recipe.diameter_um == pytest.approx(8)


def test_pressing_again_gives_up(control, viewer, session):
    control.measure.click()
    control.measure.click()
    assert LAYER_NAME not in viewer.layers
    assert session.workspace.recipe.diameter_px is None
    assert not control.measure.isChecked()


def test_a_mere_click_is_no_line(control, viewer, session):
    control.measure.click()
    _draw(viewer, [(10, 10), (10, 10.01)])
    control.tool.finish()
    assert session.workspace.recipe.diameter_px is None
    assert control.tool.active


def test_deleting_the_layer_gives_up(control, viewer):
    control.measure.click()
    del viewer.layers[LAYER_NAME]
    assert not control.tool.active
    assert not control.measure.isChecked()


def test_the_mouse_draws_the_line(control, viewer, session, qtbot):
    control.measure.click()
    layer = viewer.layers[LAYER_NAME]
    assert layer.mode == "add_line"

    class Event:
        type, position, view_direction, dims_displayed = "mouse_press", (10.0, 10.0), None, [0, 1]
        modifiers, button, handled = (), 1, False

        def __init__(self, kind, position):
            self.type, self.position = kind, position

    steps = layer.mouse_drag_callbacks[-1](layer, event := Event("mouse_press", (10.0, 10.0)))
    next(steps)
    event.type = "mouse_move"
    next(steps)
    _draw(viewer, [(10, 10), (16, 18)])
    event.type = "mouse_release"
    with pytest.raises(StopIteration):
        next(steps)
    qtbot.waitUntil(lambda: not control.tool.active)
    assert session.workspace.recipe.diameter_px == pytest.approx(20)


@pytest.mark.parametrize(
    "place", [{}, {"scale": (0.5, 0.5)}, {"scale": (2, 2), "rotate": 40, "translate": (3, 4)}]
)
def test_the_length_is_in_pixels_of_the_image(viewer, session, place, nuclei, settle):
    layer = viewer.add_image(nuclei, **place)
    settle(session)
    plane = shown_plane(session.source, viewer)
    ends = [layer.data_to_world(point) for point in ((10, 20), (40, 60))]
    assert line_length_px(np.array(ends), plane) == pytest.approx(50)
