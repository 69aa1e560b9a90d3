"""A panel: name, role, colour and contrast of every channel; a small JSON file."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from napari_nucleus_kd.channels import name_key
from napari_nucleus_kd.config import OF_NUCLEAR_CHANNELS, Recipe, Settings, complaint
from napari_nucleus_kd.errors import SettingsError
from napari_nucleus_kd.io.atomic import write_text

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

PERCENTILES = Recipe().percentiles
_MAX_BYTES = 1 << 20  # a panel of 60 channels has 10,000
_REMEDY = "choose a file that Save panel… or nucleus-kd panel wrote"


class Role(StrEnum):
    """What a channel is for."""

    NUCLEAR = "nuclear"
    MEMBRANE = "membrane"
    CYTOPLASM = "cytoplasm"
    OTHER = "other"
    IGNORE = "ignore"


class PanelChannel(Settings):
    """One channel of a panel."""

    name: str = Field(min_length=1, description="Without spaces at its ends")
    role: Role = Field(Role.OTHER, description="Nuclear channels are what the nuclei are found in")
    color: str = Field("#ffffff", pattern="^#[0-9a-f]{6}$", description="As #rrggbb")
    percentiles: tuple[float, float] = Field(
        PERCENTILES,
        description="Of its intensities, in percent: shown, and of a nuclear channel taken, as 0 and 1",
    )

    @field_validator("name", mode="before")
    @classmethod
    def _without_spaces(cls, name: object) -> object:
        return name.strip() if isinstance(name, str) else name

    @field_validator("color", mode="before")
    @classmethod
    def _in_small_letters(cls, color: object) -> object:
        return color.lower() if isinstance(color, str) else color

    @field_validator("percentiles")
    @classmethod
    def _rising(cls, pair: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= pair[0] < pair[1] <= 100:
            raise ValueError("percentiles must rise and lie within 0 to 100, like [1, 99.8]")
        return pair


class Panel(Settings):
    """What the channels of an image show, in their order.

    No two names are the same but for capitals, and all nuclear channels share their percentiles: the
    brightest of them counts, so they must be scaled alike.
    """

    panel: Literal[1] = Field(1, description="Version of the file's form")
    channels: tuple[PanelChannel, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        first: dict[str, int] = {}
        for number, channel in enumerate(self.channels, 1):
            other = first.setdefault(name_key(channel.name), number)
            if other != number:
                raise ValueError(
                    f"channels {other} and {number} are both named “{channel.name}”; "
                    "give every channel a name of its own"
                )
        pairs = {self.channels[index].percentiles for index in self.nuclear}
        if len(pairs) > 1:
            listed = ", ".join(f"{low:g} to {high:g}" for low, high in sorted(pairs))
            raise ValueError(
                f"the nuclear channels have different percentiles ({listed}); give them the same"
            )
        return self

    @classmethod
    def unnamed(cls, names: Iterable[str]) -> Panel:
        """Return a panel of channels of which nothing is said: all are ignored."""
        return cls(channels=tuple(PanelChannel(name=name, role=Role.IGNORE) for name in names))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all channels."""
        return tuple(channel.name for channel in self.channels)

    @property
    def nuclear(self) -> tuple[int, ...]:
        """Which channels are nuclear, counted from 0."""
        return tuple(i for i, channel in enumerate(self.channels) if channel.role is Role.NUCLEAR)

    @property
    def used(self) -> tuple[int, ...]:
        """Which channels are not to be ignored, counted from 0."""
        return tuple(i for i, channel in enumerate(self.channels) if channel.role is not Role.IGNORE)

    @property
    def percentiles(self) -> tuple[float, float] | None:
        """What the nuclear channels are scaled by; None, which is their default, leaves that to the model."""
        pair = next((self.channels[index].percentiles for index in self.nuclear), PERCENTILES)
        return None if pair == PERCENTILES else pair

    def settings(self, mapping: str = "nuclear") -> dict[str, Any]:
        """Return what the panel says to a Recipe for an image whose channels stand in this order.

        Parameters
        ----------
        mapping : of the recipe. Those of nuclear channels get these, others all that are not to be ignored.

        Raises
        ------
        SettingsError if there is no such channel.
        """
        if mapping not in OF_NUCLEAR_CHANNELS:
            if not self.used:
                raise SettingsError("all channels of the panel are to be ignored; give one another role")
            return {"channels": self.used}
        if not self.nuclear:
            raise SettingsError(
                "no channel of the panel is nuclear; give one of them the role nuclear: "
                + ", ".join(self.names)
            )
        chosen: dict[str, Any] = {"channels": self.nuclear}
        return chosen if self.percentiles is None else {**chosen, "percentiles": self.percentiles}

    def with_role(self, indices: Iterable[int], role: Role) -> Panel:
        """Return the panel with another role of some channels; all nuclear ones are scaled as the first."""
        changes: dict[str, Any] = {"role": role}
        if role is Role.NUCLEAR and self.nuclear:
            changes["percentiles"] = self.channels[self.nuclear[0]].percentiles
        return self._changed(indices, changes)

    def with_color(self, indices: Iterable[int], color: str) -> Panel:
        """Return the panel with another colour, "#rrggbb", of some channels."""
        return self._changed(indices, {"color": color})

    def with_percentiles(self, indices: Iterable[int], pair: tuple[float, float]) -> Panel:
        """Return the panel with other percentiles of some channels; all nuclear ones follow one of them.

        Raises
        ------
        SettingsError if they do not rise within 0 to 100.
        """
        chosen = set(indices)
        if chosen & set(self.nuclear):
            chosen |= set(self.nuclear)
        return self._changed(chosen, {"percentiles": pair})

    def with_nuclear(self, indices: Iterable[int], others: Panel) -> Panel:
        """Return the panel with exactly these channels nuclear.

        Parameters
        ----------
        others : of the same channels; says what those become that are nuclear no more.
        """
        wanted = set(indices)
        panel = self
        for index in set(self.nuclear) - wanted:
            role = others.channels[index].role
            panel = panel.with_role([index], Role.OTHER if role is Role.NUCLEAR else role)
        return panel.with_role(wanted - set(self.nuclear), Role.NUCLEAR)

    def _changed(self, indices: Iterable[int], changes: dict[str, Any]) -> Panel:
        chosen = set(indices)
        rows = [
            channel.model_dump() | (changes if index in chosen else {})
            for index, channel in enumerate(self.channels)
        ]
        try:
            return Panel.model_validate({"channels": rows})
        except ValidationError as error:
            raise SettingsError(complaint(error, Panel)) from error

    def save(self, path: Path) -> None:
        """Write the panel as JSON, whole or not at all.

        Raises
        ------
        WriteError : the disk refuses; what was there stays.
        """
        write_text(path, self.model_dump_json(indent=1) + "\n")


def read_panel(path: Path) -> Panel:
    """Read a panel file.

    Raises
    ------
    SettingsError if it is missing, too large, damaged or no panel.
    """
    try:
        size = path.stat().st_size
        if size > _MAX_BYTES:
            raise SettingsError(f"{path} has {size:,} bytes, more than any panel ({_MAX_BYTES:,}); {_REMEDY}")
        text = path.read_bytes()
        if b'"segmenter"' in text:
            raise SettingsError(f"{path} is a recipe and no panel; give it with --recipe; {_REMEDY}")
        return Panel.model_validate_json(text)
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror or error}; {_REMEDY}") from error
    except ValidationError as error:
        raise SettingsError(
            f"{path} is no panel of this version: {complaint(error, Panel)}; {_REMEDY}, or mend it"
        ) from error
