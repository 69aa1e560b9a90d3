"""Where to check next, and making a model one's own, in the window."""

import json
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import napari
import numpy as np
import psutil
import pytest
import tifffile
import torch
from napari.components import ViewerModel

from napari_nucleus_kd import package
from napari_nucleus_kd.errors import WriteError
from napari_nucleus_kd.evaluate import Score
from napari_nucleus_kd.networks.student import StudentConfig, build_student
from napari_nucleus_kd.pipeline import to_image
from napari_nucleus_kd.project import Role, TrainingData, tiles_of
from napari_nucleus_kd.train import finetune, finetune_folder
from napari_nucleus_kd.train.finetune import Tuned
from napari_nucleus_kd.train.finetune_folder import run_folder
from napari_nucleus_kd.train.finetune_settings import FinetuneSettings
from napari_nucleus_kd.train.log import write_log
from napari_nucleus_kd.types import Modality, Progress, finish
from napari_nucleus_kd.widgets import _kept, _retrain_steps, _retraining, _suggesting
from napari_nucleus_kd.widgets._curves import CurvesPicture
from napari_nucleus_kd.widgets._layers import camera_of
from napari_nucleus_kd.widgets._retrain_steps import (
    Pair,
    as_picture,
    course_before,
    outlined,
    pausable,
)
from napari_nucleus_kd.widgets._session import session_of
from napari_nucleus_kd.widgets._tools import TOOLS, VERIFY
from napari_nucleus_kd.widgets.correct import CorrectWidget
from napari_nucleus_kd.widgets.retrain import RetrainWidget
from napari_nucleus_kd.workspace import Problem

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
        if not path.exists():
            tifffile.imwrite(path, pixels)
        desks.append(Desk(viewer, qtbot, settle, path, truth))
        return desks[0]

    yield sit
    desks[0].leave()


@pytest.fixture
def desk(sit):
    return sit(ViewerModel())


def test_a_model_is_retrained_accepted_and_used(make_napari_viewer, sit):
    """In a window that is drawn: edit, verify, retrain, accept, segment with it, bring back the old one."""
    desk = sit(make_napari_viewer(show=True))
    widget, run = desk.retrain, desk.run
    assert "Nothing is verified yet" in widget.about.text() and not widget.start.isEnabled()
    truth = desk.layer.data.copy()
    rows, cols = np.nonzero(truth == truth[255, 256 + np.argmax(truth[255, 256:] > 0)])
    desk.layer.data[rows[rows > 255], cols[rows > 255]] = truth.max() + 1  # cut in two, as a model may
    desk.layer.refresh()
    (merge,) = (tool for tool in TOOLS if tool.word == "Merge")
    desk.correct.corrections.act(merge, [(rows.min(), cols[0]), (rows.max(), cols[-1])])
    desk.check((0, 0), (511, 511))
    labels, _ = finish(desk.session.keeping.kept.image.load_steps())
    assert len(np.unique(labels[rows, cols])) == 1 and len(np.unique(labels)) == len(np.unique(truth))
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
    assert "verify about 10 more" in widget.result.said.text() and "0." not in widget.result.said.text()
    assert run.data.judged > 20 and "teach" in widget.about.text()
    assert not widget.result.pictures.isHidden() and not widget.result.before.pixmap().isNull()
    output = run_folder(desk.session.keeping.kept.project.folder)
    widget.result.accept.click()
    desk.settle()
    assert desk.session.workspace.problem is None
    assert not output.exists() and run.tuned is None
    assert desk.session.workspace.recipe.model == "mine-1"
    assert [model.spec.name for model in desk.session.models] == ["mine", "mine-1"]
    assert "mine-1 is installed" in widget.message.text()
    desk.session.workspace.whole_image = True
    labels, verified = desk.layer.data.copy(), desk.session.keeping.kept.mask.pixels != 0
    assert not widget.again.isHidden()
    widget.again.button.click()
    desk.settle()
    assert desk.session.workspace.problem is None
    assert desk.session.workspace.result.recipe.model == "mine-1"
    assert desk.session.keeping.kept.holds(desk.layer) and desk.layer.visible
    assert np.array_equal(desk.layer.data[verified], labels[verified]) and "Taken in" in widget.message.text()
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
    qtbot.wait(2000)  # the step in hand
    before = run.progress
    qtbot.wait(600)
    assert run.progress == before and "paused" in widget.message.text()
    widget.pause.click()
    qtbot.waitUntil(lambda: run.progress is None or run.progress != before, timeout=60_000)
    widget.cancel.click()
    desk.settle()
    assert not run.running and run.tuned is None
    assert not widget.stopped.isHidden() and "was begun and not accepted" in widget.message.text()
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


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGKILL")
def test_a_window_that_is_killed_while_a_model_learns_offers_to_go_on(
    sit, draw, roots, tmp_path, monkeypatch
):
    pixels, truth = draw(512, 512)
    for name, array in (("tissue", pixels), ("truth", truth)):
        tifffile.imwrite(tmp_path / f"{name}.tif", array)
    script = Path(__file__).with_name("retraining_window.py")
    settings = QUICK.model_copy(update={"steps": 400, "check_every": 20}).model_dump_json()
    files = tmp_path / "tissue.tif", tmp_path / "truth.tif", roots
    program = subprocess.Popen(
        [sys.executable, str(script), *map(str, files), settings], stdout=subprocess.PIPE, text=True
    )
    try:
        next(line for line in program.stdout if int(line) > 20)
        learners = psutil.Process(program.pid).children()
    finally:
        program.kill()
        program.communicate()
    assert program.returncode == -9 and len(learners) == 1
    _, left = psutil.wait_procs(learners, 60)
    assert not left, "the process that learns ends with its window"
    desk = sit(ViewerModel())
    run, widget = desk.run, desk.retrain
    desk.qtbot.waitUntil(lambda: desk.session.keeping.kept is not None, timeout=20_000)
    desk.settle()
    kept = desk.session.keeping.kept
    assert np.array_equal(kept.target.layer.data, truth) and kept.mask.pixels.all()
    model, chosen = run.unfinished()
    assert model.endswith("mine") and chosen.steps == 400
    assert not widget.stopped.isHidden() and widget.begin.isHidden()
    widget.go_on.click()
    desk.qtbot.waitUntil(
        lambda: run.progress is not None and run.progress.message == "training", timeout=600_000
    )
    assert run.progress.done >= 20


