"""The Retrain widget: what is learnt from, a run with its curves, old against new, and the versions."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QLabel,
    QProgressBar,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_nucleus_kd.train.finetune_settings import FinetuneSettings
from napari_nucleus_kd.widgets import _words
from napari_nucleus_kd.widgets._parts import (
    BAR_STYLE,
    PRIMARY_STYLE,
    Fold,
    ProblemBox,
    StepWidget,
    TaskBar,
    WordsLabel,
    button,
    named_controls,
    narrow_combo,
    pixmap,
    row,
    show_progress,
)
from napari_nucleus_kd.widgets._retraining import STEP
from napari_nucleus_kd.widgets._taking_in import STEP as TAKING_IN
from napari_nucleus_kd.words import count

if TYPE_CHECKING:
    from napari import Viewer
    from qtpy.QtGui import QPixmap, QShowEvent

_STEPS = 100
_DEVICES: dict[str, Any] = {"openvino": "cpu"}  # that training cannot take, and what it takes instead
_PICTURE_PX = 162  # edge of a tile that is shown: two fit beside each other into a narrow dock
_button = partial(button, focus=True)  # no keys of the canvas are used along with it


class RetrainWidget(StepWidget):
    """Makes a model a person's own."""

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__(napari_viewer)
        self.retraining = self.session.retraining
        self._chosen = ""  # model in Segment
        self.about = WordsLabel()
        self.model = narrow_combo("The model to start from; it stays as it is", 12)
        self.steps = QSpinBox()
        self.steps.setRange(1, 100_000)
        self.steps.setValue(_STEPS)
        self.steps.setSuffix(" steps")
        self.steps.setToolTip(
            "How many batches to learn from: 100 take a minute or two without a graphics card"
        )
        self.patience = QSpinBox()
        self.patience.setRange(0, 1000)
        self.patience.setValue(FinetuneSettings().early_stop or 0)
        self.patience.setSpecialValueText("no")
        self.patience.setPrefix("after ")
        self.patience.setSuffix(" checks")
        self.patience.setToolTip(
            "Stop before the end once so many checks in a row brought no improvement on what is watched;\n"
            f"a check comes every {FinetuneSettings().check_every} steps. 0: always go on to the end"
        )
        self.start = _button(
            "Retrain", "Learn from what is verified; you can go on working meanwhile", self._on_start
        )
        self.start.setStyleSheet(PRIMARY_STYLE)
        self.go_on = _button("Go on", "Go on with the run that was stopped", self._on_go_on)
        self.discard = _button("Discard", "Remove what there is of that run", self.retraining.reject)
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setStyleSheet(BAR_STYLE)
        self.pause = _button(
            "Pause", "Let the run wait, for instance while you segment", self.retraining.pause
        )
        self.cancel = _button("Cancel", "Stop the run; you can go on with it later", self.retraining.cancel)
        self.message = WordsLabel()
        self.problem = ProblemBox(self, STEP)
        self.again = TaskBar(
            self,
            "segment",
            "Segment again",
            "Find the nuclei anew with this version, in the Region that Segment shows, and put them in the\n"
            "place of those that are kept; what you verified or corrected stays as it is",
            self.retraining.segment_again,
        )
        self.curves = QLabel()
        self.curves.setToolTip(
            "Above: what is made smaller, a line a term. Below: accuracy (panoptic quality, 0 to 1)\n"
            "on verified tiles that the model does not learn from"
        )
        self.preview = QLabel()
        self.preview.setToolTip("Blue: what you verified. Yellow: what the model sees now")
        self.result = ResultPanel(self)
        self.versions = narrow_combo("All models that can be retrained, with their versions", 12)
        self.back = _button(
            "Bring back", "Make this version the newest again; none is lost", self._on_bring_back
        )
        self.fold = Fold("Versions", row(self.versions, self.back), tip="Older versions of the models")
        self._lay_out()
        self._watch()

    def _lay_out(self) -> None:
        grid = named_controls(
            ("Start from", self.model), ("Length", self.steps), ("Stop early", self.patience)
        )
        self.begin = QWidget()
        lines = QVBoxLayout(self.begin)
        lines.setContentsMargins(0, 0, 0, 0)
        lines.addLayout(grid)
        lines.addWidget(self.start)
        self.stopped = row(self.go_on, self.discard)
        self.running = row(self.bar, self.pause, self.cancel)
        layout = QVBoxLayout(self)
        for part in (self.about, self.begin, self.stopped, self.running, self.message, self.again):
            layout.addWidget(part)
        for part in (self.problem, self.result, self.curves, self.preview, self.fold):
            layout.addWidget(part)
        layout.addStretch(1)

    def _watch(self) -> None:
        self.follow(self.retraining.changed, self._refresh)
        self.follow(self.retraining.pictured, self._on_pictured)
        self.follow(self.session.keeping.changed, self._refresh)
        self.follow(self.workspace.events.problem, self._refresh)
        self.follow(self.session.models_changed, self._on_models)
        self.follow(self.workspace.events.recipe, self._on_models)
        self._on_models()

    def showEvent(self, event: QShowEvent) -> None:
        """Load what a run needs."""
        super().showEvent(event)
        self.retraining.prepare()

    def _on_start(self) -> None:
        device = self.workspace.recipe.device.partition(":")[0]
        settings = FinetuneSettings(
            steps=self.steps.value(),
            early_stop=self.patience.value() or None,
            device=_DEVICES.get(device, device),
        )
        self._run(self.model.currentData(), settings)

    def _on_go_on(self) -> None:
        found = self.retraining.unfinished()
        if found is not None:
            self._run(*found, goes_on=True)

    def _run(self, model: str, settings: FinetuneSettings, *, goes_on: bool = False) -> None:
        self.curves.clear()
        self.preview.clear()
        self.retraining.start(model, settings, goes_on=goes_on)

    def _on_bring_back(self) -> None:
        if self.versions.currentData():
            self.retraining.bring_back(self.versions.currentData())

    def _on_models(self, *_: object) -> None:
        students = [model for model in self.session.models if model.spec.architecture == "student"]
        chosen, self._chosen = self._chosen, self.workspace.recipe.model
        for box in (self.model, self.versions):
            former = box.currentData()
            if former is None or (box is self.model and chosen != self._chosen):
                former = self._chosen  # another model was chosen in Segment
            box.clear()
            for model in students:
                box.addItem(f"{model.spec.name} {model.spec.version}", model.spec.name)
            box.setCurrentIndex(max(0, box.findData(former)))
        self._refresh()

    def _refresh(self, *_: object) -> None:
        retraining = self.retraining
        unfinished = retraining.unfinished() is not None
        idle = not retraining.running and retraining.tuned is None and not retraining.doing
        refusal = self._refusal()
        self.about.setText("\n".join(filter(None, (self._about(), refusal if idle else ""))))
        self.begin.setVisible(idle and not unfinished and not retraining.broken)
        self.start.setEnabled(not refusal)
        self.stopped.setVisible(idle and (unfinished or bool(retraining.broken)))
        self.go_on.setVisible(unfinished)
        self.back.setEnabled(self.versions.count() > 0 and not retraining.doing)
        self.running.setVisible(retraining.running)
        self.pause.setText("Go on" if retraining.paused else "Pause")
        self.message.setText(self._message())
        self.message.setVisible(bool(self.message.text()))
        self.again.setVisible(idle and retraining.can_segment_again)
        self.result.refresh()
        show_progress(self.bar, retraining.progress)
        if not retraining.running:
            self.preview.setVisible(False)
            self.curves.setVisible(retraining.tuned is not None and not self.curves.pixmap().isNull())

    def _refusal(self) -> str:
        """Say why no run can be begun; "" if one can."""
        keeping, kept = self.session.keeping, self.session.keeping.kept
        if kept is None:
            if keeping.can_open_again:
                return "The layers of this image's project were closed: press “Open again” in Correct."
            if keeping.needs_part():
                return (
                    "This image is too large to be kept as a whole: press “Keep this part in a file…” in "
                    "Correct."
                )
            if keeping.needs_file():
                return "This image is in no file yet: press “Keep in a file…” in Correct."
            nothing = "Nothing is verified yet: correct some nuclei in Correct, and mark what is right (C)."
            return keeping.doing or nothing
        if not kept.project.writable:
            return f"Only to look at: {kept.project.refusal}."
        counts = [counted for _, counted in keeping.counts(kept.project)]
        if not any(counted.nuclei for counted in counts if counted is not None):
            if None in counts:
                return "It is being counted what is verified."
            return "No nucleus is verified as a whole yet: mark boxes (C) or accept nuclei in Correct."
        return "" if self.model.count() else "There is no model that can be retrained; install one."

    def _about(self) -> str:
        """Say what is learnt from."""
        kept, data = self.session.keeping.kept, self.retraining.data
        if kept is None or not kept.project.writable:
            return ""
        lines = [f"{kept.folder_name}, {count(len(kept.project.images), 'image')}:"]
        for name, counted in self.session.keeping.counts(kept.project):
            lines.append(f"• {name}: {'counting…' if counted is None else _words.verified(counted)}")
        if data is not None and self.retraining.folder == kept.project.folder:
            judged = (
                f"{data.judged} others judge" if self.retraining.judged else "too few are left to judge by"
            )
            lines.append(f"{count(data.taught, 'nucleus', 'nuclei')} teach, {judged}.")
            tuned = self.retraining.tuned
            if tuned is None or not tuned.after:  # else the result says how it can be judged
                lines += [f"{note[:1].upper()}{note[1:]}." for note in data.notes]
        return "\n".join(lines)

    def _message(self) -> str:
        retraining, progress = self.retraining, self.retraining.progress
        if retraining.doing:
            return retraining.doing
        if not retraining.running:
            found = retraining.unfinished()
            waiting = (
                ""
                if found is None
                else f"A run of {found[1].steps} steps from {found[0]} was begun and not accepted."
            )
            if retraining.broken and retraining.tuned is None:
                waiting = f"There is a run that cannot be gone on with; discard it. {retraining.broken}"
            return "\n".join(filter(None, (self._note() or self._taken_in(), waiting)))
        if progress is None:
            return "Reading what is verified…"
        return _words.retraining(progress, paused=retraining.paused, note=retraining.note)

    def _note(self) -> str:
        """Return what happened last, unless it stands below as a problem, with its details."""
        shown = not self.problem.isHidden() and self.problem.text.text()
        return "" if shown and shown in self.retraining.note else self.retraining.note

    def _taken_in(self) -> str:
        """Return what came of segmenting again."""
        problem, keeping = self.workspace.problem, self.session.keeping
        if not self.retraining.chosen:
            return ""
        if problem is not None and problem.step in (self.again.step, TAKING_IN):
            return problem.text
        return keeping.doing or keeping.note

    def _on_pictured(self, what: str, picture: Any) -> None:
        label = self.curves if what == "curves" else self.preview
        label.setPixmap(pixmap(picture) if what == "curves" else _scaled(picture))
        label.setVisible(True)


