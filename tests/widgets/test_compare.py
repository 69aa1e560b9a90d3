"""The Compare widget: what can be compared, the table, the layer of errors, and the way to each of them."""

import json
import sys
import tempfile

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog, QMessageBox

from napari_nucleus_kd import apart
from napari_nucleus_kd.compare import memory
from napari_nucleus_kd.config import Recipe
from napari_nucleus_kd.errors import DeviceError
from napari_nucleus_kd.metrics import scores
from napari_nucleus_kd.mistakes import COLOURS, Verdict, picture
from napari_nucleus_kd.segmenters import baseline
from napari_nucleus_kd.types import Progress, Region
from napari_nucleus_kd.widgets._compared import ERRORS_KEY
from napari_nucleus_kd.widgets._layers import Plane, camera_of
from napari_nucleus_kd.widgets.compare import VERIFIED, CompareWidget, _part

HANGS = [sys.executable, "-c", "import time; time.sleep(600)"]


@pytest.fixture
def truth(draw):
    return draw(182, 208)[1]


@pytest.fixture
def widget(viewer, session, qtbot, nuclei, truth, settle):
    viewer.add_image(nuclei, name="nuclei", scale=(0.5, 0.5))
    viewer.add_labels(truth, name="truth", scale=(0.5, 0.5))
    worse = np.where(truth % 4 == 1, 0, truth)
    worse[:12, :12] = 900
    viewer.add_labels(worse, name="mine", scale=(0.5, 0.5))
    made = CompareWidget(viewer)
    qtbot.addWidget(made)
    settle(session)
    for name in made.ticked():
        made.tick(name, False)
    return made


def choose_truth(widget, name):
    widget.truth.setCurrentIndex(widget.truth.findData(name))


def compare(widget, session, settle):
    widget.task.button.click()
    settle(session)
    assert session.workspace.problem is None, session.workspace.problem


def cells(widget):
    heads = [
        widget.found.table.horizontalHeaderItem(i).text() for i in range(widget.found.table.columnCount())
    ]
    return {
        widget.found.table.item(line, 0).text(): {
            head: widget.found.table.item(line, i).data(Qt.ItemDataRole.DisplayRole)
            for i, head in enumerate(heads)
        }
        for line in range(widget.found.table.rowCount())
    }


def errors(viewer):
    """Return the layers of errors that are seen."""
    return [layer for layer in viewer.layers if ERRORS_KEY in layer.metadata and layer.visible]


def test_segmenter_and_layer_are_judged_by_the_truth(widget, session, viewer, settle, truth):
    widget.tick("Classical (no network)")
    widget.tick("Layer: mine")
    choose_truth(widget, "Layer: truth")
    widget.memory.setChecked(True)
    compare(widget, session, settle)
    found = cells(widget)
    assert set(found) == {"Classical (no network)", "Layer: mine"}
    mine = found["Layer: mine"]
    assert mine["Missed"] == (np.unique(truth) % 4 == 1).sum() and mine["s"] is None
    low, high = map(float, mine["95%"].split(" to "))
    assert low < mine["PQ"] < high and mine["p"] < 0.05
    assert found["Classical (no network)"]["p"] == "reference" and found["Classical (no network)"]["MB"] > 50
    assert mine["MB"] is None and mine["Parameters"] is None
    assert mine["What it is"] == "labels from Layer_ mine"
    assert 0 < mine["PQ"] < found["Classical (no network)"]["PQ"] <= 1
    assert mine["mean F1"] == round(scores(truth, viewer.layers["mine"].data)["f1"], 3)
    assert found["Classical (no network)"]["s"] >= 0
    shown = widget.found.plots.pixmap()
    assert (
        list(widget.found.compared.plots) == ["Average precision", "Counts", "Sizes"]
        and shown.height() > shown.width() > 300
    )
    (layer,) = errors(viewer)
    assert layer.name == "Errors of Classical (no network)" and not layer.editable
    widget.found.table.selectRow(
        [widget.found.table.item(i, 0).text() for i in range(2)].index("Layer: mine")
    )
    (layer,) = errors(viewer)
    assert layer.name == "Errors of Layer: mine"
    assert sum(ERRORS_KEY in layer.metadata for layer in viewer.layers) == 2, "one each; the other is hidden"
    np.testing.assert_array_equal(layer.data, picture(truth, viewer.layers["mine"].data.astype(np.int32)))
    assert tuple(layer.scale) == (0.5, 0.5)
    assert "Layer: Errors" not in " ".join(widget.choices()), "errors are no nuclei"