def test_too_little_to_judge_is_said_instead_of_a_number(desk, qtbot):
    desk.check((0, 256), (120, 400))
    desk.begin(QUICK.model_copy(update={"steps": 1, "check_every": 1}))
    desk.settle()
    assert desk.session.workspace.problem is None
    assert desk.run.data.judged == 0
    assert "Too little is verified" in desk.retrain.result.said.text()
    about = desk.retrain.about.text()
    assert "too few are left to judge by" in about
    assert "Nothing can be judged: 0 verified nuclei are in tiles kept for that, and 20 are needed" in about
    qtbot.waitUntil(lambda: desk.run.pair is not None, timeout=30_000)
    result = desk.retrain.result
    assert not result.pictures.isHidden() and not result.before.pixmap().isNull()
    assert f"Tile that nobody verified, 1 of {desk.run.tuned.unverified}" in result.caption.text()


def test_what_cannot_be_retrained_says_why(desk):
    desk.check((0, 0), (10, 10))  # holds no nucleus as a whole
    desk.begin()
    desk.settle()
    assert "no nucleus is verified" in desk.retrain.problem.text.text()
    assert desk.run.tuned is None and not desk.run.running


def test_the_channel_that_is_missing_can_be_chosen_when_retraining_asks_for_it(desk, tmp_path, qtbot):
    pixels = tifffile.imread(tmp_path / "tissue.tif")
    path = tmp_path / "unnamed.ome.tif"
    tifffile.imwrite(path, np.stack([pixels] * 4), photometric="minisblack", metadata={"axes": "CYX"})
    desk.session.open(path)
    desk.settle()
    desk.session.workspace.set_recipe(model="mine", diameter_px=18, device="cpu")
    desk.viewer.layers.selection.active = desk.viewer.add_labels(desk.layer.data.copy())
    desk.check((0, 0), (255, 255))
    desk.begin()
    desk.settle()
    assert "choose the nuclear channels" in desk.retrain.problem.text.text()
    desk.session.workspace.set_recipe(channels=(1,))
    desk.begin()
    qtbot.waitUntil(lambda: desk.run.data is not None or not desk.run.running, timeout=60_000)
    assert desk.run.data is not None, desk.retrain.problem.text.text()
    kept = desk.session.keeping.kept
    assert kept.image.record.recipe.channels == (1,)
    desk.session.workspace.set_recipe(channels=None)  # as after the image was opened again
    assert desk.run._look(kept, desk.run._origin(kept)).recipe.channels == (1,)


