"""A model made a person's own: trained on what they verified, judged against the one before, kept or not.

A run has a folder. `data_steps` writes there what is verified in a project; `finetune_steps` trains
and judges, and goes on where it was stopped or killed if it is called again. Then `accept` makes the result
the next version of the model, and `reject` removes the folder. All of it knows no GUI: a window takes the
steps in a thread, pauses by not taking the next one, and cancels by closing them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from napari_nucleus_kd.config import Recipe
from napari_nucleus_kd.errors import ModelError
from napari_nucleus_kd.evaluate import FEWEST_IMAGES, score_steps
from napari_nucleus_kd.index import check_rows_steps, read_index, read_labels, read_splits, true_labels
from napari_nucleus_kd.io import read
from napari_nucleus_kd.metrics import diameters
from napari_nucleus_kd.package import list_models, load_model
from napari_nucleus_kd.pipeline import segment_steps
from napari_nucleus_kd.project import ENOUGH, JUDGED_EACH, REHEARSED, TILE_PX, UNKNOWN
from napari_nucleus_kd.train.finetune_folder import (
    CANDIDATE,
    alone,
    begun,
    data_steps,
    goes_on,
    note_begun,
    reject,
    remove_left,
    run_folder,
)
from napari_nucleus_kd.train.finetune_settings import FinetuneSettings
from napari_nucleus_kd.train.run import Judge, run_steps
from napari_nucleus_kd.train.settings import DistillSettings, TrainSettings, fingerprint, taken_over
from napari_nucleus_kd.types import Progress, retold
from napari_nucleus_kd.versions import add_version, base_name
from napari_nucleus_kd.words import count

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from napari_nucleus_kd.evaluate import Score
    from napari_nucleus_kd.index import Row
    from napari_nucleus_kd.package import Model
    from napari_nucleus_kd.types import Image, LabelArray, Modality, Region


__all__ = [
    "FinetuneSettings", "Preview", "SideBySide", "Tuned", "accept", "begun", "compare_steps", "data_steps",
    "finetune_steps", "goes_on", "reject", "run_folder",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Preview:
    """A part of an image that is segmented at each check, so that a person sees the model learn.

    Attributes
    ----------
    recipe : resolved recipe of the labels there; the model in training takes the place of its model.
    region : of the image; a tile of some hundred pixels.
    show : called with the labels of the region, (Y, X) int32, in the thread that takes the steps.
    """

    image: Image
    recipe: Recipe
    region: Region
    show: Callable[[LabelArray], None]


@dataclass(frozen=True, slots=True)
class Tuned:
    """A fine-tuned model that nobody has accepted yet.

    Attributes
    ----------
    parent, model : the model before, and the one after; this lies in the run's folder.
    index : CSV of what it learnt from and was judged by.
    before, after : their scores on the held-out tiles, in the order of the index; empty if there are none.
    unverified : tiles in which nobody verified anything, to look at if none is held out.
    """

    parent: Model
    model: Model
    index: Path
    before: tuple[Score, ...]
    after: tuple[Score, ...]
    unverified: int = 0

    @property
    def tiles(self) -> int:
        """How many tiles compare_steps shows: those held out, or without any the unverified ones."""
        return len(self.before) or self.unverified

    @property
    def mean_pq(self) -> tuple[float, float] | None:
        """Mean PQ of the held-out tiles, before and after; None if there are none."""
        return (_mean_pq(self.before), _mean_pq(self.after)) if self.after else None

    @property
    def gain(self) -> tuple[float, float, float] | None:
        """Mean difference of the PQ of a held-out tile, and its 95% interval (Student's t, paired).

        Of as few tiles as these a bootstrap would be too sure: of three it says no more than that all have
        one sign, as they have by chance in a quarter of all cases. None with fewer than three.
        """
        pairs = list(zip(self.before, self.after, strict=True))
        if len(pairs) < FEWEST_IMAGES:
            return None
        gains = np.array([new.values["pq"] - old.values["pq"] for old, new in pairs])
        mean, wide = float(gains.mean()), float(stats.t.ppf(0.975, len(gains) - 1) * stats.sem(gains))
        return mean, max(-1.0, mean - wide), min(1.0, mean + wide)


@dataclass(frozen=True, slots=True)
class SideBySide:
    """A tile that is held out, or in which nobody verified anything, as both models see it.

    Attributes
    ----------
    image : the tile's pixels, in the channels that are used.
    true, before, after : (Y, X) int32 labels: verified (none in unverified tiles), of the model before, of
        the one after.
    """

    image: Image
    true: LabelArray
    before: LabelArray
    after: LabelArray


_WARMUP_STEPS = 10
# How often images that the old model teaches are drawn; what is verified is drawn once. The sample images
# stand for all other kinds: drawn no more often than unverified tiles, they let a model forget these.
_DRAWN = {UNKNOWN: 0.5, REHEARSED: 2.0}
_UNJUDGED = "Too little is verified to judge the new version by numbers"
_LOOK = "Look at its results before you accept it."
_SEEN = (
    "These images are tiles: their pixels are scaled as when the images are segmented that they are parts "
    "of, and the diameter that is told is the median of the nuclei verified in these."
)


def finetune_steps(
    model: str,
    index: Path,
    output: Path,
    settings: FinetuneSettings | None = None,
    preview: Preview | None = None,
) -> Generator[Progress, None, Tuned]:
    """Fine-tune a model and judge it and the one before on the same held-out tiles.

    Where nobody verified anything, in tiles that are not verified and in sample images of other kinds, the
    old model teaches, and the statistics of batch norm stay: so that what it knew is not forgotten.

    Parameters
    ----------
    model : name or folder of the model to start from.
    index : CSV of what was verified, see index.read_index; its "val" rows are held out. See data_steps.
    output : folder of the run; started again with the same settings and data, it goes on.
    preview : what is to be seen at each check.

    Yields
    ------
    Progress after each step, with the value of each term of the objective; that of a check holds the means
    since the one before ("train TERM"), the terms on what is watched ("tune TERM"), and the mean PQ on what
    is held out ("val PQ"). Between these, progress of a check.

    Raises
    ------
    ModelError : the model cannot be trained on.
    SettingsError : see train.run; also, another window or program is at this run.
    ReadError, WriteError : see train.run.
    """
    parent, chosen = load_model(model), settings or FinetuneSettings()
    planned = _settings(parent, index, chosen)
    held_out = _HeldOut(index, chosen.device)

    def look(now: Model) -> Generator[Progress, None, dict[str, float]]:
        if preview is not None:
            yield from _preview_steps(preview, now, chosen.device)
        scores = yield from enough_steps(now)
        return {"val PQ": _mean_pq(scores)} if scores else {}

    def enough_steps(now: Model) -> Generator[Progress, None, list[Score]]:
        scores = yield from held_out.judge_steps(now)
        return scores if len(scores) >= FEWEST_IMAGES else []  # of fewer no number is told

    with alone(output):
        remove_left(output)
        note_begun(output, model, chosen)
        before = yield from held_out.judge_steps(parent)
        judge = Judge(enough_steps, _SEEN)
        tuned = yield from run_steps(planned, index, output, watch=look, judge=judge)
        assert tuned is not None
        after = yield from held_out.judge_steps(tuned)
    return Tuned(parent, tuned, index, tuple(before), tuple(after), len(_unverified(index)))


def compare_steps(tuned: Tuned, tile: int, device: str = "auto") -> Generator[Progress, None, SideBySide]:
    """Segment a held-out tile with the model before and the one after, to see both beside the truth.

    Parameters
    ----------
    tile : which one, in the order of Tuned.before; project.place_of(its name) says where it lies. If none is
        held out, one of the unverified tiles.
    """
    row = (read_index(tuned.index, "val") if tuned.before else _unverified(tuned.index))[tile]
    image = read(row.image)
    true = np.zeros(image.shape_yx, np.int32) if row.labels is None else true_labels(row)
    found: list[LabelArray] = []
    for model in (tuned.parent, tuned.model):
        recipe = Recipe(model=str(model.folder), device=device).model_copy(update=row.seen)
        result = yield from segment_steps(image, recipe)
        found.append(result.nuclei.labels)
    return SideBySide(image, true, *found)


def _unverified(index: Path) -> list[Row]:
    """Return the tiles in which nobody verified anything; in training the old model taught there."""
    return [row for row in read_splits(index).get("train", []) if row.source == UNKNOWN]


def accept(tuned: Tuned) -> Model:
    """Make a fine-tuned model the next version of its parent; the versions before stay, and so does the run.

    Its name is chosen now: of two runs of one parent, each gets its own. Its card says how it compares. One
    that was accepted already, by a program that was killed then, is not made a version twice.

    Raises
    ------
    ModelError, WriteError : see versions.add_version.
    """
    known = (
        m for m in list_models() if (m.hash, m.spec.parent) == (tuned.model.hash, tuned.model.spec.parent)
    )
    if (there := next(known, None)) is not None:
        return there
    return add_version(tuned.model.folder, base_name(tuned.parent.spec), _comparison(tuned))


class _HeldOut:
    """Scores models on the tiles that are held out, each model once; nothing, if there are none."""

    def __init__(self, index: Path, device: str):
        self._rows, self._device = read_splits(index).get("val", []), device
        self._known: dict[str, list[Score]] = {}

    def judge_steps(self, model: Model) -> Generator[Progress, None, list[Score]]:
        """Return the scores of a model, in the order of the index."""
        if not self._known:
            yield from check_rows_steps([], judged=self._rows)
        if model.hash not in self._known:
            recipe = Recipe(model=str(model.folder), device=self._device)
            done = 0

            def tell(progress: Progress) -> Progress:
                nonlocal done
                done = progress.done if "pq" in progress.values else done
                return Progress(done, len(self._rows), f"judging {model.spec.name} by what is held out")

            self._known[model.hash] = yield from retold(score_steps(self._rows, recipe), tell)
        return self._known[model.hash]


def _preview_steps(preview: Preview, now: Model, device: str) -> Generator[Progress, None, None]:
    own = {"segmenter": "student", "model": str(now.folder), "weights": None}
    own |= {"model_hash": None, "device": device}
    recipe = preview.recipe.model_copy(update=own | {"region": preview.region})
    result = yield from segment_steps(preview.image, recipe)
    preview.show(result.nuclei.labels)


def _settings(parent: Model, index: Path, chosen: FinetuneSettings) -> TrainSettings:
    spec, address = parent.spec, _address(parent)
    sources = {row.source for row in read_splits(index).get("train", [])}
    own = {
        "name": CANDIDATE,
        "purpose": f"{spec.name}, fine-tuned on images that its user verified.",
        "start": address,
        "crops": {
            "batch": chosen.batch,
            "crop_px": chosen.crop_px,
            "wide_share": 0.05,
            "source_weights": {source: often for source, often in _DRAWN.items() if source in sources},
        },
        "expected_px": spec.expected_px | _expected_px(index),
        "blend": chosen.blend,
        "frozen_norms": True,  # a few tiles of one kind would else undo what it knows of other kinds
        "distill": DistillSettings(
            teachers=(address,),
            truth=1.0,
            taught=chosen.keep,
            flips=False,
            elsewhere=True,
        ),
        "steps": chosen.steps,
        "learning_rate": chosen.learning_rate,
        "warmup_steps": _WARMUP_STEPS,
        "average": 0.95,
        "seed": chosen.seed,
        "workers": 0,
        "check_every": chosen.check_every,
        "check_batches": 2,
        "early_stop": chosen.early_stop,
        "device": chosen.device,
    }
    planned = TrainSettings.model_validate(taken_over(spec, own))
    learnt = fingerprint(index)[:16]
    words = (
        f"Images verified by the user of {spec.name}; SHA-256 of index, labels, samples of images: {learnt}"
    )
    return planned.model_copy(update={"data": (f"{words}...",)})


def _expected_px(index: Path) -> dict[Modality, float]:
    """Return the median diameter of the verified nuclei of each kind of image, px, where there are enough.

    Also of those at the edge of what is verified, which are there as wholes: small ones lie there less often.
    """
    known: dict[Modality, list[npt.NDArray[np.float64]]] = {}
    for row in read_splits(index).get("train", []):
        if row.labels is not None:
            known.setdefault(row.modality, []).append(diameters(read_labels(row.labels)))
    found = {modality: np.concatenate(parts) for modality, parts in known.items()}
    return {kind: round(float(np.median(px)), 2) for kind, px in found.items() if len(px) >= ENOUGH}


def _address(model: Model) -> str:
    """Return by what a model is found: its name, or its folder if it is not installed."""
    try:
        return model.spec.name if load_model(model.spec.name).folder == model.folder else str(model.folder)
    except ModelError:
        return str(model.folder)


def _mean_pq(scores: Sequence[Score]) -> float:
    return float(np.mean([score.values["pq"] for score in scores]))


def gain_in_words(
    mean_pq: tuple[float, float] | None, difference: tuple[float, float, float] | None, tiles: int
) -> str:
    """Say how the new version compares with the old one.

    >>> print(gain_in_words((0.71, 0.78), (0.07, 0.03, 0.11), 6))
    PQ on 6 held-out tiles: 0.780, before 0.710.
    Better by +0.070 (95% interval +0.030 to +0.110).
    >>> print(gain_in_words((0.71, 0.78), None, 2))
    Too little is verified to judge the new version by numbers: 2 tiles are held out, 3 are needed.
    Of the tiles that are verified completely, one in five is held out: verify about 5 more (256 px each).
    Look at its results before you accept it.
    """
    if not tiles:  # why stands among the notes on the data
        return f"{_UNJUDGED}.\n{_LOOK}"
    if mean_pq is None or difference is None:
        held = f"{count(tiles, 'tile')} {'is' if tiles == 1 else 'are'} held out, {FEWEST_IMAGES} are needed"
        more = f"verify about {JUDGED_EACH * (FEWEST_IMAGES - tiles)} more ({TILE_PX} px each)"
        return (
            f"{_UNJUDGED}: {held}.\n"
            f"Of the tiles that are verified completely, one in five is held out: {more}.\n{_LOOK}"
        )
    said = f"PQ on {count(tiles, 'held-out tile')}: {mean_pq[1]:.3f}, before {mean_pq[0]:.3f}."
    mean, low, high = difference
    word = "Better" if low > 0 else "Worse" if high < 0 else "Not clearly different:"
    by = " by" if word in ("Better", "Worse") else ""
    return f"{said}\n{word}{by} {mean:+.3f} (95% interval {low:+.3f} to {high:+.3f})."


def _comparison(tuned: Tuned) -> str:
    """Return what a card says of old and new, as Markdown."""
    lines = [f"## Compared with {tuned.parent.spec.name}", ""]
    if tuned.mean_pq is None or tuned.gain is None:
        return "\n".join([*lines, "Not judged: too little was verified to keep enough of it for that.", ""])
    old, new = tuned.mean_pq
    tiles = f"{count(len(tuned.after), 'verified tile')} that it did not learn from"
    lines.append(f"Mean PQ on {tiles}: {new:.3f}, before {old:.3f}.")
    mean, low, high = tuned.gain
    return "\n".join(
        [*lines, f"Gain {mean:+.3f} (95% interval over tiles, Student's t: {low:+.3f} to {high:+.3f}).", ""]
    )