def test_sorted_lines_keep_their_mark_and_their_name(widget, session, viewer, settle, truth):
    viewer.add_labels(np.where(truth % 2 == 1, 0, truth), name="half", scale=(0.5, 0.5))
    names = ["Classical (no network)", "Layer: mine", "Layer: half"]
    for name in names:
        widget.tick(name)
    choose_truth(widget, "Layer: truth")
    compare(widget, session, settle)
    table = widget.found.table
    for column in range(table.columnCount()):
        for order in (Qt.SortOrder.AscendingOrder, Qt.SortOrder.DescendingOrder):
            table.sortItems(column, order)
            marked = [name for name, line in cells(widget).items() if line["p"] == "reference"]
            assert marked == names[:1]
            table.selectRow(list(cells(widget)).index(names[2]))
            assert widget.found.chosen() == names[2]
        if table.horizontalHeaderItem(column).text() == "p":
            assert next(iter(cells(widget))) == names[0], "who has no p comes last, or first when turned"


def test_what_is_checked_is_the_truth_and_the_rest_is_left_out(
    viewer, session, qtbot, settle, nuclei_file, truth
):
    session.open(nuclei_file)
    settle(session)
    scale = viewer.layers[0].scale
    layer = viewer.add_labels(truth, name="nuclei", scale=scale, units=viewer.layers[0].units)
    worse = np.where(truth == truth[100:, :].max(), 0, truth)
    viewer.add_labels(worse, name="mine", scale=scale, units=viewer.layers[0].units)
    viewer.layers.selection.active = layer
    widget = CompareWidget(viewer)
    qtbot.addWidget(widget)
    settle(session)
    assert widget.truth.findData(VERIFIED) < 0
    session.keeping.keep()
    settle(session)
    qtbot.waitUntil(lambda: widget.truth.findData(VERIFIED) > 0)
    for name in widget.ticked():
        widget.tick(name, False)
    widget.tick("Layer: mine")
    choose_truth(widget, VERIFIED)
    widget.task.button.click()
    assert "No nucleus is verified" in session.workspace.problem.text
    mask = session.keeping.kept.mask
    mask.set(Region(0, 0, 80, 208), True)
    compare(widget, session, settle)
    (line,) = cells(widget).values()
    assert line["PQ"] == 1 and line["Missed"] == 0, "what is missed was not verified"
    mask.set(Region(0, 0, 182, 208), True)
    compare(widget, session, settle)
    (line,) = cells(widget).values()
    assert line["PQ"] < 1 and line["Missed"] == 1


def test_the_arrows_go_from_error_to_error(widget, session, viewer, settle, truth):
    widget.tick("Layer: mine")
    choose_truth(widget, "Layer: truth")
    compare(widget, session, settle)
    widget.found.kind.setCurrentIndex(widget.found.kind.findData("missed"))
    missed = [n for n in np.unique(truth) if n % 4 == 1]
    seen = set()
    for _ in missed:
        widget.found.after.click()
        y, x = (round(c / 0.5) for c in camera_of(viewer).center[-2:])
        seen.add(int(truth[y, x]))
    assert seen == set(missed)
    widget.found.after.click()
    first = tuple(camera_of(viewer).center)
    widget.found.kind.setCurrentIndex(0)
    heads = [
        widget.found.table.horizontalHeaderItem(i).text() for i in range(widget.found.table.columnCount())
    ]
    widget.found.table.cellClicked.emit(0, heads.index("PQ"))
    assert widget.found.kind.currentData() == "", "a click on a number of another kind goes nowhere"
    widget.found.table.cellClicked.emit(0, heads.index("Missed"))
    assert widget.found.kind.currentData() == "missed" and tuple(camera_of(viewer).center) == first
    widget.found.table.cellClicked.emit(0, heads.index("Missed"))
    assert tuple(camera_of(viewer).center) != first
    widget.found.before.click()
    assert tuple(camera_of(viewer).center) == first
    widget.found.before.click()
    widget.found.after.click()
    assert tuple(camera_of(viewer).center) == first
    widget.found.kind.setCurrentIndex(widget.found.kind.findData("merged"))
    before = tuple(camera_of(viewer).center)
    widget.found.after.click()
    assert tuple(camera_of(viewer).center) == before, "there is none"


def test_without_truth_it_says_who_agrees_and_leads_there(widget, session, viewer, settle):
    widget.tick("Layer: truth")
    widget.tick("Layer: mine")
    compare(widget, session, settle)
    assert "Layer: truth and Layer: mine: F1 0." in widget.found.words.text()
    assert not errors(viewer)
    assert list(cells(widget)["Layer: mine"]) == ["", "Nuclei", "s", "Parameters", "What it is"]
    before = tuple(camera_of(viewer).center)
    widget.found.after.click()
    assert tuple(camera_of(viewer).center) != before


