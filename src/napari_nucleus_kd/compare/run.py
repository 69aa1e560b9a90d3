"""Runs several segmenters over the same images in turn, and keeps what each found."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import fastremap
import numpy as np
from pydantic import Field, ValidationError

from napari_nucleus_kd import __version__, metrics, segmenters
from napari_nucleus_kd.channels import asked_channels
from napari_nucleus_kd.config import Recipe, Settings
from napari_nucleus_kd.errors import ModelError, ReadError, SettingsError, WriteError, told
from napari_nucleus_kd.index import read_labels, read_truth, true_labels
from napari_nucleus_kd.io import read, save_labels
from napari_nucleus_kd.io.atomic import make_folder, write_text
from napari_nucleus_kd.io.checked import read_text
from napari_nucleus_kd.mistakes import Mistakes, Verdict, mistakes
from napari_nucleus_kd.pairs import by_stem, stem_of, without_ending
from napari_nucleus_kd.pipeline import segment_steps
from napari_nucleus_kd.types import Progress, retold

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    from napari_nucleus_kd.index import Row, Truth
    from napari_nucleus_kd.types import Image, LabelArray


_RULES = 3  # to be raised when the same question gets another answer: what is kept is then done again
REPORT = ("comparison.json", "comparison.csv", "images.csv", "report.html")  # written in this order


class Size(StrEnum):
    """Which nucleus diameter a segmenter is told where its recipe names none."""

    ESTIMATED = "estimated"  # by itself, as a user gets who changes nothing
    OWN = "own"  # the one that it was made for: nothing is rescaled
    ANNOTATED = "annotated"  # the median of the annotation, as of a user who measured it


@dataclass(frozen=True, slots=True)
class Contestant:
    """One way to find nuclei.

    Attributes
    ----------
    name : for people, and of its folder.
    recipe : how to segment; None with `labels`.
    labels : folder of label images that another program made, with the names of the images.
    """

    name: str
    recipe: Recipe | None = None
    size: Size = Size.ESTIMATED
    labels: Path | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """An image to compare on.

    Attributes
    ----------
    name : that no other case has, fit for a file.
    row : its files; without labels there is no ground truth.
    about : what a temporary file is a part of, for people.
    """

    name: str
    row: Row
    about: str = ""


class Facts(Settings):
    """What is known of a contestant.

    Attributes
    ----------
    description : tool, version, weights and processor.
    digest : of the weights; None without.
    parameters : numbers that were learnt; None where that is unknown.
    """

    description: str
    digest: str | None = None
    parameters: int | None = None


class Outcome(Settings):
    """What a contestant made of an image.

    Attributes
    ----------
    values : metrics by name, see metrics.scores; {} without ground truth.
    ap : average precision at metrics.STRICT_IOU; empty without ground truth.
    verdicts : number of nuclei by the name of their Verdict; {} without ground truth.
    seconds : of segmenting, the tool being open and warm; None for labels from a folder.
    begun : when the comparison was begun that made this, UTC.
    memory_bytes : most that the process that segments has of main memory, with all its libraries; of a tool
        in a process of its own, that one. None unless it was measured, see memory_steps.
    notes : what the segmenter had to change, for a person.
    problem : why it failed; it is then judged as if nothing had been found.
    """

    contestant: str
    image: str
    source: str
    request: str
    shape_yx: tuple[int, int]
    count: int
    values: dict[str, float] = Field({})
    ap: tuple[float, ...] = ()
    verdicts: dict[str, int] = Field({})
    diameter_px: float | None = None
    seconds: float | None = None
    begun: str = ""
    memory_bytes: int | None = None
    notes: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What all contestants made of all images.

    Attributes
    ----------
    outcomes : of each contestant, by its name, one an image, in the order of the cases.
    folder : holds the labels; see labels_of.
    measured : on which memory was measured; None if it was not.
    """

    cases: tuple[Case, ...]
    contestants: tuple[Contestant, ...]
    facts: dict[str, Facts]
    outcomes: dict[str, list[Outcome]]
    folder: Path
    measured: Case | None = None

    @property
    def judged(self) -> bool:
        """Whether there is ground truth."""
        return all(case.row.labels is not None for case in self.cases)

    def memory_of(self, contestant: str) -> int | None:
        """Return the memory_bytes of the image on which they were measured; None if they were not."""
        if self.measured is None:
            return None
        return self.outcomes[contestant][self.cases.index(self.measured)].memory_bytes

    def mistakes_of(self, contestant: str, case: Case) -> Mistakes:
        """Tell what became of the nuclei of a case with ground truth."""
        true, found = true_labels(case.row), self.labels_of(contestant, case)
        return mistakes(true, np.zeros_like(true) if found is None else found)

    def labels_of(self, contestant: str, case: Case) -> LabelArray | None:
        """Read what a contestant found, of an annotation of a part what can be judged; None if it failed."""
        path = _kept(self.folder, contestant, case.name)
        if not path.exists():
            return None
        labels: LabelArray = np.asarray(read(path).pixels[0]).astype(np.int32)  # as they were, even if odd
        return labels if case.row.valid is None else read_truth(case.row).and_found(labels)[1]


