"""The learner of a run: network, optimiser and average; its steps, its checks, and its checkpoint."""

from __future__ import annotations

import copy
import json
import math
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, cast

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from napari_nucleus_kd.errors import DeviceError, SettingsError
from napari_nucleus_kd.train import losses
from napari_nucleus_kd.train.begin import first_network, frozen_tensors, pretrained_part
from napari_nucleus_kd.train.checkpoint import CHECKPOINT, read_checkpoint, refuse_other, write_checkpoint
from napari_nucleus_kd.train.log import open_tensorboard, write_log
from napari_nucleus_kd.train.settings import LossWeights
from napari_nucleus_kd.train.teacher import load_teacher
from napari_nucleus_kd.types import Progress, retold

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence
    from pathlib import Path

    from lightning_fabric import Fabric

    from napari_nucleus_kd.networks.adapter import Adapted
    from napari_nucleus_kd.networks.student import Student
    from napari_nucleus_kd.train.data import Batch
    from napari_nucleus_kd.train.log import Record
    from napari_nucleus_kd.train.settings import TrainSettings


NetworkWatch: TypeAlias = "Callable[[Student], Generator[Progress, None, Mapping[str, float]]]"


class Trained(NamedTuple):
    """What a run has made.

    Attributes
    ----------
    network : with the averaged weights that were best on the "tune" rows; float32, on the CPU.
    steps : that were done, and `best_step` the one that the weights are of.
    processor : what it was trained on at the end, and in which precision.
    """

    network: Student | Adapted
    steps: int
    best_step: int
    processor: str


# What a checkpoint holds of a run beside its weights.
_KEPT = ("step", "halvings", "checks_since_best", "best_objective", "best_step", "best", "records", "sums")


def _completed(before: Mapping[str, str]) -> dict[str, str]:
    """Return what shaped a run, with the defaults of settings that its version did not have yet."""
    loss = LossWeights().model_dump(mode="json") | json.loads(before["loss"])
    return {"adapter": "null", **before, "loss": json.dumps(loss, sort_keys=True)}


def _other_view(x: torch.Tensor) -> torch.Tensor:
    """Return the same pictures in another light and with other noise; foreground is to be the same."""
    gain = torch.exp(0.2 * torch.randn(len(x), 1, 1, 1, device=x.device))
    offset = 0.05 * torch.randn(len(x), 1, 1, 1, device=x.device)
    return (x * gain + offset + 0.03 * torch.randn_like(x)).clamp(0, 1)


def precision_of(fabric: Fabric) -> str:
    """Return the precision that is really used, as Lightning Fabric calls it."""
    return str(fabric.strategy.precision.precision)


