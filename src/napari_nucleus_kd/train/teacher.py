"""Teachers: what can say of any picture what a student should learn of it.

Sources: CellGenNet (abstract): soft pseudo-labels for what nobody annotated; the lightweight whole-slide
model (section 4): a teacher's probabilities beside the ground truth.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import torch
from skimage.segmentation import clear_border
from torch import nn

from napari_nucleus_kd import segmenters
from napari_nucleus_kd.config import Recipe
from napari_nucleus_kd.errors import ModelError
from napari_nucleus_kd.instances import CANONICAL_DIAMETER_PX, MAP_NAMES, encode
from napari_nucleus_kd.job import richest_patches
from napari_nucleus_kd.modality import has_bright_background
from napari_nucleus_kd.networks.ensemble import mirrored_mean
from napari_nucleus_kd.package import load_model
from napari_nucleus_kd.train.settings import CERTAIN
from napari_nucleus_kd.types import Modality

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_nucleus_kd.package import Model
    from napari_nucleus_kd.segmenters import Segmenter
    from napari_nucleus_kd.train.data import Batch
    from napari_nucleus_kd.train.settings import DistillSettings
    from napari_nucleus_kd.types import FloatArray

_PROBABILITIES = ("foreground", "border")
_INSIDE = ("offset_y", "offset_x", "log_diameter")  # what is known in nuclei only


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


class Opinion(NamedTuple):
    """What one member of an ensemble says.

    Attributes
    ----------
    maps : (B, M, H, W) float32, in the order of MAP_NAMES.
    said : (B, 1, H, W) float32, 1 where it says anything.
    """

    maps: torch.Tensor
    said: torch.Tensor


Member = Callable[[torch.Tensor], Opinion]


class Teacher(Protocol):
    """Says of a batch what a student should learn."""

    def __call__(self, batch: Batch) -> Lesson:
        """Return the lesson, on the device of the batch."""


def load_teacher(settings: DistillSettings, device: torch.device) -> Teacher:
    """Open the teachers that settings name; several are averaged.

    Raises
    ------
    ModelError : a model is not there, or lacks a map. UnknownSegmenterError
    """
    members: list[Member] = [
        *(SegmenterTeacher(named, str(device)) for named in settings.segmenters),
        *(NetworkTeacher(load_model(n), flips=settings.flips).to(device) for n in settings.models),
    ]
    return Faculty(members, settings.sure)


def diameter_estimate(settings: DistillSettings, device: str) -> Callable[[FloatArray], float | None] | None:
    """Return what tells the diameter, px, of the nuclei of a picture (3, Y, X): a model, or a segmenter.

    None if there is neither: a folder of labels tells nothing of other pictures. It is opened when it is
    first asked.

    Parameters
    ----------
    device : for the model; see engine.DEVICES.
    """
    if not settings.models and not settings.segmenters:
        return None

    @cache
    def opened() -> Callable[[FloatArray], Segmenter]:
        if not settings.models:
            return _ByLight(settings.segmenters[0], device)
        model = segmenters.load("student", Recipe(model=settings.models[0], device=device))
        return lambda _picture: model

    def estimate(picture: FloatArray) -> float | None:
        patches = richest_patches(picture.shape[1:], lambda yx: picture[:, *yx])
        return opened()(picture).estimate_diameter(patches)

    return estimate


def open_segmenter(named: str, device: str, modality: Modality | None = None) -> Segmenter:
    """Open a segmenter that teaches.

    Parameters
    ----------
    named : its name, or name:weights.
    device : what it runs on.

    Raises
    ------
    See segmenters.load.
    """
    name, _, weights = named.partition(":")
    recipe = Recipe(segmenter=name, weights=weights or None, modality=modality, device=device)
    return segmenters.load(name, recipe)


class _ByLight:
    """Chooses a segmenter for each picture (3, Y, X): stained tissue has a bright background."""

    def __init__(self, named: str, device: str):
        self._dark, self._bright = (
            open_segmenter(named, device, modality) for modality in (Modality.FLUORESCENCE, Modality.HE)
        )

    def __call__(self, picture: FloatArray) -> Segmenter:
        return self._bright if has_bright_background([picture]) else self._dark


class Faculty:
    """Several teachers: the mean of what they say, sure where their mean is.

    The labels that a batch brings from a folder count as one more teacher, where there are any. Offsets
    and diameters mean something in nuclei only, so there each teacher counts as much as it sees a nucleus.
    """

    def __init__(self, members: Sequence[Member], sure: float):
        self._members, self._sure = members, sure

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Lesson:
        """Return the mean lesson."""
        inside = _are(_INSIDE, batch.x.device)
        total, weight = torch.zeros_like(batch.maps), torch.zeros_like(batch.maps)
        said = torch.zeros_like(batch.told)
        folder = Opinion(_softened(batch.maps), batch.told)
        for opinion in (folder, *(member(batch.x) for member in self._members)):
            counts = opinion.said * torch.where(inside, opinion.maps[:, :1], 1.0)
            total, weight = total + counts * opinion.maps, weight + counts
            said = torch.maximum(said, opinion.said)
        maps = total / weight.clamp(min=1e-6)
        nucleus = maps[:, :1]  # foreground, the first of all maps
        return Lesson(maps, said * (torch.maximum(nucleus, 1 - nucleus) >= self._sure), said)


def _softened(labels: torch.Tensor) -> torch.Tensor:
    """Return maps of labels with probabilities a little away from 0 and 1: nobody is that certain."""
    certain = labels.clamp(1 - CERTAIN, CERTAIN)
    return torch.where(_are(_PROBABILITIES, labels.device), certain, labels)


def _are(names: Sequence[str], device: torch.device) -> torch.Tensor:
    """Return which maps have one of these names, (1, M, 1, 1) bool."""
    return torch.tensor([name in names for name in MAP_NAMES], device=device).view(1, -1, 1, 1)


class NetworkTeacher(nn.Module):
    """A model package; with flips, the mean over the picture and its three mirror pictures."""

    def __init__(self, model: Model, *, flips: bool):
        super().__init__()
        names = model.spec.maps
        missing = [name for name in MAP_NAMES if name not in names]
        if missing:
            raise ModelError(
                f"{model.spec.name} cannot teach: it has no map {', '.join(missing)}; "
                "take a model trained with nucleus-kd train, or name it as segmenter:NAME"
            )
        self.network = model.network()
        self._names = names
        self._flips = flips and not model.spec.options.get("flips")  # an ensemble may do so itself
        self._order = [names.index(name) for name in MAP_NAMES]
        unit = math.log(model.spec.diameter_px / CANONICAL_DIAMETER_PX)  # of its log_diameter in ours
        shift = [unit if name == "log_diameter" else 0.0 for name in MAP_NAMES]
        self.shift: torch.Tensor
        self.register_buffer("shift", torch.tensor(shift).view(1, -1, 1, 1))

    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> Opinion:
        """Return what the network says, everywhere."""
        said = mirrored_mean(self.network, x, self._names) if self._flips else self.network(x).float()
        return Opinion(said[:, self._order] + self.shift, torch.ones_like(x[:, :1]))


class SegmenterTeacher:
    """Any registered segmenter; its labels become maps. Of nuclei that the picture cuts it says nothing.

    Parameters
    ----------
    named : its name, or name:weights.
    """

    def __init__(self, named: str, device: str):
        self._choose = _ByLight(named, device)

    def __call__(self, x: torch.Tensor) -> Opinion:
        """Return what the segmenter says."""
        maps, said = [], []
        for picture in x.float().cpu().numpy():
            segmenter = self._choose(picture)
            picture = np.ascontiguousarray(picture)
            found = segmenter.maps(picture, None)
            diameter = segmenter.diameter_in(found) or segmenter.estimate_diameter([picture])
            if diameter is not None and segmenter.scale(diameter) != found.scale:
                found = segmenter.maps(picture, diameter)
            labels = segmenter.decode(found, segmenter.decode_defaults).labels
            whole = clear_border(labels)
            maps.append(encode(whole))
            said.append(((labels == 0) | (whole > 0))[None].astype(np.float32))
        taught, where = (torch.from_numpy(np.stack(part)).to(x.device) for part in (maps, said))
        return Opinion(_softened(taught), where)
