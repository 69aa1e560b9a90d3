"""What `nucleus-kd finetune` does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import ValidationError
from rich.console import Console

from napari_nucleus_kd._cli_show import show
from napari_nucleus_kd.config import Recipe, complaint
from napari_nucleus_kd.engine import check_device
from napari_nucleus_kd.errors import SettingsError
from napari_nucleus_kd.package import list_models, load_model
from napari_nucleus_kd.project import Project
from napari_nucleus_kd.train.finetune import (
    FinetuneSettings,
    accept,
    begun,
    data_steps,
    finetune_steps,
    gain_in_words,
    goes_on,
    reject,
)
from napari_nucleus_kd.train.settings import taken_over

if TYPE_CHECKING:
    from pathlib import Path


def read_settings(run: Path, **given: object) -> FinetuneSettings:
    """Return the settings that are given (not None); the others are as they are by themselves.

    Those of a run that goes on are as it was begun with.

    Raises
    ------
    SettingsError : one is out of range.
    """
    found = begun(run) if goes_on(run) else None
    known = {} if found is None else found[1].model_dump()
    chosen = {name: value for name, value in given.items() if value is not None}
    try:
        return FinetuneSettings.model_validate(known | chosen)
    except ValidationError as error:
        raise SettingsError(complaint(error, FinetuneSettings)) from error


def finetune_model(
    project: Path, model: str | None, output: Path, settings: FinetuneSettings, *, install: bool
) -> None:
    """Fine-tune a model on what is verified in a project, say what it gained, and install it if wished.

    What is verified is written into the run's folder; a run that goes on learns from what it began with.

    Parameters
    ----------
    model : name or folder of the model to start from; None: that of the run that goes on, else the one that
        came with the program.
    output : folder of the run.
    """
    console = Console()
    found = begun(output) if goes_on(output) else None
    model = model or (Recipe().model if found is None else found[0])
    start = load_model(model)
    taken_over(start.spec, {})  # a model that cannot learn shows now, not after data were written
    check_device(settings.device)
    address = model if start.folder.is_absolute() else str(start.folder.resolve())
    if goes_on(output):
        console.print(f"This run goes on to step {settings.steps} with what was verified when it began.")
    with Project(project, write=False) as opened:
        data = show(data_steps(opened, output), console)
    for note in data.notes:
        console.print(note, markup=False)
    console.print(f"{data.taught} verified nuclei to learn from, {data.judged} to judge by.")
    tuned = show(finetune_steps(address, data.index, output, settings), console)
    console.print(gain_in_words(tuned.mean_pq, tuned.gain, len(tuned.after)), markup=False, soft_wrap=True)
    if install:
        there = {known.folder for known in list_models()}
        version = accept(tuned)
        what = "was installed before" if version.folder in there else "installed"
        console.print(f"{what}: {version.spec.name}", markup=False)
    else:
        console.print("To make it the next version of the model: the same command with --install")


def discard_run(folder: Path) -> None:
    """Remove a run, if there is one, and say so."""
    said = "The run in {} is removed." if folder.exists() else "There is no run in {}."
    reject(folder)
    Console().print(said.format(folder), markup=False, soft_wrap=True)
