"""Retraining in a thread: what it learns from, how far it is, curves and pictures; needs no Qt."""

from __future__ import annotations

import csv
import time
from collections import defaultdict
from contextlib import closing, suppress
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_nucleus_kd.config import Recipe
from napari_nucleus_kd.types import Progress
from napari_nucleus_kd.widgets._curves import PQ, CurvesPicture

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Generator
    from pathlib import Path

    import numpy.typing as npt

    from napari_nucleus_kd.project import Project, TrainingData
    from napari_nucleus_kd.train.finetune import FinetuneSettings, SideBySide, Tuned
    from napari_nucleus_kd.types import Image, LabelArray, Region

    Picture = npt.NDArray[np.uint8]  # (Y, X, 3)
    Points = list[tuple[float, float]]

_EACH_S = 2.0  # the curves are drawn no more often
_WAIT_S = 0.1  # between looks whether a pause is over
TRAINING = "training"  # message of a step, as against those of a check
_LOG = "log.csv"  # of a run, see train.log
_UNDRAWN = ("learning_rate", "step")  # what is no curve
_SEEN_PX = 128  # edge of what is shown of a tile, so that outlines are seen
_TRUE, _FOUND = (86, 180, 233), (240, 228, 66)  # blue and yellow of Okabe and Ito


@dataclass(frozen=True, slots=True)
class Look:
    """What is seen of the model while it learns: a part of an image that a person verified."""

    image: Image
    recipe: Recipe
    region: Region
    true: LabelArray


@dataclass(frozen=True, slots=True)
class Plan:
    """One run.

    Attributes
    ----------
    output : folder of the run.
    saves : save what is not saved of its images.
    """

    project: Project
    saves: tuple[Callable[[], None], ...]
    model: str
    output: Path
    settings: FinetuneSettings
    look: Look | None


@dataclass
class Course:
    """What a run told so far.

    Attributes
    ----------
    curves : by name, each a list of (step, value).
    began : number of the first step that was seen; None before it.
    seconds : how long the steps after it took.
    """

    curves: dict[str, Points] = field(default_factory=lambda: defaultdict(list))
    began: int | None = None
    seconds: float = 0.0

    def take(self, progress: Progress, seconds: float) -> bool:
        """Note a report and how long it took to come; return whether it was that of a check."""
        if self.began is not None:
            self.seconds += seconds
        elif progress.message == TRAINING:
            self.began = progress.done
        is_check = "learning_rate" in progress.values
        for name, value in progress.values.items():
            if name not in _UNDRAWN and (progress.message == TRAINING or is_check):
                self.add(name, progress.done, float(value))
        return is_check

    def add(self, name: str, step: int, value: float) -> None:
        """Add a point to a curve, in place of those from its step on."""
        points = self.curves[name]
        while points and points[-1][0] >= step:
            points.pop()
        points.append((step, value))

    def seconds_left(self, progress: Progress) -> float | None:
        """Return the time left, s; None while it is not known."""
        if self.began is None or progress.message != TRAINING or progress.done <= self.began:
            return None
        return self.seconds / (progress.done - self.began) * (progress.total - progress.done)


def course_before(output: Path) -> Course:
    """Return what a run told before it was stopped, from its log: the means between its checks.

    A log that cannot be read gives what was read of it: these are pictures, and no reason not to go on.
    """
    course, log = Course(), output / _LOG
    if not log.exists():
        return course
    with suppress(OSError, ValueError, KeyError, TypeError), log.open(newline="", encoding="utf-8") as file:
        for record in csv.DictReader(file):
            step = int(record["step"])
            for name, value in record.items():
                if value and name.startswith("train "):  # drawn with the terms of the steps to come
                    course.add(name.removeprefix("train "), step, float(value))
                elif value and name == PQ:
                    course.add(name, step, float(value))
    return course


def pausable(steps: Generator[Progress, None, Any], going: threading.Event) -> Generator[Progress, None, Any]:
    """Take steps while an event is set; between them, wait for it. Closing it closes the steps."""
    newest = Progress(0, 0, "")
    try:
        while True:
            while not going.wait(_WAIT_S):
                yield newest
            try:
                newest = next(steps)
            except StopIteration as stop:
                return stop.value
            yield newest
    finally:
        steps.close()


