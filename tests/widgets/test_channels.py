import json

import dask.array as da
import numpy as np
import pytest
from qtpy.QtCore import QItemSelectionModel, Qt
from qtpy.QtWidgets import QColorDialog, QComboBox, QFileDialog, QPushButton

from napari_nucleus_kd.io.samples import sample
from napari_nucleus_kd.panel import Panel, PanelChannel, Role, read_panel
from napari_nucleus_kd.types import Channel, Image
from napari_nucleus_kd.widgets._channel_table import Column
from napari_nucleus_kd.widgets._session import session_of
from napari_nucleus_kd.widgets._show import layer_data
from napari_nucleus_kd.widgets.channels import ChannelsWidget
from napari_nucleus_kd.widgets.segment import SegmentWidget
from napari_nucleus_kd.workspace import Workspace, load_preferences

NAMES = ("DAPI", "CD3", "CD8", "PanCK")


@pytest.fixture
def show(viewer):
    """Return a function that adds an image of our own to the viewer, as opening a file does."""
    from napari.layers import Layer

    def add(image):
        for data in layer_data(image):
            viewer.add_layer(Layer.create(*data))
        return image

    return add


@pytest.fixture
def draw_image(draw):
    """Return a function that makes an image of nuclei with these channels, the others noise."""

    def make(*names, nuclear=0, name="tissue.tif"):
        grey = draw(182, 208)[0]
        pixels = np.random.default_rng(0).integers(0, 60, (len(names), *grey.shape)).astype(np.uint8)
        pixels[nuclear] = grey
        return Image((pixels,), tuple(map(Channel, names)), name=name)

    return make


@pytest.fixture
def widget(viewer, session, qtbot, show, draw_image, settle):
    """The widget with four channels in hand."""
    widget = ChannelsWidget(viewer)
    qtbot.addWidget(widget)
    show(draw_image(*NAMES))
    settle(session)
    return widget


def cell(widget, row, column):
    return widget.model.index(row, column)


def select(widget, *rows):
    selection = widget.table.selectionModel()
    selection.clearSelection()
    flags = QItemSelectionModel.SelectionFlag.Select | QItemSelectionModel.SelectionFlag.Rows
    for row in rows:
        selection.select(cell(widget, row, 0), flags)


def choose(widget, role):
    index = widget.role.findData(role)
    widget.role.setCurrentIndex(index)
    widget.role.activated.emit(index)


def roles(widget):
    return [channel.role for channel in widget.workspace.panel.channels]


def test_without_an_image_there_is_nothing_to_choose(viewer, session, qtbot):
    widget = ChannelsWidget(viewer)
    qtbot.addWidget(widget)
    assert "No image" in widget.summary.text()
    assert widget.table.isHidden() and widget.buttons.isHidden()


def test_a_colour_picture_has_no_channels_to_choose(viewer, session, qtbot, settle):
    widget = ChannelsWidget(viewer)
    qtbot.addWidget(widget)
    viewer.add_image(np.zeros((32, 32, 3), np.uint8), rgb=True)
    settle(session)
    assert "colour picture" in widget.summary.text() and widget.table.isHidden()
    assert session.workspace.panel is None and session.workspace.problem is None


def test_each_channel_has_a_row_with_its_suggested_role_and_why(widget):
    shown = [[cell(widget, r, c).data() for c in (Column.NAME, Column.ROLE)] for r in range(4)]
    assert shown == [
        ["DAPI", "nuclear ▾"],
        ["CD3", "membrane ▾"],
        ["CD8", "membrane ▾"],
        ["PanCK", "cytoplasm ▾"],
    ]
    assert "named like a membrane marker" in cell(widget, 1, Column.ROLE).data(Qt.ItemDataRole.ToolTipRole)
    select(widget, 3)
    assert widget.reason.text() == "PanCK: cytoplasm, named like a marker of the cytoplasm."
    assert "nuclei are found in DAPI" in widget.summary.text()


def test_no_more_than_five_controls_stand_outside_the_table_and_the_fold(widget):
    controls = [w for kind in (QPushButton, QComboBox) for w in widget.findChildren(kind)]
    apart = widget.table, widget.problem, widget.seen_fold
    assert len([w for w in controls if not any(part.isAncestorOf(w) for part in apart)]) <= 5