@dataclass(slots=True)
class _Entry:
    contestant: Contestant
    facts: Facts
    files: dict[str, Path] = field(default_factory=dict)
    warm: bool = False


def compare_steps(
    cases: Sequence[Case], contestants: Sequence[Contestant], output: Path
) -> Generator[Progress, None, Comparison]:
    """Let every contestant segment every image, and compare with the labels where there are some.

    On each image the contestants take turns, another one first each time, so that what else the computer
    does slows all alike. Each runs once before it is timed. What was kept in `output` and answers the same
    question is not done again; a run that failed is.

    Parameters
    ----------
    cases : checked before, see index.check_rows_steps.
    output : folder; the labels are kept in labels/CONTESTANT/CASE_labels.tif.

    Raises
    ------
    SettingsError : two contestants or cases share a name or there are none, or only some of the images have
        labels.
    ModelError, DeviceError, BaselineError, ReadError : a contestant cannot begin.
    WriteError : the disk refuses, or `output` holds a report that no comparison wrote.
    """
    _check(cases, contestants)
    refuse_others(output)
    entries, began = [], f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
    for done, contestant in enumerate(contestants):
        yield Progress(done, len(contestants), f"opening {contestant.name}")
        entries.append(_enter(contestant))
    outcomes: dict[str, dict[str, Outcome]] = {contestant.name: {} for contestant in contestants}
    total = len(cases) * len(entries)
    for turn, case in enumerate(cases):
        stamps = _stamps(case.row.image, case.row.labels, case.row.valid)
        for place in range(len(entries)):
            entry = entries[(turn + place) % len(entries)]
            done, name = turn * len(entries) + place, entry.contestant.name
            request = _request(entry, case, stamps)
            outcome = _known(entry, case, output, request)
            if outcome is None:
                outcome = yield from retold(
                    _outcome_steps(entry, case, output, {"request": request, "begun": began}),
                    lambda p, done=done, what=f"{case.name}, {name}": Progress(  # type: ignore[misc]
                        done, total, f"{what}: {p.message}"
                    ),
                )
            outcomes[name][case.name] = outcome
            yield Progress(done + 1, total, f"{case.name}, {name}")
    return Comparison(
        tuple(cases),
        tuple(contestants),
        {entry.contestant.name: entry.facts for entry in entries},
        {name: [of[case.name] for case in cases] for name, of in outcomes.items()},
        output,
    )


def refuse_others(folder: Path) -> None:
    """Raise WriteError if a folder holds files called like those of a report, but no comparison."""
    there = [name for name in REPORT if (folder / name).exists()]
    if there and REPORT[0] not in there:
        raise WriteError(f"{folder / there[0]} is there and belongs to no comparison; choose another folder")


def cases_of(rows: Sequence[Row]) -> list[Case]:
    """Return cases named like their images, with a fingerprint of the path where two are called alike."""
    stems = [stem_of(row.image) for row in rows]
    known = [stem.casefold() for stem in stems]
    return [
        Case(
            stem
            if known.count(stem.casefold()) == 1
            else f"{stem}-{hashlib.sha256(str(row.image.resolve()).encode()).hexdigest()[:8]}",
            row,
        )
        for stem, row in zip(stems, rows, strict=True)
    ]


