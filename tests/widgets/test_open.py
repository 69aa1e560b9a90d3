import threading

import numpy as np
import pytest
from qtpy.QtWidgets import QFileDialog

from napari_nucleus_kd.types import Modality, Progress
from napari_nucleus_kd.widgets import _steps
from napari_nucleus_kd.widgets._layers import camera_of
from napari_nucleus_kd.widgets.open import OpenWidget, channels_text
from napari_nucleus_kd.workspace import load_preferences


@pytest.fixture
def widget(viewer, session, qtbot):
    widget = OpenWidget(viewer)
    qtbot.addWidget(widget)
    return widget


def test_an_image_is_opened_and_described(widget, session, settle, nuclei_file, viewer):
    session.open(nuclei_file)
    settle(session)
    assert [layer.name for layer in viewer.layers] == [
        "DAPI (two channels.ome.tif)",
        "CD3 (two channels.ome.tif)",
    ]
    card = widget.card
    assert not card.isHidden()
    assert widget.hint.isHidden()
    assert card.name.text() == "two channels.ome.tif"
    assert "208 × 182 px" in card.size.text()
    assert "DAPI" in card.channels.text()
    assert "CD3" in card.channels.text()
    assert card.pixel_size.value() == 0.5
    assert card.modality.currentData() == Modality.FLUORESCENCE
    assert "Suggested" in card.reason.text()


def test_the_file_dialog_leads_to_the_image(widget, session, settle, nuclei_file, monkeypatch):
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (str(nuclei_file), ""))
    widget.task.button.click()
    settle(session)
    assert session.workspace.image.source == nuclei_file


def test_a_file_inside_an_ome_zarr_opens_the_whole(widget, session, settle, tmp_path, monkeypatch):
    from napari_nucleus_kd.io import save_labels

    path = save_labels(np.eye(64, dtype=np.int32), tmp_path / "x.ome.zarr")
    inside = next(p for p in path.rglob("zarr.json"))
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (str(inside), ""))
    widget.ask_and_open()
    settle(session)
    assert session.workspace.image.name == "x.ome.zarr"


def test_opened_files_are_remembered_and_offered(widget, session, settle, nuclei_file, preferences):
    session.open(nuclei_file)
    settle(session)
    assert load_preferences(preferences).recent == (str(nuclei_file),)
    widget._fill_menu()
    texts = [action.text() for action in widget.menu.actions()]
    assert texts[0] == nuclei_file.name
    assert sum("Multiplex" in text for text in texts) == 1


def test_a_sample_opens_from_the_menu(widget, session, settle):
    widget._fill_menu()
    next(a for a in widget.menu.actions() if "Multiplex" in a.text()).trigger()
    settle(session)
    assert len(session.workspace.image.channels) == 8
    assert "&#9632;" in channels_text(session.workspace.image)


@pytest.mark.parametrize("content", [b"", b"not an image", b"II*\x00\x08\x00\x00\x00garbage"])
def test_a_bad_file_is_explained_in_the_widget(widget, session, settle, tmp_path, content):
    path = tmp_path / "bad.tif"
    path.write_bytes(content)
    session.open(path)
    settle(session)
    assert not widget.problem.isHidden()
    assert "bad.tif" in widget.problem.text.text()
    assert "Traceback" in widget.problem.details.text()
    assert widget.problem.fold.content.isHidden(), "details are folded"
    assert widget.task.button.isEnabled()


def test_the_next_try_takes_the_problem_away(widget, session, settle, tmp_path, nuclei_file):
    session.open(tmp_path / "missing.tif")
    settle(session)
    assert not widget.problem.isHidden()
    session.open(nuclei_file)
    settle(session)
    assert widget.problem.isHidden()


def test_an_unknown_pixel_size_can_be_filled_in(widget, session, viewer, settle, stack_file):
    session.open(stack_file)
    settle(session)
    assert widget.card.pixel_size.text() == "unknown"
    assert "pixels" in widget.card.pixel_size_note.text()
    widget.card.pixel_size.setValue(0.25)
    assert session.workspace.image.pixel_size_um == 0.25
    assert session.workspace.recipe.pixel_size_um == 0.25
    np.testing.assert_allclose(viewer.layers[0].scale, 0.25)
    assert "you" in widget.card.pixel_size_note.text()


