"""Settings of a training run; saved beside its results."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from napari_nucleus_kd.baselines import weights_digest
from napari_nucleus_kd.config import DecodeSettings, Settings
from napari_nucleus_kd.errors import ModelError, SettingsError
from napari_nucleus_kd.index import read_splits
from napari_nucleus_kd.instances import MAP_NAMES
from napari_nucleus_kd.networks.student import STUDENTS, StudentConfig
from napari_nucleus_kd.package import NAME_PATTERN, load_model
from napari_nucleus_kd.types import Modality

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_nucleus_kd.package import ModelSpec

# What may not change between the parts of a run that was stopped. The number of steps may.
_SHAPING = (
    "channels student pretrained encoder_of frozen_encoder frozen_norms start crops enlarge_to_px loss "
    "label_smoothing distill adapter accumulate devices schedule patience learning_rate warmup_steps "
    "weight_decay clip_norm average seed check_every check_batches precision"
).split()


_SAMPLED = 1 << 16  # bytes of an image, from each of three places, that tell it from another one


# What the name of a teacher begins with that is none of the models.
_SEGMENTER, _LABELS = "segmenter:", "labels:"
CERTAIN = 0.98  # probability that labels stand for: they say 0 or 1, but nobody is that certain


class CropSettings(Settings):
    """How batches are cut."""

    batch: int = Field(8, ge=1, description="Crops a step")
    crop_px: int = Field(256, ge=64, multiple_of=32, description="Edge of a crop, in network pixels")
    size_range: tuple[float, float] = Field(
        (16.0, 40.0), description="Images whose median nucleus is outside are rescaled to the nearer end (px)"
    )
    scale_jitter: float = Field(0.2, ge=0, description="Standard deviation of the log magnification")
    wide_share: float = Field(0.12, ge=0, le=1, description="Crops at extreme sizes, to learn the diameter")
    source_weights: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(
        {}, description="How often each source is drawn; 1 if not named"
    )


class TaughtWeights(Settings):
    """Weight of each term of the objective against the teachers."""

    foreground: float = 1.0
    distance: float = 2.0
    offset: float = 1.0
    border: float = 0.5
    diameter: float = 0.3


class LossWeights(TaughtWeights):
    """Weight of each named term of the objective against the annotation: those, and what only it has."""

    dice: float = 1.0
    lovasz: float = 0.0
    tversky: float = 0.0
    focal: float = 0.0
    spectral: float = Field(0.0, description="Spectral decoupling: on the size of the foreground's logits")
    consistency: float = 0.0
    selection: float = Field(
        0.0, description="invariant adapters: on the weights of channels that do not show all nuclei"
    )

    @property
    def on_maps(self) -> bool:
        """Whether anything is learnt from the maps of the student."""
        return any(value for name, value in self if name != "selection")


class AdapterSettings(Settings):
    """An adapter that learns in front of the student, on panels drawn around the nuclei of each image."""

    kind: Literal["invariant", "fixed"] = Field(
        "invariant", description="invariant: blends any number of channels; fixed: repeats them to 32"
    )
    width: int = Field(16, ge=4, le=128, description="invariant: channels of its first layer")
    compares: bool = Field(True, description="invariant: judge each channel beside the others")
    channels: int = Field(32, ge=1, le=256, description="fixed: channels that it takes")
    start: str | None = Field(
        None, description="Adapter to start from, by name or folder; None: from scratch"
    )
    panel: tuple[Annotated[int, Field(ge=1)], int] = Field(
        (2, 12), description="Channels of the panels that are drawn, fewest and most"
    )
    frozen_student: bool = Field(True, description="Train the adapter only")

    @property
    def architecture(self) -> str:
        """What a package calls it."""
        return f"{self.kind}-adapter"

    @property
    def options(self) -> dict[str, Any]:
        """Settings of its network."""
        if self.kind == "fixed":
            return {"channels": self.channels}
        return {"width": self.width, "compares": self.compares}

    @model_validator(mode="after")
    def _in_order(self) -> AdapterSettings:
        low, high = self.panel
        if low > high or (self.kind == "fixed" and high > self.channels):
            raise ValueError(
                f"panel: {low} to {high} channels must be in order, and not more than a fixed adapter takes"
            )
        return self


class DistillSettings(Settings):
    """How a student learns from teachers beside the annotation."""

    teachers: tuple[str, ...] = Field(
        min_length=1,
        description="Models by name or folder, segmenter:NAME or segmenter:NAME:WEIGHTS, or labels:FOLDER; "
        "several are averaged",
    )
    temperature: float = Field(
        2.0, gt=0, description="Softens the probabilities; the more, the more sure background counts"
    )
    truth: float = Field(0.3, ge=0, description="Weight of what the annotation says (alpha)")
    taught: float = Field(0.7, ge=0, description="Weight of what the teachers say (beta)")
    loss: TaughtWeights = TaughtWeights()
    flips: bool = Field(True, description="Ask models of the mirror pictures too, and take the mean")
    elsewhere: bool = Field(
        False, description="Teach only where nothing is annotated: the annotation corrects the teacher"
    )
    sure: float = Field(
        0.9, gt=0.5, le=CERTAIN, description="Where nothing is annotated: probability believed"
    )

    @property
    def models(self) -> tuple[str, ...]:
        """The teachers that are models."""
        return tuple(name for name in self.teachers if not name.startswith((_SEGMENTER, _LABELS)))

    @property
    def segmenters(self) -> tuple[str, ...]:
        """The segmenters among the teachers: each its name, or name:weights."""
        return tuple(t.removeprefix(_SEGMENTER) for t in self.teachers if t.startswith(_SEGMENTER))

    @property
    def label_folder(self) -> Path | None:
        """The folder of label images that teach, if there is one."""
        found = [Path(t.removeprefix(_LABELS)) for t in self.teachers if t.startswith(_LABELS)]
        return found[0] if found else None

    @model_validator(mode="after")
    def _one_folder(self) -> DistillSettings:
        if sum(name.startswith(_LABELS) for name in self.teachers) > 1:
            raise ValueError("teachers: one labels:FOLDER can teach; put the label images into one folder")
        return self


class TrainSettings(Settings):
    """Every setting of a training run."""

    name: str = Field("my-student", pattern=NAME_PATTERN, description="Of the model")
    purpose: str = Field("Finds nuclei in microscope images.", description="First words of the model's card")
    licence: str = Field("", description="Licence of the weights")
    data: tuple[str, ...] = Field((), description="What it is trained on, with licences; for the card")
    limits: tuple[str, ...] = Field((), description="Where it may fail; for the card")
    decode: DecodeSettings = Field(DecodeSettings(), description="Decode settings the model proposes")
    enlarge_to_px: float | None = Field(
        None, gt=1, description="Diameter to which the model enlarges smaller nuclei; None: to size_range"
    )
    expected_px: dict[Modality, float] = Field(
        {}, description="Nucleus diameter at which the model first looks at a kind of image"
    )
    dataset: Path | None = Field(
        None, description="Folder or CSV index of what it learns from; relative to the recipe's file"
    )
    unlabelled: Path | None = Field(
        None, description="Folder of images that nobody annotated, for the teachers; relative like dataset"
    )
    channels: tuple[int | str, ...] | None = Field(
        None,
        min_length=1,
        description="Nuclear channels, by name or number from 0, of images with several; "
        "None: those named like a nuclear stain",
    )
    student: StudentConfig = Field(
        STUDENTS["compact"], description=f"The network, or its name: {', '.join(STUDENTS)}"
    )
    pretrained: bool = Field(False, description="Start the encoder from weights trained on other pictures")
    encoder_weights: Path | None = Field(
        None, description="File of these; None: the installed package, or the Hugging Face hub"
    )
    encoder_of: str | None = Field(
        None,
        description="Model from whose encoder to start, by name or folder; of one kind, as deep or deeper",
    )
    frozen_encoder: bool = Field(False, description="Train the decoder only")
    frozen_norms: bool = Field(
        False, description="Keep the statistics of batch norm: so few images do not stand for all kinds"
    )
    start: str | None = Field(None, description="Model to start from, by name or folder; None: from scratch")
    blend: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Share of the learnt weights, the rest being those of start; less forgets less",
    )
    crops: CropSettings = CropSettings()
    loss: LossWeights = LossWeights()
    label_smoothing: float = Field(
        0.0, ge=0, description="Width (standard deviation, px) over which borders are taught softly"
    )
    distill: DistillSettings | None = Field(None, description="Teachers; None: the annotation alone")
    adapter: AdapterSettings | None = Field(
        None, description="Train an adapter for multiplex images in front of the student; None: the student"
    )
    steps: int = Field(12000, ge=1)
    accumulate: int = Field(1, ge=1, description="Batches a step, one after another: for little memory")
    devices: int = Field(1, ge=1, description="Processors that each take a batch of every step")
    schedule: Literal["cosine", "plateau"] = Field(
        "cosine", description="Learning rate: down to a hundredth, or halved when checks stop improving"
    )
    patience: int = Field(5, ge=1, description="plateau: checks without improvement before it is halved")
    early_stop: int | None = Field(None, ge=1, description="Stop after so many checks without improvement")
    learning_rate: float = Field(2e-3, gt=0)
    warmup_steps: int = Field(
        200, ge=0, description="Steps over which the learning rate rises; at most a fifth of all"
    )
    weight_decay: float = Field(0.02, ge=0)
    clip_norm: float = Field(5.0, gt=0, description="Largest norm of a gradient")
    average: float = Field(0.998, gt=0, lt=1, description="Decay of the running average of the weights")
    seed: int = Field(0, ge=0, lt=2**32)
    workers: int = Field(1, ge=0, description="Processes that cut batches")
    check_every: int = Field(
        500, ge=1, description="Steps between checks on the tuning split and checkpoints"
    )
    check_batches: int = Field(8, ge=1, description="Batches of a check")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="What it is trained on")
    precision: Literal["auto", "bf16-mixed", "32-true"] = Field(
        "auto", description="Of Lightning Fabric; auto: bf16-mixed where the processor has bfloat16"
    )
    tensorboard: bool = Field(False, description="Log for TensorBoard, too")

    @field_validator("student", mode="before")
    @classmethod
    def _by_name(cls, value: object) -> object:
        if isinstance(value, str):
            if value not in STUDENTS:
                raise ValueError(f"no student {value!r}; choose from {', '.join(STUDENTS)}")
            return STUDENTS[value]
        return value

    @model_validator(mode="after")
    def _has_weights(self) -> TrainSettings:
        if self.pretrained and self.student.encoder == "plain":
            raise ValueError("pretrained: the plain encoder has no such weights; take efficientnet_lite0")
        if self.blend < 1 and self.start is None:
            raise ValueError("blend: below 1 there must be a model to blend with; set start")
        origins = {"pretrained": self.pretrained, "encoder_of": self.encoder_of, "start": self.start}
        named = [name for name, value in origins.items() if value]
        if len(named) > 1:
            raise ValueError(
                f"{' and '.join(named)}: the weights come from one of these; leave the others out"
                + (", or name a student to begin anew" if self.start else "")
            )
        if self.student.maps != MAP_NAMES:
            raise ValueError(f"student.maps: training needs all of them, in order: {', '.join(MAP_NAMES)}")
        if self.frozen_encoder and not named:
            raise ValueError(
                "frozen_encoder: a random encoder would stay random; set pretrained, encoder_of or start"
            )
        if self.adapter is not None and (self.distill is not None or self.frozen_encoder or self.blend < 1):
            raise ValueError("adapter: learns from annotation; leave out distill, frozen_encoder and blend")
        if self.adapter is not None and self.adapter.frozen_student and self.start is None:
            raise ValueError("adapter: a frozen student must have learnt before; set start")
        if self.loss.selection and (self.adapter is None or self.adapter.kind != "invariant"):
            raise ValueError("loss.selection: only an invariant adapter has weights; leave it out")
        low, high = self.crops.size_range
        if not 1 < low <= high:
            raise ValueError(f"crops.size_range: must be above 1 px and in order, not {low:g} to {high:g}")
        if self.enlarge_to_px is not None and not low <= self.enlarge_to_px <= high:
            raise ValueError(f"enlarge_to_px: must be within size_range, {low:g} to {high:g}")
        return self

    @property
    def freezes(self) -> bool:
        """Whether a part that learnt before stays as it is."""
        return self.frozen_encoder or (self.adapter is not None and self.adapter.frozen_student)

    def learned_from(self, index: Path) -> dict[str, str]:
        """Return what shapes the weights: settings by name, as JSON, and a hash of index and labels."""
        settings = self.model_dump(mode="json", include=set(_SHAPING))
        if self.start is not None:
            settings["start"] = load_model(self.start).hash
        if self.adapter is not None and self.adapter.start is not None:
            settings["adapter"]["start"] = load_model(self.adapter.start).hash
        if self.encoder_of is not None:
            settings["encoder_of"] = load_model(self.encoder_of).hash
        if self.encoder_weights is not None:
            settings["encoder_weights"] = _hash(self.encoder_weights, "encoder_weights: ")
        models = () if self.distill is None else self.distill.models
        return {name: json.dumps(value, sort_keys=True) for name, value in settings.items()} | {
            "data": fingerprint(index),
            "teachers": json.dumps([*(load_model(name).hash for name in models), *self._tools()]),
        }

    def _tools(self) -> list[str]:
        """Return fingerprints of the weights of teachers that are segmenters."""
        named = () if self.distill is None else self.distill.segmenters
        places = (Path(weights) for _, _, weights in (each.partition(":") for each in named) if weights)
        return [weights_digest(place) for place in places if place.exists()]


def taken_over(parent: ModelSpec, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with what goes on from a model: its network, its sizes, its decode settings.

    Those that are among the values stay. A trained network needs fewer steps, and smaller ones.

    Parameters
    ----------
    values : settings by name, as in a recipe.

    Raises
    ------
    ModelError : the model is no student.
    """
    if parent.architecture != "student":
        raise ModelError(
            f"{parent.name} ({parent.architecture}) cannot be trained on; choose a student, not joined ones"
        )
    crops = {"size_range": parent.size_range} | values.get("crops", {})
    return {
        "student": parent.options,
        "decode": parent.decode.model_dump(),
        "enlarge_to_px": parent.enlarge_to_px,
        "expected_px": parent.expected_px,
        "learning_rate": 5e-4,
        "steps": 2000,
    } | {**values, "crops": crops}


