"""Whether a panel fits an image, by the names of the channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_nucleus_kd.channels import distinct_names, name_key
from napari_nucleus_kd.config import OF_NUCLEAR_CHANNELS
from napari_nucleus_kd.errors import SettingsError
from napari_nucleus_kd.panel._markers import is_default_name
from napari_nucleus_kd.panel._panel import Panel, Role
from napari_nucleus_kd.panel._pixels import fault, sample_channel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_nucleus_kd.types import Image

_MOST_NAMED = 6


def by_name(image: Image, channels: Sequence[int | str]) -> tuple[int | str, ...]:
    """Return channels by name, where a name is their own and says more than a number, else by number."""
    names = [channel.name for channel in image.channels]
    keys = [name_key(name) for name in names]

    def called(channel: int | str) -> int | str:
        if isinstance(channel, str) or not names[channel].strip() or is_default_name(names[channel]):
            return channel
        return names[channel] if keys.count(keys[channel]) == 1 else channel

    return tuple(called(channel) for channel in channels)


@dataclass(frozen=True, slots=True)
class Differences:
    """How the channels of an image differ from those of a panel; empty if they are the same.

    Attributes
    ----------
    missing : names in the panel that the image lacks.
    renamed : (name in the panel, name in the image) of channels in the same place, each of which the other
        side lacks: perhaps the same channel.
    reordered : (name, place in the panel, place in the image), counted from 1, of channels in another order.
    additional : names in the image that the panel lacks.
    """

    missing: tuple[str, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()
    reordered: tuple[tuple[str, int, int], ...] = ()
    additional: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.missing or self.renamed or self.reordered or self.additional)

    @property
    def fits(self) -> bool:
        """True if every channel of the panel is there by its name."""
        return not (self.missing or self.renamed)

    def words(self) -> tuple[str, ...]:
        """Say each kind of difference in a sentence."""
        renamed = [f"“{old}” is perhaps “{new}” here" for old, new in self.renamed]
        reordered = [
            f"“{name}” (no. {was} in the panel, no. {now} here)" for name, was, now in self.reordered
        ]
        kinds = (
            ("Missing", [f"“{name}”" for name in self.missing]),
            ("Renamed", renamed),
            ("In another order", reordered),
            ("Not in the panel", [f"“{name}”" for name in self.additional]),
        )
        return tuple(f"{kind}: {_listed(found)}." for kind, found in kinds if found)


def image_names(image: Image) -> tuple[str, ...]:
    """Return the names of an image's channels, each unlike the others: repeated ones are numbered.

    >>> from napari_nucleus_kd.types import Channel, Image
    >>> image_names(Image((), (Channel("DAPI"), Channel("dapi "), Channel(""))))
    ('DAPI', 'dapi (2)', 'channel 3')
    """
    return tuple(distinct_names([channel.name for channel in image.channels]))


def check_panel(panel: Panel, image: Image) -> Differences:
    """Compare the channels of a panel with those of an image, by name."""
    names = image_names(image)
    ours = [name_key(name) for name in panel.names]
    theirs = [name_key(name) for name in names]
    lacking = [i for i, key in enumerate(ours) if key not in theirs]
    new = [i for i, key in enumerate(theirs) if key not in ours]
    renamed = [i for i in lacking if i in new]
    common = [key for key in ours if key in theirs]
    common_there = [key for key in theirs if key in ours]
    moved = [key for key, other in zip(common, common_there, strict=True) if key != other]
    return Differences(
        missing=tuple(panel.names[i] for i in lacking if i not in renamed),
        renamed=tuple((panel.names[i], names[i]) for i in renamed),
        reordered=tuple(
            (panel.names[ours.index(key)], ours.index(key) + 1, theirs.index(key) + 1) for key in moved
        ),
        additional=tuple(names[i] for i in new if i not in renamed),
    )


def taken_over(panel: Panel, into: Panel) -> Panel:
    """Return `into` with role, colour and percentiles of the channels that `panel` has by the same name.

    What else is nuclear in `into` is not any more, unless `panel` says nothing of any nuclear channel.
    """
    known = {name_key(channel.name): channel for channel in panel.channels}
    rows = [known.get(name_key(channel.name), channel) for channel in into.channels]
    if any(row.role is Role.NUCLEAR for row in rows if name_key(row.name) in known):
        rows = [
            row.model_copy(update={"role": Role.OTHER})
            if row.role is Role.NUCLEAR and name_key(row.name) not in known
            else row
            for row in rows
        ]
    named = [row.model_copy(update={"name": name}) for row, name in zip(rows, into.names, strict=True)]
    return Panel(channels=tuple(named))


def apply_panel(panel: Panel, image: Image, name: str = "the panel", mapping: str = "nuclear") -> Panel:
    """Return the panel in the order of an image's channels; those that it does not name are ignored.

    Of the pixels, only a sample of the nuclear channels is read.

    Parameters
    ----------
    name : of the panel, for messages.
    mapping : see Panel.settings.

    Raises
    ------
    SettingsError if a channel of the panel is missing or has another name, none is nuclear though the mapping
        needs one, or the nuclear ones show nothing; or if the image is a colour picture.
    """
    if image.rgb:
        raise SettingsError(
            f"{image.name} is a colour picture, which has no panel; leave the panel out for it"
        )
    panel.settings(mapping)  # which refuses one without nuclear channels
    differences = check_panel(panel, image)
    if not differences.fits:
        raise SettingsError(
            f"{name} does not fit {image.name}. {' '.join(differences.words())} "
            "Correct the names in the panel, or take one that was made for such images"
        )
    fitted = taken_over(panel, Panel.unnamed(image_names(image)))
    if mapping in OF_NUCLEAR_CHANNELS:
        _check_nuclear(fitted, image)
    return fitted


def _check_nuclear(panel: Panel, image: Image) -> None:
    """Raise SettingsError if none of the nuclear channels shows anything."""
    faults = [fault(sample_channel(image, index).values) for index in panel.nuclear]
    if all(faults):
        said = "; ".join(f"“{panel.names[i]}”: {why}" for i, why in zip(panel.nuclear, faults, strict=True))
        raise SettingsError(f"the nuclear channels of {image.name} show nothing ({said}); choose another one")


def _listed(found: list[str]) -> str:
    left = len(found) - _MOST_NAMED
    return ", ".join(found[:_MOST_NAMED]) + (f" and {left} more" if left > 0 else "")