def test_a_role_chosen_here_is_what_segment_uses_and_the_other_way_round(widget, viewer, qtbot):
    other = SegmentWidget(viewer)
    qtbot.addWidget(other)
    assert other.channels.chosen() == (0,)
    assert widget.model.setData(cell(widget, 1, Column.ROLE), "nuclear")
    assert widget.workspace.recipe.channels == (0, 1) == other.channels.chosen()
    other.channels.list.item(0).setCheckState(Qt.CheckState.Unchecked)
    assert roles(widget) == [Role.OTHER, Role.NUCLEAR, Role.MEMBRANE, Role.CYTOPLASM]
    assert cell(widget, 0, Column.ROLE).data() == "other ▾"
    other.channels.list.item(1).setCheckState(Qt.CheckState.Unchecked)
    assert roles(widget)[1] is Role.MEMBRANE, "what is nuclear no more is what was suggested"


def test_without_a_nuclear_channel_a_run_says_so(widget, viewer, qtbot, settle, session):
    segment = SegmentWidget(viewer)
    qtbot.addWidget(segment)
    select(widget, 0)
    choose(widget, Role.IGNORE)
    assert "give one the role nuclear" in widget.summary.text()
    segment.start()
    settle(session)
    assert "no channel chosen" in segment.problem.text.text()


def test_several_rows_get_a_role_at_once(widget):
    select(widget, 1, 2, 3)
    assert widget.role.currentIndex() == -1 and "3 channels are selected" in widget.reason.text()
    choose(widget, Role.IGNORE)
    assert roles(widget) == [Role.NUCLEAR, *[Role.IGNORE] * 3]
    assert widget.table.rows() == [1, 2, 3], "they stay selected"
    select(widget, 1)
    assert "chosen by you; suggested: membrane" in widget.reason.text()
    widget.suggest.click()
    assert roles(widget) == [Role.NUCLEAR, Role.MEMBRANE, Role.MEMBRANE, Role.CYTOPLASM]


def test_a_role_can_be_chosen_in_its_cell(widget, qtbot):
    widget.show()
    widget.table.edit(cell(widget, 2, Column.ROLE))
    (box,) = widget.table.findChildren(QComboBox)
    box.setCurrentText("other")
    box.activated.emit(box.currentIndex())
    assert roles(widget)[2] is Role.OTHER


def test_colours_are_those_of_the_layers(widget, viewer, qtbot, monkeypatch):
    other = SegmentWidget(viewer)
    qtbot.addWidget(other)
    select(widget, 2)
    widget.table.clicked.emit(cell(widget, 2, Column.COLOUR))
    (dialog,) = widget.findChildren(QColorDialog)
    dialog.colorSelected.emit(Qt.GlobalColor.red)
    dialog.close()
    assert widget.workspace.panel.channels[2].color == "#ff0000"
    np.testing.assert_allclose(viewer.layers[2].colormap.colors[-1], (1, 0, 0, 1))
    image = other.channels.list.item(2).icon().pixmap(12, 12).toImage()
    assert image.pixelColor(5, 5).name() == "#ff0000"
    untouched = viewer.layers[1].colormap.colors[-1]
    assert untouched[0] != 1 or untouched[1] != 0


def test_a_channel_that_becomes_nuclear_is_switched_on(widget, viewer):
    assert [layer.visible for layer in viewer.layers] == [True, True, True, False]  # three of four at first
    select(widget, 3)
    choose(widget, Role.NUCLEAR)
    assert viewer.layers[3].visible
    viewer.layers[3].visible = False
    choose(widget, Role.OTHER)
    assert not viewer.layers[3].visible


def test_percentiles_are_the_contrast_of_the_layer_and_of_the_run(widget, viewer, session, settle):
    before = viewer.layers[1].contrast_limits
    assert widget.model.setData(cell(widget, 0, Column.LOW), "10 %")
    assert widget.model.setData(cell(widget, 0, Column.HIGH), "90,0")
    settle(session)
    pixels = np.asarray(session.workspace.image.pixels[0])
    np.testing.assert_allclose(viewer.layers[0].contrast_limits, np.percentile(pixels, (10, 90)), atol=1)
    assert viewer.layers[1].contrast_limits == before
    assert session.workspace.recipe.percentiles == (10, 90)
    widget.model.setData(cell(widget, 1, Column.ROLE), "nuclear")
    assert cell(widget, 1, Column.LOW).data() == "10", "nuclear channels are scaled alike"
    widget.suggest.click()
    assert "percentiles" not in session.workspace.recipe.model_fields_set


