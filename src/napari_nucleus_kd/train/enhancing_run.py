"""A run that trains an enhancer or the network behind it: train, package, judge, write the card."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from napari_nucleus_kd.config import Recipe
from napari_nucleus_kd.enhancer import load_enhancer
from napari_nucleus_kd.errors import ReadError
from napari_nucleus_kd.evaluate import evaluate_steps
from napari_nucleus_kd.index import read_splits
from napari_nucleus_kd.instances import CANONICAL_DIAMETER_PX
from napari_nucleus_kd.io.atomic import make_folder, write_text
from napari_nucleus_kd.networks.enhancer import CLASSES, MULTIPLE_PX
from napari_nucleus_kd.package import THREE_CLASSES, ModelSpec, load_model
from napari_nucleus_kd.train.card import card
from napari_nucleus_kd.train.data import load_steps
from napari_nucleus_kd.train.enhancing import EnhancerCourse, ThreeClassCourse, grey_batches, made_of
from napari_nucleus_kd.train.loop import open_fabric, stream
from napari_nucleus_kd.train.run import data_of, data_steps, for_now, place_of, save_package, told_metrics
from napari_nucleus_kd.types import Progress

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from napari_nucleus_kd.package import Model
    from napari_nucleus_kd.train.enhancing import Course
    from napari_nucleus_kd.train.enhancing_settings import EnhancingSettings


def enhancing_steps(
    settings: EnhancingSettings, index: Path, output: Path
) -> Generator[Progress, None, Model]:
    """Train an enhancer, or a network of three classes, and write it as a package with card and metrics.

    Run again with the same output folder, it goes on from its last checkpoint.

    Parameters
    ----------
    index : CSV of annotated images with the splits "train", "tune" and "val"; or a folder, see train.run.
    output : folder for recipe.json, log.csv, curves.png, samples.png (picture, what is drawn, and what is to
        be drawn, of tuning crops) and checkpoint.pt; the package becomes `output/<settings.name>`.

    Yields
    ------
    Progress of training, then of judging.

    Raises
    ------
    ReadError, SettingsError, ModelError, WriteError : see train.run.run_steps.
    """
    place = place_of(output, settings.name)
    for name in (settings.enhancer, settings.judged_behind):
        if name is not None:
            load_enhancer(name)  # a wrong name shows now, not after the data were read
    index, notes = yield from data_steps(settings, index, output)
    make_folder(output)
    made_from = settings.learned_from(index)
    tune = yield from load_steps(index, "tune", channels=settings.channels)
    train = yield from load_steps(index, "train", channels=settings.channels)
    if not any(sample.valid is None or sample.valid.any() for sample in train):
        raise ReadError(f"{index}: nothing is annotated in the images to train on")
    fabric = open_fabric(settings)
    kind = EnhancerCourse if settings.kind == "enhancer" else ThreeClassCourse
    course: Course = kind(fabric, settings, made_of(made_from, fabric), output)
    settings = settings.model_copy(update={"steps": max(settings.steps, course.step)})
    write_text(output / "recipe.json", settings.model_dump_json(indent=2))
    watched = grey_batches(tune, settings, settings.seed + 1)
    checks = [watched[i] for i in range(settings.check_batches)]
    batches = stream(grey_batches(train, settings, settings.seed), course.step, settings, fabric)
    try:
        while course.step < settings.steps:
            values = course.learn(next(batches))
            if course.step % settings.check_every == 0 or course.step == settings.steps:
                values |= course.check(checks)
            yield Progress(course.step, settings.steps, "training", values)
    except GeneratorExit:  # stopped by a person
        course.save()
        raise
    if not course.records:  # stopped before the first check, and to be packaged all the same
        course.check(checks)
    return (yield from _package_steps(settings, course, index, output, place, notes))


def _package_steps(
    settings: EnhancingSettings, course: Course, index: Path, output: Path, place: Path, notes: list[str]
) -> Generator[Progress, None, Model]:
    network, spec = course.result(), _spec(settings, index)
    how, why = how_judged(settings)
    if "val" in read_splits(index) and not why:
        with for_now(spec, network, output) as model:
            scores = yield from evaluate_steps(index, "val", _judging(settings, model))
        spec = spec.model_copy(update={"metrics": told_metrics(scores)})
    crops = settings.crops
    lines = [
        f"{course.step} steps of {crops.batch} crops of {crops.crop_px} px; the weights are those of step "
        f"{course.best_step}, the best on the images that it was tuned by.",
        f"Adam at {settings.learning_rate:g}, falling to 0 over the second half; {_learnt(settings)}; "
        f"seed {settings.seed}; on {course.processor}.",
    ]
    data = "index.csv" if settings.dataset is None or settings.dataset.is_dir() else settings.dataset.name
    command = f"nucleus-kd train recipe.json --kind {settings.kind} --data {data} --output runs/again"
    save_package(place, network, spec, card(spec, settings, lines, command, notes, how, why))
    return load_model(str(place))


def _judging(settings: EnhancingSettings, model: Model) -> Recipe:
    """Return how a model is judged: an enhancer by the shipped student, three classes by themselves."""
    shared = Recipe(device=settings.device, channels=settings.channels)
    if settings.kind == "enhancer":
        return shared.model_copy(update={"enhance": str(model.folder)})
    behind = settings.judged_behind or settings.enhancer
    return shared.model_copy(update={"model": str(model.folder), "enhance": behind})


def how_judged(settings: EnhancingSettings) -> tuple[str, str]:
    """Say how a model is judged, or else why it cannot be."""
    if settings.kind == "enhancer":
        return f"Of {Recipe().model}, which sees the enhanced images; its own card has it without.", ""
    behind = settings.judged_behind or settings.enhancer
    if behind is None and settings.learns_from == "ideal":
        return "", "Not judged: it learnt from ideal nuclei, and no enhancer was named (`judged_behind`)."
    return "" if behind is None else f"It sees the images enhanced by {behind}.", ""


def _learnt(settings: EnhancingSettings) -> str:
    if settings.kind == "three-classes":
        return (
            f"cross-entropy {settings.cross_entropy:g} + Dice {settings.dice:g}, from {settings.learns_from}"
        )
    between = "" if settings.between_weight == 1 else f" ({settings.between_weight:g} times between nuclei)"
    if settings.discriminator == "none":
        return f"{settings.generator.blocks}, L1{between}"
    against = f"{settings.generator.blocks} against a {settings.discriminator} discriminator"
    return f"{against}, L1{between} + {settings.adversarial:g} of its loss"


def _spec(settings: EnhancingSettings, index: Path) -> ModelSpec:
    is_enhancer = settings.kind == "enhancer"
    network = settings.generator if is_enhancer else settings.three_classes
    return ModelSpec(
        name=settings.name,
        version=datetime.now(UTC).strftime("%Y.%m.%d"),
        architecture="enhancer" if is_enhancer else THREE_CLASSES,
        options=network.model_dump(mode="json"),
        maps=("enhanced",) if is_enhancer else CLASSES,
        multiple_px=MULTIPLE_PX,
        diameter_px=CANONICAL_DIAMETER_PX,
        size_range=settings.crops.size_range,
        licence=settings.licence,
        data=settings.data or data_of(index),
    )
