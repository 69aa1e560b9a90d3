"""Training of GeNSeg-Net: the enhancer against a discriminator, and the network of three classes.

Both learn from the crops that students learn from, made grey with bright nuclei (section 3.4).
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from monai.losses import DiceLoss
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from napari_nucleus_kd.config import Recipe
from napari_nucleus_kd.enhancer import load_enhancer, polarity_in, seen_by_enhancers, usual_polarity
from napari_nucleus_kd.errors import SettingsError
from napari_nucleus_kd.ideal import BODY, between_nuclei, ideal_nuclei, three_classes
from napari_nucleus_kd.io.atomic import beside
from napari_nucleus_kd.networks.enhancer import CLASSES, Generator, ThreeClassNet, build_discriminator
from napari_nucleus_kd.stains import grey_nuclei
from napari_nucleus_kd.train.checkpoint import CHECKPOINT, read_checkpoint, refuse_other, write_checkpoint
from napari_nucleus_kd.train.data import Batches
from napari_nucleus_kd.train.learner import precision_of
from napari_nucleus_kd.train.log import write_log
from napari_nucleus_kd.types import Modality

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from lightning_fabric import Fabric
    from torch import nn

    from napari_nucleus_kd.train.data import Batch, Sample
    from napari_nucleus_kd.train.enhancing_settings import EnhancingSettings
    from napari_nucleus_kd.train.log import Record
    from napari_nucleus_kd.types import FloatArray, LabelArray

_CLIP_NORM = 5.0  # largest norm of a gradient
_LOOK_STEP = 4  # every so manieth pixel tells whether nuclei are dark
_BETWEEN_PX = 2  # from two nuclei, at most
_SURE = 9.0  # logit of what is as good as certain
SHEET = "samples.png"  # picture, what was drawn, and what was to be drawn, of tuning crops
_KEPT = ("step", "best_objective", "best_step", "best", "records", "sums")


def grey_batches(samples: Sequence[Sample], settings: EnhancingSettings, seed: int) -> Batches:
    """Return batches of grey pictures whose maps are ideal nuclei, classes, and what lies between nuclei."""
    enhanced = settings.kind == "enhancer" or settings.enhancer is not None
    grey = partial(_as_grey, for_enhancers=enhanced)
    return Batches(samples, settings.crops, seed, seen=grey, targets=_targets)


def _as_grey(picture: FloatArray, sample: Sample, *, for_enhancers: bool) -> FloatArray:
    """Return a picture as grey with bright nuclei, as it is seen in a run.

    There an enhancer is told by the whole image how nuclei look; who segments without one, by its kind.
    """
    usual = usual_polarity(Recipe(), sample.modality)
    if for_enhancers:
        some = sample.image[:, ::_LOOK_STEP, ::_LOOK_STEP].astype(np.float32)
        polarity = usual or polarity_in(np.broadcast_to(some, (3, *some.shape[1:])))
        stained = sample.modality is not Modality.FLUORESCENCE
        grey = seen_by_enhancers(picture, dark=polarity == "dark", stained=stained)
    else:
        grey = grey_nuclei(picture, dark=usual == "dark")
    return np.repeat(grey[None], 3, axis=0)


def _targets(labels: LabelArray) -> FloatArray:
    maps = ideal_nuclei(labels), three_classes(labels), between_nuclei(labels, _BETWEEN_PX)
    return np.stack([each.astype(np.float32) for each in maps])


class Course(ABC):
    """What learns in one run: networks, optimisers and the average; its steps, checks and checkpoint.

    Parameters
    ----------
    network : that is wanted in the end.
    rivals : networks that only learn beside it, by name.
    made_from : what shapes the weights; a checkpoint of anything else is refused.
    output : folder of the run; if it holds a checkpoint, that is gone on from.

    Raises
    ------
    SettingsError : the folder holds another run.
    """

    shown: ClassVar[tuple[str, ...]]
    learns_by: ClassVar[str]

    def __init__(
        self,
        fabric: Fabric,
        settings: EnhancingSettings,
        network: nn.Module,
        rivals: Mapping[str, nn.Module],
        made_from: dict[str, str],
        output: Path,
    ):
        self.fabric, self.settings, self.made_from, self.output = fabric, settings, made_from, output
        self.networks: dict[str, Any] = {}
        self.optimizers: dict[str, Any] = {}
        for name, part in {"network": network, **rivals}.items():
            part = part.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            optimizer = torch.optim.Adam(part.parameters(), settings.learning_rate, betas=(0.5, 0.999))
            self.networks[name], self.optimizers[name] = fabric.setup(part, optimizer)
            if part is network:
                self.networks[name].mark_forward_method(self.learns_by)
        average = get_ema_multi_avg_fn(settings.average)  # type: ignore[no-untyped-call]
        self.average = AveragedModel(self.networks["network"].module, multi_avg_fn=average, use_buffers=True)
        self.step, self.best_step, self.best_objective = 0, 0, float("inf")
        self.best = self._weights()
        self.records: list[Record] = []
        self.sums: dict[str, float] = {}
        if (output / CHECKPOINT).exists():
            self._resume()

    @abstractmethod
    def losses(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Learn from one batch; return the terms by name."""

    @abstractmethod
    def judged(self, network: Any, batch: Batch) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return what the averaged network is judged by, and pictures (B, 1, S, S) for the sheet."""

    def learn(self, batch: Batch) -> dict[str, float]:
        """Take one step; returns the value of each term.

        Raises
        ------
        SettingsError : a value is no number any more.
        """
        done = self.step / self.settings.steps
        for name, optimizer in self.optimizers.items():
            self.networks[name].train()
            share = 1.0 if name == "network" else self.settings.discriminator_rate
            for group in optimizer.param_groups:  # falls linearly over the second half (section 4.3)
                group["lr"] = share * self.settings.learning_rate * min(1.0, 2 * (1 - done) + 1e-3)
        torch.manual_seed(self.settings.seed * 1_000_003 + self.step)
        values = {
            name: float(term.detach()) for name, term in self.losses(self.fabric.to_device(batch)).items()
        }
        if astray := [name for name, value in values.items() if not np.isfinite(value)]:
            raise SettingsError(
                f"training went astray at step {self.step + 1}: {', '.join(astray)} is no number any more; "
                "discard this run, or take another folder; lower learning_rate, or set precision to 32-true"
            )
        self.average.update_parameters(self.networks["network"].module)
        self.step += 1
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        return values

    def descend(self, name: str, loss: torch.Tensor) -> None:
        """Take a step of one network down its loss."""
        self.optimizers[name].zero_grad()
        self.fabric.backward(loss)
        self.fabric.clip_gradients(
            self.networks[name], self.optimizers[name], max_norm=_CLIP_NORM, error_if_nonfinite=False
        )
        self.optimizers[name].step()

    @torch.no_grad()
    def check(self, batches: Sequence[Batch]) -> dict[str, float]:
        """Judge the averaged network on tuning batches and keep the best weights; write what is kept."""
        self.average.eval()
        found = []
        for number, batch in enumerate(batches):
            value, pictures = self.judged(self.average.module, self.fabric.to_device(batch))
            found.append(float(value))
            if number == 0:
                _write_sheet(pictures, self.shown, self.output / SHEET)
        objective = sum(found) / len(found)
        if objective <= self.best_objective:
            self.best_objective, self.best, self.best_step = objective, self._weights(), self.step
        since = max(1, self.step - int(self.records[-1]["step"] if self.records else 0))
        self.records.append(
            {"step": self.step}
            | {f"train {name}": value / since for name, value in self.sums.items()}
            | {"tune objective": objective}
        )
        self.sums = {}
        write_log(self.output, self.records)
        self.save()
        return self.records[-1]

    def _weights(self) -> dict[str, torch.Tensor]:
        return {name: t.cpu().clone() for name, t in self.average.module.state_dict().items()}

    def save(self) -> None:
        """Write the checkpoint beside, then put it in place.

        Raises
        ------
        WriteError : the disk refuses; the checkpoint before stays.
        """
        state = {
            "networks": {name: part.state_dict() for name, part in self.networks.items()},
            "optimizers": {name: part.state_dict() for name, part in self.optimizers.items()},
            "average": self.average.state_dict(),
            **{name: getattr(self, name) for name in _KEPT},
            "made_from": self.made_from,
        }
        write_checkpoint(self.output / CHECKPOINT, state)

    def _resume(self) -> None:
        state = read_checkpoint(self.output / CHECKPOINT, "networks", "optimizers")
        refuse_other(self.output, state["made_from"], self.made_from)
        parts = state["networks"], state["optimizers"]
        for mine, theirs in zip((self.networks, self.optimizers), parts, strict=True):
            for name, part in mine.items():
                part.load_state_dict(theirs[name])
        self.average.load_state_dict(state["average"])
        for name in _KEPT:
            setattr(self, name, state[name])

    def result(self) -> nn.Module:
        """Return the best averaged network: float32, on the CPU."""
        network = self.average.module.cpu().float()
        network.load_state_dict(self.best)
        return network.eval()

    @property
    def processor(self) -> str:
        """What it was trained on, and in which precision."""
        return f"{self.fabric.device.type} ({precision_of(self.fabric)})"


class EnhancerCourse(Course):
    """A generator against a discriminator: L1, and 0.01 of the adversarial loss (section 3.4).

    Unlike in the paper L1 may weigh more between nuclei, and the discriminator sees smoothed pictures.
    """

    shown = ("picture", "drawn", "ideal")
    learns_by = "draw"

    def __init__(self, fabric: Fabric, settings: EnhancingSettings, made_from: dict[str, str], output: Path):
        generator, rival = Generator(settings.generator), build_discriminator(settings.discriminator)
        rivals = {} if rival is None else {"discriminator": rival}
        super().__init__(fabric, settings, generator, rivals, made_from, output)

    def losses(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Learn from one batch; see Course."""
        ideal, judge = batch.maps[:, :1], self.networks.get("discriminator")
        with self.fabric.autocast():
            drawn = self.networks["network"].draw(batch.x).float()
        # As it will be seen; where nothing is said, nothing is judged.
        known = drawn.clamp(0, 1) * batch.valid + ideal * (1 - batch.valid)
        terms = {"L1": _error(drawn, batch, self.settings.between_weight)}
        loss = terms["L1"]
        if judge is not None:
            verdicts = [judge(_smooth(picture)).float() for picture in (ideal, known.detach())]
            terms["discriminator"] = (_told(verdicts[0], real=True) + _told(verdicts[1], real=False)) / 2
            self.descend("discriminator", terms["discriminator"])
            terms["adversarial"] = _told(judge(_smooth(known)).float(), real=True)
            loss = loss + self.settings.adversarial * terms["adversarial"]
        self.descend("network", loss)
        return {"objective": loss, **terms}

    def judged(self, network: Any, batch: Batch) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return L1, and the pictures; see Course."""
        with self.fabric.autocast():
            drawn = network(batch.x)
        return _error(drawn, batch, self.settings.between_weight), [batch.x[:, :1], drawn, batch.maps[:, :1]]


def _error(drawn: torch.Tensor, batch: Batch, between_weight: float) -> torch.Tensor:
    """Return the mean absolute error where the annotation is complete."""
    weight = torch.where(batch.maps[:, 2:] > 0, between_weight, 1.0) * batch.valid
    return ((drawn - batch.maps[:, :1]).abs() * weight).sum() / batch.valid.sum().clamp(min=1)


def _smooth(picture: torch.Tensor) -> torch.Tensor:
    """Return what a discriminator sees of a picture: the stairs of enlarged labels are not to be imitated."""
    return F.avg_pool2d(picture, 3, 1, 1, count_include_pad=False)


def _told(verdicts: torch.Tensor, *, real: bool) -> torch.Tensor:
    return F.binary_cross_entropy_with_logits(verdicts, torch.full_like(verdicts, float(real)))


class ThreeClassCourse(Course):
    """A U-Net of three classes: cross-entropy, and 3 times Dice (sections 3.3 and 4.3).

    It learns by Adam at a falling rate, as the enhancer does; the paper's rate is fixed, 0.01.
    """

    shown = ("seen", "body", "body of the labels")
    learns_by = "logits"

    def __init__(self, fabric: Fabric, settings: EnhancingSettings, made_from: dict[str, str], output: Path):
        self.dice = DiceLoss(softmax=True, to_onehot_y=True, batch=True)
        self.enhancer = None
        if settings.enhancer is not None:
            self.enhancer = fabric.to_device(load_enhancer(settings.enhancer).network())
        super().__init__(fabric, settings, ThreeClassNet(settings.three_classes), {}, made_from, output)

    def losses(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Learn from one batch; see Course."""
        terms = self._terms(self.networks["network"], self._seen(batch), batch)
        self.descend("network", terms["objective"])
        return terms

    def judged(self, network: Any, batch: Batch) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return the objective, and the pictures; see Course."""
        seen = self._seen(batch)
        with self.fabric.autocast():
            body = network(seen)[:, 1:2]
        true = (batch.maps[:, 1:2] == BODY).float()
        return self._terms(network, seen, batch)["objective"], [seen[:, :1], body, true]

    def _seen(self, batch: Batch) -> torch.Tensor:
        if self.enhancer is not None:
            with torch.no_grad(), self.fabric.autocast():
                drawn: torch.Tensor = self.enhancer(batch.x)
                return drawn
        return batch.maps[:, :1] if self.settings.learns_from == "ideal" else batch.x

    def _terms(self, network: Any, seen: torch.Tensor, batch: Batch) -> dict[str, torch.Tensor]:
        with self.fabric.autocast():
            logits = network.logits(seen).float()
        classes, known = batch.maps[:, 1:2].long(), batch.valid
        cross = F.cross_entropy(logits, classes[:, 0], reduction="none")[:, None]
        cross = (cross * known).sum() / known.sum().clamp(min=1)
        # Where nothing is annotated both are taken for background.
        nothing = logits.new_tensor([_SURE, -_SURE, -_SURE]).view(1, len(CLASSES), 1, 1)
        dice = self.dice(torch.where(known > 0, logits, nothing), classes * known.long())
        loss = self.settings.cross_entropy * cross + self.settings.dice * dice
        return {"objective": loss, "cross-entropy": cross, "Dice": dice}


def _write_sheet(pictures: Sequence[torch.Tensor], names: Sequence[str], path: Path) -> None:
    """Write up to four rows of pictures beside each other, each column with its name."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = min(4, len(pictures[0]))
    figure = Figure(figsize=(2.2 * len(names), 2.3 * rows), layout="constrained")
    for row in range(rows):
        for column, (name, some) in enumerate(zip(names, pictures, strict=True)):
            axes = figure.add_subplot(rows, len(names), row * len(names) + column + 1)
            axes.imshow(some[row, 0].float().cpu().numpy(), cmap="gray", vmin=0, vmax=1)
            axes.set_axis_off()
            if row == 0:
                axes.set_title(name)
    FigureCanvasAgg(figure)
    with beside(path) as partial:
        figure.savefig(partial, format="png", dpi=120)


def made_of(made_from: dict[str, str], fabric: Fabric) -> dict[str, str]:
    """Return what shapes a run, with the precision that "auto" came to."""
    return made_from | {"precision": json.dumps(precision_of(fabric))}