@pytest.mark.parametrize("text", ["x", "99.9", "-1"])
def test_percentiles_that_cannot_be_are_refused_with_the_rule(widget, text):
    assert not widget.model.setData(cell(widget, 0, Column.LOW), text)
    assert "100" in widget.problem.text.text() and not widget.problem.isHidden()
    assert cell(widget, 0, Column.LOW).data() == "1"
    widget.model.setData(cell(widget, 0, Column.LOW), "2")
    assert widget.problem.isHidden()


def test_a_panel_is_saved_and_loaded_for_another_image(
    widget, session, show, draw_image, settle, tmp_path, monkeypatch
):
    path = tmp_path / "panel"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(path), ""))
    widget.model.setData(cell(widget, 2, Column.ROLE), "other")
    widget.save.click()
    saved = read_panel(tmp_path / "panel.json")
    assert saved == session.workspace.panel
    show(draw_image("CD3", "DAPI", "CD8a", "PanCK", "X", nuclear=1, name="other.tif"))
    settle(session)
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (str(tmp_path / "panel.json"), ""))
    widget.load.click()
    said = widget.differences.text.text()
    assert (
        "“CD8” is perhaps “CD8a” here" in said
        and "In another order" in said
        and "Not in the panel: “X”" in said
    )
    assert not widget.differences.isHidden()
    assert session.workspace.recipe.channels == (1,)
    assert roles(widget) == [Role.MEMBRANE, Role.NUCLEAR, Role.MEMBRANE, Role.CYTOPLASM, Role.OTHER]
    widget.suggest.click()
    assert widget.differences.isHidden()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}", "no panel"),
        (json.dumps({"channels": [{"name": "FITC", "role": "nuclear"}]}), "for another image"),
        (json.dumps({"channels": [{"name": ""}]}), "name"),
    ],
)
def test_a_file_that_does_not_fit_changes_nothing(widget, session, tmp_path, text, said):
    before = session.workspace.panel
    (tmp_path / "bad.json").write_text(text, encoding="utf-8")
    widget.take_file(tmp_path / "bad.json")
    assert "bad.json" in widget.problem.text.text() and said in widget.problem.text.text()
    assert session.workspace.panel == before


def test_a_panel_is_remembered_for_the_next_image_of_the_same_names(
    widget, session, show, draw_image, settle, preferences
):
    widget.model.setData(cell(widget, 1, Column.ROLE), "nuclear")
    widget.model.setData(cell(widget, 0, Column.LOW), "5")
    choose_color = widget.workspace.panel.with_color([0], "#00ff00")
    widget.workspace.set_panel(choose_color)
    assert load_preferences(preferences).panels == (choose_color,)
    show(draw_image("CD8", "PanCK", "CD3", "DAPI", nuclear=3, name="next.tif"))
    settle(session)
    assert session.workspace.image.name == "next.tif"
    assert roles(widget) == [Role.MEMBRANE, Role.CYTOPLASM, Role.NUCLEAR, Role.NUCLEAR]
    assert session.workspace.recipe.channels == (2, 3)
    assert session.workspace.recipe.percentiles == (5, 99.8)
    assert "as you last chose them" in widget.summary.text()
    layer = next(layer for layer in session.viewer.layers if layer.name == "DAPI (next.tif)")
    np.testing.assert_allclose(layer.colormap.colors[-1], (0, 1, 0, 1))
    show(draw_image("DAPI", "CD3", name="others.tif"))
    settle(session)
    assert roles(widget) == [Role.NUCLEAR, Role.MEMBRANE] and session.workspace.recipe.channels is None


def test_where_only_the_pixels_speak_it_is_said_everywhere(viewer, session, qtbot, show, draw_image, settle):
    widget, segment = ChannelsWidget(viewer), SegmentWidget(viewer)
    for each in (widget, segment):
        qtbot.addWidget(each)
    show(draw_image("channel 1", "channel 2", "channel 3", nuclear=1))
    settle(session)
    assert segment.channels.chosen() == (1,)
    assert "Is channel 2 the nuclear channel?" in widget.notes.text.text()
    qtbot.waitUntil(lambda: "Only the pixels say which channel is nuclear" in segment.plan.text())
    select(widget, 1)
    choose(widget, Role.NUCLEAR)
    assert session.workspace.recipe.channels == (1,) and widget.notes.isHidden()
    qtbot.waitUntil(lambda: "Only the pixels" not in segment.plan.text())
    assert not session.workspace.preferences.panels, "names that say nothing are not known again"


