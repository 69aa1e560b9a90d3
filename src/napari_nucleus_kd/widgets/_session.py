"""The images of one viewer: which are there, which is in hand, opening others."""

from __future__ import annotations

import traceback
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

from psygnal import Signal
from qtpy.QtCore import QTimer

from napari_nucleus_kd.widgets import _layers, _show, _steps
from napari_nucleus_kd.widgets._corrections import Corrections
from napari_nucleus_kd.widgets._keeping import Keeping
from napari_nucleus_kd.widgets._panels import Panels
from napari_nucleus_kd.widgets._retraining import Retraining
from napari_nucleus_kd.widgets._runs import Runs
from napari_nucleus_kd.widgets._suggesting import Suggesting
from napari_nucleus_kd.widgets._worker import one_step, run_in_thread
from napari_nucleus_kd.workspace import Activity, Problem, Workspace

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from napari import Viewer

    from napari_nucleus_kd.package import Model
    from napari_nucleus_kd.types import Image, Modality, Progress
    from napari_nucleus_kd.widgets._layers import Source
    from napari_nucleus_kd.widgets._show import LayerData
    from napari_nucleus_kd.widgets._worker import Job

_PATIENCE_MS = 1000  # for what a tool has in hand, after Cancel
_SESSIONS: WeakKeyDictionary[Viewer, Session] = WeakKeyDictionary()


def session_of(viewer: Viewer) -> Session:
    """Return the session that all widgets of a viewer share."""
    # napari hands widgets a short-lived proxy of the viewer.
    viewer = getattr(viewer, "__wrapped__", viewer)
    if viewer not in _SESSIONS:
        _SESSIONS[viewer] = Session(viewer, Workspace.remembered())
    return _SESSIONS[viewer]


@dataclass(frozen=True, slots=True)
class _Wish:
    """A job that a person waits for, running or waiting for its turn.

    Attributes
    ----------
    plane_of : key of the source of which it reads another plane; "" if it does something else.
    """

    step: str
    title: str
    steps: Generator[Progress, None, Any]
    done: Callable[[Any], None]
    plane_of: str = ""