class Learner:
    """Network, optimiser and average of one run, and where they are kept.

    Parameters
    ----------
    made_from : what shapes the weights, see TrainSettings.learned_from; a checkpoint of anything else is
        refused.
    output : folder of the run; if it holds a checkpoint, that is gone on from.

    Raises
    ------
    SettingsError, ModelError : see train_steps.
    """

    def __init__(self, fabric: Fabric, settings: TrainSettings, made_from: dict[str, str], output: Path):
        self.fabric, self.settings, self.made_from, self.output = fabric, settings, made_from, output
        network = first_network(settings)
        self.frozen = frozen_tensors(network) if settings.freezes else set()
        if fabric.world_size == 1:  # torch 2.13 cannot send 1x1 weights in this format to another process
            network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        learning = [p for p in network.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(learning, settings.learning_rate, weight_decay=settings.weight_decay)
        self.network, self.optimizer = fabric.setup(network, optimizer)
        self.network.mark_forward_method("logits")
        if settings.adapter is not None:
            self.network.mark_forward_method("selection")
        average = get_ema_multi_avg_fn(settings.average)  # type: ignore[no-untyped-call]
        self.average = AveragedModel(self.network.module, multi_avg_fn=average, use_buffers=True)
        kept = self.average.module.state_dict(keep_vars=True)
        for name, tensor in self.network.module.state_dict(keep_vars=True).items():
            if name in self.frozen:  # one copy is enough
                kept[name].data = tensor.data
        self.teacher = None if settings.distill is None else load_teacher(settings.distill, fabric.device)
        self.step, self.best_step, self.halvings, self.checks_since_best = 0, 0, 0, 0
        self.best_objective, self.best = math.inf, self._weights()
        self.records: list[Record] = []
        self.sums: dict[str, float] = {}  # of the terms since the last check
        if self.checkpoint.exists():
            self._resume()
        self.tensorboard = (
            open_tensorboard(output, self.step) if settings.tensorboard and self.first else None
        )

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return bool(self.fabric.is_global_zero)

    @property
    def checkpoint(self) -> Path:
        """Where it is kept."""
        return self.output / CHECKPOINT

    @property
    def levelled_off(self) -> bool:
        """Whether so many checks were no better that it is time to stop."""
        patience = self.settings.early_stop
        return patience is not None and self.checks_since_best >= patience

    def learn(self, batches: Sequence[Any]) -> dict[str, float]:
        """Take one step on the mean of batches; returns the value of each term.

        Raises
        ------
        DeviceError : the graphics card has too little memory. SettingsError : a value is no number any more.
        """
        try:
            return self._learn(batches)
        except torch.OutOfMemoryError as error:
            raise DeviceError(
                "the graphics card has too little memory for this training; close other programs that use "
                "it, choose cpu as the device, or make batch or crop_px smaller"
            ) from error

    def _learn(self, batches: Sequence[Any]) -> dict[str, float]:
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate()
        self.network.train()
        if self.settings.frozen_encoder:
            pretrained_part(self.network.module).eval()  # its batch norms stay, too
        if self.settings.frozen_norms:
            for part in self.network.modules():
                if isinstance(part, torch.nn.BatchNorm2d):
                    part.eval()
        # Dropout and the second view are drawn anew at each step, the same ones after a stop.
        torch.manual_seed((self.settings.seed * 1_000_003 + self.step) * 101 + self.fabric.global_rank)
        means: dict[str, float] = {}
        for left, batch in zip(reversed(range(len(batches))), batches, strict=True):
            with self.fabric.no_backward_sync(self.network, enabled=left > 0):
                loss, parts = self._loss(self.fabric.to_device(batch))
                self.fabric.backward(loss / len(batches))
            for name, part in parts.items():
                means[name] = means.get(name, 0.0) + float(part.detach()) / len(batches)
        norm = self.fabric.clip_gradients(
            self.network, self.optimizer, max_norm=self.settings.clip_norm, error_if_nonfinite=False
        )
        total = float("nan") if norm is None else float(norm)  # of all devices together, so all stop
        astray = [n for n, v in {**means, "the gradient": total}.items() if not math.isfinite(v)]
        if astray:
            astray = [name for name in astray if name != "objective"] or astray  # the terms say more
            raise SettingsError(
                f"training went astray at step {self.step + 1}: {', '.join(astray)} is no number any more; "
                "discard this run, or take another folder; lower learning_rate, or set precision to 32-true"
            )
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.average.update_parameters(self.network.module)
        self.step += 1
        for name, value in means.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        return means

    def _loss(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the objective of one batch; it again by name, with each of its terms that has a weight."""
        weights, distill = self.settings.loss, self.settings.distill
        terms, logits = self._terms(self.network, batch, self.settings.label_smoothing)
        loss, parts = losses.total(terms, weights), losses.counted(terms, weights)
        if logits is None:
            return loss, {"objective": loss, **parts}
        if self.teacher is not None and distill is not None:
            with self.fabric.autocast():
                lesson = self.teacher(batch)
            if distill.elsewhere:
                lesson = lesson._replace(said=lesson.said * (1 - batch.valid))
            soft = losses.soft_terms(logits, lesson, batch.valid, distill.temperature)
            loss = distill.truth * loss + distill.taught * losses.total(soft, distill.loss)
            parts |= {f"soft {name}": value for name, value in losses.counted(soft, distill.loss).items()}
        if weights.consistency:
            other = self.network.logits(_other_view(batch.x)).float()
            parts["consistency"] = (torch.sigmoid(logits[:, 0]) - torch.sigmoid(other[:, 0])).square().mean()
            loss = loss + weights.consistency * parts["consistency"]
        return loss, {"objective": loss, **parts}

    def _terms(
        self, network: Any, batch: Batch, smoothing: float = 0.0
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor | None]:
        """Return the terms against the annotation, and the logits if anything is learnt from the maps."""
        weights, terms, logits = self.settings.loss, dict[str, torch.Tensor](), None
        if weights.on_maps:
            with self.fabric.autocast():
                logits = network.logits(batch.x).float()
            terms = losses.terms(logits, batch.maps, batch.valid, smoothing, lovasz=weights.lovasz > 0)
        if weights.selection:
            terms["selection"] = network.selection(batch.x, batch.nuclear)
        return terms, logits

    def _rate(self) -> float:
        """Linear warm-up, then half a cosine down to a hundredth; or halved at each plateau."""
        s = self.settings
        warm = min(1.0, (self.step + 1) / max(1, min(s.warmup_steps, s.steps // 5)))
        if s.schedule == "plateau":
            return s.learning_rate * warm * 0.5**self.halvings
        done = self.step / s.steps
        return s.learning_rate * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))

    def check_steps(
        self, batches: list[Any], watch: NetworkWatch | None = None
    ) -> Generator[Progress, None, dict[str, float]]:
        """Judge the averaged network on the tuning batches, and by `watch`; return what is logged."""
        self._tune(batches)
        if watch is not None and self.first:
            network = copy.deepcopy(cast("Student", self.average.module)).cpu().float()
            self.records[-1] |= yield from retold(
                watch(network.eval()), lambda p: Progress(self.step, self.settings.steps, p.message)
            )
        if self.first:
            write_log(self.output, self.records)
        if self.tensorboard is not None:
            for name, value in self.records[-1].items():
                self.tensorboard.add_scalar(name.replace(" ", "/", 1), value, self.step)
            self.tensorboard.flush()
        return self.records[-1]

    @torch.no_grad()
    def _tune(self, batches: list[Any]) -> None:
        """Record the terms on the tuning batches, and keep the weights if they are the best."""
        self.average.eval()
        tuned: dict[str, float] = {}
        for batch in batches:
            weights = self.settings.loss
            terms, _ = self._terms(self.average.module, self.fabric.to_device(batch))
            parts = {"objective": losses.total(terms, weights), **losses.counted(terms, weights)}
            for name, part in parts.items():
                tuned[name] = tuned.get(name, 0.0) + float(part) / len(batches)
        # Of the first process: all must decide alike.
        self._weigh(self.fabric.broadcast(tuned["objective"]))
        since = self.step - int(self.records[-1]["step"] if self.records else 0)
        self.records.append(
            {"step": self.step, "learning_rate": self._rate()}
            | {f"train {name}": value / max(1, since) for name, value in self.sums.items()}
            | {f"tune {name}": value for name, value in tuned.items()}
        )
        self.sums = {}

    def _weigh(self, objective: float) -> None:
        """Keep the weights if they are the best so far; else come nearer to halving the rate, or stopping."""
        if objective <= self.best_objective:
            self.best_objective, self.best, self.checks_since_best = objective, self._weights(), 0
            self.best_step = self.step
            return
        self.checks_since_best += 1
        if self.checks_since_best % self.settings.patience == 0:
            self.halvings += 1

    def _weights(self) -> dict[str, torch.Tensor]:
        """Return a copy of the averaged weights, on the CPU."""
        return {name: t.cpu().clone() for name, t in self._learnt(self.average.module.state_dict()).items()}

    def _learnt(self, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Leave out what is frozen: the transformers that teach are gigabytes."""
        return {name: t for name, t in state.items() if name.removeprefix("module.") not in self.frozen}

    def save(self) -> None:
        """Write the checkpoint beside, then put it in place.

        Raises
        ------
        WriteError : the disk refuses; the checkpoint before stays.
        """
        if not self.first:
            return
        state = {
            "network": self._learnt(self.network.state_dict()),
            "average": self._learnt(self.average.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            **{name: getattr(self, name) for name in _KEPT},
            "made_from": self.made_from,
        }
        write_checkpoint(self.checkpoint, state)

    def _resume(self) -> None:
        state = read_checkpoint(self.checkpoint, "network", "optimizer")
        refuse_other(self.output, _completed(state["made_from"]), self.made_from)
        for name in _KEPT:
            setattr(self, name, state[name])
        self.network.load_state_dict(state["network"], strict=not self.frozen)
        self.average.load_state_dict(state["average"], strict=not self.frozen)
        self.optimizer.load_state_dict(state["optimizer"])

    def close(self) -> None:
        """Let go of what is open."""
        if self.tensorboard is not None:
            self.tensorboard.close()

    def result(self) -> Trained:
        """Return the best averaged network, and how it came about."""
        network = cast("Student | Adapted", self.average.module).cpu().float()
        network.load_state_dict(self.best, strict=not self.frozen)
        processor = f"{self.fabric.device.type} ({precision_of(self.fabric)})"
        return Trained(network.eval(), self.step, self.best_step, processor)