def test_what_was_ticked_before_the_suggestion_came_stays(viewer, session, qtbot, show, draw_image, settle):
    show(draw_image(*NAMES))
    settle(session)
    session.workspace.set_recipe(channels=("CD8",))
    widget = ChannelsWidget(viewer)
    qtbot.addWidget(widget)
    settle(session)
    assert roles(widget)[:3] == [Role.OTHER, Role.MEMBRANE, Role.NUCLEAR]


def test_dead_channels_are_told_and_ignored(viewer, session, qtbot, show, draw_image, settle):
    widget = ChannelsWidget(viewer)
    qtbot.addWidget(widget)
    image = draw_image(*NAMES)
    image.levels[0][2] = 9
    show(image)
    settle(session)
    assert roles(widget)[2] is Role.IGNORE
    assert "CD8: all sampled pixels are 9." in widget.notes.text.text()
    assert cell(widget, 2, Column.ROLE).data(Qt.ItemDataRole.FontRole).italic()


def test_a_channel_that_cannot_be_read_is_a_problem_that_stands_in_the_widget(
    viewer, session, qtbot, show, settle
):
    def fail(block, block_info=None):
        if block_info and block_info[0]["array-location"][0][0] == 1:
            raise OSError("the disk is gone")
        return block

    values = np.random.default_rng(0).integers(0, 99, (2, 64, 64)).astype(np.uint8)
    broken = da.from_array(values, chunks=(1, 64, 64)).map_blocks(fail, dtype=np.uint8)
    widget = ChannelsWidget(viewer)
    qtbot.addWidget(widget)
    session.workspace.take(Image((broken,), (Channel("DAPI"), Channel("CD3")), name="broken.tif"))
    settle(session)
    assert "the disk is gone" in widget.problem.text.text()
    assert session.workspace.panel is None


def test_a_layer_of_another_origin_keeps_its_colour_until_one_is_chosen(
    viewer, session, qtbot, nuclei, settle
):
    widget = ChannelsWidget(viewer)
    qtbot.addWidget(widget)
    layer = viewer.add_image(nuclei, name="mine", colormap="viridis", contrast_limits=(3, 77))
    settle(session)
    assert roles(widget) == [Role.NUCLEAR] and session.workspace.recipe.channels is None
    assert layer.colormap.name == "viridis" and layer.contrast_limits == [3, 77]
    layer.name = "renamed"
    settle(session)
    assert session.workspace.panel.names == ("renamed",)


def test_another_plane_of_the_stack_keeps_the_panel(viewer, session, qtbot, nuclei, settle):
    widget = ChannelsWidget(viewer)
    qtbot.addWidget(widget)
    viewer.add_image(np.stack([nuclei] * 3), name="stack")
    settle(session)
    widget.model.setData(cell(widget, 0, Column.LOW), "3")
    viewer.dims.set_current_step(0, 2)
    settle(session)
    assert cell(widget, 0, Column.LOW).data() == "3"


def test_pictures_are_read_for_the_rows_in_view_only(viewer, session, qtbot, show, settle):
    import time

    pixels = np.random.default_rng(0).integers(0, 99, (60, 64, 64)).astype(np.uint8)
    widget = ChannelsWidget(viewer)
    qtbot.addWidget(widget)
    widget.resize(380, 700)
    widget.show()
    session.workspace.take(Image((pixels,), tuple(Channel(f"CD{i}") for i in range(60)), name="many.tif"))
    settle(session)
    qtbot.waitUntil(lambda: len(session.panels._pictures) >= 8)
    qtbot.wait(50)
    settle(session)
    assert len(session.panels._pictures) <= 12
    start = time.process_time()
    widget.table.selectAll()
    choose(widget, Role.OTHER)
    assert time.process_time() - start < 0.3
    widget.table.scrollToBottom()
    qtbot.waitUntil(lambda: 59 in session.panels._pictures)
    settle(session)
    assert 30 not in session.panels._pictures


