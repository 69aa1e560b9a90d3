"""A whole training run: train, package, judge on images never seen, write the card."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from napari_nucleus_kd.channels import normalize_image
from napari_nucleus_kd.config import Recipe
from napari_nucleus_kd.errors import SettingsError, WriteError
from napari_nucleus_kd.evaluate import evaluate_steps, only_tellable, summary
from napari_nucleus_kd.folders import index_steps, unlabelled_steps
from napari_nucleus_kd.index import check_rows_steps, read_splits
from napari_nucleus_kd.instances import CANONICAL_DIAMETER_PX
from napari_nucleus_kd.io.atomic import make_folder
from napari_nucleus_kd.io.samples import sample
from napari_nucleus_kd.networks.adapter import Adapted
from napari_nucleus_kd.networks.student import MULTIPLE_PX
from napari_nucleus_kd.package import ModelSpec, is_package, load_model, save_model
from napari_nucleus_kd.train.adapting import (
    HOW,
    adapter_spec,
    judge_steps,
    judged_channels,
    panel_rows,
    test_panel,
)
from napari_nucleus_kd.train.begin import blended
from napari_nucleus_kd.train.card import AS_USED, write_card
from napari_nucleus_kd.train.checkpoint import CHECKPOINT
from napari_nucleus_kd.train.loop import train_steps
from napari_nucleus_kd.train.teacher import open_segmenter
from napari_nucleus_kd.types import Modality
from napari_nucleus_kd.words import count

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence

    from torch import nn

    from napari_nucleus_kd.evaluate import Score
    from napari_nucleus_kd.index import Row
    from napari_nucleus_kd.networks.student import Student
    from napari_nucleus_kd.package import Model
    from napari_nucleus_kd.train.enhancing_settings import EnhancingSettings
    from napari_nucleus_kd.train.learner import Trained
    from napari_nucleus_kd.train.settings import TrainSettings
    from napari_nucleus_kd.types import FloatArray, Progress

_log = logging.getLogger(__name__)
_TEST_PX = 128
_BEFORE = "Before, "  # begins what is known of the data of a model that was started from
_UNANNOTATED = "unannotated"
_ROLES = {
    "train": "annotated, to learn from",
    _UNANNOTATED: "without annotation, of which a teacher told",
    "tune": "watched during training",
    "val": "only to judge by",
}
Watch: TypeAlias = "Callable[[Model], Generator[Progress, None, Mapping[str, float]]]"


@dataclass(frozen=True, slots=True)
class Judge:
    """Who scores a model on the "val" rows.

    Attributes
    ----------
    steps : scores a model.
    how : how that is done, in sentences for the card.
    """

    steps: Callable[[Model], Generator[Progress, None, list[Score]]]
    how: str


def run_steps(
    settings: TrainSettings,
    index: Path,
    output: Path,
    watch: Watch | None = None,
    judge: Judge | None = None,
) -> Generator[Progress, None, Model | None]:
    """Train a student and write it as a model package with card and metrics.

    Parameters
    ----------
    settings : what to train and how; `unlabelled` there is a folder of images that nobody annotated, of
        which the teachers say what is in them.
    index : CSV of annotated images with the splits "train", "tune" (watched during training) and "val"
        (only used for the numbers in the card; without it there are none); or a folder of images and
        label images, see folders.index_steps, of which `output/index.csv` is made.
    output : folder for the log and the checkpoint; the package becomes `output/<settings.name>`.
    watch : steps that are taken at each check, of the model as it is then, which is gone afterwards; what
        they return is logged, and changes nothing.
    judge : who scores the model; None: evaluate_steps, as a user who changes nothing.

    Yields
    ------
    Progress of training, then of judging.

    Returns
    -------
    The finished package; None in all processes but the first, if there are several devices.

    Raises
    ------
    ReadError : data that cannot be learnt from; nothing is written then.
    SettingsError : see train_steps; also a folder of labels that nothing is to be learnt from.
    ModelError, WriteError
    """
    place = place_of(output, settings.name)
    parent = None if settings.start is None else load_model(settings.start).spec
    for teacher in () if settings.distill is None else settings.distill.models:
        load_model(teacher)  # a wrong name shows now, not after the data were read
    for teacher in () if settings.distill is None else settings.distill.segmenters:
        open_segmenter(teacher, settings.device)
    index, notes = yield from data_steps(settings, index, output)
    spec = _spec(settings, parent, index)
    make_folder(output)

    def shown(network: Student) -> Generator[Progress, None, Mapping[str, float]]:
        assert watch is not None
        with for_now(spec, blended(network, settings), output) as model:
            return (yield from watch(model))

    def scored(model: Model) -> Generator[Progress, None, list[Score]]:
        recipe = Recipe(model=str(model.folder), device=settings.device, channels=settings.channels)
        return evaluate_steps(index, "val", recipe)

    judge = judge or Judge(scored, AS_USED)
    trained = yield from train_steps(settings, index, output, None if watch is None else shown)
    if trained is None:
        return None
    if isinstance(trained.network, Adapted):
        return (yield from _adapter_steps(settings, spec, trained, trained.network, index, output, notes))
    network = blended(trained.network, settings)
    if "val" in read_splits(index):
        metrics = yield from _judge(spec, network, output, judge)
        spec = spec.model_copy(update={"metrics": metrics})
    save_package(place, network, spec, write_card(spec, settings, trained, notes, judge.how))
    return load_model(str(place))


def _adapter_steps(
    settings: TrainSettings,
    spec: ModelSpec,
    trained: Trained,
    network: Adapted,
    index: Path,
    output: Path,
    notes: Sequence[str],
) -> Generator[Progress, None, Model]:
    """Package an adapter, and the student behind it if that learnt, too."""
    assert settings.adapter is not None
    place, student = output / settings.name, settings.start or ""
    if not network.frozen:
        behind = spec.model_copy(update={"name": f"{settings.name}-student"})
        student = str(output / behind.name)
        save_package(Path(student), network.student, behind, write_card(behind, settings, trained, notes))
    spec = adapter_spec(spec, settings.adapter)
    rows = panel_rows(read_splits(index).get("val", []))
    if rows:
        with for_now(spec, network.adapter, output, test_panel()) as model:
            scores = yield from judge_steps(model, student, rows, settings.channels)
        spec = spec.model_copy(update={"metrics": told_metrics(scores)})
    how = HOW.format(*judged_channels(spec))
    save_package(place, network.adapter, spec, write_card(spec, settings, trained, notes, how), test_panel())
    return load_model(str(place))


def data_steps(
    settings: TrainSettings | EnhancingSettings, data: Path, output: Path
) -> Generator[Progress, None, tuple[Path, list[str]]]:
    """Index what is learnt from, and look at it; an index gets its name only if nothing is wrong.

    Returns
    -------
    The index, and what a person should know of the data.
    """
    taught = None if settings.distill is None else settings.distill.label_folder
    if taught is not None and not taught.is_dir():
        raise SettingsError(f"labels:{taught}: there is no such folder; name one of label images")
    index, made, is_new = data, list[Path](), not output.exists()
    try:
        if data.is_dir():
            made.append(output / "index.csv")
            index = yield from index_steps(data, _for_this_process(made[-1]), seed=settings.seed)
        if settings.unlabelled is not None:
            made.append(output / "combined.csv")
            index = yield from unlabelled_steps(
                index, settings.unlabelled, _for_this_process(made[-1]), taught
            )
        splits = read_splits(index)
        val = splits.pop("val", [])
        learnt = [row for name in ("train", "tune") for row in splits.get(name, [])]
        notes = yield from check_rows_steps(learnt, judged=val, channels=settings.channels)
        notes += _split_notes(splits, settings)
        if taught is not None and not any(row.taught for row in learnt):
            raise SettingsError(
                f"labels:{taught} teaches nothing; name the images that these labels belong to with "
                "--unlabelled"
            )
        for place in made:
            _settle(place)
        return made[-1] if made else data, notes
    finally:
        for place in made:
            with suppress(OSError):  # it was never made, or got its name
                _for_this_process(place).unlink()
        if is_new:
            with suppress(OSError):  # there is something in it
                output.rmdir()


def place_of(output: Path, name: str) -> Path:
    """Return where the package of a run goes.

    Raises
    ------
    WriteError : there is something else.
    """
    place = output / name
    if place.exists() and not is_package(place):
        raise WriteError(f"{place} is there and no model; choose another name or output folder")
    if place.exists() and not _begun(output, name):
        raise WriteError(
            f"{place} is a model, and {output} holds no run of that name to go on with; choose another name "
            "or output folder"
        )
    return place


def _begun(output: Path, name: str) -> bool:
    """Tell whether a folder holds a run that makes a model of this name."""
    try:
        recipe = json.loads((output / "recipe.json").read_bytes())
    except (OSError, ValueError):
        return False
    return (output / CHECKPOINT).exists() and isinstance(recipe, dict) and recipe.get("name") == name


def _split_notes(
    splits: Mapping[str, Sequence[Row]], settings: TrainSettings | EnhancingSettings
) -> list[str]:
    """Return what a person should know of the splits that are not judged by, in sentences."""
    notes = [
        f"Not used: {count(len(rows), 'image')} of the split {name!r}; the splits are train, tune and val."
        for name, rows in splits.items()
        if name not in ("train", "tune")
    ]
    learnt, watched = ({row.image for row in splits.get(name, [])} for name in ("train", "tune"))
    if watched and watched <= learnt:
        notes.append(
            "Too few images to set some aside while it trains: the weights that fit the learnt images best "
            "are kept."
        )
    sources = {row.source for row in splits.get("train", [])}
    if sources and (unknown := sorted(settings.crops.source_weights.keys() - sources)):
        notes.append(
            f"No image to learn from has the source {', '.join(unknown)}, which source_weights names; there "
            f"are {', '.join(sorted(sources))}."
        )
    for note in notes:
        _log.warning(note)
    return notes


def _for_this_process(index: Path) -> Path:
    """Return a name for an index in the making; each process has its own."""
    return index.with_name(f".{index.stem}-{os.getpid()}.csv")


def _settle(index: Path) -> None:
    """Give an index its name, unless a run that is there learns from another one."""
    new = _for_this_process(index)
    if index.exists() and (index.parent / CHECKPOINT).exists() and index.read_bytes() != new.read_bytes():
        raise SettingsError(
            f"{index.parent} holds a run with other data or another seed: {index.name} would change; "
            "choose another output folder"
        )
    new.replace(index)


def _judge(
    spec: ModelSpec, network: Student, output: Path, judge: Judge
) -> Generator[Progress, None, dict[str, dict[str, list[float]]]]:
    """Return the metrics of the network on images that it never saw."""
    with for_now(spec, network, output) as model:
        return told_metrics((yield from judge.steps(model)))


def told_metrics(scores: Sequence[Score]) -> dict[str, dict[str, list[float]]]:
    """Return what a package says of scores: means with intervals by source, where enough images tell."""
    return {source: only_tellable(values) for source, values in summary(scores).items()}


@contextmanager
def for_now(
    spec: ModelSpec, network: nn.Module, output: Path, picture: FloatArray | None = None
) -> Iterator[Model]:
    """Make a model of a network, to be used while the block lasts; see save_package."""
    with tempfile.TemporaryDirectory(prefix=".judged-", dir=output) as scratch:
        folder = Path(scratch) / spec.name
        save_package(folder, network, spec, "", picture)
        yield load_model(str(folder))


def save_package(
    folder: Path, network: nn.Module, spec: ModelSpec, card: str, picture: FloatArray | None = None
) -> None:
    """Write a package; it is tested with a picture, or with a part of a sample."""
    tested = _test_input() if picture is None else picture
    save_model(folder, network, spec, card, tested, half=True, overwrite=True)


def _spec(settings: TrainSettings, parent: ModelSpec | None, index: Path) -> ModelSpec:
    data = settings.data or data_of(index)
    if parent is not None:
        before = f"{_BEFORE}as {parent.name}: "
        earlier = (line if line.startswith(_BEFORE) else before + line for line in parent.data)
        data += tuple(line for line in earlier if line.removeprefix(before) not in data)
    return ModelSpec(
        name=settings.name,
        version=datetime.now(UTC).strftime("%Y.%m.%d"),
        architecture="student",
        options=settings.student.model_dump(mode="json"),
        maps=settings.student.maps,
        multiple_px=MULTIPLE_PX,
        diameter_px=CANONICAL_DIAMETER_PX,
        size_range=settings.crops.size_range,
        enlarge_to_px=settings.enlarge_to_px,
        expected_px=settings.expected_px,
        decode=settings.decode,
        licence=settings.licence,
        data=data,
        parent=None if parent is None else parent.name,
    )


def data_of(index: Path) -> tuple[str, ...]:
    """Return what an index holds of each source, in sentences for the card."""
    numbers: dict[str, Counter[str]] = {}
    for split, rows in read_splits(index).items():
        for row in rows:
            annotated = row.labels is not None or split != "train"
            told = _ROLES.get(split if annotated else _UNANNOTATED)
            if told is not None:
                numbers.setdefault(row.source, Counter())[told] += 1
    told_of = {
        source: ", ".join(f"{count(number, 'image')} {told}" for told, number in found.items())
        for source, found in sorted(numbers.items())
    }
    return tuple(f"{source}: {told}." for source, told in told_of.items())


def _test_input() -> FloatArray:
    """Part of a drawn sample: training images may not be passed on, this one may."""
    image = sample("he")
    tile = np.asarray(image.pixels[:, :_TEST_PX, :_TEST_PX])
    return normalize_image(tile, Modality.HE)