def _hash(path: Path, what: str = "") -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise SettingsError(f"{what}{path} cannot be read: {error.strerror or error}") from error


def fingerprint(index: Path) -> str:
    """Return a hash of the index, of the labels that it names, and of samples of the images."""
    found = hashlib.sha256(index.read_bytes())
    for rows in read_splits(index).values():
        for row in rows:
            for path in (row.labels, row.valid, row.taught):
                for name, file in _files(path):
                    found.update(name + _hash(file).encode())
            for name, file in _files(row.image):
                if not name.startswith(b"labels/"):  # in an OME-Zarr image, whichever of them are learnt
                    found.update(name + _sampled(file))
    return found.hexdigest()


def _sampled(path: Path) -> bytes:
    """Return the size of a file and its first, middle and last bytes: images are too large to read twice."""
    size = path.stat().st_size
    with path.open("rb") as file:
        found = str(size).encode()
        for start in (0, size // 2, max(0, size - _SAMPLED)):
            file.seek(start)
            found += file.read(_SAMPLED)
    return found


def _files(path: Path | None) -> list[tuple[bytes, Path]]:
    """Return a file without a name, or the files of a folder (OME-Zarr) with theirs inside it, sorted."""
    if path is None or not path.is_dir():
        return [(b"", path)] if path is not None and path.is_file() else []
    files = [file for file in path.rglob("*") if file.is_file()]
    return sorted((file.relative_to(path).as_posix().encode(), file) for file in files)
