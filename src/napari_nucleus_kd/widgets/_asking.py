"""Asking the model for a nucleus where a person pointed, one question after the other."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_nucleus_kd import edit
from napari_nucleus_kd.errors import EditError, NucleusKDError
from napari_nucleus_kd.types import Region
from napari_nucleus_kd.widgets._layers import RECIPE_KEY
from napari_nucleus_kd.widgets._target import image_under
from napari_nucleus_kd.widgets._worker import one_step

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from napari_nucleus_kd.add import Adder
    from napari_nucleus_kd.config import Recipe
    from napari_nucleus_kd.widgets._corrections import Corrections
    from napari_nucleus_kd.widgets._target import Target, Under
    from napari_nucleus_kd.widgets._tools import Path

    Answer = tuple[Region, npt.NDArray[np.bool_]] | NucleusKDError

_LEAST_BOX_PX = 3  # what is smaller is a click


class Asking:
    """Runs the questions in a thread; the nuclei found are added as corrections.

    Attributes
    ----------
    waiting : what was asked and is not answered: the plane, and the middle of the click or box (y, x) there.
    """

    def __init__(self, corrections: Corrections) -> None:
        self._corrections = corrections
        self._adder: Adder | None = None
        self._asked: tuple[Any, Recipe] | None = None
        self._questions: list[Callable[[], Answer]] = []
        self.waiting: list[tuple[Target, tuple[float, float]]] = []

    def ask(self, target: Target, path: Path, *, in_box: bool) -> None:
        """Ask for the nucleus at the first point of a path, or in the box from its first to its last.

        Raises
        ------
        EditError : there is a nucleus already, or no image to look at, or the box is too small.
        """
        points = np.asarray(path)
        if in_box and np.ptp(points[[0, -1]], axis=0).min() < _LEAST_BOX_PX:
            raise EditError("the box encloses no nucleus; hold the button and drag it around one")
        y, x = points[0]
        height, width = target.labels.shape
        inside = 0 <= round(y) < height and 0 <= round(x) < width
        if not in_box and (not inside or int(target.labels[round(y), round(x)])):
            what = "there is a nucleus already" if inside else "this is outside of the layer"
            raise EditError(f"{what}; click where one is missing")
        under = image_under(target, self._corrections.session)
        recipe, corner = self._recipe(target), under.corner
        taken = target.taken_in(corner)
        (y0, x0), (y1, x1) = points[[0, -1]].min(axis=0) + corner, points[[0, -1]].max(axis=0) + corner
        box = Region(round(y0), round(x0), round(y1) + 1, round(x1) + 1)

        def question() -> Answer:
            adder = self._opened(under, recipe)
            try:
                return adder.in_box(box, taken) if in_box else adder.at((y + corner[0], x + corner[1]), taken)
            except NucleusKDError as error:
                return error

        middle = points[[0, -1]].mean(axis=0) if in_box else points[0]
        self.waiting.append((target, (float(middle[0]), float(middle[1]))))
        self._questions.append(partial(self._answered, question, corner))
        if len(self.waiting) == 1:
            self._next()
        self._corrections.say("Looking for the nucleus…")

    def forget(self) -> None:
        """Let go of what was asked; the question under way is answered to nobody."""
        del self.waiting[1:], self._questions[1:]

    def _recipe(self, target: Target) -> Recipe:
        """Return the recipe that the labels were made with, of other labels that of the next run."""
        recipe: Recipe | None = target.layer.metadata.get(RECIPE_KEY)
        if recipe is None:
            recipe = self._corrections.session.runs.settled_recipe()
        return recipe.model_copy(update={"region": None})  # which changes with the view, and does not matter

    def _opened(self, under: Under, recipe: Recipe) -> Adder:
        """Return what asks the model; in the thread. The last one is kept, with the model open."""
        from napari_nucleus_kd.add import Adder

        if self._adder is None or self._asked != (under.key, recipe):
            self._adder, self._asked = Adder(under.image, recipe), (under.key, recipe)
        return self._adder

    @staticmethod
    def _answered(question: Callable[[], Answer], corner: tuple[int, int]) -> Answer:
        """Answer in pixels of the labels."""
        answer = question()
        if isinstance(answer, NucleusKDError):
            return answer
        return answer[0].within(Region(*corner, *corner)), answer[1]

    def _next(self) -> None:
        session = self._corrections.session
        session.run_beside(one_step(self._questions[0]), self._add, ended=self._ended, step="correct")

    def _add(self, answer: Any) -> None:
        corrections, (target, _) = self._corrections, self.waiting[0]
        if target.layer is not corrections.layer:
            return  # it was closed, or another layer is in hand: its numbers are not known any more
        try:
            if isinstance(answer, NucleusKDError):
                raise answer
            window, mask = answer
            change = edit.add(target.labels, window, mask, corrections.fresh())
        except NucleusKDError as error:
            corrections.complain(str(error))
        else:
            # A person may paint meanwhile: the number in the brush stays.
            corrections.apply(target, change, "Added", select=False)

    def _ended(self) -> None:
        del self.waiting[:1], self._questions[:1]
        if self._questions:
            self._next()
        self._corrections.changed.emit()