def test_a_report_is_saved(widget, session, settle, tmp_path, monkeypatch):
    widget.tick("Layer: mine")
    choose_truth(widget, "Layer: truth")
    compare(widget, session, settle)
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *a: str(tmp_path))
    widget.found.save.click()
    settle(session)
    assert {"report.html", "comparison.csv", "labels"} <= {p.name for p in tmp_path.iterdir()}
    assert str(tmp_path / "report.html") in widget.found.words.text()
    about = "nuclei, y 0 to 182, x 0 to 208; ground truth: Layer: truth"
    assert json.loads((tmp_path / "comparison.json").read_text())["images"] == [about]
    assert about in (tmp_path / "report.html").read_text()
    assert list((tmp_path / "labels").rglob("*.tif"))


def test_a_report_that_is_there_is_replaced_after_asking(widget, session, settle, tmp_path, monkeypatch):
    widget.tick("Layer: mine")
    choose_truth(widget, "Layer: truth")
    compare(widget, session, settle)
    former = [tmp_path / "labels/former" / name for name in ("x.json", "x_labels.tif")]
    former[0].parent.mkdir(parents=True)
    for path in (tmp_path / "comparison.json", *former):
        path.write_text("{}")
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *a: str(tmp_path))
    for answer in (QMessageBox.StandardButton.No, QMessageBox.StandardButton.Yes):
        assert (tmp_path / "comparison.json").read_text() == "{}" and all(path.exists() for path in former)
        monkeypatch.setattr(QMessageBox, "question", lambda *a, answer=answer: answer)
        widget.found.save.click()
        settle(session)
    assert (tmp_path / "report.html").exists() and not former[0].parent.exists()


@pytest.mark.parametrize(
    ("names", "judge", "said"),
    [
        ([], None, "Tick at least two"),
        (["Layer: mine"], None, "Tick at least two"),
        (["Layer: truth"], "Layer: truth", "Tick at least two"),
        (["Layer: small", "Layer: mine"], None, "“small” does not cover all that is compared"),
    ],
)
def test_what_cannot_be_compared_is_said(widget, session, viewer, names, judge, said):
    viewer.add_labels(np.ones((9, 9), np.int32), name="small", scale=(0.5, 0.5), translate=(5, 5))
    for name in names:
        widget.tick(name)
    choose_truth(widget, judge)
    widget.task.button.click()
    assert said in widget.problem.text.text() and session.workspace.activity is None


def test_of_what_is_too_large_it_says_how(widget, session, monkeypatch):
    monkeypatch.setattr("napari_nucleus_kd.widgets.compare.ON_DISK_EDGE_PX", 200)
    session.workspace.whole_image = True
    widget.task.button.click()
    said = widget.problem.text.text()
    assert "182 x 208 pixels are too many" in said and "zoom to 200 px or less" in said
    assert "NAME_labels.tif" in said and "nucleus-kd compare --data FOLDER" in said


def test_layers_that_lie_otherwise_are_not_offered(widget, viewer, truth):
    viewer.add_labels(truth, name="coarse", scale=(1, 1))
    viewer.add_labels(truth, name="between", scale=(0.5, 0.5), translate=(0.2, 0))
    viewer.add_labels(np.stack([truth] * 2), name="stack", scale=(1, 0.5, 0.5))
    offered = set(widget.choices())
    assert {"Layer: truth", "Layer: mine"} <= offered
    assert not {"Layer: coarse", "Layer: between", "Layer: stack"} & offered
    viewer.layers.remove("mine")
    assert "Layer: mine" not in [widget.contestants.item(i).text() for i in range(widget.contestants.count())]