class Session:
    """Keeps the workspace and the layers of one viewer in step, and holds the jobs that run for it.

    Only the GUI thread uses it. It holds no widget, and its viewer only weakly.
    """

    sources_changed = Signal()
    models_changed = Signal()
    view_changed = Signal()

    def __init__(self, viewer: Viewer, workspace: Workspace) -> None:
        self._viewer = ref(viewer)
        self.workspace = workspace
        self.models: tuple[Model, ...] = ()
        self._key = ""
        self._jobs: set[Job] = set()
        self._main: Job | None = None
        self._wish: _Wish | None = None
        self._waiting: _Wish | None = None
        self._views = 0
        self._coming: list[LayerData] = []
        self.panels = Panels(self)
        self.runs = Runs(self)
        self.corrections = Corrections(self)
        self.keeping = Keeping(self)
        self.suggesting = Suggesting(self)
        self.retraining = Retraining(self)
        viewer.layers.events.inserted.connect(self._on_inserted)
        viewer.layers.events.removed.connect(self._on_removed)
        viewer.layers.events.renamed.connect(self._on_renamed)
        viewer.dims.events.current_step.connect(self._on_plane)
        _layers.camera_of(viewer).events.connect(self._on_camera)
        found = self.sources()
        if found:
            self.choose(found[-1])
        self.run_beside(one_step(_steps.list_models), self.set_models)

    @property
    def viewer(self) -> Viewer:
        """The viewer.

        Raises
        ------
        RuntimeError if it is gone.
        """
        viewer = self._viewer()
        if viewer is None:
            raise RuntimeError("the viewer of this session is gone")
        return viewer

    @property
    def viewer_if_there(self) -> Viewer | None:
        """The viewer; None if it is gone."""
        return self._viewer()

    @property
    def busy(self) -> bool:
        """True while any job runs, also those that nobody waits for, or layers are being added."""
        return bool(self._jobs or self._coming)

    # Images

    def sources(self) -> list[Source]:
        """List the images among the viewer's layers; none once the viewer is gone."""
        viewer = self._viewer()
        return [] if viewer is None else _layers.sources(viewer.layers)

    @property
    def source(self) -> Source | None:
        """The image in hand, None if there is none."""
        return next((source for source in self.sources() if source.key == self._key), None)

    def choose(self, source: Source | None) -> None:
        """Take an image of the viewer in hand and ask what its pixels suggest."""
        self._key = "" if source is None else source.key
        if source is None:
            self.workspace.take(None)
            return
        image = source.opened or _layers.to_image(source, self.viewer)
        self.workspace.take(image)
        self.run_beside(
            one_step(lambda: _steps.suggest(image)), lambda found: self._set_suggestion(image, found)
        )

    def refresh(self) -> Image | None:
        """Return the image in hand as it is shown now: a stack's plane, or a name, may have changed."""
        source, image = self.source, self.workspace.image
        if source is None or image is None:
            return None
        if source.opened is None:
            current = _layers.to_image(source, self.viewer)
            size_um = self.workspace.recipe.pixel_size_um or current.pixel_size_um
            self.workspace.image = replace(current, pixel_size_um=size_um)
        return self.workspace.image

    def set_pixel_size(self, size_um: float | None) -> None:
        """Fill in the edge of a pixel in micrometres; the layers of an image that we opened follow.

        Parameters
        ----------
        size_um : None makes it unknown again; a layer of another origin goes back to what its units say.
        """
        source, image = self.source, self.workspace.image
        if source is None or image is None or image.pixel_size_um == size_um:
            return
        if source.opened is not None:
            image = _show.set_pixel_size(source, self.viewer.layers, size_um)
        else:
            own = _layers.to_image(source, self.viewer).pixel_size_um
            image = replace(image, pixel_size_um=own if size_um is None else size_um)
        if image.pixel_size_um is None:
            self.workspace.set_recipe(pixel_size_um=None, diameter_um=None)  # um say nothing without a scale
        else:
            self.workspace.set_recipe(pixel_size_um=size_um)
        self.workspace.image = image

    def open(self, path: Path, z: int | None = None) -> None:
        """Read an image in a thread and add its layers; problems stand in the workspace.

        Parameters
        ----------
        z : plane of a stack, counted from 0; None lets the reader choose.
        """
        self.run_main("open", f"Opening {path.name}", _steps.read_steps(path, z=z), self._add_layers)

    def open_sample(self, name: str) -> None:
        """Draw a sample image in a thread and add its layers."""
        self.run_main("open", f"Drawing the {name} sample", _steps.sample_steps(name), self._add_layers)

    def show_plane(self, z: int) -> None:
        """Read another z plane, counted from 0, of the file in hand into the same layers."""
        source, image = self.source, self.workspace.image
        if source is None or image is None or image.source is None:
            return
        self.run_main(
            "open",
            f"Reading z plane {z}",
            _steps.read_steps(image.source, z=z),
            lambda found: self._swap_plane(source, found[0]),
            plane_of=source.key,
        )

    @property
    def can_show_plane(self) -> bool:
        """True if another plane would be read at once: nothing runs or waits but the reading of planes."""
        return all(wish is None or wish.plane_of for wish in (self._wish, self._waiting))

    # Jobs

    def run_main(
        self,
        step: str,
        title: str,
        steps: Generator[Progress, None, Any],
        done: Callable[[Any], None],
        plane_of: str = "",
    ) -> None:
        """Run the one job that a person waits for.

        While another one runs the newest wish waits for its end, and former wishes are forgotten.

        Parameters
        ----------
        step : whose widget shows a problem, "open", "segment" or "correct".
        title : what is being done, for a person.
        done : called with the result in the GUI thread.
        plane_of : key of the source of which another plane is read; a newer wish for a plane of it takes its
            place at once.
        """
        wish = _Wish(step, title, steps, done, plane_of)
        self.workspace.problem = None
        if self._main is None or self._wish is None:
            self._begin(wish)
            return
        self._forget_waiting()
        self._waiting = wish
        if plane_of and plane_of == self._wish.plane_of:
            self._main.cancel()
            self.workspace.activity = Activity(step, title)
        elif self.workspace.activity is not None:
            self.workspace.activity = replace(self.workspace.activity, following=title)

    def _begin(self, wish: _Wish) -> None:
        def failed(error: BaseException, details: str) -> None:
            self.workspace.problem = Problem.from_error(wish.step, error, details)

        self._wish = wish
        self.workspace.activity = Activity(wish.step, wish.title)
        self._main = self._start(wish.steps, wish.done, failed, self.workspace.report, self._main_ended)

    def _forget_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.steps.close()
            self._waiting = None

    def run_beside(
        self,
        steps: Generator[Progress, None, Any],
        done: Callable[[Any], None],
        ended: Callable[[], None] | None = None,
        step: str = "segment",
        progress: Callable[[Progress], None] | None = None,
    ) -> Job:
        """Run a job that nobody waits for; a problem stands in the workspace like any other.

        Parameters
        ----------
        step : whose widget shows a problem.
        progress : called with each report.
        """

        def failed(error: BaseException, details: str) -> None:
            self.workspace.problem = Problem.from_error(step, error, details)

        return self._start(steps, done, failed, progress, ended)

    def cancel(self) -> None:
        """Stop the job that a person waits for, at its next step; what waits for its end is forgotten.

        What another process has in hand, Cellpose for instance, may take minutes: it is killed if it is not
        soon done.
        """
        self._forget_waiting()
        if self._main is not None and self.workspace.activity is not None:
            self._main.cancel()
            QTimer.singleShot(_PATIENCE_MS, self._main.end_waiting)
            self.workspace.activity = replace(self.workspace.activity, stopping=True, following="")

    def attach(self) -> None:
        """Count a widget in."""
        self._views += 1

    def detach(self) -> None:
        """Count a widget out; with the last one gone nobody could cancel the jobs, so they stop."""
        self._views -= 1
        if self._views == 0:
            self._coming.clear()
            self._forget_waiting()
            for job in tuple(self._jobs):
                job.cancel()
            self.keeping.rest()

    def _start(
        self,
        steps: Generator[Progress, None, Any],
        done: Callable[[Any], None],
        failed: Callable[[BaseException, str], None],
        progress: Callable[[Progress], None] | None,
        ended: Callable[[], None] | None,
    ) -> Job:
        def leave() -> None:
            self._jobs.discard(job)
            if ended is not None:
                ended()

        job = run_in_thread(steps, done=done, failed=failed, progress=progress, ended=leave)
        self._jobs.add(job)
        return job

    def _main_ended(self) -> None:
        wish, self._waiting = self._waiting, None
        self._main = self._wish = None
        if wish is None:
            self.workspace.activity = None
        else:
            self._begin(wish)

    # What comes back from jobs

    def _add_layers(self, found: tuple[Image, list[LayerData]]) -> None:
        image, data = found
        if image.source is not None:
            self.workspace.remember_file(image.source)
        idle = not self._coming
        self._coming += data
        if idle:
            self._add_next()

    def _add_next(self) -> None:
        """Add one layer, and the next one after the window has lived on: napari takes 0.1 s for each."""
        from napari.layers import Layer

        if not self._coming:
            return
        try:
            self.viewer.add_layer(Layer.create(*self._coming[0]))
        except Exception as error:  # whatever napari or a lazy file raises while it draws the picture
            self._coming.clear()
            details = "".join(traceback.format_exception(error))
            self.workspace.problem = Problem.from_error("open", error, details)
        del self._coming[:1]
        QTimer.singleShot(0, self._add_next)

    def _swap_plane(self, source: Source, image: Image) -> None:
        if source.opened is not None:  # a person may have filled it in, or taken it away
            image = replace(image, pixel_size_um=source.opened.pixel_size_um)
        for layer in _layers.made_from(source, self.viewer.layers):
            layer.visible = False  # it belongs to the former plane
        _show.swap_image(source, image)
        if source.key != self._key:
            return  # another image was taken in hand meanwhile
        self.workspace.result = None
        self.workspace.outcome = ""
        self.workspace.image = image

    def _set_suggestion(self, image: Image, found: tuple[Modality, str]) -> None:
        if self.workspace.image is image:
            self.workspace.suggestion = found

    def set_models(self, found: tuple[Model, ...]) -> None:
        """Note which models are there."""
        self.models = found
        self.models_changed.emit()

    # What happens in the viewer

    def _on_inserted(self, event: Any) -> None:
        source = next((s for s in self.sources() if event.value in s.layers), None)
        # An image that was opened on purpose is taken in hand; layers of other plugins only if it is empty.
        new = source is not None and source.opened is not None and source.key != self._key
        if source is not None and (new or self.workspace.image is None):
            self.choose(source)
            if new:
                self._show_alone(source)
        self.sources_changed.emit()

    def _show_alone(self, source: Source) -> None:
        """Hide the former images and their results: pictures on top of each other say nothing."""
        others = [other for other in self.sources() if other.key != source.key]
        for other in others:
            for layer in (*other.layers, *_layers.made_from(other, self.viewer.layers)):
                layer.visible = False
        if others:
            _layers.show_whole(self.viewer, source)

    def _on_removed(self, event: Any) -> None:
        if self.source is None and self.workspace.image is not None:
            left = self.sources()
            self.choose(left[-1] if left else None)
        self.sources_changed.emit()

    def _on_renamed(self, event: Any) -> None:
        self.refresh()
        self.sources_changed.emit()

    def _on_camera(self, event: Any) -> None:
        self.view_changed.emit()

    def _on_plane(self, event: Any) -> None:
        source = self.source
        if source is not None and source.opened is None and source.layers[0].ndim > 2:
            self.refresh()