def test_the_pixel_size_of_a_plain_layer_can_be_filled_in(widget, session, viewer, settle, nuclei):
    viewer.add_image(nuclei, name="plain")
    settle(session)
    widget.card.pixel_size.setValue(0.25)
    viewer.layers[0].name = "renamed"
    assert session.workspace.image.name == "renamed"
    assert session.workspace.image.pixel_size_um == 0.25


@pytest.mark.parametrize("name", ["stack_file", "nuclei_file"])
def test_a_pixel_size_can_be_made_unknown(widget, session, viewer, settle, request, name):
    session.open(request.getfixturevalue(name))
    settle(session)
    box = widget.card.pixel_size
    box.setValue(0.25)
    session.workspace.set_recipe(diameter_um=9, segmenter="classical")
    box.setValue(0)
    assert box.text() == "unknown"
    assert session.workspace.image.pixel_size_um is None
    assert session.workspace.recipe.pixel_size_um is None
    assert session.workspace.recipe.diameter_um is None
    assert "pixels" in widget.card.pixel_size_note.text()
    np.testing.assert_allclose(viewer.layers[0].scale, 1)
    assert {str(unit) for unit in viewer.layers[0].units} == {"pixel"}
    if name == "stack_file":
        widget.card.z.setValue(2)
        settle(session)
    assert box.text() == "unknown"
    session.runs.start(lambda _: None)
    settle(session)
    assert session.workspace.problem is None
    assert "area_px2" in viewer.layers[-1].features
    box.setValue(0.5)
    np.testing.assert_allclose(viewer.layers[-1].scale, 0.5)


def test_a_plain_layer_goes_back_to_what_its_units_say(widget, session, viewer, settle, nuclei):
    viewer.add_image(nuclei, name="none")
    settle(session)
    box = widget.card.pixel_size
    box.setValue(0.25)
    box.setValue(0)
    assert box.text() == "unknown"
    session.refresh()
    assert session.workspace.image.pixel_size_um is None
    viewer.add_image(nuclei, name="some", scale=(500, 500), units=("nm", "nm"))
    session.choose(session.sources()[-1])
    for size in (0.25, 0, 0):
        box.setValue(size)
        assert box.value() == (size or 0.5)
    assert "as the layer says" in widget.card.pixel_size_note.text()


def test_the_suggested_modality_can_be_overruled(widget, session, settle):
    session.open_sample("he")
    settle(session)
    assert widget.card.modality.currentData() == Modality.HE
    widget.card.modality.setCurrentIndex(widget.card.modality.findData(Modality.IHC))
    assert session.workspace.recipe.modality is Modality.IHC
    assert "Chosen by you" in widget.card.reason.text()


def test_another_z_plane_is_read_into_the_same_layer(widget, session, viewer, settle, stack_file, nuclei):
    session.open(stack_file)
    settle(session)
    card = widget.card
    assert card.form.isRowVisible(card.z)
    assert (card.z.minimum(), card.z.maximum(), card.z.value()) == (0, 6, 3)
    card.z.setValue(2)
    settle(session)
    assert len(viewer.layers) == 1
    np.testing.assert_array_equal(np.asarray(viewer.layers[0].data), nuclei)
    assert card.z.value() == 2


@pytest.fixture
def held(monkeypatch):
    """Let every reading wait at its first step until the event is set."""
    gate, real = threading.Event(), _steps.read_steps

    def slow(*args, **more):
        yield Progress(0, 0, "waiting")
        gate.wait(10)
        return (yield from real(*args, **more))

    def hold():
        monkeypatch.setattr(_steps, "read_steps", slow)
        return gate

    return hold


def test_quick_steps_through_a_stack_end_at_the_newest(widget, session, viewer, settle, stack_file, held):
    session.open(stack_file)
    settle(session)
    gate, z, shown = held(), widget.card.z, []
    session.workspace.events.image.connect(lambda image: shown.append(image.z_plane[0]))
    for _ in range(3):
        z.stepUp()
        assert z.isEnabled()
    assert z.value() == 6
    gate.set()
    settle(session)
    assert shown == [6], "the planes between are not waited for"
    assert z.value() == session.workspace.image.z_plane[0] == 6
    assert session.workspace.activity is None


