"""Training: yields Progress, writes checkpoints that resume, and a log; knows no GUI."""

from __future__ import annotations

import csv
import logging
import math
import os
from typing import TYPE_CHECKING, Any, cast

import torch
from lightning_fabric import Fabric
from pydantic import ValidationError
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from napari_nucleus_kd.errors import ModelError, SettingsError
from napari_nucleus_kd.io.atomic import write_text
from napari_nucleus_kd.networks.student import Student, StudentConfig
from napari_nucleus_kd.package import load_model
from napari_nucleus_kd.train import losses
from napari_nucleus_kd.train.data import Batches, load_index
from napari_nucleus_kd.train.teacher import diameter_estimate, load_teacher
from napari_nucleus_kd.types import Progress

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from napari_nucleus_kd.networks.blocks import LiteEncoder
    from napari_nucleus_kd.train.settings import TrainSettings


def train_steps(settings: TrainSettings, index: Path, output: Path) -> Generator[Progress, None, Student]:
    """Train a student on the "train" rows of an index, checking it on the "tune" rows.

    Run again with the same output folder, it goes on from its last checkpoint; the number of steps may
    then be another, everything else that shapes the weights must be the same.

    Parameters
    ----------
    settings : what to train and how.
    index : CSV of images and labels; see train.data.load_index.
    output : folder for recipe.json, log.csv and checkpoint.pt; made if need be.

    Yields
    ------
    Progress after every step, with the value of each term of the objective.

    Returns
    -------
    The student with averaged weights, in float32 on the CPU.

    Raises
    ------
    SettingsError : the folder holds a run with other settings or data.
    ReadError, ModelError : the images, or the model to start from, cannot be read.
    """
    tune = Batches(load_index(index, "tune"), settings.crops, settings.seed + 1)
    distill = settings.distill
    estimate = None if distill is None else diameter_estimate(distill)
    train = Batches(load_index(index, "train", estimate), settings.crops, settings.seed)
    output.mkdir(parents=True, exist_ok=True)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # what it says is in recipe.json
    fabric = Fabric(accelerator=settings.device, devices=1, precision=settings.precision)
    fabric.seed_everything(settings.seed, verbose=False)
    run = _Run(fabric, settings, index, output)
    write_text(output / "recipe.json", settings.model_dump_json(indent=2))
    checks = [tune[i] for i in range(settings.check_batches)]
    for step, batch in zip(range(run.step, settings.steps), _stream(train, run.step, settings), strict=True):
        parts = run.learn(step, batch)
        run.step = step + 1
        if run.step % settings.check_every == 0 or run.step == settings.steps:
            run.check(checks)
            run.save()
        yield Progress(run.step, settings.steps, "training", parts)
    return run.result()


def _stream(data: Batches, start: int, settings: TrainSettings) -> Iterator[Any]:
    loader = DataLoader(
        data,
        batch_size=None,
        sampler=range(start, settings.steps),
        num_workers=settings.workers,
        prefetch_factor=4 if settings.workers else None,
    )
    return iter(loader)


def _same_network(options: dict[str, Any], student: StudentConfig) -> bool:
    """Tell whether weights of a network with these options fit the student; dropout has none."""
    try:
        found = StudentConfig.model_validate(options)
    except ValidationError:
        return False
    return found == student.model_copy(update={"dropout": found.dropout})


def _first_network(settings: TrainSettings) -> Student:
    network = Student(settings.student)
    if settings.start is not None:
        model = load_model(settings.start)
        if not _same_network(model.spec.options, settings.student):
            raise ModelError(
                f"{settings.start}: is another network than 'student' of the settings; copy the options "
                f"of its model.json, {model.spec.options}"
            )
        network.load_state_dict(model.network().state_dict())
        network.requires_grad_(True)
    elif settings.pretrained:
        cast("LiteEncoder", network.encoder).load_imagenet()
    return network


def _other_view(x: torch.Tensor) -> torch.Tensor:
    """Return the same pictures in another light and with other noise; foreground is to be the same."""
    gain = torch.exp(0.2 * torch.randn(len(x), 1, 1, 1, device=x.device))
    offset = 0.05 * torch.randn(len(x), 1, 1, 1, device=x.device)
    return (x * gain + offset + 0.03 * torch.randn_like(x)).clamp(0, 1)


