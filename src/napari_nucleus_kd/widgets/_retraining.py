"""Retraining in the window: one run at a time, beside all other work, until it is accepted or rejected."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal
from qtpy.QtCore import QObject
from qtpy.QtCore import Signal as QtSignal

from napari_nucleus_kd.errors import NucleusKDError, SettingsError
from napari_nucleus_kd.widgets import _steps
from napari_nucleus_kd.widgets._layers import RECIPE_KEY
from napari_nucleus_kd.widgets._making import Origin, chosen_origin, is_of_run
from napari_nucleus_kd.widgets._retrain_steps import (
    Look,
    Plan,
    pair_steps,
    pausable,
    prepare,
    retrain_steps,
)
from napari_nucleus_kd.widgets._worker import one_step
from napari_nucleus_kd.workspace import Problem

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_nucleus_kd.package import Model
    from napari_nucleus_kd.project import Project, TrainingData
    from napari_nucleus_kd.train.finetune import Tuned
    from napari_nucleus_kd.train.finetune_settings import FinetuneSettings
    from napari_nucleus_kd.types import Progress
    from napari_nucleus_kd.widgets._kept import Kept
    from napari_nucleus_kd.widgets._retrain_steps import Pair
    from napari_nucleus_kd.widgets._session import Session
    from napari_nucleus_kd.widgets._worker import Job

STEP = "retrain"


class _Bridge(QObject):
    """Brings what a run tells from its thread into that of the window."""

    told = QtSignal(str, object)


class Retraining:
    """The run of one window.

    Attributes
    ----------
    progress : newest report; None before the first, and while nothing runs.
    data : what the run learns from; None before it is known.
    judged : whether enough is held out to judge it by.
    folder : of the project that it learns from; None before the first run.
    tuned : the result that waits to be accepted or rejected; None without one.
    pair, tile : pictures of a tile that is held out, or that nobody verified, and which one it is.
    note : what happened last, for a person.
    broken : why a run of the project that was stopped cannot be gone on with; "" if it can, or there is none.
    doing : what is under way besides a run, for a person; "" if nothing is.
    chosen : name of the version that was accepted or brought back since the last run began; "" without one.

    Signals
    -------
    changed : any of these.
    pictured : "curves" or "preview", and the picture.
    """

    changed = Signal()
    pictured = Signal(str, object)

    def __init__(self, session: Session) -> None:
        self._session = session
        self.progress: Progress | None = None
        self.data: TrainingData | None = None
        self.judged = False
        self.folder: Path | None = None
        self.tuned: Tuned | None = None
        self.pair: Pair | None = None
        self.tile = 0
        self.note = ""
        self.broken = ""
        self.doing = ""
        self.chosen = ""
        self._output: Path | None = None
        self._job: Job | None = None
        self._drawing: Job | None = None
        self._looked: Project | None = None
        self._found: tuple[str, FinetuneSettings] | None = None
        self._going = threading.Event()
        self._going.set()
        self._prepared = False
        self._bridge = _Bridge()
        self._bridge.told.connect(self._on_told)
        session.keeping.changed.connect(self._on_keeping)

    # What is there

    @property
    def running(self) -> bool:
        """Whether a run is under way, paused or not."""
        return self._job is not None

    @property
    def paused(self) -> bool:
        """Whether the run under way waits."""
        return not self._going.is_set()

    @property
    def project(self) -> Project | None:
        """The project that is learnt from: that of the image in hand."""
        kept = self._session.keeping.kept
        return None if kept is None else kept.project

    def unfinished(self) -> tuple[str, FinetuneSettings] | None:
        """Return model and settings of a run of the project that was stopped, or waits for an answer."""
        project = self.project
        if project is None or self.running or self.tuned is not None or not project.writable:
            return None
        return self._found

    def _on_keeping(self) -> None:
        if self.project is not self._looked:
            self._look_for_run()

    def _look_for_run(self) -> None:
        """Look whether the project in hand has a run that is not finished."""
        from napari_nucleus_kd.train.finetune_folder import begun, run_folder

        self._looked = project = self.project
        self._found, self.broken = None, ""
        if project is None:
            return
        try:
            self._found = begun(run_folder(project.folder))
        except SettingsError as error:
            self.broken = str(error)

    # A run

    def prepare(self) -> None:
        """Load what a run needs, in a thread; once."""
        if not self._prepared:
            self._prepared = True
            self._session.run_beside(one_step(prepare), lambda _: None, step=STEP)

    def start(self, model: str, settings: FinetuneSettings, *, goes_on: bool = False) -> None:
        """Learn from what is verified in the project in hand, in a thread.

        Parameters
        ----------
        model : name or folder of the model to start from.
        goes_on : with the run that was stopped; otherwise nothing is begun while there is one.
        """
        from napari_nucleus_kd.train.finetune_folder import run_folder

        kept = self._session.keeping.kept
        if kept is None or self.running:
            return
        if not goes_on:
            self._look_for_run()
            if self._found or self.broken:  # of the command line, meanwhile
                self.note = "Another program began a run of this project."
                self.changed.emit()
                return
        self._session.workspace.problem = None
        self.data, self.pair, self.tuned, self.note = None, None, None, ""
        self.judged, self.chosen, self.folder = False, "", kept.project.folder
        self._output = run_folder(self.folder)
        # What is damaged refuses to be saved, and is left out of the training data: it stops no other image.
        here = self._session.keeping.of_project(kept.project)
        saves = [each.write for each in here if not each.image.damage]
        record, origin = kept.image.record, self._origin(kept)
        if origin != Origin(record.modality, record.recipe):
            modality = origin.modality or record.modality
            saves.append(partial(kept.image.note_origin, modality, origin.recipe))
        plan = Plan(kept.project, tuple(saves), model, self._output, settings, self._look(kept, origin))
        self._going.set()
        steps = pausable(retrain_steps(plan, self._bridge.told.emit), self._going)
        self._job = self._session.run_beside(
            steps, self._done, ended=self._ended, step=STEP, progress=self._on_progress
        )
        self.changed.emit()

    def _origin(self, kept: Kept) -> Origin:
        """Return where the labels of the image in hand come from; of no run: what Segment shows now counts.

        So who is told that a channel is to be chosen can do so although the project is there already.
        """
        record = kept.image.record
        known = Origin(record.modality, record.recipe)
        return known if is_of_run(record.recipe) else chosen_origin(self._session.workspace.recipe, known)

    def _look(self, kept: Kept, origin: Origin) -> Look | None:
        """Return a tile to watch: the one with most verified nuclei of the image in hand."""
        from napari_nucleus_kd.project import grid

        image = self._session.workspace.image
        if image is None or image.shape_yx != kept.image.record.shape_yx:
            return None
        labels, mask = kept.labels, kept.mask.pixels
        tiles = list(grid(image.shape_yx))
        verified = [int(np.count_nonzero(mask[tile.slices])) for tile in tiles]
        if not any(verified):
            return None
        best = tiles[int(np.argmax(verified))]
        known = kept.target.layer.metadata.get(RECIPE_KEY)
        recipe = self._session.suggesting.recipe_to_teach(known)
        if known is None:
            channels = None if origin.recipe is None else origin.recipe.channels
            recipe = recipe.model_copy(update={"modality": origin.modality, "channels": channels})
        true = np.where(mask[best.slices] != 0, labels[best.slices], 0).astype(np.int32)
        return Look(image, recipe, best, true)

    def pause(self) -> None:
        """Let the run wait, or go on."""
        if self._going.is_set():
            self._going.clear()
        else:
            self._going.set()
        self.changed.emit()

    def cancel(self) -> None:
        """Stop the run after the step under way; it can be gone on with."""
        if self._job is not None:
            self._job.cancel()
            self.note = "Stopping after this step…"
            self.changed.emit()

    def _on_progress(self, progress: Progress) -> None:
        self.progress = progress
        self.changed.emit()

    def _on_told(self, what: str, value: Any) -> None:
        if what == "data":
            self.data = value
            self.changed.emit()
        elif what == "judged":
            self.judged = value
            self.changed.emit()
        else:
            self.pictured.emit(what, value)

    def _done(self, found: tuple[TrainingData, Tuned]) -> None:
        self.data, self.tuned = found
        self.show_tile(0)

    def _ended(self) -> None:
        self._job, self.progress = None, None
        self._going.set()
        self._look_for_run()
        problem = self._session.workspace.problem
        if self.tuned is not None:
            self.note = ""
        elif problem is not None and problem.step == STEP:
            self.note = f"The run failed. {problem.text}"
        else:
            self.note = "Stopped. Go on with it, or discard it." if self._found else "Stopped."
        self.changed.emit()

    def show_tile(self, tile: int) -> None:
        """Draw a tile that is held out, or that nobody verified, as the old model and the new one see it."""
        tuned = self.tuned
        if tuned is None or not tuned.tiles or self.doing:
            return
        self._stop_drawing()
        self.tile = tile % tuned.tiles

        def drawn(pair: Pair) -> None:
            self.pair = pair
            self.changed.emit()

        steps = pair_steps(tuned, self.tile, self._session.workspace.recipe.device)
        self._drawing = self._session.run_beside(steps, drawn, step=STEP)

    def _stop_drawing(self) -> None:
        """Want no picture any more: neither it nor its failure is told."""
        if self._drawing is not None:
            self._drawing.cancel()
            self._drawing = None

    # The answer

    def accept(self) -> None:
        """Make the result the next version of its model, and choose it in Segment."""
        tuned, output = self.tuned, self._output
        if tuned is None or output is None or self.doing:
            return

        def work() -> tuple[Model, tuple[Model, ...], str]:
            from napari_nucleus_kd.train.finetune import accept, reject

            model, left = accept(tuned), ""
            try:
                reject(output)
            except (NucleusKDError, OSError) as error:
                left = str(error)
            return model, _steps.list_models(), left

        self._stop_drawing()
        self._do("Installing the new version…", work, self._accepted)

    def _accepted(self, found: tuple[Model, tuple[Model, ...], str]) -> None:
        model, models, left = found
        self.tuned, self.pair, self.data, self._output = None, None, None, None
        self._choose(model, models)
        self.note = f"{model.spec.name} is installed, and chosen in Segment. The versions before stay."
        if left:
            self.note += f"\nWhat the run wrote is left: {left}."

    def _choose(self, model: Model, models: tuple[Model, ...]) -> None:
        self._session.set_models(models)
        # Thresholds were tuned for the former model.
        self._session.workspace.set_recipe(
            segmenter="student", model=model.spec.name, weights=None, decode=None
        )
        self.chosen = model.spec.name

    @property
    def can_segment_again(self) -> bool:
        """Whether a version was chosen here that is chosen still, and the image in hand is kept."""
        recipe = self._session.workspace.recipe
        is_chosen = bool(self.chosen) and (recipe.segmenter, recipe.model) == ("student", self.chosen)
        return is_chosen and self._session.keeping.kept is not None

    def segment_again(self) -> None:
        """Segment the image in hand with the model chosen, and take its nuclei in; what is verified stays."""
        if self._session.runs.on_disk():
            self._session.workspace.problem = Problem(
                "segment",
                "That is too large to be taken in at once: zoom in, and choose “What I see” as Region.",
            )
            return
        self.note = self._session.keeping.note = ""
        self._session.runs.start(lambda _: None, shown=self._session.keeping.taking_in.start)
        self.changed.emit()

    def reject(self) -> None:
        """Remove the result, or what there is of a run that was stopped."""
        from napari_nucleus_kd.train.finetune_folder import reject, run_folder

        project = self.project
        output = self._output
        if self.tuned is None:
            output = None if project is None else run_folder(project.folder)
        if output is None or self.running or self.doing:
            return

        def gone(_: object) -> None:
            self.tuned, self.pair, self.data, self._output = None, None, None, None
            self.note = "Nothing is left of that run."

        self._stop_drawing()
        self._do("Removing the run…", partial(reject, output), gone)

    def bring_back(self, name: str) -> None:
        """Make an older version the newest again."""
        if self.doing:
            return

        def work() -> tuple[Model, tuple[Model, ...]]:
            from napari_nucleus_kd.versions import restore

            return restore(name), _steps.list_models()

        def done(found: tuple[Model, tuple[Model, ...]]) -> None:
            self._choose(*found)
            self.note = f"{name} is back as {found[0].spec.name}, and chosen in Segment."

        self._do(f"Bringing back {name}…", work, done)

    def _do(self, doing: str, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        self.doing = doing
        self._session.workspace.problem = None
        self._session.run_beside(one_step(work), done, ended=self._did, step=STEP)
        self.changed.emit()

    def _did(self) -> None:
        self.doing = ""
        self._look_for_run()
        self.changed.emit()