def test_a_plane_that_does_not_come_is_not_shown_in_the_box(widget, session, settle, stack_file, held):
    session.open(stack_file)
    settle(session)
    gate, z = held(), widget.card.z
    z.stepUp()
    z.stepUp()
    widget.task.cancel.click()
    gate.set()
    settle(session)
    assert z.value() == session.workspace.image.z_plane[0] == 3
    stack_file.unlink()
    z.stepUp()
    settle(session)
    assert not widget.problem.isHidden()
    assert z.value() == 3


def test_the_newest_wish_waits_for_its_turn(widget, session, settle, stack_file, nuclei_file, held):
    session.open(stack_file)
    settle(session)
    gate = held()
    session.open(stack_file)
    assert not widget.card.z.isEnabled(), "a plane would have to wait"
    session.open_sample("he")
    session.open(nuclei_file)
    assert nuclei_file.name in widget.task.message.text()
    gate.set()
    settle(session)
    opened = [source.opened.source for source in session.sources()]
    assert opened == [stack_file, stack_file, nuclei_file]
    assert session.workspace.image.source == nuclei_file
    assert widget.card.z.isEnabled()


def test_cancel_also_forgets_what_waits(widget, session, settle, stack_file, nuclei_file, held):
    gate = held()
    session.open(stack_file)
    session.open(nuclei_file)
    session.cancel()
    gate.set()
    settle(session)
    assert session.workspace.image is None
    assert session.workspace.activity is None


def test_a_plane_of_an_image_no_longer_in_hand_is_not_taken(
    widget, session, viewer, settle, stack_file, nuclei, held
):
    session.open(stack_file)
    settle(session)
    viewer.add_image(nuclei, name="plain")
    gate = held()
    widget.card.z.stepUp()
    session.choose(session.sources()[1])
    gate.set()
    settle(session)
    assert session.workspace.image.name == "plain"


def test_a_flat_file_has_no_plane_to_choose(widget, session, settle, nuclei_file):
    session.open(nuclei_file)
    settle(session)
    assert not widget.card.form.isRowVisible(widget.card.z)


def test_a_name_is_text_and_not_markup(session, widget, viewer, settle):
    viewer.add_image(np.zeros((2, 30, 40)), channel_axis=0, name=["<b>x</b>", "y"])
    settle(session)
    assert "&lt;b&gt;" in channels_text(session.workspace.image)


def test_everything_has_a_tooltip(widget):
    for part in (widget.task.button, widget.task.cancel, widget.more, widget.card.pixel_size,
                 widget.card.modality, widget.card.z):  # fmt: skip
        assert len(part.toolTip()) > 10


def test_a_new_image_is_shown_alone(session, viewer, settle, nuclei, nuclei_file):
    viewer.add_image(nuclei, name="former")
    settle(session)
    session.open(nuclei_file)
    settle(session)
    assert [layer.visible for layer in viewer.layers] == [False, True, True]


def test_the_view_shows_a_new_image_whole_though_a_larger_one_is_there(session, viewer, settle, nuclei_file):
    session.open(nuclei_file)
    settle(session)
    viewer.reset_view()
    alone = camera_of(viewer).center, camera_of(viewer).zoom
    viewer.layers.clear()
    viewer.add_image(np.zeros((5000, 9000), np.uint8), name="slide")
    session.open(nuclei_file)
    settle(session)
    np.testing.assert_allclose((*camera_of(viewer).center, camera_of(viewer).zoom), (*alone[0], alone[1]))


def test_a_picture_that_cannot_be_drawn_is_a_problem(
    widget, session, viewer, settle, nuclei_file, monkeypatch
):
    def refuse(*_):
        raise OSError("the disk went away")

    monkeypatch.setattr(type(viewer), "add_layer", refuse)
    session.open(nuclei_file)
    settle(session)
    assert "the disk went away" in widget.problem.text.text()
