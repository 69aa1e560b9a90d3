"""Settings of a run. A Recipe, saved as JSON, gives the same labels anywhere."""

from __future__ import annotations

import json
import operator
from contextlib import contextmanager
from dataclasses import astuple
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from napari_nucleus_kd.errors import SettingsError
from napari_nucleus_kd.types import Modality, Region

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from pydantic_core import ErrorDetails


class Settings(BaseModel):
    """Base of all settings: unchangeable; unknown names, NaN and infinities are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DecodeSettings(Settings):
    """How network maps become nuclei; changing these never needs the network again."""

    by: Literal["votes", "components"] = Field(
        "votes", description="votes takes touching nuclei apart; components: what is connected is one nucleus"
    )
    foreground: float = Field(0.5, ge=0.01, le=0.99, description="Pixels at least this probable are nucleus")
    split: float = Field(0.5, ge=0, le=1, description="0 joins touching nuclei, 1 splits them readily")
    min_score: float = Field(0.0, ge=0, le=1, description="Nuclei with a lower score are removed")
    min_area_px: int = Field(20, ge=0, description="Smaller objects are removed; in image pixels (area)")
    fill_holes: bool = Field(True, description="Fill holes inside a nucleus")


OF_NUCLEAR_CHANNELS = ("nuclear", "blend")  # mappings that take these; others may use any channel
OF_STAINS = ("haematoxylin", "macenko")  # mappings of colour pictures; nuclei are then bright on dark


class Recipe(Settings):
    """Every setting of one segmentation run.

    A finished run's recipe is *resolved*: model_hash, channels, scaling_low, scaling_high,
    modality and diameter_px say what was really used, so running it again repeats the run.
    """

    segmenter: str = Field("student", description="Registered segmenter")
    model: str = Field("nucleus-student", description="Model package: a shipped name or a folder")
    weights: str | None = Field(None, description="Of cellpose or stardist: a file, a folder, or their name")
    model_hash: str | None = Field(None, description="SHA-256 of the weights; None takes the model as it is")
    modality: Modality | None = Field(None, description="None: suggested from the pixels")
    channels: tuple[int | str, ...] | None = Field(None, description="Nuclear channels by name or index")
    mapping: str = Field("nuclear", description="From the channels to what the network sees: see mappings")
    mapping_hash: str | None = Field(
        None, description="SHA-256 of an adapter's weights; None takes it as it is"
    )
    adapter_channels: tuple[int | str, ...] | None = Field(
        None, description="Those that an adapter chose `channels` from; None: from all"
    )
    channel_weights: tuple[float, ...] | None = Field(None, description="Of each channel in a blend")
    stains: tuple[tuple[float, float, float], tuple[float, float, float]] | None = Field(
        None, description="Optical densities of haematoxylin and the other stain; None: usual or estimated"
    )
    enhance: str | None = Field(None, description="Enhancer that draws the nuclei first; None: none")
    enhance_hash: str | None = Field(None, description="SHA-256 of its weights; None takes it as it is")
    polarity: Literal["auto", "bright", "dark"] = Field(
        "auto",
        description="How nuclei look to the enhancer; auto: dark in H&E and IHC, and where most of a "
        "grey picture is bright; else bright",
    )
    percentiles: tuple[float, float] = Field((1.0, 99.8), description="Intensities scaled to 0 and 1")
    scaling_low: tuple[float, ...] | None = Field(None, description="Intensity shown as 0, a channel")
    scaling_high: tuple[float, ...] | None = Field(None, description="Intensity shown as 1, a channel")
    pixel_size_um: float | None = Field(None, gt=0, description="Edge of one pixel; None: as the file says")
    diameter_px: float | None = Field(None, gt=1, description="Typical nucleus diameter; None: estimated")
    diameter_um: float | None = Field(None, gt=0, description="The same in micrometres; needs a pixel size")
    region: Region | None = Field(None, description="Part of the image, in full-resolution pixels; None: all")
    decode: DecodeSettings = DecodeSettings()
    device: str = Field("auto", description="auto, cpu, openvino, cuda, cuda:N or mps")
    tile_px: int = Field(1024, ge=128, description="Edge of one tile in image pixels")

    @property
    def looks(self) -> Modality:
        """As what kind of image the segmenter's input looks: bright nuclei if enhanced or stains apart."""
        if self.modality is None or self.mapping in OF_STAINS or self.enhance is not None:
            return Modality.FLUORESCENCE
        return self.modality

    def enhanced_by(self, enhancer: str | None) -> Recipe:
        """Return the recipe with an enhancer, or with none; the weights of another one are forgotten."""
        if self.enhance == enhancer:
            return self
        return self.model_copy(update={"enhance": enhancer, "enhance_hash": None})

    @field_validator("region", mode="before")
    @classmethod
    def _in_whole_pixels(cls, region: object) -> object:
        if not isinstance(region, Region):
            return region
        try:
            return Region(*(operator.index(edge) for edge in astuple(region)))
        except TypeError as error:
            raise ValueError("the edges of a region are whole numbers of pixels") from error


def recipe_from(values: Mapping[str, Any]) -> Recipe:
    """Return a recipe with these values; those that are not named stay unset.

    Raises
    ------
    SettingsError naming every setting that is unknown or outside its range.

    >>> recipe_from({"tile_px": 5})
    Traceback (most recent call last):
    napari_nucleus_kd.errors.SettingsError: tile_px = 5: Input should be greater than or equal to 128
    """
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise SettingsError(complaint(error, Recipe)) from error


def complaint(error: ValidationError, settings: type[BaseModel] | None = None) -> str:
    """Say in one line which settings broke which rules.

    Parameters
    ----------
    settings : what was to be read; if given, the nearest of its names is told for an unknown one.
    """
    return "; ".join(_fault(fault, settings) for fault in error.errors())


@contextmanager
def reading(file: Path | None, settings: type[BaseModel]) -> Iterator[None]:
    """Say what is wrong with a JSON file of settings that is read while the block lasts.

    Parameters
    ----------
    file : None: the settings come from elsewhere.

    Raises
    ------
    SettingsError : the file is not JSON or cannot be read, or settings are unknown or out of range.
    """
    try:
        yield
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise SettingsError(f"{file} is not JSON: {error}") from error
    except OSError as error:
        raise SettingsError(f"{file} cannot be read: {error.strerror or error}") from error
    except ValidationError as error:
        raise SettingsError(f"{file or 'settings'}: {complaint(error, settings)}") from error


def _fault(fault: ErrorDetails, settings: type[BaseModel] | None) -> str:
    where, rule = ".".join(map(str, fault["loc"])), fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        near = get_close_matches(str(fault["loc"][-1]), _names_inside(settings, fault["loc"][:-1]), 1)
        return f"{where}: there is no such setting" + (f"; did you mean {near[0]}?" if near else "")
    if fault["type"] == "missing":
        return f"{where}: is missing"
    if not where:  # a rule on several settings, which it names
        return rule
    return f"{where} = {fault['input']!r}: {rule}"


def _names_inside(settings: type[BaseModel] | None, path: Sequence[int | str]) -> tuple[str, ...]:
    """Return the names of the settings that lie at a path inside others; none if they have no names."""
    for part in path:
        field = settings.model_fields.get(str(part)) if settings else None
        kinds = (field.annotation, *get_args(field.annotation)) if field else ()
        settings = next((k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)), None)
    return tuple(settings.model_fields) if settings else ()
