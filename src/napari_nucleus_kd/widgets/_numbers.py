"""Which numbers a Labels layer has in use, kept up to date from its events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_nucleus_kd.errors import EditError
from napari_nucleus_kd.types import Progress
from napari_nucleus_kd.widgets._changes import Change, Changes
from napari_nucleus_kd.widgets._layers import full_resolution

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from napari.layers import Labels

    from napari_nucleus_kd.widgets._session import Session

_AT_ONCE = 8_000_000  # pixels that are looked at in a few milliseconds; more are, in a thread
_BLOCK = 4_000_000  # pixels looked at in one step


class Numbers:
    """The largest number that a layer has had: each new nucleus gets the next one.

    It is looked for once, and again when the layer gets other data; painting, corrections, and what is undone
    or made again, tell theirs. Numbers that were undone are not used again, for they may be redone. In a
    layer of moderate size what a script wrote past napari is seen, too.
    """

    def __init__(self, layer: Labels, session: Session) -> None:
        self.layer = layer
        self._session = session
        self._largest = 0
        self._looks = 0
        self._known = False
        self._changes = Changes(layer)
        self._changes.changed.connect(self._on_changed)
        self._changes.replaced.connect(self._look)
        self._look()

    def fresh(self) -> int:
        """Return the first number after all that are in use.

        Raises
        ------
        EditError : they are not known yet, in a large layer.
        """
        if not self._known:
            raise EditError(f"still looking which numbers are in use in “{self.layer.name}”; try again soon")
        data = self.layer.data
        if isinstance(data, np.ndarray) and data.size <= _AT_ONCE:
            self._largest = max(self._largest, int(data.max(initial=0)))
        # A stroke tells its number at its end only.
        brush = int(self.layer.selected_label) if self.layer._block_history else 0
        return max(self._largest, brush) + 1

    def close(self) -> None:
        """Listen no more."""
        self._changes.close()
        self._looks += 1

    def _look(self) -> None:
        self._looks += 1
        look, data = self._looks, full_resolution(self.layer)
        self._largest, self._known = 0, False

        def found(largest: int) -> None:
            if look == self._looks:  # the layer was not given other data meanwhile
                self._largest, self._known = max(self._largest, largest), True

        if isinstance(data, np.ndarray) and data.size <= _AT_ONCE:
            found(int(data.max(initial=0)))
        else:
            self._session.run_beside(largest_steps(data), found, step="correct")

    def _on_changed(self, changes: tuple[Change, ...]) -> None:
        values = (np.max(part, initial=0) for change in changes for part in (change.before, change.after))
        self._largest = max(self._largest, 0, *map(int, values))


def largest_steps(data: Any) -> Generator[Progress, None, int]:
    """Return the largest number of an array of any kind and size, some rows at a time."""
    largest = 0
    for done, block in blocks(data):
        yield Progress(done, int(data.shape[0]), "Looking which numbers are in use")
        largest = max(largest, int(np.asarray(block).max(initial=0)))
    return largest


def blocks(data: Any) -> Iterator[tuple[int, Any]]:
    """Yield parts of an array along its first axis, each with where it begins."""
    length = int(data.shape[0])
    others = max(1, int(np.prod(data.shape[1:], dtype=np.int64)))
    step = max(1, _BLOCK // others)
    for start in range(0, length, step):
        yield start, data[start : start + step]
