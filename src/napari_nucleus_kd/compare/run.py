"""Runs several segmenters over the same images in turn, and keeps what each found."""

from __future__ import annotations

import hashlib
import json
import weakref
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import fastremap
import numpy as np
from pydantic import ValidationError

from napari_nucleus_kd import __version__, metrics, segmenters
from napari_nucleus_kd.channels import asked_channels
from napari_nucleus_kd.compare.comparison import (
    Case,
    Comparison,
    Facts,
    Outcome,
    Size,
    fit_for_a_folder,
    keep_outcome,
    kept_path,
)
from napari_nucleus_kd.compare.folder import forget_former, refuse_others
from napari_nucleus_kd.errors import ModelError, ReadError, SettingsError, told
from napari_nucleus_kd.index import read_labels, read_truth
from napari_nucleus_kd.io import read, save_labels
from napari_nucleus_kd.io.atomic import make_folder
from napari_nucleus_kd.io.checked import read_text
from napari_nucleus_kd.mappings import BUILT_IN
from napari_nucleus_kd.mistakes import Verdict, mistakes
from napari_nucleus_kd.package import load_model
from napari_nucleus_kd.pairs import by_stem, stem_of, without_ending
from napari_nucleus_kd.pipeline import segment_steps
from napari_nucleus_kd.types import Progress, retold

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    from napari_nucleus_kd.compare.comparison import Contestant
    from napari_nucleus_kd.config import Recipe
    from napari_nucleus_kd.index import Row, Truth
    from napari_nucleus_kd.types import Image, LabelArray


_RULES = 4  # to be raised when the same question gets another answer: what is kept is then done again


@dataclass(slots=True)
class _Entry:
    contestant: Contestant
    facts: Facts
    files: dict[str, Path] = field(default_factory=dict)
    warm: weakref.ref[object] | None = None  # what ran before, see Segmenter.running


def compare_steps(
    cases: Sequence[Case], contestants: Sequence[Contestant], output: Path, *, overwrite: bool = False
) -> Generator[Progress, None, Comparison]:
    """Let every contestant segment every image, and compare with the labels where there are some.

    On each image the contestants take turns, another one first each time, so that what else the computer
    does slows all alike. Each runs once before it is timed, and again if it had to be opened anew. What was
    kept in `output` and answers the same question is not done again; a run that failed is.

    Parameters
    ----------
    cases : checked before, see index.check_rows_steps.
    output : folder; the labels are kept in labels/CONTESTANT/CASE_labels.tif.
    overwrite : begin anew: the comparison whose report is in `output` goes, with its labels.

    Raises
    ------
    SettingsError : two contestants or cases share a name or there are none, or only some of the images have
        labels.
    ModelError, DeviceError, BaselineError, ReadError : a contestant cannot begin.
    WriteError : the disk refuses, or `output` holds another comparison and overwrite is False, or a report
        that no comparison wrote.
    """
    _check(cases, contestants)
    refuse_others(output, cases, contestants, overwrite=overwrite)
    entries, began = [], f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
    for done, contestant in enumerate(contestants):
        yield Progress(done, len(contestants), f"opening {contestant.name}")
        entries.append(_enter(contestant))
    if overwrite:
        forget_former(output)
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
    places = [fit_for_a_folder(contestant.name).casefold() for contestant in contestants]
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
    if recipe is not None and recipe.mapping not in BUILT_IN:
        parts.append(load_model(recipe.mapping).hash)
    if recipe is not None and recipe.enhance is not None:
        parts.append(load_model(recipe.enhance).hash)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _known(entry: _Entry, case: Case, output: Path, request: str) -> Outcome | None:
    """Return what was kept of an earlier run, if that was asked the same and did not fail."""
    name = entry.contestant.name
    outcome = kept_path(output, name, case.name, ".json")
    if not (outcome.exists() and kept_path(output, name, case.name).exists()):
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
    path, outcome = (kept_path(output, name, case.name, suffix) for suffix in ("_labels.tif", ".json"))
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
    opened = segmenters.load(asked.segmenter, asked)
    if entry.warm is None or entry.warm() is not opened.running:  # one may have had to make room, or died
        yield from segment_steps(image, asked)
        opened = segmenters.load(asked.segmenter, asked)
        entry.warm = weakref.ref(opened.running)
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
