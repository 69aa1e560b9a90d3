"""Images with labels for training: read once, then cut into batches that depend only on seed and step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from napari_nucleus_kd.channels import (
    NETWORK_CHANNELS,
    asked_channels,
    fit_input,
    given_input,
    scaled_panel,
)
from napari_nucleus_kd.errors import ReadError, SettingsError
from napari_nucleus_kd.index import read_annotation, read_index
from napari_nucleus_kd.instances import CANONICAL_DIAMETER_PX, encode
from napari_nucleus_kd.io import read
from napari_nucleus_kd.metrics import median_diameter
from napari_nucleus_kd.simulate import simulate
from napari_nucleus_kd.train.augment import recolor, warp
from napari_nucleus_kd.types import Modality, Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from napari_nucleus_kd.index import Row
    from napari_nucleus_kd.train.settings import CropSettings
    from napari_nucleus_kd.types import FloatArray, Image, LabelArray

MARGIN_PX = 32  # cut off again after encoding, so that nuclei at the rim are encoded whole


@dataclass(frozen=True, slots=True)
class Sample:
    """One annotated image.

    Attributes
    ----------
    image : (C, Y, X) float16 in [0, 1]; C is 1 for grey pictures, else 3.
    labels : (Y, X) int32
    valid : (Y, X) bool, where the annotation is complete; None: everywhere.
    taught : whether the labels are a teacher's; a person then said nothing.
    diameter_px : median diameter of its nuclei, or what its row says of the image that it is a part of.
    source : data set it comes from; batches are balanced over these.
    part : whether its row says that: then it is shown as a model sees that image.
    """

    name: str
    image: np.ndarray
    labels: LabelArray
    modality: Modality
    source: str
    diameter_px: float
    valid: npt.NDArray[np.bool_] | None = None
    taught: bool = False
    part: bool = False

    def pixels(self) -> FloatArray:
        """Return the network's input, (3, Y, X) float32."""
        return np.broadcast_to(self.image, (3, *self.labels.shape)).astype(np.float32)


def load_steps(
    index: Path,
    split: str,
    estimate: Callable[[FloatArray], float | None] | None = None,
    channels: Sequence[int | str] | None = None,
) -> Generator[Progress, None, list[Sample]]:
    """Read the images of one split of a CSV index; see index.read_index.

    Parameters
    ----------
    estimate : tells the typical diameter, px, of the nuclei of a picture (3, Y, X); for images that nobody
        annotated. None refuses such images.
    channels : nuclear channels of images that have several; None takes those named like a nuclear stain.

    Yields
    ------
    Progress after each image.

    Raises
    ------
    ReadError : the index, or an image, cannot be read, or does not fit its labels.
    SettingsError : an image lacks a channel, or none of several is named like a nuclear stain.
    """
    rows, samples = read_index(index, split), []
    for row in rows:
        samples.append(_load(row, estimate, channels))
        yield Progress(len(samples), len(rows), "reading the images")
    return samples


def _load(
    row: Row,
    estimate: Callable[[FloatArray], float | None] | None,
    channels: Sequence[int | str] | None,
) -> Sample:
    source = read(row.image)
    if row.labels is None and row.taught is None and estimate is None:
        raise ReadError(
            f"{row.image}: has no labels, and no teacher says what is in it; name one, or leave it out. To "
            "tune on, images need labels in any case"
        )
    labels, valid = read_annotation(row, source.shape_yx)
    if row.labels is None:
        valid = np.zeros(source.shape_yx, bool)
    taught = row.labels is None and labels is not None
    if labels is None:
        labels = np.zeros(source.shape_yx, np.int32)
    image = network_input(row, source, channels)
    known = row.diameter_px or median_diameter(labels)
    if known is None and row.labels is None and estimate is not None:
        known = estimate(np.ascontiguousarray(image, np.float32))
    diameter = known or CANONICAL_DIAMETER_PX
    if (image == image[0]).all():  # grey: one channel says it all
        image = image[:1]
    return Sample(
        row.name,
        image.astype(np.float16),
        labels,
        row.modality,
        row.source,
        diameter,
        valid,
        taught,
        part=row.diameter_px is not None,
    )


def network_input(row: Row, image: Image, channels: Sequence[int | str] | None = None) -> FloatArray:
    """Return what the network sees of the image of a row, (3, Y, X) float32 in [0, 1].

    It is what it sees when the image is segmented. A part of a larger image is scaled as that image is,
    where its row says how; then all its channels are used.

    Raises
    ------
    SettingsError : the channels do not fit the image or its modality, or what the row says of them.
    """
    if row.low is None or row.high is None:
        return fit_input(image, asked_channels(image, channels, row.modality), row.modality).apply(
            image.pixels
        )
    everything = range(len(image.channels))
    return given_input(image, everything, row.modality, row.low, row.high, row.weights).apply(image.pixels)


def for_panels(samples: Sequence[Sample]) -> list[Sample]:
    """Return the grey fluorescence pictures, around whose nuclei a panel can be drawn.

    Raises
    ------
    ReadError : there are none.
    """
    found = [s for s in samples if s.modality is Modality.FLUORESCENCE and len(s.image) == 1]
    if not found:
        raise ReadError(
            "an adapter learns from fluorescence pictures of nuclei, and none of these images is one; name a "
            "data set with some in its splits train and tune"
        )
    return found


