"""Where to check next, and making a model one's own, in the window."""

import json
import shutil
import threading

import napari
import numpy as np
import pytest
import tifffile
import torch
from napari.components import ViewerModel

from napari_nucleus_kd import package
from napari_nucleus_kd.networks.student import StudentConfig, build_student
from napari_nucleus_kd.pipeline import to_image
from napari_nucleus_kd.train.finetune_folder import FinetuneSettings, run_folder
from napari_nucleus_kd.types import Modality, Progress
from napari_nucleus_kd.widgets import _kept
from napari_nucleus_kd.widgets._layers import camera_of
from napari_nucleus_kd.widgets._retrain_steps import as_picture, draw_curves, outlined, pausable
from napari_nucleus_kd.widgets._session import session_of
from napari_nucleus_kd.widgets._tools import VERIFY
from napari_nucleus_kd.widgets.correct import CorrectWidget
from napari_nucleus_kd.widgets.retrain import RetrainWidget

PLUGIN = "napari-nucleus-kd"
TINY = StudentConfig(widths=(8, 8, 8), decoder_widths=(8, 8), head_width=8)
QUICK = FinetuneSettings(steps=4, batch=2, crop_px=64, check_every=2, device="cpu")


@pytest.fixture(autouse=True)
def roots(save_network, tmp_path, monkeypatch):
    """A tiny model named mine, installed; and no other."""
    torch.manual_seed(0)
    network = build_student(TINY)
    with torch.no_grad():
        network.train()(torch.rand(4, 3, 64, 64))
    folders = tmp_path / "none", tmp_path / "installed"
    monkeypatch.setattr(package, "model_roots", lambda: folders)
    monkeypatch.setattr("napari_nucleus_kd.versions.model_roots", lambda: folders)
    monkeypatch.setattr(_kept, "SOON_MS", 50)
    folders[1].mkdir()
    return save_network(folders[1] / "mine", network, TINY)


class Desk:
    """A person with an image of 512 x 512 pixels and its true nuclei."""

    def __init__(self, viewer, qtbot, settle, path, truth):
        self.viewer, self.qtbot, self._settle = viewer, qtbot, settle
        self.session = session_of(self.viewer)
        self.session.workspace.set_recipe(
            model="mine", modality=Modality.FLUORESCENCE, diameter_px=18, device="cpu"
        )
        self.correct, self.retrain = self._widgets()
        self.settle()
        self.session.open(path)
        self.settle()
        self.session.workspace.set_recipe(
            model="mine", modality=Modality.FLUORESCENCE, diameter_px=18, device="cpu"
        )
        self.layer = self.viewer.add_labels(truth.copy(), name="nuclei")
        self.viewer.layers.selection.active = self.layer
        self.run = self.session.retraining

    def _widgets(self):
        if isinstance(self.viewer, napari.Viewer):
            docks = (self.viewer.window.add_plugin_dock_widget(PLUGIN, n) for n in ("Correct", "Retrain"))
            return tuple(widget.step for _, widget in docks)
        widgets = CorrectWidget(self.viewer), RetrainWidget(self.viewer)
        for widget in widgets:
            widget.show()
        return widgets

    def settle(self):
        self._settle(self.session, 900)
        self.qtbot.wait(30)
        self._settle(self.session, 900)

    def check(self, first, last):
        self.correct.corrections.act(VERIFY, [first, last])
        self.settle()
        self.qtbot.waitUntil(lambda: not self.session.keeping.kept.unsaved, timeout=30_000)

    def begin(self, settings=QUICK):
        (model,) = self.session.models  # by its folder: another process learns, which knows no fixtures
        self.run.start(str(model.folder), settings)

    def leave(self):
        self.run.cancel()
        self.settle()
        if isinstance(self.viewer, napari.Viewer):
            self.viewer.close()
            return
        for widget in (self.correct, self.retrain):
            widget.deleteLater()
        self.qtbot.waitUntil(lambda: not self.session._views)


@pytest.fixture
def sit(qtbot, settle, draw, tmp_path):
    """Return a function that sits a person in front of a viewer."""
    desks = []

    def sit(viewer):
        pixels, truth = draw(512, 512)
        path = tmp_path / "tissue.tif"
        tifffile.imwrite(path, pixels)
        desks.append(Desk(viewer, qtbot, settle, path, truth))
        return desks[0]

    yield sit
    desks[0].leave()