def test_tiles_to_check_next_are_listed_shown_and_go_when_checked(desk):
    panel, suggesting = desk.correct.suggest, desk.session.suggesting
    panel.ask.click()
    desk.settle()
    assert desk.session.workspace.problem is None
    assert len(suggesting.tiles) == 4 and suggesting._on_press in desk.viewer.mouse_drag_callbacks
    assert [line.isHidden() for line in panel.lines] == [False] * 4 + [True]
    assert "unsure" in panel.lines[0].text() and panel.lines[0].text().startswith("1")
    best = suggesting.tiles[0].region
    assert judging(suggesting.tiles) == judging_of(1), "as the first image of a project"
    panel.lines[0].click()
    middle = (best.y0 + best.y1) / 2, (best.x0 + best.x1) / 2
    np.testing.assert_allclose(camera_of(desk.viewer).center[-2:], middle, atol=1)
    assert [mark.isHidden() for mark in panel.marks] == [False] + [True] * 4
    panel.marks[0].click()
    desk.settle()
    assert np.array_equal(
        np.argwhere(desk.session.keeping.kept.mask.pixels)[[0, -1]],
        [(best.y0, best.x0), (best.y1 - 1, best.x1 - 1)],
    )
    assert best not in [tile.region for tile in suggesting.tiles] and len(suggesting.tiles) == 3
    assert judging(suggesting.tiles) == judging_of(1) - {best}
    assert all(mark.isHidden() for mark in panel.marks)
    other = desk.viewer.add_labels(np.zeros((512, 512), np.int32))
    assert all(line.isHidden() for line in panel.lines), "what does nothing is not offered"
    desk.viewer.layers.remove(other)
    desk.viewer.layers.selection.active = desk.layer
    assert [line.isHidden() for line in panel.lines] == [False] * 3 + [True] * 2
    panel.hide_all.click()
    assert not suggesting.tiles and suggesting._on_press not in desk.viewer.mouse_drag_callbacks


def judging(tiles):
    assert [t.judges for t in tiles] == sorted(t.judges for t in tiles), "those that teach come first"
    return {tile.region for tile in tiles if tile.judges}


def judging_of(offset):
    return {tile.region for tile in tiles_of((512, 512), offset) if tile.role is Role.VAL}


def test_which_tiles_judge_is_known_for_sure_once_the_image_is_kept(desk, monkeypatch):
    assert judging_of(1) != judging_of(2)
    monkeypatch.setattr(_suggesting, "likely_offset", lambda path: 2)
    desk.session.suggesting.start()
    desk.settle()
    assert judging(desk.session.suggesting.tiles) == judging_of(2)
    desk.check((200, 200), (210, 210))
    assert judging(desk.session.suggesting.tiles) == judging_of(1)


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
    picture = CurvesPicture(10).draw(curves)
    assert picture.shape[2] == 4 and picture[..., 3].max() == 255 and picture[0, 0, 3] == 0
    empty = CurvesPicture(10, judged=False).draw({"total": [(1, 2.0)]})
    without = CurvesPicture(10).draw({"total": [(1, 2.0)]})
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


def told_by(work, monkeypatch):
    """Let runs do some other work."""
    monkeypatch.setattr(_retraining, "retrain_steps", lambda plan, tell: work(tell))


def test_stopping_early_is_offered(desk, monkeypatch):
    desk.check((0, 0), (255, 255))
    begun = []
    monkeypatch.setattr(desk.run, "start", lambda model, settings, goes_on: begun.append(settings))
    widget = desk.retrain
    widget.start.click()
    widget.patience.setValue(3)
    widget.start.click()
    assert [settings.early_stop for settings in begun] == [None, 3]
    assert begun[0] == FinetuneSettings(device="cpu")