def test_labels_of_a_stack_are_compared_in_the_plane_that_is_shown(
    viewer, session, qtbot, settle, nuclei, truth
):
    def stack(*planes):
        return np.stack([np.zeros_like(planes[0]), *planes])

    viewer.add_image(stack(nuclei, nuclei), scale=(2, 0.5, 0.5))
    viewer.add_labels(stack(truth, truth), name="truth", scale=(2, 0.5, 0.5))
    mine = np.where(truth % 4 == 1, 0, truth)
    viewer.add_labels(mine[None], name="one plane", scale=(2, 0.5, 0.5), translate=(4, 0, 0))
    viewer.add_labels(mine, name="every plane", scale=(0.5, 0.5))
    viewer.add_labels(stack(stack(truth)), name="over time", scale=(1, 2, 0.5, 0.5))
    widget = CompareWidget(viewer)
    qtbot.addWidget(widget)
    settle(session)
    assert "Layer: over time" not in widget.choices()
    viewer.layers.remove("over time")
    for name in widget.ticked():
        widget.tick(name, False)
    choose_truth(widget, "Layer: truth")
    widget.tick("Layer: one plane")
    viewer.dims.set_point(0, 2)
    widget.task.button.click()
    assert "does not cover" in widget.problem.text.text(), "it lies in the next plane"
    viewer.dims.set_point(0, 4)
    widget.tick("Layer: every plane")
    compare(widget, session, settle)
    one, every = cells(widget).values()
    assert one["Missed"] == every["Missed"] == (np.unique(truth) % 4 == 1).sum()
    (layer,) = errors(viewer)
    assert layer.data.shape == (1, *truth.shape) and layer.translate[0] == 4
    side = Plane(session.source, (0, 2), (0, 50, 0))
    assert _part(viewer.layers["every plane"], side, Region(1, 0, 3, 208)) is None, "flat, seen from the side"
    seen = _part(viewer.layers["truth"], side, Region(1, 0, 3, 208))
    np.testing.assert_array_equal(seen, [truth[50]] * 2)


def test_a_tool_is_added_and_runs(widget, session, settle, fake_tool):
    widget._add_tool("cellpose", fake_tool())
    assert widget.ticked() == ["Cellpose 3 none.weights"]
    choose_truth(widget, "Layer: truth")
    compare(widget, session, settle)
    assert cells(widget)["Cellpose 3 none.weights"]["Nuclei"] > 0
    widget._add_tool("cellpose", fake_tool("crash"))
    compare(widget, session, settle)
    assert "failed: " in widget.found.words.text(), "and the others have their numbers"
    assert len(cells(widget)) == 2


def test_cancel_does_not_wait_for_a_tool(widget, session, qtbot, settle, fake_tool):
    widget._add_tool("cellpose", fake_tool("hang"))
    choose_truth(widget, "Layer: truth")
    widget.task.button.click()
    qtbot.waitUntil(lambda: len(baseline._OPEN) == 1 and len(apart._WAITED_FOR) == 1, timeout=60_000)
    other = baseline.load(Recipe(segmenter="cellpose", weights=fake_tool()))
    widget.task.cancel.click()
    settle(session, 30)
    assert session.workspace.problem is None and widget.found.compared is None
    ((_, hung, _), (_, beside, _)) = baseline._OPEN.values()
    assert not hung.is_alive and beside.is_alive, "only what the cancelled job waits for is ended"
    beside.stop()
    picture = np.zeros((3, 64, 64), np.float32)
    assert other.maps(picture, None).values.shape == (3, 64, 64), "a new process is begun when it is needed"


def test_cancel_ends_what_measures_memory(widget, session, qtbot, settle, monkeypatch):
    monkeypatch.setattr(memory, "apart_steps", lambda task, request: hanging())

    def hanging():
        with tempfile.TemporaryFile() as said, apart.started(HANGS, said, 1) as process:
            yield Progress(0, 1, "begun")
            assert apart._asked(process) is None
            raise DeviceError("killed")

    widget.tick("Classical (no network)")
    choose_truth(widget, "Layer: truth")
    widget.memory.setChecked(True)
    widget.task.button.click()
    qtbot.waitUntil(lambda: len(apart._WAITED_FOR) == 1, timeout=60_000)
    widget.task.cancel.click()
    settle(session, 30)
    assert session.workspace.problem is None and widget.found.compared is None


def test_values_of_verdicts_have_their_colours(widget, session, viewer, settle):
    widget.tick("Layer: mine")
    choose_truth(widget, "Layer: truth")
    compare(widget, session, settle)
    (layer,) = errors(viewer)
    for verdict in Verdict:
        wanted = [n / 255 for n in bytes.fromhex(COLOURS[verdict][1:])]
        np.testing.assert_allclose(layer.get_color(verdict.value)[:3], wanted, atol=0.01)


def test_a_second_comparison_shows_its_own_errors(widget, session, viewer, settle, truth):
    widget.tick("Layer: mine")
    choose_truth(widget, "Layer: truth")
    compare(widget, session, settle)
    (before,) = errors(viewer)
    viewer.layers["mine"].data = np.where(truth % 2 == 1, 0, truth)
    compare(widget, session, settle)
    (after,) = errors(viewer)
    assert (
        after is not before and (after.data == Verdict.MISSED).sum() > (before.data == Verdict.MISSED).sum()
    )
    choose_truth(widget, None)
    widget.tick("Layer: truth")
    compare(widget, session, settle)
    assert not errors(viewer)


