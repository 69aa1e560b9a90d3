"""What `nucleus-kd train` and `distill` do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from lightning_fabric.utilities.rank_zero import rank_zero_only
from rich.console import Console

from napari_nucleus_kd._cli_options import Trained
from napari_nucleus_kd._cli_show import metrics_table, show
from napari_nucleus_kd.config import Recipe, reading
from napari_nucleus_kd.errors import SettingsError
from napari_nucleus_kd.package import load_model
from napari_nucleus_kd.train.card import origin
from napari_nucleus_kd.train.checkpoint import CHECKPOINT
from napari_nucleus_kd.train.enhancing_run import enhancing_steps, how_judged
from napari_nucleus_kd.train.enhancing_settings import with_batch
from napari_nucleus_kd.train.run import run_steps
from napari_nucleus_kd.train.settings import TrainSettings, taken_over

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    from napari_nucleus_kd.package import Model
    from napari_nucleus_kd.train.enhancing_settings import EnhancingSettings
    from napari_nucleus_kd.types import Progress


_UNJUDGED = "Not judged: too few images to keep some back from training, or none has the split val."
_NO_DATA = "no data: give --data FOLDER or CSV, or 'dataset' in the recipe"


def kind_of(recipe: Path | None) -> Trained:
    """Return what a recipe trains; a student where it does not say, or cannot be read.

    Raises
    ------
    SettingsError : it says something else.
    """
    try:
        kind = json.loads(recipe.read_bytes())["kind"] if recipe else Trained.student
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return Trained.student
    if kind not in list(Trained):
        raise SettingsError(f"{recipe}: kind = {kind!r}: choose from {', '.join(Trained)}")
    return Trained(kind)


def read_settings(
    recipe: Path | None, batch: int | None = None, teachers: Sequence[str] = (), **given: object
) -> TrainSettings:
    """Return the settings of a JSON file, with those given (not None) in place of the file's.

    Parameters
    ----------
    batch : crops a step, which belongs to the setting `crops`.
    teachers : those of the setting `distill`; what else it says stays.

    Raises
    ------
    SettingsError : the file cannot be read, or settings are unknown or out of range.
    ModelError : the model to start from cannot be read.
    """
    with reading(recipe, TrainSettings):
        values = json.loads(recipe.read_bytes()) if recipe else {}
        if not isinstance(values, dict):
            raise SettingsError(f"{recipe} must hold one JSON object")
        if not isinstance(values.get("distill") or {}, dict):
            raise SettingsError(f'{recipe}: distill must be a JSON object, for instance {{"temperature": 2}}')
        for name in ("dataset", "unlabelled"):
            if recipe and isinstance(values.get(name), str):
                values[name] = str((recipe.parent / values[name]).resolve())
        values |= {name: value for name, value in given.items() if value is not None}
        if not recipe and not {"start", "student"} & values.keys():
            values["start"] = Recipe().model
        if isinstance(values.get("start"), str) and "student" not in values:
            values = taken_over(load_model(values["start"]).spec, values)
        if teachers:
            values["distill"] = (values.get("distill") or {}) | {"teachers": list(teachers)}
        if batch is not None:
            values["crops"] = with_batch(values.get("crops"), batch)
        return TrainSettings.model_validate_json(json.dumps(values, default=str))


def train_model(settings: TrainSettings, output: Path) -> None:
    """Train a model behind a progress bar and show how good it is; only the first of several processes does.

    Raises
    ------
    SettingsError : the settings name no data.
    KeyboardInterrupt : after Ctrl-C, when what was reached is kept.
    """
    if settings.dataset is None:
        raise SettingsError(_NO_DATA)
    console = Console(quiet=settings.devices > 1 and rank_zero_only.rank > 0)
    _run(run_steps(settings, settings.dataset, output), origin(settings), output, console)


def train_enhancing(settings: EnhancingSettings, output: Path) -> None:
    """Train an enhancer, or the network behind it; see train_model."""
    if settings.dataset is None:
        raise SettingsError(_NO_DATA)
    steps = enhancing_steps(settings, settings.dataset, output)
    _run(steps, "random weights", output, Console(), how_judged(settings)[1])


def _run(
    steps: Generator[Progress, None, Model | None],
    begun_from: str,
    output: Path,
    console: Console,
    unjudged: str = "",
) -> None:
    kept = output / CHECKPOINT
    begins = f"To go on with: the run in {output}" if kept.exists() else f"To start from: {begun_from}"
    console.print(f"{begins}.", soft_wrap=True)
    try:
        model = show(steps, console)
    except KeyboardInterrupt:
        if kept.exists():
            console.print(
                f"What was reached is kept in {output}: the same command goes on from there; with --steps 1 "
                "it makes a model of the best so far.",
                soft_wrap=True,
            )
        raise
    if model is not None:
        show_trained(model, console, unjudged)


def show_trained(model: Model, console: Console, unjudged: str = "") -> None:
    """Print how good a trained model is, or why it was not judged, and where it lies."""
    if model.spec.metrics:
        console.print(metrics_table(model.spec.metrics))
    else:
        console.print(unjudged or _UNJUDGED, soft_wrap=True)
    console.print(f"model: {model.folder}", soft_wrap=True)