class ResultPanel(QWidget):
    """Old against new, and the answer."""

    def __init__(self, owner: StepWidget) -> None:
        super().__init__()
        self._retraining = retraining = owner.session.retraining
        self.said = WordsLabel()
        self.said.setStyleSheet("font-weight: bold;")
        self.before, self.after = QLabel(), QLabel()
        self.caption = WordsLabel()
        self.previous = _button("◀", "The tile before", lambda: retraining.show_tile(retraining.tile - 1))
        self.next = _button("▶", "The next tile", lambda: retraining.show_tile(retraining.tile + 1))
        self.accept = _button(
            "Accept", "Install the new version and choose it in Segment; the old one stays", retraining.accept
        )
        self.accept.setStyleSheet(PRIMARY_STYLE)
        self.reject = _button("Reject", "Remove the new version; nothing is left of it", retraining.reject)
        self.pictures = QWidget()
        lines = QVBoxLayout(self.pictures)
        lines.setContentsMargins(0, 0, 0, 0)
        lines.addWidget(row(self.before, self.after))
        lines.addWidget(row(self.caption, self.previous, self.next))
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for part in (self.said, self.pictures, row(self.accept, self.reject)):
            layout.addWidget(part)

    def refresh(self) -> None:
        """Show the result that waits for an answer."""
        tuned, pair = self._retraining.tuned, self._retraining.pair
        self.setVisible(tuned is not None)
        if tuned is None:
            return
        idle = not self._retraining.doing
        for part in (self.accept, self.reject):
            part.setEnabled(idle)
        for part in (self.previous, self.next):
            part.setEnabled(idle and tuned.tiles > 1)
        from napari_nucleus_kd.train.finetune import gain_in_words

        self.said.setText(gain_in_words(tuned.mean_pq, tuned.gain, len(tuned.after)))
        self.pictures.setVisible(pair is not None)
        if pair is not None:
            self.before.setPixmap(_scaled(pair.before))
            self.after.setPixmap(_scaled(pair.after))
            which = f"{pair.tile + 1} of {tuned.tiles}: old left, new right (yellow)"
            self.caption.setText(
                f"Tile {which}; blue is what you verified."
                if tuned.before
                else f"Tile that nobody verified, {which}."
            )


def _scaled(picture: Any) -> QPixmap:
    return pixmap(picture).scaled(
        _PICTURE_PX,
        _PICTURE_PX,
        Qt.AspectRatioMode.KeepAspectRatio,
        Qt.TransformationMode.SmoothTransformation,
    )
