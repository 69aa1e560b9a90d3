"""A model made a person's own: trained on what they verified, judged against the one before, kept or not."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from napari_nucleus_kd.config import Recipe, Settings
from napari_nucleus_kd.errors import ModelError, SettingsError, WriteError
from napari_nucleus_kd.evaluate import evaluate_steps
from napari_nucleus_kd.index import read_splits
from napari_nucleus_kd.install import install_model
from napari_nucleus_kd.metrics import bootstrap
from napari_nucleus_kd.networks.student import StudentConfig
from napari_nucleus_kd.package import is_package, list_models, load_model
from napari_nucleus_kd.train.run import run_steps
from napari_nucleus_kd.train.settings import CropSettings, DistillSettings, TrainSettings
from napari_nucleus_kd.types import finish

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from napari_nucleus_kd.evaluate import Score
    from napari_nucleus_kd.package import Model
    from napari_nucleus_kd.types import Progress


class FinetuneSettings(Settings):
    """How a model is fine-tuned; the defaults suit a few verified tiles and a minute of time."""

    steps: int = Field(100, ge=1, description="Batches to learn from")
    learning_rate: float = Field(3e-4, gt=0, description="Size of a step; larger learns and forgets faster")
    keep: float = Field(
        1.0, ge=0, description="Weight of what the old model says where nobody verified; 0 lets it forget"
    )
    batch: int = Field(4, ge=1, description="Crops a step")
    crop_px: int = Field(256, ge=64, multiple_of=32, description="Edge of a crop, in network pixels")
    check_every: int = Field(20, ge=1, description="Steps between looks at what is held out")
    seed: int = Field(0, ge=0, lt=2**32)
    device: str = Field("auto", pattern="^(auto|cpu|cuda|mps)$", description="What it is trained on")


@dataclass(frozen=True, slots=True)
class Tuned:
    """A fine-tuned model that nobody has accepted yet.

    Attributes
    ----------
    parent, model : the model before, and the one after; this lies in the run's folder.
    before, after : their scores on the held-out images; empty if there are none.
    gain : mean difference of the PQ of a held-out image, and its 95% interval (bootstrap over the images);
        None with fewer than three: so few can judge nothing.
    """

    parent: Model
    model: Model
    before: tuple[Score, ...]
    after: tuple[Score, ...]
    gain: tuple[float, float, float] | None


_FEWEST_IMAGES = 3
_WARMUP_STEPS = 10
_WRITTEN = ("recipe.json", "log.csv", "curves.png", "checkpoint.pt", "data")  # by a run, beside the model


def finetune_steps(
    model: str,
    index: Path,
    output: Path,
    settings: FinetuneSettings | None = None,
    watch: Callable[[Model], None] | None = None,
) -> Generator[Progress, None, Tuned]:
    """Fine-tune a model and judge it and the one before on the same held-out images.

    Where nobody verified anything, the old model teaches, so that it is not forgotten.

    Parameters
    ----------
    model : name or folder of the model to start from.
    index : CSV of what was verified, see index.read_index; its "val" rows are held out. A project writes one.
    output : folder of the run; started again with the same settings and data, it goes on.
    watch : called at each check with the model as it is then, for a preview.

    Yields
    ------
    Progress after each step.

    Raises
    ------
    ModelError : the model cannot be trained on. SettingsError, ReadError, WriteError : see train.run.
    """
    parent = load_model(model)
    held_out = "val" in read_splits(index)
    before: list[Score] = []
    if held_out:
        before = yield from evaluate_steps(index, "val", _recipe(parent))

    def judged(now: Model) -> dict[str, float]:
        if watch is not None:
            watch(now)
        if not held_out:
            return {}
        return {"val PQ": _mean_pq(finish(evaluate_steps(index, "val", _recipe(now))))}

    chosen = _settings(parent, settings or FinetuneSettings())
    tuned = yield from run_steps(chosen, index, output, watch=judged)
    assert tuned is not None
    after = (yield from evaluate_steps(index, "val", _recipe(tuned))) if held_out else []
    return Tuned(parent, tuned, tuple(before), tuple(after), _gain(before, after))


def accept(tuned: Tuned) -> Model:
    """Put a fine-tuned model among the installed ones; the one before stays.

    Raises
    ------
    ModelError, WriteError : see install.install_model.
    """
    return install_model(tuned.model.folder)


def reject(output: Path) -> None:
    """Remove the folder of a run; one that holds anything else is left alone.

    Raises
    ------
    SettingsError : the folder holds no run, or something that no run wrote.
    WriteError : the disk refuses.
    """
    if not output.exists():
        return
    if not (output / "recipe.json").exists():
        raise SettingsError(f"{output} holds no training run; nothing was removed")
    foreign = sorted(p.name for p in output.iterdir() if p.name not in _WRITTEN and not is_package(p))
    if foreign:
        raise SettingsError(
            f"{output} holds {foreign[0]}, which no training run writes; nothing was removed. Take out what "
            "you want to keep, and remove the folder by hand"
        )
    try:
        shutil.rmtree(output)
    except OSError as error:
        raise WriteError(f"{output} cannot be removed: {error.strerror or error}") from error


def next_name(parent: str) -> str:
    """Return the name of the next version of a model: my-model-2 after my-model and my-model-1."""
    base = re.sub(r"-\d+$", "", parent)
    known = {model.spec.name for model in list_models()}
    return next(name for i in range(1, len(known) + 2) if (name := f"{base}-{i}") not in known)


def _settings(parent: Model, chosen: FinetuneSettings) -> TrainSettings:
    spec = parent.spec
    if spec.architecture != "student":
        raise ModelError(
            f"{spec.name} ({spec.architecture}) cannot be trained on; choose a student, not joined ones"
        )
    return TrainSettings(
        name=next_name(spec.name),
        purpose=f"{spec.name}, fine-tuned on images that its user verified.",
        data=(f"Images verified by the user of {spec.name}.",),
        decode=spec.decode,
        enlarge_to_px=spec.enlarge_to_px,
        student=StudentConfig.model_validate(spec.options),
        start=str(parent.folder),
        crops=CropSettings(
            batch=chosen.batch, crop_px=chosen.crop_px, size_range=spec.size_range, wide_share=0.05
        ),
        distill=DistillSettings(
            teachers=(str(parent.folder),), truth=1.0, taught=chosen.keep, flips=False, elsewhere=True
        ),
        steps=chosen.steps,
        learning_rate=chosen.learning_rate,
        warmup_steps=_WARMUP_STEPS,
        average=0.95,
        seed=chosen.seed,
        workers=0,
        check_every=chosen.check_every,
        check_batches=2,
        device=chosen.device,
    )


def _recipe(model: Model) -> Recipe:
    return Recipe(model=str(model.folder))


def _mean_pq(scores: list[Score]) -> float:
    return float(np.mean([score.values["pq"] for score in scores]))


def _gain(before: list[Score], after: list[Score]) -> tuple[float, float, float] | None:
    if len(after) < _FEWEST_IMAGES:
        return None
    return bootstrap([new.values["pq"] - old.values["pq"] for old, new in zip(before, after, strict=True)])
