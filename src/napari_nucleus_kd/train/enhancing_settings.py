"""Settings of the training of GeNSeg-Net's networks; saved beside their results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from pydantic import Field, field_validator, model_validator

from napari_nucleus_kd.config import Settings, reading
from napari_nucleus_kd.errors import SettingsError
from napari_nucleus_kd.networks.enhancer import GeneratorConfig, ThreeClassConfig
from napari_nucleus_kd.package import NAME_PATTERN, load_model
from napari_nucleus_kd.train.settings import CropSettings, fingerprint

if TYPE_CHECKING:
    from collections.abc import Mapping

# What may not change between the parts of a run that was stopped. The number of steps may.
_SHAPING = (
    "kind channels generator between_weight discriminator adversarial discriminator_rate three_classes "
    "learns_from cross_entropy dice crops learning_rate average seed check_every check_batches precision"
).split()


_CROPS = {"batch": 2, "wide_share": 0.3, "scale_jitter": 0.3}  # defaults that are not a student's
_OF_CLASSES = {
    "name": "my-classes",
    "purpose": "Says of each pixel whether it is background, nucleus body or edge; best behind an enhancer.",
}


class EnhancingSettings(Settings):
    """Every setting of a run that trains an enhancer, or the network of three classes behind one."""

    kind: Literal["enhancer", "three-classes"] = Field("enhancer", description="What is trained")
    name: str = Field("my-enhancer", pattern=NAME_PATTERN, description="Of the model")
    purpose: str = Field("Draws nuclei as they would be seen best.", description="First words of its card")
    licence: str = Field("", description="Licence of the weights")
    data: tuple[str, ...] = Field((), description="What it is trained on, with licences; for the card")
    limits: tuple[str, ...] = Field((), description="Where it may fail; for the card")
    dataset: Path | None = Field(
        None, description="Folder or CSV index of what it learns from; relative to the recipe's file"
    )
    channels: tuple[int | str, ...] | None = Field(
        None, min_length=1, description="Nuclear channels, by name or number from 0; None: by their names"
    )
    generator: GeneratorConfig = Field(GeneratorConfig(), description="enhancer: what draws")
    between_weight: float = Field(
        1.0,
        ge=1,
        description="enhancer: weight in L1 of what lies between nuclei that touch or nearly do: pending "
        "edges and narrow gaps, which are drawn only where they weigh enough",
    )
    discriminator: Literal["transformer", "patch", "none"] = Field(
        "transformer", description="enhancer: what tells drawn nuclei from ideal ones"
    )
    adversarial: float = Field(
        0.01, ge=0, description="enhancer: weight of its word (lambda), beside 1 of L1"
    )
    discriminator_rate: float = Field(
        1.0,
        gt=0,
        description="enhancer: its learning rate, as a share of the generator's; less for few steps",
    )
    three_classes: ThreeClassConfig = Field(ThreeClassConfig(), description="three-classes: the U-Net")
    learns_from: str = Field(
        "ideal",
        description="three-classes: ideal (the nuclei of the labels), pictures, or an enhancer by name or "
        "folder, through which the pictures go first",
    )
    cross_entropy: float = Field(1.0, ge=0, description="three-classes: weight of the cross-entropy (alpha)")
    dice: float = Field(3.0, ge=0, description="three-classes: weight of the Dice loss (beta)")
    judged_behind: str | None = Field(
        None, description="three-classes: the enhancer that it is judged behind; None: what it learns from"
    )
    crops: CropSettings = CropSettings.model_validate(_CROPS)
    steps: int = Field(4000, ge=1)
    learning_rate: float = Field(1e-4, gt=0, description="Of Adam; falls to 0 over the second half")
    average: float = Field(0.995, gt=0, lt=1, description="Decay of the running average of the weights")
    seed: int = Field(0, ge=0, lt=2**32)
    workers: int = Field(1, ge=0, description="Processes that cut batches")
    check_every: int = Field(
        250, ge=1, description="Steps between checks on the tuning split and checkpoints"
    )
    check_batches: int = Field(8, ge=1, description="Batches of a check")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="What it is trained on")
    precision: Literal["auto", "bf16-mixed", "32-true"] = Field(
        "auto", description="Of Lightning Fabric; auto: bf16-mixed where the processor has bfloat16"
    )

    @field_validator("crops", mode="before")
    @classmethod
    def _with_defaults(cls, value: object) -> object:
        return _CROPS | value if isinstance(value, dict) else value

    @model_validator(mode="before")
    @classmethod
    def _of_kind(cls, values: object) -> object:
        is_classes = isinstance(values, dict) and values.get("kind") == "three-classes"
        return _OF_CLASSES | cast("dict[str, object]", values) if is_classes else values

    @property
    def distill(self) -> None:
        """Nobody teaches."""
        return

    @property
    def unlabelled(self) -> None:
        """There are no images without annotation."""
        return

    @property
    def enhancer(self) -> str | None:
        """The enhancer through which the network of three classes sees pictures, if there is one."""
        of_none = self.kind == "enhancer" or self.learns_from in ("ideal", "pictures")
        return None if of_none else self.learns_from

    def learned_from(self, index: Path) -> dict[str, str]:
        """Return what shapes the weights: settings by name, as JSON, and a hash of index and labels."""
        settings = self.model_dump(mode="json", include=set(_SHAPING))
        if self.enhancer is not None:
            settings["learns_from"] = load_model(self.enhancer).hash
        return {name: json.dumps(value, sort_keys=True) for name, value in settings.items()} | {
            "data": fingerprint(index)
        }


def with_batch(crops: object, batch: int) -> object:
    """Return crop settings, as JSON, with another batch; what are none stay, to be refused."""
    return (crops or {}) | {"batch": batch} if isinstance(crops, dict | None) else crops


def read_enhancing(
    recipe: Path | None, given: Mapping[str, object], batch: int | None = None
) -> EnhancingSettings:
    """Return the settings of a JSON file, with those given (not None) in place of the file's.

    Raises
    ------
    SettingsError : the file cannot be read, or settings are unknown or out of range.
    """
    with reading(recipe, EnhancingSettings):
        values = json.loads(recipe.read_bytes()) if recipe else {}
        if not isinstance(values, dict):
            raise SettingsError(f"{recipe} must hold one JSON object")
        if recipe and isinstance(values.get("dataset"), str):
            values["dataset"] = str((recipe.parent / values["dataset"]).resolve())
        values |= {name: value for name, value in given.items() if value is not None}
        if batch is not None:
            values["crops"] = with_batch(values.get("crops"), batch)
        return EnhancingSettings.model_validate_json(json.dumps(values, default=str))
