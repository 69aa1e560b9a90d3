"""How much main memory a contestant needs, told in a process of its own, where nothing else has any."""

from __future__ import annotations

import math
import threading
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psutil

from napari_nucleus_kd.apart import apart_steps, held_bytes
from napari_nucleus_kd.baselines import TOOLS
from napari_nucleus_kd.compare.comparison import keep_outcome
from napari_nucleus_kd.compare.run import asked_recipe
from napari_nucleus_kd.config import Recipe
from napari_nucleus_kd.errors import NucleusKDError
from napari_nucleus_kd.index import read_truth
from napari_nucleus_kd.io import read
from napari_nucleus_kd.pipeline import segment_steps
from napari_nucleus_kd.types import Progress, retold

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari_nucleus_kd.compare.comparison import Comparison

_SAMPLED_S = 0.02
_TASK = f"{__name__}:segmenting_steps"


def memory_steps(comparison: Comparison) -> Generator[Progress, None, Comparison]:
    """Measure how much memory each segmenter needs for the largest image; see Outcome.memory_bytes.

    Each segments it once more, in a process of its own, which knows no segmenter that was only registered in
    this one. What was measured before is not measured again. Where it fails, a note of the outcome says why.
    Of label images from a folder nothing is known, nor of a segmenter that fails on that image.

    Returns
    -------
    The comparison with what was measured; its folder keeps it, too.

    Raises
    ------
    WriteError : the disk refuses.
    """
    first, *_ = comparison.outcomes.values()
    place = max(range(len(first)), key=lambda i: math.prod(first[i].shape_yx))
    case, outcomes = comparison.cases[place], {n: list(of) for n, of in comparison.outcomes.items()}
    for done, contestant in enumerate(comparison.contestants):
        outcome = outcomes[contestant.name][place]
        if contestant.recipe is None or outcome.problem or outcome.memory_bytes is not None:
            continue
        told = Progress(
            done, len(comparison.contestants), f"{case.name}, {contestant.name}: measuring its memory"
        )
        yield told
        try:
            truth = None if case.row.labels is None else read_truth(case.row)
            recipe = asked_recipe(contestant, case.row, read(case.row.image), truth)
            asked = recipe.model_dump(mode="json", exclude_unset=True)
            steps = apart_steps(_TASK, {"image": str(case.row.image), "recipe": asked})
            measured = yield from retold(steps, lambda _, told=told: told)  # type: ignore[misc]
        except (NucleusKDError, MemoryError, RuntimeError, OSError) as error:  # it could segment it before
            last = (str(error).strip() or type(error).__name__).splitlines()[-1]
            note = f"its memory could not be measured: {last}"
            outcomes[contestant.name][place] = outcome.model_copy(update={"notes": (*outcome.notes, note)})
            continue
        known = outcome.model_copy(update={"memory_bytes": measured})
        outcomes[contestant.name][place] = keep_outcome(known, comparison.folder)
    return replace(comparison, outcomes=outcomes, measured=case)


def segmenting_steps(request: dict[str, Any]) -> Generator[Progress, None, int]:
    """Segment an image; returns the bytes of main memory at their peak. For apart_steps.

    Parameters
    ----------
    request : "image", a path, and "recipe", settings of a Recipe.
    """
    recipe = Recipe.model_validate(request["recipe"])
    with _Watch() as watch:
        yield from segment_steps(read(request["image"]), recipe)
    return watch.peak(of_a_tool=recipe.segmenter in TOOLS)


class _Watch:
    """Looks many times a second at how much memory this process has, and those that it started."""

    def __init__(self) -> None:
        self._peaks: dict[int, int] = {}
        self._me = psutil.Process()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._ended.wait(_SAMPLED_S):
            self._look()

    def _look(self) -> None:
        with suppress(psutil.Error, OSError):  # a process has just ended
            for process in (self._me, *self._me.children(recursive=True)):
                self._peaks[process.pid] = max(held_bytes(process), self._peaks.get(process.pid, 0))

    def peak(self, *, of_a_tool: bool) -> int:
        """Return the most bytes that this process had, or the largest of those it started, a tool's."""
        own = self._peaks.pop(self._me.pid, 0)
        return max(self._peaks.values(), default=own) if of_a_tool else own
