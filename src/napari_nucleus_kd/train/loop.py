"""Training: yields Progress, writes checkpoints that resume, and a log; knows no GUI."""

from __future__ import annotations

import json
import logging
import signal
from typing import TYPE_CHECKING, Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader

from napari_nucleus_kd.engine import number_type
from napari_nucleus_kd.errors import ReadError, SettingsError
from napari_nucleus_kd.io.atomic import make_folder, write_text
from napari_nucleus_kd.train.data import Batches, for_panels, load_steps
from napari_nucleus_kd.train.learner import Learner, precision_of
from napari_nucleus_kd.train.teacher import diameter_estimate
from napari_nucleus_kd.types import Progress

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from napari_nucleus_kd.train.enhancing_settings import EnhancingSettings
    from napari_nucleus_kd.train.learner import NetworkWatch, Trained
    from napari_nucleus_kd.train.settings import TrainSettings


def train_steps(
    settings: TrainSettings,
    index: Path,
    output: Path,
    watch: NetworkWatch | None = None,
) -> Generator[Progress, None, Trained | None]:
    """Train a student on the "train" rows of an index, checking it on the "tune" rows.

    Run again with the same output folder, it goes on from its last checkpoint; the number of steps may
    then be another, everything else that shapes the weights must be the same.

    Parameters
    ----------
    settings : what to train and how.
    index : CSV of images and labels; see train.data.load_steps.
    output : folder for recipe.json, log.csv, curves.png and checkpoint.pt; made if need be.
    watch : steps that are taken at each check, of the averaged network on the CPU; what they return is
        logged, and changes nothing.

    Yields
    ------
    Progress after every image that is read, and after every step; then with the value of the objective
    and of each of its terms that has a weight.

    Returns
    -------
    What was made; None in all processes but the first, if there are several.

    Raises
    ------
    SettingsError : the folder holds a run with other settings or data, the settings make no network or name
        a device that is not there, nothing is annotated, or the numbers went astray.
    ReadError, ModelError : the images, or the model to start from, cannot be read.
    WriteError : the disk refuses; the checkpoint before stays.

    Notes
    -----
    Closing the generator keeps the step that was done last. With several devices, Lightning Fabric starts
    this program again for each further one; stopped, such a run goes on from its last check.
    """
    made_from = settings.learned_from(index)
    tune, train = yield from _batches_steps(settings, index)
    make_folder(output)
    fabric = open_fabric(settings, settings.devices)
    made_from["precision"] = json.dumps(precision_of(fabric))  # what "auto" came to
    run = Learner(fabric, settings, made_from, output)
    done = settings.model_copy(update={"steps": max(settings.steps, run.step)})
    write_text(output / "recipe.json", done.model_dump_json(indent=2))
    checks = [tune[i] for i in range(settings.check_batches)]
    batches = stream(train, run.step, settings, fabric, settings.accumulate)
    try:
        while run.step < settings.steps and not run.levelled_off:
            values = run.learn([next(batches) for _ in range(settings.accumulate)])
            if run.step % settings.check_every == 0 or run.step == settings.steps:
                values |= yield from run.check_steps(checks, watch)
                run.save()
            yield Progress(run.step, settings.steps, "training", values)
    except GeneratorExit:  # stopped by a person
        if fabric.world_size == 1:  # the others may be a step ahead
            run.save()
        raise
    finally:
        run.close()
    if not run.records:  # stopped before the first check, and to be packaged all the same
        yield from run.check_steps(checks, watch)
    return run.result() if run.first else None


def _batches_steps(
    settings: TrainSettings, index: Path
) -> Generator[Progress, None, tuple[Batches, Batches]]:
    """Return what is tuned on and what is trained on."""
    distill = settings.distill
    estimate = None if distill is None else diameter_estimate(distill, settings.device)
    tune = yield from load_steps(index, "tune", channels=settings.channels)
    train = yield from load_steps(index, "train", estimate, settings.channels)
    if distill is None and not any(sample.valid is None or sample.valid.any() for sample in train):
        raise ReadError(f"{index}: nothing is annotated in the images to train on, and no teacher is named")
    crops, seed, enlarge, panel = settings.crops, settings.seed, settings.enlarge_to_px, None
    if settings.adapter is not None:
        panel, tune, train = settings.adapter.panel, for_panels(tune), for_panels(train)
    return Batches(tune, crops, seed + 1, enlarge, panel), Batches(train, crops, seed, enlarge, panel)


def open_fabric(settings: TrainSettings | EnhancingSettings, devices: int = 1) -> Fabric:
    """Return what runs on the processors that settings name, seeded.

    Raises
    ------
    SettingsError : they are not there, or have no such precision.
    """
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # what it says is in recipe.json
    precision = settings.precision
    try:
        if precision == "auto":  # on other processors bfloat16 is ten times slower than float32
            kind, _ = number_type(Fabric(accelerator=settings.device, devices=1).device)
            precision = "bf16-mixed" if kind is torch.bfloat16 else "32-true"
        fabric = Fabric(accelerator=settings.device, devices=devices, precision=precision)
    except (MisconfigurationException, RuntimeError, ValueError) as error:
        raise SettingsError(
            f"{devices} x {settings.device} with {precision} is not to be had: {error}; "
            "nucleus-kd info says what this computer has"
        ) from error
    fabric.launch()
    fabric.seed_everything(settings.seed, verbose=False)
    return fabric


def stream(
    data: Batches, step: int, settings: TrainSettings | EnhancingSettings, fabric: Fabric, accumulate: int = 1
) -> Iterator[Any]:
    """Yield the batches of this process, as many a step as it accumulates, from a step on."""
    width = accumulate * fabric.world_size
    first, last = step * width + fabric.global_rank, settings.steps * width
    loader = DataLoader(
        data,
        batch_size=None,
        sampler=range(first, last, fabric.world_size),
        num_workers=settings.workers,
        prefetch_factor=4 if settings.workers else None,
        worker_init_fn=_leave_ctrl_c_to_the_parent,
    )
    return iter(loader)


def _leave_ctrl_c_to_the_parent(_worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