def _check(cases: Sequence[Case], contestants: Sequence[Contestant]) -> None:
    if not contestants or not cases:
        raise SettingsError("name at least one segmenter and one image to compare")
    names = [case.name.casefold() for case in cases]
    alike = sorted({case.name for case in cases if names.count(case.name.casefold()) > 1})
    if alike:
        raise SettingsError(f"two images are called {alike[0]}; give each case a name of its own")
    stems = [stem_of(case.row.image) for case in cases]
    blurred = sorted({stem for stem in stems if stems.count(stem) > 1})
    if blurred and any(contestant.recipe is None for contestant in contestants):
        raise SettingsError(
            f"several images are called {blurred[0]}, so which label image is whose cannot be told; "
            "compare folder by folder"
        )
    places = [_fit_for_a_folder(contestant.name).casefold() for contestant in contestants]
    twice = [c.name for c, place in zip(contestants, places, strict=True) if places.count(place) > 1]
    if twice:
        raise SettingsError(
            f"several are called {', '.join(sorted(set(twice)))}; give them names that differ in letters or "
            "digits, as in NAME=..., and layers likewise"
        )
    marked = sum(case.row.labels is not None for case in cases)
    if 0 < marked < len(cases):
        raise SettingsError(
            f"{marked} of {len(cases)} images have labels; compare on those, or on the others"
        )
    blind = [c.name for c in contestants if c.size is Size.ANNOTATED]
    if blind and not marked:
        raise SettingsError(
            f"{blind[0]}: without labels there is no annotated diameter; give it in pixels, as in @24"
        )


def _enter(contestant: Contestant) -> _Entry:
    """Open a contestant, so that it fails now if it does."""
    if contestant.recipe is None:
        assert contestant.labels is not None
        if not contestant.labels.is_dir():
            raise ReadError(f"{contestant.labels}: there is no such folder of label images")
        facts = Facts(description=f"labels from {contestant.labels.name}")
        return _Entry(contestant, facts, by_stem(contestant.labels))
    opened = segmenters.load(contestant.recipe.segmenter, contestant.recipe)
    return _Entry(
        contestant,
        Facts(description=opened.description, digest=opened.model_hash, parameters=opened.parameters),
    )


def _of_image(entry: _Entry, image: Path) -> list[Path]:
    """Return the label images of an image in a folder: the one of its name, else those with an ending."""
    stem = stem_of(image)
    if stem in entry.files:
        return [entry.files[stem]]
    return [path for name, path in entry.files.items() if without_ending(name) == stem]


def _fit_for_a_folder(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name).strip("._") or "contestant"


def _kept(output: Path, contestant: str, case: str, suffix: str = "_labels.tif") -> Path:
    return output / "labels" / _fit_for_a_folder(contestant) / f"{case}{suffix}"


def _stamps(*paths: Path | None) -> list[tuple[str, int, int]]:
    """Return place, time of the last change and size of files that are there; of a folder, of what it holds.

    Labels inside an OME-Zarr are no part of its image.
    """
    stamps = []
    for path in paths:
        if path is None or not path.exists():
            continue
        inside = path.rglob("*") if path.is_dir() else ()
        stats = [f.stat() for f in inside if f.is_file() and f.relative_to(path).parts[0] != "labels"]
        stats = stats or [path.stat()]
        last, size = max(s.st_mtime_ns for s in stats), sum(s.st_size for s in stats)
        stamps.append((str(path.resolve()), last, size))
    return stamps


def _request(entry: _Entry, case: Case, stamps: Sequence[tuple[str, int, int]]) -> str:
    """Return a fingerprint of what is asked: other images, labels or settings give other answers.

    Parameters
    ----------
    stamps : of the case's own files.
    """
    row, recipe = case.row, entry.contestant.recipe
    stamps = [*stamps, *_stamps(*_of_image(entry, row.image))]
    asked = None if recipe is None else recipe.model_dump_json(exclude_unset=True)
    what = entry.contestant.size, entry.facts.digest, entry.facts.description, row.seen, row.modality
    parts = [stamps, asked, *what, __version__, _RULES]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _known(entry: _Entry, case: Case, output: Path, request: str) -> Outcome | None:
    """Return what was kept of an earlier run, if that was asked the same and did not fail."""
    name = entry.contestant.name
    outcome = _kept(output, name, case.name, ".json")
    if not (outcome.exists() and _kept(output, name, case.name).exists()):
        return None
    try:
        known = Outcome.model_validate_json(read_text(outcome))
    except (ModelError, ValidationError):
        return None
    if known.request != request or known.problem:
        return None
    return known.model_copy(update={"contestant": name, "image": case.name, "source": case.row.source})


