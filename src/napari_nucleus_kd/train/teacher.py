"""Teachers: what can say of any picture what a student should learn of it.

Sources: CellGenNet (abstract): soft pseudo-labels for what nobody annotated; the lightweight whole-slide
model (section 4): a teacher's probabilities beside the ground truth.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import torch
from torch import nn

from napari_nucleus_kd import segmenters
from napari_nucleus_kd.config import Recipe
from napari_nucleus_kd.errors import ModelError
from napari_nucleus_kd.instances import CANONICAL_DIAMETER_PX, MAP_NAMES, encode
from napari_nucleus_kd.modality import has_bright_background
from napari_nucleus_kd.networks.ensemble import mirrored_mean
from napari_nucleus_kd.package import load_model
from napari_nucleus_kd.types import Modality

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_nucleus_kd.package import Model
    from napari_nucleus_kd.segmenters import Segmenter
    from napari_nucleus_kd.train.data import Batch
    from napari_nucleus_kd.train.settings import DistillSettings
    from napari_nucleus_kd.types import FloatArray

_HARD = 0.02  # labels say 0 or 1; so far from them are the probabilities that a student is told


class Lesson(NamedTuple):
    """What a teacher says of a batch of pictures.

    Attributes
    ----------
    maps : (B, M, H, W) float32, the student's maps; foreground, distance and border in [0, 1].
    sure : (B, 1, H, W) float32, 1 where the teacher is to be believed if nobody annotated.
    said : (B, 1, H, W) float32, 1 where it says anything.
    """

    maps: torch.Tensor
    sure: torch.Tensor
    said: torch.Tensor


class Teacher(Protocol):
    """Says of a batch what a student should learn."""

    def __call__(self, batch: Batch) -> Lesson:
        """Return the lesson, on the device of the batch."""


def load_teacher(settings: DistillSettings, names: Sequence[str], device: torch.device) -> Teacher:
    """Open the teachers that settings name; several are averaged.

    Parameters
    ----------
    names : maps of the student.

    Raises
    ------
    ModelError : a model is not there, or lacks a map. UnknownSegmenterError
    """
    members: list[Callable[[torch.Tensor], torch.Tensor]] = [
        *(SegmenterTeacher(name, names) for name in settings.segmenters),
        *(NetworkTeacher(load_model(n), names, flips=settings.flips).to(device) for n in settings.models),
    ]
    return Ensemble(members, settings.sure, names)


def diameter_estimate(settings: DistillSettings) -> Callable[[FloatArray], float | None] | None:
    """Return what tells the diameter, px, of the nuclei of a picture (3, Y, X): a model, or a segmenter.

    None if there is neither: a folder of labels tells nothing of other pictures.

    Raises
    ------
    See load_teacher.
    """
    if settings.models:
        model = segmenters.load("student", Recipe(model=settings.models[0]))
        return lambda picture: model.estimate_diameter([picture])
    if not settings.segmenters:
        return None
    choose = _ByLight(settings.segmenters[0])
    return lambda picture: choose(picture).estimate_diameter([picture])


class _ByLight:
    """Chooses a segmenter for each picture (3, Y, X): stained tissue has a bright background."""

    def __init__(self, name: str):
        self._dark, self._bright = (
            segmenters.load(name, Recipe(segmenter=name, modality=modality))
            for modality in (Modality.FLUORESCENCE, Modality.HE)
        )

    def __call__(self, picture: FloatArray) -> Segmenter:
        return self._bright if has_bright_background([picture]) else self._dark


class Ensemble:
    """The mean of several teachers, sure where their mean is.

    The labels that a batch brings from a folder count as one more teacher, where there are any.
    """

    def __init__(
        self, members: Sequence[Callable[[torch.Tensor], torch.Tensor]], sure: float, names: Sequence[str]
    ):
        self._members, self._sure = members, sure
        self._order = [MAP_NAMES.index(name) for name in names]

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Lesson:
        """Return the mean lesson."""
        labels = batch.maps[:, self._order].clone()
        labels[:, 0] = labels[:, 0].clamp(_HARD, 1 - _HARD)
        total, count = labels * batch.told, batch.told
        for member in self._members:
            total, count = total + member(batch.x), count + 1
        maps = total / count.clamp(min=1)
        nucleus, said = maps[:, :1], (count > 0).float()  # foreground, the first of all maps
        return Lesson(maps, said * (torch.maximum(nucleus, 1 - nucleus) >= self._sure), said)


class NetworkTeacher(nn.Module):
    """A model package; with flips, the mean over the picture and its three mirror pictures."""

    def __init__(self, model: Model, names: Sequence[str], *, flips: bool):
        super().__init__()
        missing = [name for name in names if name not in model.spec.maps]
        if missing:
            raise ModelError(
                f"{model.spec.name} cannot teach: it has no map {', '.join(missing)}; "
                "take a model trained with nucleus-kd train, or name it as segmenter:NAME"
            )
        self.network = model.network()
        self._names, self._flips = model.spec.maps, flips
        self._order = [self._names.index(name) for name in names]
        unit = math.log(model.spec.diameter_px / CANONICAL_DIAMETER_PX)  # of its log_diameter in ours
        shift = [unit if name == "log_diameter" else 0.0 for name in names]
        self.shift: torch.Tensor
        self.register_buffer("shift", torch.tensor(shift).view(1, -1, 1, 1))

    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the maps, (B, M, H, W)."""
        said = mirrored_mean(self.network, x, self._names) if self._flips else self.network(x).float()
        return said[:, self._order] + self.shift


class SegmenterTeacher:
    """Any registered segmenter; its labels become maps."""

    def __init__(self, name: str, names: Sequence[str]):
        self._choose = _ByLight(name)
        self._order = [MAP_NAMES.index(name) for name in names]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return the maps, (B, M, H, W)."""
        found = []
        for picture in x.float().cpu().numpy():
            segmenter = self._choose(picture)
            maps = segmenter.maps(np.ascontiguousarray(picture), None)
            labels = segmenter.decode(maps, segmenter.decode_defaults).labels
            found.append(encode(labels)[self._order])
        said = torch.from_numpy(np.stack(found)).to(x.device)
        said[:, 0] = said[:, 0].clamp(_HARD, 1 - _HARD)
        return said