def retrain_steps(
    plan: Plan, tell: Callable[[str, Any], None]
) -> Generator[Progress, None, tuple[TrainingData, Tuned]]:
    """Write what was verified as training data; learn from it, and judge the result, in a process of its own.

    Parameters
    ----------
    tell : called in this thread with "data" (TrainingData), "judged" (whether enough is held out), "curves"
        and "preview" (pictures).

    Raises
    ------
    See train.finetune.data_steps and finetune_steps.
    """
    from napari_nucleus_kd.evaluate import FEWEST_IMAGES
    from napari_nucleus_kd.index import read_splits
    from napari_nucleus_kd.train.apart import finetune_apart_steps
    from napari_nucleus_kd.train.finetune import Preview, data_steps

    yield Progress(0, 0, "saving")
    for save in plan.saves:
        save()
    data = yield from data_steps(plan.project, plan.output)
    tell("data", data)
    judged = len(read_splits(data.index).get("val", [])) >= FEWEST_IMAGES
    tell("judged", judged)
    preview, look = None, plan.look
    if look is not None:
        yield Progress(0, 0, "looking at the image as the model sees it")
        recipe = _resolved(look)
        picture = as_picture(look.image, recipe, look.region)

        def show(labels: LabelArray) -> None:
            tell("preview", outlined(picture, look.true, labels))

        preview = Preview(look.image, recipe, look.region, show)
    steps = finetune_apart_steps(plan.model, data.index, plan.output, plan.settings, preview)
    course = course_before(plan.output)
    drawing = CurvesPicture(plan.settings.steps, judged=judged)
    tuned = yield from _told(steps, course, lambda: tell("curves", drawing.draw(course.curves)))
    return data, tuned


def prepare() -> None:
    """Load what a run needs: loaded later, it would keep the window from answering while somebody paints."""
    import_module("napari_nucleus_kd.train.apart")
    CurvesPicture(2).draw({"loss": [(1, 1.0), (2, 0.1)], PQ: [(2, 0.5)]})  # text and its fonts, too


def _resolved(look: Look) -> Recipe:
    """Return the recipe with the scaling of the whole image: the other process sees only a part of it."""
    from napari_nucleus_kd.job import measure_diameter, prepare

    return measure_diameter(prepare(look.image, look.recipe)).recipe


def _told(
    steps: Generator[Progress, None, Tuned], course: Course, draw: Callable[[], None]
) -> Generator[Progress, None, Tuned]:
    """Pass steps on, with the time left as a value; note them in a course, and draw it now and then.

    Only the time that steps take is counted: a pause lies between them.
    """
    drawn = 0.0
    with closing(steps):
        while True:
            asked = time.monotonic()
            try:
                progress = next(steps)
            except StopIteration as stop:
                tuned: Tuned = stop.value
                return tuned
            is_check = course.take(progress, time.monotonic() - asked)
            if is_check or (course.curves and time.monotonic() - drawn > _EACH_S):
                draw()
                drawn = time.monotonic()
            left = course.seconds_left(progress)
            values = {} if left is None else {"seconds left": left}
            if course.began is not None:
                values["step"] = progress.done
            yield Progress(progress.done, progress.total, progress.message, values)


def as_picture(image: Image, recipe: Recipe | None, region: Region | None = None) -> Picture:
    """Return a part of an image as people see it, (Y, X, 3): in colour, or its used channels in grey."""
    pixels = image.pixels if region is None else image.pixels[:, *region.slices]
    values = np.asarray(pixels)
    if image.rgb:
        return np.moveaxis(values if values.dtype == np.uint8 else _grey(values), 0, -1)
    used = [c for c in (recipe.channels or () if recipe is not None else ()) if isinstance(c, int)]
    grey: Picture = _grey(np.asarray(values[used or slice(0, 1)], np.float32)).max(0)
    return np.repeat(grey[:, :, None], 3, axis=2)


def _grey(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Scale each channel to 0 to 255 between its 1st and 99.8th percentile."""
    low, high = np.percentile(values, (1, 99.8), axis=(1, 2), keepdims=True)
    scaled: npt.NDArray[np.float64] = (values - low) / np.maximum(high - low, 1e-6)
    return (255 * np.clip(scaled, 0, 1)).astype(np.uint8)


def outlined(picture: Picture, true: LabelArray, found: LabelArray) -> Picture:
    """Draw outlines into the middle of a picture: blue what is verified, over it yellow what a model sees."""
    from skimage.segmentation import find_boundaries

    middle = tuple(
        slice(max(0, (n - _SEEN_PX) // 2), max(0, (n - _SEEN_PX) // 2) + _SEEN_PX) for n in true.shape
    )
    drawn = picture[middle].copy()
    for labels, color in ((true, _TRUE), (found, _FOUND)):
        drawn[find_boundaries(labels[middle], mode="inner")] = color
    return drawn


@dataclass(frozen=True, slots=True)
class Pair:
    """A tile as the model before and the one after see it; see outlined.

    Attributes
    ----------
    tile : which one, see finetune.compare_steps.
    """

    tile: int
    before: Picture
    after: Picture


def pair_steps(tuned: Tuned, tile: int, device: str) -> Generator[Progress, None, Pair]:
    """Draw a tile that is held out, or that nobody verified, as both models see it."""
    from napari_nucleus_kd.train.finetune import compare_steps

    side: SideBySide = yield from compare_steps(tuned, tile, device)
    used = tuple(range(len(side.image.channels)))  # a tile holds no others
    picture = as_picture(side.image, Recipe(channels=used))
    return Pair(
        tile,
        outlined(picture, side.true, side.before),
        outlined(picture, side.true, side.after),
    )
