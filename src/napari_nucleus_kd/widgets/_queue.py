"""The queue of a review: which nuclei are left, in which order, and how long they take; needs no Qt."""

from __future__ import annotations

import time
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from napari_nucleus_kd.review import Doubt
    from napari_nucleus_kd.widgets._places import Place

_BREAK_S = 60.0  # longer looks at one nucleus are breaks, and count no more
_RECENT = 15  # nuclei from which the time left is told


class Queue:
    """Nuclei that wait to be looked at.

    Parameters
    ----------
    order : the most doubtful first.
    most : how many of them to look at.
    now : the time in seconds.

    Attributes
    ----------
    current : the one that is looked at; None before the first and at the end.
    """

    def __init__(self, order: list[Doubt], most: int, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._most = most
        self._order = order[:most]
        self._done: dict[int, tuple[Doubt, tuple[Place, ...]]] = {}  # in the order of acceptance
        self._gone: set[int] = set()
        self._late: list[Doubt] = []  # that were put off, in that order
        self._seconds: list[float] = []
        self._since = now()
        self.current: Doubt | None = None

    @property
    def left(self) -> int:
        """How many are to be looked at, the current one included."""
        return len(self.waiting())

    @property
    def done(self) -> int:
        """How many were accepted or are gone."""
        return len(self._done) + len(self._gone)

    @property
    def seconds(self) -> float:
        """How long was looked at nuclei so far, breaks left out."""
        return sum(self._seconds) + self._looked()

    @property
    def seconds_left(self) -> float | None:
        """How long the others will take, from the newest ones; None before the first."""
        return median(self._seconds[-_RECENT:]) * self.left if self._seconds else None

    def waiting(self) -> list[Doubt]:
        """Return those that are left, in their order."""
        return [d for d in self._order if d.number not in self._done and d.number not in self._gone]

    def unsettled(self) -> list[Doubt]:
        """Return those that were not accepted, also those that are gone: undo may bring them back."""
        return [d for d in self._order if d.number not in self._done]

    def show(self, doubt: Doubt | None) -> None:
        """Note which one is looked at from now on."""
        self.current, self._since = doubt, self._now()

    def accept(self, places: tuple[Place, ...], others: Iterable[int]) -> None:
        """Take the current one as right.

        Parameters
        ----------
        places : a pixel of each nucleus that is right now.
        others : numbers that were corrected with it; those that wait are done, too.
        """
        if self.current is None:
            return
        self._seconds.append(self._looked())
        self._done[self.current.number] = self.current, places
        numbers = set(others)
        for doubt in self.waiting():
            if doubt.number in numbers:
                self._done[doubt.number] = doubt, ()

    def put_off(self) -> None:
        """Leave the current one for the end."""
        if self.current is not None:
            self._seconds.append(self._looked())
            self._order.remove(self.current)
            self._order.append(self.current)
            self._late = [doubt for doubt in self._late if doubt is not self.current] + [self.current]

    @property
    def accepted_last(self) -> tuple[Place, ...] | None:
        """The pixels that what was accepted last came with; None if nothing was."""
        return next((places for _, places in reversed(self._done.values()) if places), None)

    def take_back(self) -> tuple[Place, ...] | None:
        """Put what was accepted last in front again; return accepted_last."""
        last = self.accepted_last
        back = None
        while last is not None and back is not last:
            _, (doubt, back) = self._done.popitem()  # what was corrected with it comes after it
            self._order.remove(doubt)
            self._order.insert(0, doubt)
        return last

    def lose(self, number: int) -> None:
        """Note that a nucleus is gone."""
        if self.current is not None and self.current.number == number:
            self._seconds.append(self._looked())
        self._gone.add(number)

    def find(self, number: int) -> None:
        """Note that a nucleus is there, perhaps again."""
        self._gone.discard(number)

    def reorder(self, order: list[Doubt]) -> None:
        """Put what is left in another order of doubt; the current one stays."""
        settled = [d for d in self._order if d.number in self._done or d.number in self._gone]
        settled += [] if self.current is None or self.current in settled else [self.current]
        late = [doubt for doubt in self._late if doubt not in settled]
        known = {doubt.number for doubt in (*settled, *late)}
        rest = [doubt for doubt in order if doubt.number not in known]
        self._order = [*settled, *rest[: max(0, self._most - len(known))], *late]

    def _looked(self) -> float:
        return min(self._now() - self._since, _BREAK_S)