@pytest.fixture
def desk(sit):
    return sit(ViewerModel())


def test_a_model_is_retrained_accepted_and_used(make_napari_viewer, sit):
    """In a window that is drawn: check, retrain, accept, segment with the new version, bring back the old."""
    desk = sit(make_napari_viewer(show=True))
    widget, run = desk.retrain, desk.run
    assert "Nothing is checked yet" in widget.about.text() and not widget.start.isEnabled()
    desk.check((0, 0), (511, 511))
    assert widget.start.isEnabled() and "tissue.tif: " in widget.about.text()
    assert [widget.model.itemData(i) for i in range(widget.model.count())] == ["mine"]
    seen = []
    run.pictured.connect(lambda what, picture: seen.append((what, picture.shape)))
    desk.begin()
    assert not widget.running.isHidden() and widget.begin.isHidden()
    desk.layer.paint((3, 3), 900)  # work goes on meanwhile
    desk.settle()
    assert desk.session.workspace.problem is None
    assert {what for what, _ in seen} == {"curves", "preview"}
    assert next(shape for what, shape in seen if what == "preview")[2] == 3
    assert "1 tile is held out, 3 are needed" in widget.result.said.text()
    assert "check about 10 more" in widget.result.said.text() and "0." not in widget.result.said.text()
    assert run.data.judged > 20 and "teach" in widget.about.text()
    assert not widget.result.pictures.isHidden() and not widget.result.before.pixmap().isNull()
    output = run_folder(desk.session.keeping.kept.project.folder)
    assert output.exists()
    widget.result.accept.click()
    desk.settle()
    assert desk.session.workspace.problem is None
    assert not output.exists() and run.tuned is None
    assert desk.session.workspace.recipe.model == "mine-1"
    assert [model.spec.name for model in desk.session.models] == ["mine", "mine-1"]
    assert "mine-1 is installed" in widget.message.text()
    desk.session.workspace.whole_image = True
    desk.session.runs.start(lambda _: None)
    desk.settle()
    assert desk.session.workspace.problem is None
    assert desk.session.workspace.result.recipe.model == "mine-1"
    widget.versions.setCurrentIndex(widget.versions.findData("mine"))
    widget.back.click()
    desk.settle()
    assert desk.session.workspace.recipe.model == "mine-2" and "mine is back" in widget.message.text()


def test_a_run_waits_stops_goes_on_and_is_rejected(desk, qtbot):
    widget, run = desk.retrain, desk.run
    desk.check((0, 0), (511, 511))
    desk.begin(QUICK.model_copy(update={"steps": 12}))
    qtbot.waitUntil(lambda: run.progress is not None and run.progress.message == "training", timeout=600_000)
    widget.pause.click()
    assert run.paused and widget.pause.text() == "Go on"
    qtbot.wait(300)
    before = run.progress
    qtbot.wait(600)
    assert run.progress == before and "paused" in widget.message.text()
    widget.pause.click()
    qtbot.waitUntil(lambda: run.progress is None or run.progress != before, timeout=60_000)
    widget.cancel.click()
    desk.settle()
    assert not run.running and run.tuned is None
    assert not widget.stopped.isHidden() and "not finished" in widget.message.text()
    model, settings = run.unfinished()
    assert model.endswith("mine") and settings.steps == 12
    widget.go_on.click()
    desk.settle()
    assert run.tuned is not None
    widget.result.reject.click()
    desk.settle()
    assert run.tuned is None and run.unfinished() is None and not widget.begin.isHidden()
    assert not run_folder(desk.session.keeping.kept.project.folder).exists()
    assert [model.spec.name for model in desk.session.models] == ["mine"]


def test_too_little_to_judge_is_said_instead_of_a_number(desk):
    desk.check((0, 256), (120, 400))
    desk.begin(QUICK.model_copy(update={"steps": 1, "check_every": 1}))
    desk.settle()
    assert desk.session.workspace.problem is None
    assert desk.run.data.judged == 0
    assert "Too little is checked" in desk.retrain.result.said.text()
    assert "check about 15 more" in desk.retrain.result.said.text()
    assert desk.retrain.result.pictures.isHidden()
    assert "too few are left to judge by" in desk.retrain.about.text()


