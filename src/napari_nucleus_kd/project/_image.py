"""One image of a project: its labels, what is verified of them, and where the image is."""

from __future__ import annotations

import threading
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_nucleus_kd.errors import ProjectError
from napari_nucleus_kd.io import read
from napari_nucleus_kd.project._arrays import as_labels, as_mask, check_shapes, digest, digests
from napari_nucleus_kd.project._base import chunks_of
from napari_nucleus_kd.project._journal import block_region, blocks_in
from napari_nucleus_kd.project._reference import ImageState, refer_to
from napari_nucleus_kd.project._store import Start, Store
from napari_nucleus_kd.types import Progress, Region

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Generator, Iterable, Iterator
    from pathlib import Path

    from napari_nucleus_kd.config import Recipe
    from napari_nucleus_kd.project._arrays import Plane
    from napari_nucleus_kd.project._base import Pair
    from napari_nucleus_kd.project._format import ImageRecord
    from napari_nucleus_kd.project._journal import Block, Content
    from napari_nucleus_kd.project._project import Project
    from napari_nucleus_kd.types import Image, Modality

_TRIES = 3  # to read what another window may be rewriting


class ProjectImage:
    """Labels and verified pixels of one image, kept beside it.

    The arrays belong to the caller, who says with `touch` where they changed and then calls `save`; only
    a digest is kept of each block that was read or written.

    Attributes
    ----------
    record : what project.json says of it.
    """

    def __init__(self, project: Project, record: ImageRecord, known: dict[Block, bytes] | None = None):
        self._project = project
        self._touched: set[Block] = set()
        self._marking, self._compacting = threading.Lock(), threading.Lock()
        self._open(record)
        self._digests |= known or {}  # of what was just written

    @property
    def folder(self) -> Path:
        """Where its labels are."""
        return self._project.folder / self.record.id

    @property
    def damage(self) -> str:
        """What is wrong with its files and what to do, for a person; "" if nothing is."""
        return self._store.damage

    @property
    def saves(self) -> int:
        """How many saves are in the journal; a hundred and more make opening slow, see compact_steps."""
        return len(self._store)

    @property
    def unsaved(self) -> bool:
        """Whether anything was touched since it was saved."""
        with self._marking:
            return bool(self._touched)

    @property
    def saved_last(self) -> tuple[int, int]:
        """Number of its base, and of the newest entry of its journal: each save counts the second one up."""
        return self.record.base, self._store.last

    @property
    def saved_at(self) -> datetime:
        """When it was saved last, in local time."""
        return datetime.fromtimestamp(self._store.saved_s).astimezone()

    def touch(self, region: Region | None = None) -> None:
        """Note that labels or verified pixels changed in a region; None: anywhere.

        What lies outside the image is left out.
        """
        shape = self.record.shape_yx
        part = region or Region(0, 0, *shape)
        with self._marking:
            self._touched.update(blocks_in(part.grown(0, shape)))

    def save(self, labels: Plane, verified: Plane) -> int:
        """Save the blocks that were touched and differ from what is saved: all of them, or none.

        When it returns they are on the disk itself. What changes during the save is to be touched as
        after any change, and saved again.

        Parameters
        ----------
        labels : (Y, X) whole numbers, 0 is background. Not changed.
        verified : (Y, X) bool, where a person has checked the pixels. Not changed.

        Returns
        -------
        How many blocks were written; 0 if nothing differs.

        Raises
        ------
        ProjectError : the project is open for looking only, or damaged. LabelsError : the arrays do not fit.
        WriteError : the disk refuses. What was touched stays so; saving can be tried again.
        """
        with self._project.busy:
            self._require_sound()
            check_shapes(self.record.shape_yx, labels, verified)
            with self._marking:
                touched, self._touched = self._touched, set()
            fresh: dict[Block, bytes] = {}
            try:
                count = self._store.append(self._changed(touched, labels, verified, fresh))
            except BaseException:
                with self._marking:
                    self._touched |= touched
                raise
            self._digests |= fresh
            return count

    def load_steps(self) -> Generator[Progress, None, Pair]:
        """Read what was saved last.

        Returns
        -------
        labels (Y, X) int32 and verified (Y, X) bool, new arrays. Of a damaged journal: what was saved before
        the damage; see `damage`.

        Raises
        ------
        ProjectError : the base is damaged, or another window keeps rewriting it.
        """
        for _ in range(_TRIES):
            if not self._project.writable:  # the window that writes may have saved, or made a new base
                self._open(self._project.current(self.record.id))
            base = self.record.base
            try:
                found = yield from self._load()
            except ProjectError:
                if self._project.current(self.record.id).base == base:
                    raise
                continue
            if self._project.current(self.record.id).base == base:
                return found
        raise ProjectError(f"{self.folder} is being rewritten by another window; open it again in a moment")

    def compact_steps(self) -> Generator[Progress, None, bool]:
        """Make a new base of what is saved, and drop the journal and the base before it.

        Saving may go on meanwhile. Stopped or killed at any moment it leaves the old base and journal.

        Returns
        -------
        False if there was nothing to do, or it is being done already.

        Raises
        ------
        ProjectError, WriteError
        """
        self._require_sound()
        if not self._compacting.acquire(blocking=False):  # a second one would take away what the first writes
            return False
        try:
            with self._project.busy:
                newest, last = dict(self._store.newest), self._store.last
            if not newest:
                return False
            number = yield from self._store.new_base_steps(newest, self.record.pixel_size_um)
            with self._project.busy:
                self._put(base=number, first_entry=last + 1)
                self._store.adopt(Start(number, last + 1))
            return True
        finally:
            self._compacting.release()

    def note_origin(self, modality: Modality, recipe: Recipe | None) -> None:
        """Note how the image was made, and how it was segmented.

        Raises
        ------
        ProjectError : see save. WriteError : the disk refuses.
        """
        self._put(modality=modality, recipe=recipe)

    def note_corrected(self, numbers: Collection[int]) -> None:
        """Note which nuclei a person corrected, by their numbers; nothing is written if that is known.

        Raises
        ------
        ProjectError : see save. WriteError : the disk refuses.
        """
        known = tuple(sorted(numbers))
        if known != self.record.corrected:
            self._put(corrected=known)

    def find(self) -> tuple[Path, ImageState]:
        """Return where the image file is, and whether it is there, changed or missing."""
        return self.record.reference.find(self._project.folder)

    def notice(self) -> str:
        """Return what a person should know: damage, or an image file that is missing or another one."""
        path, state = self.find()
        if state is ImageState.MISSING:
            image = (
                f"the image {path} is not there any more; put it back, or open the project in the window and "
                "press “Point to the image…”. Its labels are safe"
            )
        elif state is ImageState.CHANGED:
            image = (
                f"the image {path} is not the file that was labelled; put the old one back, or press "
                "“Point to the image…” in the window, and show the one that the labels are of"
            )
        else:
            image = ""
        return "\n".join(text for text in (self.damage, image) if text)

    def read_image(self) -> Image:
        """Open the image.

        Raises
        ------
        ProjectError : it is missing, not the file that was labelled, or of another size. ReadError
        """
        path, state = self.find()
        if state is not ImageState.THERE:
            raise ProjectError(self.notice())
        reference = self.record.reference
        return self._fitting(read(path, z=reference.z, t=reference.t, series=reference.series))

    def relocate(self, path: str | os.PathLike[str]) -> None:
        """Point to where the image is now; also to accept one that was changed or saved in another format.

        How bright another file is was never measured: what the recipe says of the old one is forgotten.

        Raises
        ------
        ProjectError : it is of another size than the labels; see save. ReadError, WriteError
        """
        self._project.require_writable()
        z, t, series = (getattr(self.record.reference, name) for name in ("z", "t", "series"))
        z = self._fitting(read(path, z=z, t=t, series=series)).z  # see Project.add_steps
        reference, recipe = refer_to(path, self._project.folder, z=z, t=t, series=series), self.record.recipe
        if recipe is not None and reference.fingerprint != self.record.reference.fingerprint:
            recipe = recipe.model_copy(update={"scaling_low": None, "scaling_high": None})
        self._put(reference=reference, recipe=recipe)

    def set_damaged_aside(self) -> Path:
        """Move the damaged journal entry, and those after it, into a folder; then saving works again.

        Nothing is deleted, and the labels are those before the damage; load them again.

        Returns
        -------
        The folder that they are in now.

        Raises
        ------
        ProjectError : the base itself is damaged, or nothing is. WriteError : the disk refuses.
        """
        self._project.require_writable()
        with self._project.busy:
            self._digests.clear()
            return self._store.set_damaged_aside()

    def _open(self, record: ImageRecord) -> None:
        self._digests: dict[Block, bytes] = {}  # of what is saved, as far as it is known
        for _ in range(_TRIES):
            self.record = record
            self._store = Store(self.folder, record.shape_yx, Start(record.base, record.first_entry))
            if not self.damage or self._project.writable:
                break
            record = self._project.current(record.id)
            if record.base == self.record.base:
                break  # else another window made a new base meanwhile
        if self._project.writable:
            self._store.tidy()

    def _changed(
        self, touched: Iterable[Block], labels: Plane, verified: Plane, fresh: dict[Block, bytes]
    ) -> Iterator[Content]:
        """Yield the touched blocks that differ from what is saved, and note their digests in `fresh`."""
        for block in sorted(touched):
            part = block_region(block, self.record.shape_yx).slices
            numbers, checked = as_labels(labels[part]), as_mask(verified[part])
            now = digest(numbers, checked)
            if self._digests.get(block) != now:
                fresh[block] = now
                yield block, numbers, checked

    def _load(self) -> Generator[Progress, None, Pair]:
        if not self._store.readable:  # before memory is given to what its record says
            raise ProjectError(self.damage)
        shape, newest = self.record.shape_yx, dict(self._store.newest)
        pieces = list(chunks_of(shape))
        labels, verified = np.zeros(shape, np.int32), np.zeros(shape, bool)
        for done, piece in enumerate(pieces, 1):
            labels[piece.slices], verified[piece.slices] = self._store.read(piece, newest)
            found = digests(piece, labels[piece.slices], verified[piece.slices])
            with self._project.busy:  # blocks that were saved anew meanwhile are as that save noted
                same = {b: d for b, d in found.items() if self._store.newest.get(b) == newest.get(b)}
                self._digests |= same
            yield Progress(done, len(pieces), "reading labels")
        return labels, verified

    def _require_sound(self) -> None:
        self._project.require_writable()
        if self.damage:
            raise ProjectError(self.damage)

    def _put(self, **changes: Any) -> None:
        self._project.require_writable()
        with self._project.busy:
            record = self.record.model_copy(update=changes)
            self._project.put(record)
            self.record = record

    def _fitting(self, image: Image) -> Image:
        if image.shape_yx != self.record.shape_yx:
            raise ProjectError(
                f"{image.name} is {image.shape_yx} pixels, its labels are {self.record.shape_yx}; choose the "
                "image that was labelled, neither scaled nor cropped"
            )
        return image