class Batch(NamedTuple):
    """What one step learns from.

    Attributes
    ----------
    x : (B, 3, S, S) float32 in [0, 1]; of panels (B, C, S, S).
    maps : (B, M, S, S) float32, see instances.encode.
    valid : (B, 1, S, S) float32, 1 where the annotation is complete and teaches, else 0.
    told : (B, 1, S, S) float32, 1 where the maps are those of a teacher's labels, else 0.
    nuclear : (B, C) float32, 1 for the channels of panels that show all nuclei, else 0.
    """

    x: torch.Tensor
    maps: torch.Tensor
    valid: torch.Tensor
    told: torch.Tensor
    nuclear: torch.Tensor


class Batches(Dataset[Batch]):
    """Item `step` is a whole batch.

    Parameters
    ----------
    enlarge_to_px : diameter to which the model enlarges smaller nuclei, where it segments.
    panel : fewest and most channels of the panels that are drawn around the nuclei of grey pictures; None:
        the pictures themselves.
    seen : what is made of a picture (3, Y, X), cut from a sample, before a network sees it; None: nothing.
    targets : makes the maps (M, Y, X) of labels.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        settings: CropSettings,
        seed: int,
        enlarge_to_px: float | None = None,
        panel: tuple[int, int] | None = None,
        seen: Callable[[FloatArray, Sample], FloatArray] | None = None,
        targets: Callable[[LabelArray], FloatArray] = encode,
    ):
        self.seen, self.targets = seen, targets
        self.settings, self.seed, self.enlarge_to_px, self.panel = settings, seed, enlarge_to_px, panel
        self.by_source: dict[str, list[Sample]] = {}
        for sample in samples:
            self.by_source.setdefault(sample.source, []).append(sample)
        self.sources = sorted(self.by_source)
        weights = np.array([settings.source_weights.get(s, 1.0) for s in self.sources], float)
        if not weights.any():
            raise SettingsError(
                f"crops.source_weights: all of {', '.join(self.sources)} weigh 0, so nothing would be drawn"
            )
        self.chances = weights / weights.sum()

    def __getitem__(self, step: int) -> Batch:
        """Make the batch of one step."""
        rng = np.random.default_rng((self.seed, step))
        channels = 0 if self.panel is None else int(rng.integers(self.panel[0], self.panel[1] + 1))
        crops = [self._crop(rng, channels) for _ in range(self.settings.batch)]
        x, *others = (torch.from_numpy(np.stack(part)) for part in zip(*crops, strict=True))
        return Batch(x.contiguous(memory_format=torch.channels_last), *others)

    def _crop(self, rng: np.random.Generator, channels: int) -> tuple[FloatArray, ...]:
        crops = self.settings
        group = self.by_source[self.sources[rng.choice(len(self.sources), p=self.chances)]]
        # Large images hold more that is worth seeing, but not in proportion.
        sizes = np.array([s.labels.size for s in group], float) ** 0.5
        sample = group[rng.choice(len(group), p=sizes / sizes.sum())]
        low, high = crops.size_range
        if rng.random() < crops.wide_share:  # sizes that only the diameter estimate ever meets
            target = np.exp(rng.uniform(np.log(low / 2), np.log(high * 2)))
        else:
            target = self._seen_px(sample) * np.exp(rng.normal(0, crops.scale_jitter))
        scale = float(np.clip(target / sample.diameter_px, 0.2, 4))
        known = [] if sample.valid is None else [sample.valid[None]]
        layers = np.concatenate([sample.image, *known]) if known else sample.image
        layers, labels = warp(layers, sample.labels, crops.crop_px + 2 * MARGIN_PX, scale, rng)
        image, valid = layers[: len(sample.image)], layers[len(sample.image) :].min(axis=0, initial=1) > 0.99
        nuclear = np.zeros(channels or NETWORK_CHANNELS, np.float32)
        if channels:
            drawn = simulate(image[0], labels, rng, channels)
            image = scaled_panel(drawn.pixels)
            nuclear[:] = [kind == "nuclear" for kind in drawn.kinds]
        else:
            image = np.ascontiguousarray(np.broadcast_to(image, (3, *labels.shape)))
            complete, turned = sample.valid is None, self.seen is None  # else they are of one polarity
            image = recolor(image, labels, sample.modality, rng, complete=complete, turned=turned)
            image = image if self.seen is None else self.seen(image, sample)
        inner = slice(MARGIN_PX, MARGIN_PX + crops.crop_px)
        return (
            image[:, inner, inner],
            self.targets(labels)[:, inner, inner],
            valid[None, inner, inner].astype(np.float32),
            np.full((1, crops.crop_px, crops.crop_px), sample.taught, np.float32),
            nuclear,
        )

    def _seen_px(self, sample: Sample) -> float:
        """Return the diameter at which the nuclei of a sample are shown, on average."""
        low, high = self.settings.size_range
        if sample.part and sample.diameter_px < low and self.enlarge_to_px is not None:
            return self.enlarge_to_px
        return min(max(sample.diameter_px, low), high)