def test_what_cannot_be_retrained_says_why(desk):
    desk.check((0, 0), (10, 10))  # holds no nucleus as a whole
    desk.begin()
    desk.settle()
    assert "no nucleus is completely verified" in desk.retrain.problem.text.text()
    assert desk.run.tuned is None and not desk.run.running


def test_tiles_to_check_next_are_listed_shown_and_go_when_checked(desk):
    panel, suggesting = desk.correct.suggest, desk.session.suggesting
    panel.ask.click()
    desk.settle()
    assert desk.session.workspace.problem is None
    assert len(suggesting.tiles) == 4 and suggesting._on_press in desk.viewer.mouse_drag_callbacks
    assert [line.isHidden() for line in panel.lines] == [False] * 4 + [True]
    assert "unsure" in panel.lines[0].text() and panel.lines[0].text().startswith("1")
    best = suggesting.tiles[0].region
    panel.lines[0].click()
    middle = (best.y0 + best.y1) / 2, (best.x0 + best.x1) / 2
    np.testing.assert_allclose(camera_of(desk.viewer).center[-2:], middle, atol=1)
    desk.check((best.y0, best.x0), (best.y1 - 1, best.x1 - 1))
    assert best not in [tile.region for tile in suggesting.tiles] and len(suggesting.tiles) == 3
    panel.hide_all.click()
    assert not suggesting.tiles and suggesting._on_press not in desk.viewer.mouse_drag_callbacks


def test_steps_wait_while_paused_and_close_what_they_take():
    closed, going = [], threading.Event()

    def work():
        try:
            for done in range(3):
                yield Progress(done, 3, "training")
            return "result"
        finally:
            closed.append(1)

    steps = pausable(work(), going)
    assert next(steps).message == "" and next(steps).done == 0
    going.set()
    assert [next(steps).done for _ in range(3)] == [0, 1, 2]
    with pytest.raises(StopIteration) as stop:
        next(steps)
    assert stop.value.value == "result" and closed == [1]
    steps = pausable(work(), going)
    next(steps)
    steps.close()
    assert closed == [1, 1]


def test_pictures_of_curves_and_outlines():
    curves = {"total": [(1, 2.0), (2, 1.0)], "val PQ": [(2, 0.5)], "train total": [(2, 1.5)]}
    picture = draw_curves(curves, 10)
    assert picture.shape[2] == 4 and picture[..., 3].max() == 255 and picture[0, 0, 3] == 0
    empty = draw_curves({"total": [(1, 2.0)]}, 10, judged=False)
    without = draw_curves({"total": [(1, 2.0)]}, 10)
    assert (empty != without).any(), "it says that nothing can be judged"
    labels = np.zeros((20, 20), np.int32)
    labels[5:15, 5:15] = 1
    drawn = outlined(np.zeros((20, 20, 3), np.uint8), labels, np.roll(labels, 2, axis=1))
    assert tuple(drawn[5, 5]) != (0, 0, 0) and tuple(drawn[10, 7]) != tuple(drawn[10, 5])
    assert not drawn[10, 10].any()
    grey = as_picture(to_image(np.arange(400, dtype=np.uint16).reshape(20, 20)), None)
    assert grey.shape == (20, 20, 3) and grey.max() == 255 and (grey[..., 0] == grey[..., 1]).all()


def test_the_model_to_start_from_follows_segment_but_not_other_settings(
    viewer, session, settle, qtbot, roots
):
    shutil.copytree(roots, roots.with_name("other"))
    said = json.loads((roots.with_name("other") / "model.json").read_text())
    (roots.with_name("other") / "model.json").write_text(json.dumps(said | {"name": "other"}))
    settle(session)
    session.set_models(package.list_models())
    session.workspace.set_recipe(segmenter="student", model="other")
    widget = RetrainWidget(viewer)
    qtbot.addWidget(widget)
    assert widget.model.currentData() == "other"
    widget.model.setCurrentIndex(widget.model.findData("mine"))
    session.workspace.set_recipe(diameter_px=20)
    assert widget.model.currentData() == "mine"
    session.workspace.set_recipe(model="mine")
    session.workspace.set_recipe(model="other")
    assert widget.model.currentData() == "other"