def test_layers_of_like_names_and_an_image_named_like_labels(widget, session, viewer, settle, truth):
    viewer.layers["nuclei"].name = "x_gt"
    for name, kept in (("a.1", truth), ("a-1", np.where(truth > 3, 0, truth))):
        viewer.add_labels(kept, name=name, scale=(0.5, 0.5))
        widget.tick(f"Layer: {name}")
    choose_truth(widget, "Layer: truth")
    compare(widget, session, settle)
    found = cells(widget)
    assert found["Layer: a.1"]["PQ"] == 1 and found["Layer: a-1"]["Nuclei"] == 3


def test_a_ground_truth_that_moved_is_told(widget, session, viewer):
    widget.tick("Layer: mine")
    choose_truth(widget, "Layer: truth")
    viewer.layers["truth"].translate = (0.2, 0)
    widget.task.button.click()
    assert "lies on the image no more" in widget.problem.text.text() and session.workspace.activity is None


def test_a_part_of_a_multichannel_image_is_seen_as_the_whole_is(viewer, session, qtbot, settle, nuclei_file):
    session.open(nuclei_file)
    settle(session)
    widget = CompareWidget(viewer)
    qtbot.addWidget(widget)
    session.workspace.set_recipe(channels=(0,))
    for name in widget.ticked():
        widget.tick(name, name == "Classical (no network)")
    whole = np.zeros(session.workspace.image.shape_yx, np.int32)
    whole[2:9, 2:9] = 1
    under = session.source.layers[0]
    viewer.add_labels(whole, name="truth", scale=under.scale, units=under.units)
    choose_truth(widget, "Layer: truth")
    compare(widget, session, settle)
    (outcomes,) = widget.found.compared.comparison.outcomes.values()
    assert outcomes[0].count > 5 and not outcomes[0].problem
    from napari_nucleus_kd.pipeline import segment

    alone = segment(session.workspace.image, segmenter="classical", channels=(0,)).nuclei.labels
    (case,) = widget.found.compared.comparison.cases
    shown = widget.found.compared.comparison.labels_of("Classical (no network)", case)
    np.testing.assert_array_equal(shown > 0, alone > 0)


def test_all_see_what_the_mapping_makes_of_the_channels(viewer, session, qtbot, settle, nuclei_file):
    session.open(nuclei_file)
    settle(session)
    widget = CompareWidget(viewer)
    qtbot.addWidget(widget)
    session.workspace.set_recipe(mapping="nucleus-adapter")
    for name in widget.ticked():
        widget.tick(name, name == "Classical (no network)")
    under = session.source.layers[0]
    whole = np.ones(session.workspace.image.shape_yx, np.int32)
    viewer.add_labels(whole, name="truth", scale=under.scale, units=under.units)
    choose_truth(widget, "Layer: truth")
    compare(widget, session, settle)
    from napari_nucleus_kd.pipeline import segment

    recipe = session.runs.settled_recipe().model_copy(update={"segmenter": "classical"})
    alone = segment(session.workspace.image, recipe)
    (case,) = widget.found.compared.comparison.cases
    shown = widget.found.compared.comparison.labels_of("Classical (no network)", case)
    assert alone.recipe.channel_weights and alone.nuclei.count > 5
    np.testing.assert_array_equal(shown > 0, alone.nuclei.labels > 0)


def test_one_channel_of_a_colour_picture(viewer, session, qtbot, settle, nuclei, truth):
    viewer.add_image(np.stack([nuclei * 0, nuclei, nuclei * 0], -1), name="colour")
    viewer.add_labels(truth, name="truth")
    widget = CompareWidget(viewer)
    qtbot.addWidget(widget)
    settle(session)
    session.workspace.set_recipe(channels=(1,), modality="fluorescence")
    for name in widget.ticked():
        widget.tick(name, name == "Classical (no network)")
    choose_truth(widget, "Layer: truth")
    compare(widget, session, settle)
    assert cells(widget)["Classical (no network)"]["PQ"] > 0.7


def test_closed_while_it_compares_nothing_is_shown(widget, session, viewer, qtbot, settle):
    """The first widget keeps the session at work."""
    other = CompareWidget(viewer)
    other.tick("Classical (no network)")
    choose_truth(other, "Layer: truth")
    other.task.button.click()
    other.deleteLater()
    settle(session)
    assert session.workspace.problem is None and not errors(viewer)
