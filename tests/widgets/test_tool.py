"""Another tool in the list of models: installed, given weights, and used, or left as it was."""

import subprocess
import sys
from pathlib import Path

import pytest
from qtpy.QtWidgets import QDialogButtonBox, QFileDialog

from napari_nucleus_kd import apart, baselines
from napari_nucleus_kd.baselines import Found
from napari_nucleus_kd.errors import BaselineError
from napari_nucleus_kd.types import Progress
from napari_nucleus_kd.widgets._tool import KNOWN
from napari_nucleus_kd.widgets.segment import SegmentWidget

FOUND = Found(Path("/somewhere/bin/python"), "3.1.1", "made by nucleus-kd")


@pytest.fixture
def there(monkeypatch):
    """Return a set of the tools that are there; installing adds one."""
    names = set()

    def find(name):
        if name not in names:
            raise BaselineError(f"{name} is not installed: nucleus-kd baselines install {name}")
        return FOUND

    def install_steps(name):
        yield Progress(0, 3, "making an environment")
        names.add(name)
        return FOUND

    monkeypatch.setattr(baselines, "find", find)
    monkeypatch.setattr(baselines, "install_steps", install_steps)
    return names


@pytest.fixture
def widget(viewer, session, qtbot, nuclei, settle):
    viewer.add_image(nuclei)
    made = SegmentWidget(viewer)
    qtbot.addWidget(made)
    settle(session)
    return made


def choose(widget, text):
    box = widget.model.box
    box.setCurrentIndex(box.findText(text))
    box.activated.emit(box.currentIndex())
    return widget.model.dialog


def ok(dialog):
    return dialog.answer.button(QDialogButtonBox.StandardButton.Ok)


def wait(dialog, qtbot):
    qtbot.waitUntil(lambda: not any(job.running for job in dialog._jobs))


def test_a_tool_that_is_not_there_is_installed_given_weights_and_used(
    widget, session, qtbot, there, fake_tool, settle
):
    dialog = choose(widget, "Cellpose 3 …")
    wait(dialog, qtbot)
    assert "is not installed" in dialog.where.text() and dialog.ways.isVisible()
    assert session.workspace.recipe.segmenter == "classical", "nothing is chosen yet"
    assert widget.model.box.currentText() == "Classical (no network)"
    weights = fake_tool()
    dialog.weights.setCurrentText(weights)
    assert not ok(dialog).isEnabled()
    dialog.install.click()
    wait(dialog, qtbot)
    assert "version 3.1.1" in dialog.where.text() and not dialog.ways.isVisible()
    ok(dialog).click()
    recipe = session.workspace.recipe
    assert (recipe.segmenter, recipe.weights) == ("cellpose", weights)
    assert widget.model.box.currentText() == f"Cellpose 3 with {weights}"
    widget.task.button.click()
    settle(session)
    assert session.workspace.problem is None and session.workspace.result.nuclei.count > 0
    again = choose(widget, "Cellpose 3 …")
    assert again.weights.currentText() == weights, "to be changed"
    again.close()


def test_cancel_leaves_the_choice_and_weights_are_needed(widget, session, qtbot, there):
    there.add("stardist")
    dialog = choose(widget, "StarDist …")
    wait(dialog, qtbot)
    assert not ok(dialog).isEnabled(), "no weights, and none by default"
    offered = [dialog.weights.itemText(i) for i in range(dialog.weights.count())]
    assert tuple(offered) == KNOWN["stardist"]
    dialog.weights.setCurrentIndex(0)
    assert ok(dialog).isEnabled()
    dialog.answer.button(QDialogButtonBox.StandardButton.Cancel).click()
    assert session.workspace.recipe.segmenter == "classical"


def test_weights_and_environments_of_the_person_are_taken(widget, qtbot, there, tmp_path, monkeypatch):
    dialog = choose(widget, "StarDist …")
    wait(dialog, qtbot)
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *a: str(tmp_path))
    dialog.browse.click()
    assert dialog.weights.currentText() == str(tmp_path)
    asked = []
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *a: ("/mine/python", ""))
    monkeypatch.setattr(baselines, "use", lambda name, python: asked.append((name, python)) or FOUND)
    dialog.have.click()
    wait(dialog, qtbot)
    assert asked == [("stardist", Path("/mine/python"))] and ok(dialog).isEnabled()
    dialog.close()


def test_cancel_ends_an_installer_that_says_nothing(widget, qtbot, there, monkeypatch):
    started = []

    def install_steps(name):
        yield Progress(0, 3, "installing")
        started.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]))
        with apart.waiting_for(started[0]):
            started[0].wait()

    monkeypatch.setattr(baselines, "install_steps", install_steps)
    dialog = choose(widget, "StarDist …")
    wait(dialog, qtbot)
    dialog.install.click()
    qtbot.waitUntil(lambda: bool(started))
    job = dialog._jobs[-1]
    dialog.answer.button(QDialogButtonBox.StandardButton.Cancel).click()
    qtbot.waitUntil(lambda: not job.running)
    assert started[0].returncode == -9


def test_closed_while_it_looks_nothing_comes_after(widget, session, qtbot, monkeypatch):
    import threading

    go = threading.Event()
    monkeypatch.setattr(baselines, "find", lambda name: go.wait(10) and FOUND)
    dialog = choose(widget, "StarDist …")
    (job,) = dialog._jobs
    dialog.close()
    go.set()
    qtbot.waitUntil(lambda: not job.running)
    assert session.workspace.recipe.segmenter == "classical"