@pytest.mark.parametrize(("chosen", "trained"), [("auto", "auto"), ("openvino", "cpu"), ("cuda:1", "cuda")])
def test_it_learns_on_the_device_that_is_chosen(desk, monkeypatch, chosen, trained):
    desk.check((0, 0), (255, 255))
    begun = []
    monkeypatch.setattr(desk.run, "start", lambda model, settings, goes_on: begun.append(settings))
    desk.session.workspace.recipe = desk.session.workspace.recipe.model_copy(update={"device": chosen})
    desk.retrain.start.click()
    assert [settings.device for settings in begun] == [trained]


def test_a_run_that_another_program_began_meanwhile_is_not_replaced(desk, monkeypatch):
    told_by(lambda tell: pytest.fail("it was begun"), monkeypatch)
    desk.check((0, 0), (255, 255))
    output = run_folder(desk.session.keeping.kept.project.folder)
    output.mkdir()
    finetune_folder.note_begun(output, "mine", QUICK)
    desk.retrain.start.click()
    desk.settle()
    said = desk.retrain.message.text()
    assert "Another program began a run of this project" in said and "A run of 4 steps from mine" in said
    assert not desk.retrain.go_on.isHidden()


def test_a_version_is_brought_back_once_however_often_it_is_asked(desk, monkeypatch):
    gone, restored = threading.Event(), []

    def restore(name):
        gone.wait(30)
        restored.append(name)
        return package.load_model(name)

    monkeypatch.setattr("napari_nucleus_kd.versions.restore", restore)
    desk.run.bring_back("mine")
    assert not desk.retrain.back.isEnabled()
    desk.run.bring_back("mine")
    gone.set()
    desk.settle()
    assert restored == ["mine"] and desk.retrain.back.isEnabled()