class _Run:
    """Network, optimiser and average of one run, and where they are kept."""

    def __init__(self, fabric: Fabric, settings: TrainSettings, index: Path, output: Path):
        self.fabric, self.settings, self.output, self.step = fabric, settings, output, 0
        self.made_from = settings.learned_from(index)
        network = _first_network(settings)
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = torch.optim.AdamW(
            network.parameters(), settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.network, self.optimizer = fabric.setup(network, optimizer)
        self.network.mark_forward_method("logits")
        average = get_ema_multi_avg_fn(settings.average)  # type: ignore[no-untyped-call]
        self.average = AveragedModel(self.network.module, multi_avg_fn=average, use_buffers=True)
        self.teacher = (
            None
            if settings.distill is None
            else load_teacher(settings.distill, settings.student.maps, fabric.device)
        )
        if self.checkpoint.exists():
            self._resume()

    @property
    def checkpoint(self) -> Path:
        return self.output / "checkpoint.pt"

    def learn(self, step: int, batch: Any) -> dict[str, float]:
        """Take one step; returns the value of each term."""
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate(step)
        self.network.train()
        # Dropout and the second view are drawn anew at each step, the same ones after a stop.
        torch.manual_seed(self.settings.seed * 1_000_003 + step)
        loss, parts = self._loss(*self.fabric.to_device(batch))
        self.fabric.backward(loss)
        self.fabric.clip_gradients(self.network, self.optimizer, max_norm=self.settings.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.average.update_parameters(self.network.module)
        return {name: float(value.detach()) for name, value in parts.items()}

    def _loss(
        self, x: torch.Tensor, maps: torch.Tensor, valid: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the objective of one batch and the value of each of its terms."""
        weights, names, distill = self.settings.loss, self.settings.student.maps, self.settings.distill
        logits = self.network.logits(x).float()
        parts = losses.terms(logits, maps, valid, names)
        loss = losses.total(parts, weights)
        if self.teacher is not None and distill is not None:
            with self.fabric.autocast():
                lesson = self.teacher(x)
            soft = losses.soft_terms(logits, lesson, valid, names, distill.temperature)
            loss = distill.truth * loss + distill.taught * losses.total(soft, weights)
            parts |= {f"soft {name}": value for name, value in soft.items()}
        if weights.consistency:
            other = self.network.logits(_other_view(x)).float()
            parts["consistency"] = (torch.sigmoid(logits[:, 0]) - torch.sigmoid(other[:, 0])).square().mean()
            loss = loss + weights.consistency * parts["consistency"]
        return loss, parts

    def _rate(self, step: int) -> float:
        """Linear warm-up, then half a cosine down to a hundredth."""
        s = self.settings
        warm = min(1.0, (step + 1) / max(1, s.warmup_steps))
        done = step / s.steps
        return s.learning_rate * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))

    @torch.no_grad()
    def check(self, batches: list[Any]) -> None:
        """Add the averaged network's terms on the tuning batches to log.csv."""
        self.average.eval()
        sums: dict[str, float] = {}
        for batch in batches:
            x, maps, valid = self.fabric.to_device(batch)
            with self.fabric.autocast():
                logits = cast("Student", self.average.module).logits(x).float()
            for name, value in losses.terms(logits, maps, valid, self.settings.student.maps).items():
                sums[name] = sums.get(name, 0.0) + float(value) / len(batches)
        log = self.output / "log.csv"
        new = not log.exists()
        with log.open("a", newline="") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(["step", *sums])
            writer.writerow([self.step, *(f"{v:.5f}" for v in sums.values())])

    def _state(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def save(self) -> None:
        """Write the checkpoint beside, then put it in place."""
        beside = self.checkpoint.with_suffix(".tmp")
        torch.save({**self._state(), "step": self.step, "made_from": self.made_from}, beside)
        os.replace(beside, self.checkpoint)

    def _resume(self) -> None:
        state = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        before = state["made_from"]
        differing = sorted(k for k in before | self.made_from if before.get(k) != self.made_from.get(k))
        if differing:
            raise SettingsError(
                f"{self.output} holds a run with other {', '.join(differing)}; choose another output folder, "
                "or give it the settings of its recipe.json"
            )
        self.step = state["step"]
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])

    def result(self) -> Student:
        """Return the averaged network, float32, on the CPU."""
        network = cast("Student", self.average.module)
        return network.float().cpu().eval()