def test_the_widget_is_not_wider_than_its_dock(widget, qtbot):
    widget.resize(360, 700)
    widget.show()
    assert widget.minimumSizeHint().width() <= 360
    columns = widget.table.horizontalHeader()
    assert columns.length() <= widget.table.viewport().width()
    assert widget.table.columnWidth(Column.NAME) >= 70


def test_closing_the_widget_while_it_looks_is_harmless(viewer, session, qtbot, show, draw_image, settle):
    widget = ChannelsWidget(viewer)
    show(draw_image(*NAMES))
    widget.deleteLater()
    settle(session)
    again = ChannelsWidget(viewer)
    qtbot.addWidget(again)
    settle(session)
    assert roles(again)[0] is Role.NUCLEAR


def test_a_workspace_without_a_window_remembers_too(tmp_path):
    path = tmp_path / "preferences.json"
    workspace = Workspace.remembered(path)
    chosen = Panel(channels=(PanelChannel(name="CD3", role=Role.NUCLEAR), PanelChannel(name="DAPI")))
    workspace.set_panel(chosen)
    workspace.set_panel(chosen.with_role([1], Role.IGNORE))
    assert [p.channels[1].role for p in Workspace.remembered(path).preferences.panels] == [Role.IGNORE]


def test_two_sessions_do_not_share_their_panel(viewer, session):
    from napari.components import ViewerModel

    assert session_of(ViewerModel()).panels is not session.panels


def take_mapping(widget, name):
    box = widget.seen.mapping
    box.setCurrentIndex(box.findData(name))
    box.activated.emit(box.currentIndex())


def bars(widget):
    form = widget.seen.bars.layout()
    return {
        form.itemAt(i, form.ItemRole.LabelRole).widget().text(): form.itemAt(i, form.ItemRole.FieldRole)
        .widget()
        .value()
        for i in range(form.rowCount())
    }


def test_what_the_network_sees_is_a_layer_and_the_weights_are_bars(widget, viewer, session, settle):
    take_mapping(widget, "mean")
    assert widget.workspace.recipe.mapping == "mean" and "mean of all channels" in widget.seen.words.text()
    assert "mean takes 4 of them" in widget.summary.text()
    before = set(viewer.layers)
    for _ in range(2):  # the second one takes the place of the first
        widget.seen.show_it.click()
        assert widget.seen.show_it.text() == "Looking…" and not widget.seen.show_it.isEnabled()
        settle(session)
        assert widget.seen.show_it.text() == "Show" and widget.seen.show_it.isEnabled()
    (layer,) = set(viewer.layers) - before
    assert "as the network sees it" in layer.name and not layer.rgb and layer.data.shape == (182, 208)
    assert bars(widget) == dict.fromkeys(NAMES, 25)
    take_mapping(widget, "nuclear")
    assert bars(widget) == {}


def test_ignored_channels_are_not_mixed_and_a_run_takes_the_mapping(widget, viewer, session, settle):
    take_mapping(widget, "mean")
    select(widget, 1, 2)
    choose(widget, Role.IGNORE)
    recipe = session.runs.settled_recipe()
    assert recipe.mapping == "mean" and recipe.channels == (0, 3)
    assert session.runs.settled_recipe().mapping == "mean" and widget.workspace.recipe.channels == (0,)
    segment = SegmentWidget(viewer)
    segment.workspace.set_recipe(segmenter="classical")
    session.runs.start(lambda _: None)
    settle(session)
    assert segment.workspace.result.recipe.channel_weights == (0.5, 0.5)
    assert bars(widget) == {"DAPI": 50, "PanCK": 50}


def test_a_colour_picture_is_offered_its_stains_and_does_not_keep_a_blend(
    widget, viewer, session, show, settle
):
    take_mapping(widget, "mean")
    viewer.layers.clear()
    viewer.add_image(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8), rgb=True)
    settle(session)
    assert widget.workspace.recipe.mapping == "nuclear"
    offered = {widget.seen.mapping.itemData(i) for i in range(widget.seen.mapping.count())}
    assert offered == {"nuclear", "haematoxylin", "macenko"}


