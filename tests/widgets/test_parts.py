from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication, QFormLayout, QLabel, QWidget

from napari_nucleus_kd.widgets._parts import Fold, WordsLabel
from napari_nucleus_kd.widgets.open import OpenWidget
from napari_nucleus_kd.workspace import Problem


def test_a_label_is_as_high_as_its_words_need(qtbot):
    box, label = QWidget(), WordsLabel()
    qtbot.addWidget(box)
    QFormLayout(box).addRow("words", label)
    box.resize(300, 400)
    box.show()
    label.setText("short")
    qtbot.wait(10)
    line = label.height()
    label.setText("a longer text that does not fit into one line " * 3)
    qtbot.wait(10)
    assert label.height() >= 3 * line
    label.setText("short")
    qtbot.wait(10)
    assert label.height() == line


def test_names_in_words_are_not_markup(qtbot):
    label = WordsLabel("<b>a.tif</b>")
    qtbot.addWidget(label)
    assert label.textFormat() == Qt.TextFormat.PlainText


def test_a_fold_shows_and_hides(qtbot):
    content = QLabel("inside")
    fold = Fold("More", content)
    qtbot.addWidget(fold)
    assert content.isHidden()
    with qtbot.waitSignal(fold.toggled):
        fold.heading.click()
    assert not content.isHidden()
    assert "More" in fold.heading.text()


def test_a_problem_stands_only_in_its_own_step(viewer, session, qtbot):
    widget = OpenWidget(viewer)
    qtbot.addWidget(widget)
    session.workspace.problem = Problem("segment", "no model")
    assert widget.problem.isHidden()
    session.workspace.problem = Problem("open", "a.tif is cut short; copy it again", "Traceback ...")
    assert not widget.problem.isHidden()
    widget.problem.copy.click()
    assert "cut short" in QApplication.clipboard().text()
    assert "Traceback" in QApplication.clipboard().text()