def _outcome_steps(
    entry: _Entry, case: Case, output: Path, known: dict[str, Any]
) -> Generator[Progress, None, Outcome]:
    name, row = entry.contestant.name, case.row
    truth = None if row.labels is None else read_truth(row)
    known = known | {"contestant": name, "image": case.name, "source": row.source}
    path, outcome = (_kept(output, name, case.name, suffix) for suffix in ("_labels.tif", ".json"))
    make_folder(path.parent)
    outcome.unlink(missing_ok=True)  # first: without it the labels are nobody's answer
    path.unlink(missing_ok=True)
    try:
        labels, found = yield from _labels_steps(entry, case, truth)
    except Exception as error:
        shape = (0, 0) if truth is None else truth.labels.shape  # the image itself may be what fails
        labels, found = np.zeros(shape, np.int32), {"problem": told(error)}
    else:
        save_labels(labels, path, overwrite=True)
    true, labels = (None, labels) if truth is None else truth.and_found(labels)
    found["shape_yx"] = labels.shape
    found["count"] = len(fastremap.unique(labels[labels > 0]))
    if true is not None:
        pairs, wrong = metrics.overlap(true, labels), mistakes(true, labels)
        found["values"] = metrics.scores(true, labels)
        found["ap"] = tuple(metrics.match(pairs, iou).ap for iou in metrics.STRICT_IOU)
        found["verdicts"] = {verdict.name.lower(): wrong.count(verdict) for verdict in Verdict}
        if "problem" in found:  # of an image without nuclei this would be right
            counted = ("true_count", "pred_count")
            found["values"] = {n: v if n in counted else 0.0 for n, v in found["values"].items()}
            found["ap"] = (0.0,) * len(metrics.STRICT_IOU)
    return keep_outcome(Outcome.model_validate(known | found), output)


def keep_outcome(outcome: Outcome, output: Path) -> Outcome:
    """Write what a contestant made of an image beside its labels; returns it."""
    path = _kept(output, outcome.contestant, outcome.image, ".json")
    write_text(path, outcome.model_dump_json(indent=2) + "\n")
    return outcome


def _labels_steps(
    entry: _Entry, case: Case, truth: Truth | None
) -> Generator[Progress, None, tuple[LabelArray, dict[str, Any]]]:
    """Return the labels of a case, and what is to be noted of the run."""
    row = case.row
    if entry.contestant.recipe is None:
        files = _of_image(entry, row.image)
        if not files:
            raise ReadError(f"{entry.contestant.labels}: no label image has the name of {row.image.name}")
        if len(files) > 1:
            raise ReadError(f"{', '.join(path.name for path in files)} are labels of one image; keep one")
        (file,) = files
        labels = read_labels(file, in_pieces=True)
        shape = read(row.image).shape_yx
        if labels.shape != shape:
            raise ReadError(f"{file}: is {labels.shape}, its image {shape}")
        return labels, {}
    image = read(row.image)
    asked = asked_recipe(entry.contestant, row, image, truth)
    if not entry.warm:
        yield from segment_steps(image, asked)
        entry.warm = True
    opened = segmenters.load(asked.segmenter, asked)  # of many models one may have had to make room
    result = yield from segment_steps(image, asked)
    return result.nuclei.labels, {
        "seconds": result.seconds,
        "diameter_px": result.diameter_px,
        "notes": tuple(opened.notes),
    }


def asked_recipe(contestant: Contestant, row: Row, image: Image, truth: Truth | None) -> Recipe:
    """Return with which settings a contestant segments the image of a row."""
    recipe = contestant.recipe
    assert recipe is not None
    channels = asked_channels(image, recipe.channels, row.modality)
    settings: dict[str, Any] = {"modality": row.modality, "channels": channels} | row.seen
    diameter = recipe.diameter_px
    if diameter is None and contestant.size is Size.OWN:
        diameter = segmenters.load(recipe.segmenter, recipe).default_diameter_px
    elif diameter is None and contestant.size is Size.ANNOTATED and truth is not None:
        diameter = metrics.median_diameter(truth.nuclei)
    if diameter is not None:
        settings["diameter_px"] = diameter
    return recipe.model_copy(update=settings)