def test_a_blend_has_a_slider_for_each_nuclear_channel(widget, session):
    take_mapping(widget, "blend")
    assert widget.seen.mix.isHidden()
    select(widget, 0, 2)
    choose(widget, Role.NUCLEAR)
    assert [slider.objectName() for slider in widget.seen.mix.sliders] == ["DAPI", "CD8"]
    widget.seen.mix.sliders[1].setValue(25)
    assert not widget.seen.mix.isHidden() and session.runs.settled_recipe().channel_weights == (1, 0.25)
    for value in range(99, 49, -1):  # as it is dragged
        widget.seen.mix.sliders[0].setValue(value)
    assert [slider.value() for slider in widget.seen.mix.sliders] == [50, 25]
    assert widget.workspace.recipe.channel_weights == (0.5, 0.25)
    widget.workspace.set_panel(widget.workspace.panel.with_color((1,), "#00ff00"))  # of a channel beside them
    assert widget.workspace.recipe.channel_weights == (0.5, 0.25)
    widget.seen.mix.sliders[1].setValue(0)
    widget.seen.mix.sliders[0].setValue(0)  # one must count
    assert widget.workspace.recipe.channel_weights == (0.5, 0) and widget.seen.mix.sliders[0].value() == 50
    select(widget, 1)
    choose(widget, Role.NUCLEAR)  # the weights were those of two channels
    assert widget.workspace.recipe.channel_weights is None and len(widget.seen.mix.sliders) == 3
    take_mapping(widget, "nuclear")
    assert widget.seen.mix.isHidden()


def test_stains_are_estimated_and_edited(widget, viewer, session, show, settle):
    stains = widget.seen.stains
    assert stains.isHidden()
    viewer.layers.clear()
    viewer.add_image(np.moveaxis(np.asarray(sample("he").pixels[:, :400, :400]), 0, -1), rgb=True)
    settle(session)
    take_mapping(widget, "macenko")
    assert not stains.isHidden() and not stains.numbers[0][0].isEnabled()  # each image its own
    stains.estimate.click()
    settle(session)
    estimated = widget.workspace.recipe.stains
    assert np.linalg.norm(estimated, axis=1) == pytest.approx(1, abs=0.01)
    assert stains.numbers[0][0].value() == pytest.approx(estimated[0][0], abs=0.001)
    widget.seen_fold.set_open(True)
    widget.show()
    settle(session)
    shown = stains.numbers[0][0].lineEdit()  # napari's style may leave no room for the number
    assert shown.width() >= shown.fontMetrics().horizontalAdvance("0.650")
    stains.numbers[1][2].setValue(0.5)
    assert widget.workspace.recipe.stains[1][2] == 0.5
    stains.reset.click()
    assert widget.workspace.recipe.stains is None
    take_mapping(widget, "haematoxylin")
    stains.edit.click()
    stains.numbers[0][0].setValue(0.5)
    assert widget.workspace.recipe.stains[0] == pytest.approx((0.5, 0.704, 0.286), abs=0.01)
    show(sample("ihc"))
    settle(session)
    assert widget.workspace.recipe.mapping == "haematoxylin" and widget.workspace.recipe.stains is None
    take_mapping(widget, "nuclear")
    assert stains.isHidden()


def test_the_weights_of_a_blend_are_not_those_of_the_next_image(
    widget, session, viewer, show, draw_image, settle
):
    viewer.layers.clear()
    show(draw_image("DAPI", "Histone H3"))
    settle(session)
    take_mapping(widget, "blend")
    widget.seen.mix.sliders[1].setValue(30)
    assert widget.workspace.recipe.channel_weights == (1, 0.3)
    show(draw_image("DAPI", "Hoechst", "Histone H3"))
    settle(session)
    recipe = widget.workspace.recipe
    assert recipe.mapping == "blend" and recipe.channel_weights is None and len(widget.seen.mix.sliders) == 3


def test_segment_says_which_mapping_sees_the_channels_and_lists_them_again(widget, viewer, qtbot):
    segment = SegmentWidget(viewer)
    qtbot.addWidget(segment)
    listed = segment.channels.height()
    for mapping in ("mean", "first"):
        take_mapping(widget, mapping)
        assert segment.channels.currentWidget().text() == f"what {mapping} sees (step Channels)"
    take_mapping(widget, "nuclear")
    assert segment.channels.currentWidget() is segment.channels.list and segment.channels.chosen() == (0,)
    assert segment.channels.height() == listed