def test_a_pause_is_no_time_that_steps_take(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(_retrain_steps, "time", SimpleNamespace(monotonic=lambda: clock[0]))

    def work():
        for done in range(1, 11):
            clock[0] += 2
            yield Progress(done, 10, "training", {"objective": 1.0 / done})

    drawn = []
    course = _retrain_steps.Course()
    for progress in _retrain_steps._told(work(), course, lambda: drawn.append(1)):
        left = progress.values.get("seconds left")
        assert left == (None if progress.done == 1 else 2 * (10 - progress.done))
        clock[0] += 500  # a person pauses
    assert [step for step, _ in course.curves["objective"]] == list(range(1, 11)) and drawn


def test_curves_of_a_run_that_goes_on_begin_with_its_log(tmp_path):
    checks = [
        {"step": 2, "learning_rate": 0.1, "train total": 3.0, "tune total": 4.0, "val PQ": 0.5},
        {"step": 4, "learning_rate": 0.1, "train total": 2.0, "tune total": 3.0},
    ]
    write_log(tmp_path, checks)
    course = course_before(tmp_path)
    assert dict(course.curves) == {"total": [(2, 3.0), (4, 2.0)], "val PQ": [(2, 0.5)]}
    course.take(Progress(3, 9, "training", {"total": 1.0}), 1.0)
    assert course.curves["total"] == [(2, 3.0), (3, 1.0)], "a step that is taken again counts once"
    (tmp_path / "log.csv").write_text("step,train total\n2,3.0\nx,1.0\n")
    assert dict(course_before(tmp_path).curves) == {"total": [(2, 3.0)]}
    assert not course_before(tmp_path / "none").curves


def waiting_for(desk, count=2):
    """Put a result that waits for an answer in front of a person, as if a run had ended."""
    (model,) = desk.session.models
    scores = (Score("a tile", "", {"pq": 0.5}, 18.0, None, 1.0),) * count
    desk.run._output = run_folder(model.folder)
    desk.run.tuned = Tuned(model, model, desk.run._output / "index.csv", scores, scores)
    return model


def test_the_picture_is_of_the_tile_that_was_asked_for_last(desk, qtbot, monkeypatch):
    go = threading.Event()

    def draw(tuned, tile, device):
        yield Progress(0, 0, "")
        if tile == 1:
            go.wait(30)
        yield Progress(0, 0, "")
        return Pair(tile, np.zeros((9, 9, 3), np.uint8), np.zeros((9, 9, 3), np.uint8))

    monkeypatch.setattr(_retraining, "pair_steps", draw)
    waiting_for(desk, 3)
    widget = desk.retrain.result
    desk.run.show_tile(0)
    qtbot.waitUntil(lambda: desk.run.pair is not None)
    widget.next.click()
    assert "Tile 1 of 3" in widget.caption.text(), "the picture is still that of the first"
    widget.next.click()
    qtbot.waitUntil(lambda: desk.run.pair.tile == 2)
    go.set()
    desk.settle()
    assert desk.run.pair.tile == 2 and "Tile 3 of 3" in widget.caption.text()


def test_without_held_out_tiles_old_and_new_are_seen_where_nobody_checked(desk, qtbot, monkeypatch):
    def draw(tuned, tile, device):
        yield Progress(0, 0, "")
        return Pair(tile, np.zeros((9, 9, 3), np.uint8), np.zeros((9, 9, 3), np.uint8))

    monkeypatch.setattr(_retraining, "pair_steps", draw)
    waiting_for(desk, 0)
    desk.run.tuned = replace(desk.run.tuned, unverified=2)
    desk.run.show_tile(0)
    qtbot.waitUntil(lambda: desk.run.pair is not None)
    desk.retrain.result.next.click()
    qtbot.waitUntil(lambda: desk.run.pair.tile == 1)
    caption = desk.retrain.result.caption.text()
    assert "nobody verified, 2 of 2: old left, new right" in caption and "blue" not in caption


@pytest.mark.parametrize("answer", ["accept", "reject"])
def test_a_picture_under_way_does_not_spoil_an_answer(desk, qtbot, monkeypatch, answer):
    gone, drawing = threading.Event(), threading.Event()

    def draw(tuned, tile, device):
        yield Progress(0, 0, "")
        drawing.set()
        gone.wait(30)
        raise FileNotFoundError("index.csv")

    monkeypatch.setattr(_retraining, "pair_steps", draw)
    monkeypatch.setattr(finetune, "accept", lambda tuned: tuned.model)
    waiting_for(desk)
    desk.run.show_tile(0)
    qtbot.waitUntil(drawing.is_set)
    getattr(desk.retrain.result, answer).click()
    qtbot.waitUntil(lambda: desk.run.tuned is None, timeout=30_000)
    gone.set()
    desk.settle()
    assert desk.session.workspace.problem is None


def test_an_accepted_version_is_reported_also_if_its_run_cannot_be_removed(desk, monkeypatch):
    def refuse(output):
        raise WriteError(f"{output.name} cannot be removed: it is open")

    model = waiting_for(desk, 0)
    monkeypatch.setattr(finetune, "accept", lambda tuned: tuned.model)
    monkeypatch.setattr(finetune, "reject", refuse)
    desk.session.workspace.set_recipe(segmenter="classical")
    desk.run.changed.emit()
    desk.retrain.result.accept.click()
    desk.settle()
    assert desk.session.workspace.problem is None and desk.run.tuned is None
    assert desk.session.workspace.recipe.model == model.spec.name
    assert desk.session.workspace.recipe.segmenter == "student"
    text = desk.retrain.message.text()
    assert "mine is installed" in text and "finetune cannot be removed: it is open" in text


def test_a_run_that_cannot_be_read_can_be_discarded(desk, monkeypatch):
    desk.check((0, 0), (255, 255))
    widget, output = desk.retrain, run_folder(desk.session.keeping.kept.project.folder)
    output.mkdir()
    (output / "finetune.json").write_text("{")
    desk.run._look_for_run()
    desk.run.changed.emit()
    assert widget.begin.isHidden() and not widget.stopped.isHidden() and widget.go_on.isHidden()
    assert "discard it" in widget.message.text() and "finetune.json" in widget.message.text()
    assert desk.session.workspace.problem is None
    with monkeypatch.context() as patched:
        patched.setattr(finetune_folder, "begun", lambda output: pytest.fail("read at a refresh"))
        widget._refresh()
        desk.session.keeping.changed.emit()
    widget.discard.click()
    desk.settle()
    assert not output.exists() and not widget.begin.isHidden() and widget.stopped.isHidden()


def test_an_open_image_that_is_damaged_does_not_stop_the_others(desk, qtbot, draw, tmp_path):
    desk.check((0, 0), (255, 255))
    other = tmp_path / "other.tif"
    tifffile.imwrite(other, draw(512, 512)[0])
    desk.session.open(other)
    desk.settle()
    desk.session.workspace.suggestion = (Modality.FLUORESCENCE, "")
    desk.viewer.layers.selection.active = desk.viewer.add_labels(desk.layer.data.copy())
    desk.check((0, 0), (255, 255))
    image = desk.session.keeping.kept.image
    assert len(desk.session.keeping.kept.project.images) == 2
    image._store.damage = "save 2 is damaged"
    desk.begin()
    qtbot.waitUntil(lambda: desk.run.data is not None or not desk.run.running, timeout=60_000)
    assert desk.run.data is not None, desk.retrain.problem.text.text()
    assert any("save 2 is damaged" in note for note in desk.run.data.notes)


def test_why_no_run_can_be_begun_is_said(desk, qtbot, draw, tmp_path):
    widget = desk.retrain
    desk.check((0, 0), (10, 10))
    assert not widget.start.isEnabled() and "No nucleus is verified as a whole" in widget.about.text()
    desk.check((0, 0), (255, 255))
    assert widget.start.isEnabled() and "No nucleus" not in widget.about.text()
    other = tmp_path / "other.tif"
    tifffile.imwrite(other, draw(512, 512)[0])
    desk.session.open(other)
    desk.settle()
    desk.session.workspace.suggestion = (Modality.FLUORESCENCE, "")
    desk.viewer.add_labels(np.zeros((512, 512), np.int32))
    desk.check((0, 0), (20, 20))
    kept = desk.session.keeping.kept
    assert len(kept.project.images) == 2 and kept.counted.nuclei == 0
    assert widget.start.isEnabled(), "nuclei of the other image are verified"
    layer = desk.viewer.add_image(np.zeros((64, 64), np.uint8))
    desk.session.choose(next(source for source in desk.session.sources() if layer in source.layers))
    assert not widget.start.isEnabled() and "Keep in a file" in widget.about.text()


def test_a_project_whose_layers_were_closed_is_not_called_empty(desk):
    desk.check((0, 0), (255, 255))
    desk.viewer.layers.remove(desk.layer)
    desk.settle()
    said = desk.retrain.about.text()
    assert "Open again" in said and "Nothing is verified yet" not in said
    desk.correct.keep_panel.again.click()
    desk.settle()
    assert desk.retrain.start.isEnabled() and "Open again" not in desk.retrain.about.text()


def test_a_run_that_is_stopped_says_so_whatever_else_went_wrong(desk, qtbot, monkeypatch):
    def work(tell):
        while True:
            time.sleep(0.02)
            yield Progress(1, 2, "training")

    told_by(work, monkeypatch)
    desk.check((0, 0), (255, 255))
    desk.begin()
    qtbot.waitUntil(lambda: desk.run.progress is not None)
    desk.session.workspace.problem = Problem("correct", "There is no nucleus here.")
    desk.retrain.cancel.click()
    desk.settle()
    assert desk.retrain.message.text() == "Stopped."


def test_why_a_run_failed_stays_when_another_step_complains(desk, monkeypatch):
    def work(tell):
        yield Progress(0, 0, "")
        raise WriteError("the disk is full")

    told_by(work, monkeypatch)
    desk.check((0, 0), (255, 255))
    desk.begin()
    desk.settle()
    widget = desk.retrain
    assert "the disk is full" in widget.problem.text.text() and widget.message.isHidden()
    desk.correct.corrections.complain("there is no nucleus here")
    assert widget.problem.isHidden() and "the disk is full" in widget.message.text()


def test_what_a_run_learns_from_stands_under_its_project_only(desk, monkeypatch):
    desk.check((0, 0), (255, 255))
    run, kept = desk.run, desk.session.keeping.kept
    run.data = TrainingData(kept.project.folder, 31, 12, ())
    run.folder, run.judged = kept.project.folder, True
    run.changed.emit()
    assert "31 nuclei teach, 12 others judge" in desk.retrain.about.text()
    run.judged = False
    run.changed.emit()
    assert "too few are left to judge by" in desk.retrain.about.text()
    run.folder = kept.project.folder.with_name("another.nucleus-kd")
    run.changed.emit()
    assert "teach" not in desk.retrain.about.text()
