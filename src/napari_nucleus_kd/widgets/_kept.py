"""One image that is kept in a project: its two layers are saved soon after every change."""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal
from qtpy.QtCore import QTimer

from napari_nucleus_kd.errors import NucleusKDError
from napari_nucleus_kd.types import Region
from napari_nucleus_kd.widgets._changes import Changes, changes_in
from napari_nucleus_kd.widgets._kept_steps import Counted, Whole, save_steps
from napari_nucleus_kd.widgets._worker import run_in_thread

if TYPE_CHECKING:
    from napari.layers import Labels

    from napari_nucleus_kd.project import Project, ProjectImage
    from napari_nucleus_kd.widgets._changes import Change
    from napari_nucleus_kd.widgets._target import Target
    from napari_nucleus_kd.widgets._verified import VerifiedMask
    from napari_nucleus_kd.widgets._worker import Job

_MANY_SAVES = 300  # more make opening slow
SOON_MS, AGAIN_MS = 4_000, 8_000  # until a change is saved, and until a save that failed is tried again
LOOK_MS = 5_000  # until changes that napari does not tell of are looked for, in up to ten million pixels
_LOOK_PX = 2_000  # in larger images, a millisecond later for so many pixels


class Kept:
    """Saves the labels and the verified pixels of one image.

    Parameters
    ----------
    target : the plane of the layer with the nuclei.
    mask : what is verified.
    corner : where the first pixel of the labels lies in the image.

    Attributes
    ----------
    corrected : numbers of the nuclei that a person corrected, now or in former sessions.
    saved : when it was saved last since it is open; None before.
    counted : what was verified then.
    problem : why it could not be saved, for a person; "" if it could.
    refusal : why it can only be looked at; "" if it can be changed.

    Signals
    -------
    changed : any of these.
    """

    changed = Signal()

    def __init__(
        self,
        project: Project,
        image: ProjectImage,
        target: Target,
        mask: VerifiedMask,
        corner: tuple[int, int],
    ) -> None:
        self.project, self.image = project, image
        self.target, self.mask, self.corner = target, mask, corner
        self.corrected: set[int] = set(image.record.corrected)
        self.saved: datetime | None = None
        self.counted = Counted()
        self.problem = ""
        self.refusal = project.refusal
        self._pending = False
        self._job: Job | None = None
        self._began = 0.0  # when the newest save began
        self._compacting: Job | None = None
        self._timer = QTimer()
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self.save)
        self._looking = QTimer()
        self._looking.setSingleShot(True)
        self._looking.timeout.connect(self._look)
        self._is_unlooked = False  # data may have been changed past napari; asked in any thread
        self._is_suspect = False  # they were drawn again although napari told of no change
        self._telling = 0  # changes that napari told of just now: what is drawn meanwhile shows them
        self._is_outdated = False  # the save that runs has the data that were there before others
        self._watched: list[Changes] = []
        self._watch(mask.layer, mask.axes, (0, 0))
        self._watch(target.layer, target.axes, corner)

    def _watch(self, layer: Labels, axes: tuple[int, int], corner: tuple[int, int]) -> None:
        changes = Changes(layer)
        changes.changed.connect(partial(self._on_changed, axes, corner))
        changes.replaced.connect(self._on_unknown)
        changes.refreshed.connect(self._on_refreshed)
        self._watched.append(changes)

    def follow(self, target: Target, corner: tuple[int, int]) -> None:
        """Save another layer from now on, in place of the one with the nuclei."""
        self._watched.pop().close()
        self.target, self.corner, self.mask.of = target, corner, target.layer
        self._watch(target.layer, target.axes, corner)
        self.touch_all()

    @property
    def folder_name(self) -> str:
        """Name of the project."""
        return self.project.folder.name

    @property
    def unsaved(self) -> bool:
        """Whether anything was changed since the last save."""
        return self._pending or self._job is not None

    @property
    def labels(self) -> Whole:
        """The nuclei as they are now, of the whole image."""
        return Whole(self.target.labels, self.corner, self.image.record.shape_yx)

    @property
    def verified(self) -> Whole:
        """What is verified now, of the whole image; nothing where the labels end: nobody looked there."""
        (y, x), (height, width) = self.corner, self.target.labels.shape
        inside = Region(y, x, y + height, x + width).grown(0, self.image.record.shape_yx)
        return Whole(self.mask.pixels[inside.slices], (inside.y0, inside.x0), self.image.record.shape_yx)

    def _on_changed(
        self, axes: tuple[int, int], corner: tuple[int, int], changes: tuple[Change, ...]
    ) -> None:
        parts = _parts(axes, corner, changes)
        self._touch(parts)
        # Once more when the data have changed: a save that begins just now would take them as they were.
        self._telling += 1
        QTimer.singleShot(0, partial(self._told, parts))
        self._save_soon()

    def _told(self, parts: list[Region]) -> None:
        self._telling -= 1
        self._touch(parts)

    def _touch(self, parts: list[Region]) -> None:
        for part in parts:
            self.image.touch(part)

    def _on_unknown(self) -> None:
        self.image.touch()
        self._is_outdated = self._job is not None  # it may take this touch, and save the former data
        self._save_soon()

    def _on_refreshed(self) -> None:
        """Look through everything in a while: a script may have changed data, which napari does not tell."""
        self._is_unlooked = True
        in_stroke = any(changes.layer._block_history for changes in self._watched)
        self._is_suspect |= not (self._telling or in_stroke)
        if not self._looking.isActive():
            height, width = self.image.record.shape_yx
            self._looking.start(max(LOOK_MS, height * width // _LOOK_PX))

    def _look(self) -> None:
        self.touch_all()
        self.save()

    def touch_all(self) -> None:
        """Look through everything at the next save: data may have been changed past napari."""
        self._is_unlooked = self._is_suspect = False
        if self.project.writable:
            self._on_unknown()

    def _save_soon(self) -> None:
        if not self.project.writable:
            return
        self._pending = True
        if not self._timer.isActive():
            self._timer.start(SOON_MS)
            self.changed.emit()

    def save(self) -> None:
        """Save in a thread now; while a save runs, after it."""
        self._timer.stop()
        if self._job is not None or not self.project.writable:
            return
        steps = save_steps(self.image, self.labels, self.verified, frozenset(self.corrected))
        self._pending = False
        self._began = time.monotonic()
        self._job = run_in_thread(
            steps,
            done=self._on_saved,
            failed=self._on_failed,
            ended=self._on_ended,
        )
        self.changed.emit()

    def _on_saved(self, found: tuple[datetime, Counted]) -> None:
        self.saved, self.counted = found
        self.problem = ""
        if self.image.saves > _MANY_SAVES and self._compacting is None:  # saving goes on meanwhile
            self._compacting = run_in_thread(
                self.image.compact_steps(),
                done=lambda _: None,
                failed=lambda *_: None,  # all is saved as it was; it is tried again after the next save
                ended=self._on_compacted,
            )

    def _on_compacted(self) -> None:
        self._compacting = None
        self.changed.emit()

    def _on_failed(self, error: BaseException, details: str) -> None:
        self._pending = True
        self._fail(error)
        self._timer.start(AGAIN_MS)

    def _fail(self, error: BaseException) -> None:
        text = str(error) if isinstance(error, NucleusKDError) else f"{type(error).__name__}: {error}"
        self.problem = text

    def _on_ended(self) -> None:
        self._job = None
        if self._is_outdated:
            self._on_unknown()
        if self._pending and not self._timer.isActive():
            took_ms = round(1000 * (time.monotonic() - self._began))
            self._timer.start(max(0, SOON_MS - took_ms))
        self.changed.emit()

    def write(self) -> None:
        """Save what was changed, also past napari, in any thread.

        Raises
        ------
        ProjectError, WriteError, LabelsError : see ProjectImage.save.
        """
        if self._is_unlooked or self._is_outdated:
            self._is_unlooked = self._is_suspect = self._is_outdated = False
            self.image.touch()
        self._write()

    def _write(self) -> None:
        self.image.save(self.labels, self.verified)
        self.image.note_corrected(frozenset(self.corrected))

    def flush(self) -> None:
        """Save what is not saved before this returns."""
        with suppress(RuntimeError):  # when Python ends with the window open, Qt's timers are gone already
            self._timer.stop()
            self._looking.stop()
        if not self.project.writable:
            return
        if self._is_large and not (self._is_suspect or self._is_outdated):
            self._touch_strokes()  # all else that changed was told of
            write = self._write
        else:
            write = self.write
        try:
            # Blocks that a running save has taken are not touched any more; the project waits for it.
            write()
            self._pending = False
            self.problem = ""
            self.saved = datetime.now()
        except (NucleusKDError, OSError) as error:
            self._pending = True
            self._fail(error)
            with suppress(RuntimeError):
                self._timer.start(AGAIN_MS)
        if self._is_unlooked:
            with suppress(RuntimeError):
                self._looking.start(LOOK_MS)
        self.changed.emit()

    @property
    def _is_large(self) -> bool:
        """Whether the window would stand still while everything is looked through."""
        return bool(np.prod(self.image.record.shape_yx) > LOOK_MS * _LOOK_PX)

    def _touch_strokes(self) -> None:
        """Touch what a brush stroke has painted so far, which napari tells when it ends."""
        planes = (self.mask.layer, self.mask.axes, (0, 0)), (self.target.layer, self.target.axes, self.corner)
        for layer, axes, corner in planes:
            if layer._staged_history:
                self._touch(_parts(axes, corner, tuple(changes_in(layer._staged_history))))

    def close(self) -> None:
        """Save what is left, and save no more; the project stays open."""
        if self._compacting is not None:
            self._compacting.cancel()
        if not self._is_large:
            self._is_unlooked = True  # a script may have changed data without drawing them again
        self.flush()
        with suppress(RuntimeError):
            self._timer.stop()
            self._looking.stop()
        for changes in self._watched:
            changes.close()

    @property
    def layers(self) -> tuple[Labels, Labels]:
        """The nuclei, and what is verified."""
        return self.target.layer, self.mask.layer

    def holds(self, layer: Any) -> bool:
        """Tell whether a layer is one of the two."""
        return any(layer is each for each in self.layers)


def _parts(axes: tuple[int, int], corner: tuple[int, int], changes: tuple[Change, ...]) -> list[Region]:
    """Return the parts of the image in which a layer changed that begins at a corner of it."""
    parts, (y, x) = [], corner
    for change in changes:
        (y0, y1), (x0, x1) = (change.span(axis) for axis in axes)
        parts.append(Region(y0 + y, x0 + x, y1 + y, x1 + x))
    return parts
