"""Suggest the role of every channel, from its name and a sample of its pixels; a person has the last word."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_nucleus_kd.errors import SettingsError
from napari_nucleus_kd.panel._fit import image_names
from napari_nucleus_kd.panel._markers import is_default_name, roles_by_name
from napari_nucleus_kd.panel._panel import Panel, PanelChannel, Role
from napari_nucleus_kd.panel._pixels import block_places, fault, nuclear_cover, sample_channel, structure
from napari_nucleus_kd.types import Progress, Region, finish

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence

    import numpy.typing as npt

    from napari_nucleus_kd.panel._pixels import Sample
    from napari_nucleus_kd.types import FloatArray, Image

# Okabe and Ito's colours, safe for the colour-blind, for channels whose file names none.
CHANNEL_COLORS = ("#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#f0e442", "#d55e00", "#0072b2", "#ffffff")
_HEX = re.compile("#[0-9a-f]{6}", re.IGNORECASE)
_COVERED, _OF_BRIGHT = 0.02, 0.5  # least cover by spots like nuclei, of the picture and of what is bright
_NEARLY = 0.8  # of the best cover: worth a second look
_PLANES, _ALIKE = 5, 0.85  # so many channels without names whose neighbours correlate so well
_THIN = 20_000  # pixels a channel that are compared


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A suggested panel.

    Attributes
    ----------
    panel : a role, colour and contrast for every channel of the image.
    reasons : why, one for each channel.
    notes : what a person should look at, and whether the channels are planes.
    question : where the pixels alone say which channel is nuclear, for a person to confirm; else "".
    place : a block of the image in which most channels show something, in full-resolution pixels.
    """

    panel: Panel
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    question: str
    place: Region


@dataclass(frozen=True, slots=True)
class _Look:
    """What a sample of one channel said."""

    fault: str
    lowest: float
    structure: FloatArray
    thin: FloatArray
    cover: tuple[float, float]


def channel_color(image: Image, index: int) -> str:
    """Return the file's colour of a channel, else white alone or one safe for the colour-blind."""
    color = image.channels[index].color
    if color is not None:
        return color
    return "#ffffff" if len(image.channels) == 1 else CHANNEL_COLORS[index % len(CHANNEL_COLORS)]


def has_own_names(names: Sequence[str]) -> bool:
    """Tell whether most names say more than a number: only such a panel can be known again."""
    return sum(not is_default_name(name) for name in names) > len(names) / 2


def suggest_panel(image: Image) -> Suggestion:
    """Suggest a panel for an image; see suggest_steps."""
    return finish(suggest_steps(image))


def suggest_steps(image: Image) -> Generator[Progress, None, Suggestion]:
    """Suggest the role of every channel, each with its reason.

    Names come first: a list of common markers. A channel whose sampled pixels are constant, saturated or no
    numbers is ignored. Where no name is a nuclear stain's, that channel is taken whose picture is covered
    most by filled, oval spots of the size of nuclei; the reason then says so. Of each channel up to 16
    blocks of 256 x 256 pixels are read, and the coarsest level of a pyramid.

    Raises
    ------
    SettingsError if the image is a colour picture.
    """
    if image.rgb:
        raise SettingsError(f"{image.name} is a colour picture: it has no channels to give roles to")
    names = image_names(image)
    told = roles_by_name(names)
    if len(names) == 1:
        told = [(Role.NUCLEAR, "the only channel")]
    judged = not any(known is not None and known[0] is Role.NUCLEAR for known in told)
    looks: list[_Look] = []
    for index in range(len(names)):
        yield Progress(index, len(names), f"looking at channel {index + 1} of {len(names)}")
        sample = sample_channel(image, index)
        looks.append(_look(sample, image.pixel_size_um, judge=judged and told[index] is None))
    planes = planes_question(names, [look.thin for look in looks])
    notes = [*_repeated(image), *_faults(names, looks), *([planes] if planes else [])]
    best = None if planes or not judged else _most_nuclear(looks)
    rows, reasons = [], []
    for index, name in enumerate(names):
        role, reason = _role(told[index], looks[index], chosen=index == best, planes=bool(planes))
        if len(names) == 1:
            role = Role.NUCLEAR  # there is no other to take
        rows.append(PanelChannel(name=name, role=role, color=_hex_color(image, index)))
        reasons.append(reason)
    panel = Panel(channels=tuple(rows))
    if not panel.nuclear:
        notes.append("No channel looks nuclear: give one the role nuclear.")
    question = "" if best is None else _question(names, looks, best)
    place = block_places(image.shape_yx)[int(np.argmax(sum(look.structure for look in looks)))]
    return Suggestion(panel, tuple(reasons), tuple(notes), question, place)


def _look(sample: Sample, pixel_size_um: float | None, *, judge: bool) -> _Look:
    values, why = sample.values, fault(sample.values)
    thin = sample.blocks.ravel()[:: max(1, sample.blocks.size // _THIN)][:_THIN]
    finite = values[np.isfinite(values)]
    return _Look(
        fault=why,
        lowest=float(finite.min(initial=0)),
        structure=structure(sample.blocks),
        thin=np.nan_to_num(thin.astype(np.float32), posinf=0, neginf=0),
        cover=nuclear_cover(sample.blocks, pixel_size_um) if judge and not why else (0.0, 0.0),
    )


def _role(told: tuple[Role, str] | None, look: _Look, *, chosen: bool, planes: bool) -> tuple[Role, str]:
    """Return role and reason of one channel."""
    if look.fault:
        return Role.IGNORE, look.fault
    if told is not None:
        return told
    if planes:
        return Role.OTHER, "the name says nothing, and it may be a plane of a stack"
    if chosen:
        covered = f"filled, oval spots of the size of nuclei cover {100 * look.cover[0]:.0f}% of its picture"
        return Role.NUCLEAR, f"judged by the pixels, as no name is a nuclear stain's: {covered}; check it"
    return Role.OTHER, "the name is not known"


def _most_nuclear(looks: Sequence[_Look]) -> int | None:
    covers = [cover if share >= _OF_BRIGHT else 0.0 for cover, share in (look.cover for look in looks)]
    best = int(np.argmax(covers))
    return best if covers[best] >= _COVERED else None


def _hex_color(image: Image, index: int) -> str:
    color = channel_color(image, index)
    return color if _HEX.fullmatch(color) else CHANNEL_COLORS[index % len(CHANNEL_COLORS)]


def _repeated(image: Image) -> tuple[str, ...]:
    given = [channel.name.strip() for channel in image.channels]
    notes = []
    if "" in given:
        notes.append("Some channels have no name; the panel numbers them.")
    changed = [n for n, g in zip(image_names(image), given, strict=True) if g and n != g]
    if changed:
        notes.append(f"Names are there more than once; the panel tells them apart: {', '.join(changed)}.")
    return tuple(notes)


def _faults(names: Sequence[str], looks: Sequence[_Look]) -> tuple[str, ...]:
    notes = [f"{name}: {look.fault}." for name, look in zip(names, looks, strict=True) if look.fault]
    below = [name for name, look in zip(names, looks, strict=True) if look.lowest < 0 and not look.fault]
    if below:
        notes.append(
            f"Negative values in {', '.join(below)}: was a background taken off? They are used as they are."
        )
    return tuple(notes)


def _question(names: Sequence[str], looks: Sequence[_Look], best: int) -> str:
    """Ask whether the channel judged by its pixels is the nuclear one, and name those nearly as likely."""
    least = _NEARLY * looks[best].cover[0]
    rivals = [
        name
        for index, (name, look) in enumerate(zip(names, looks, strict=True))
        if index != best and look.cover[0] >= least and look.cover[1] >= _OF_BRIGHT
    ]
    nearly = f" Nearly as likely: {', '.join(rivals)}." if rivals else ""
    return f"Is {names[best]} the nuclear channel? Only its pixels say so.{nearly}"


def planes_question(names: Sequence[str], values: Iterable[npt.NDArray[Any]]) -> str:
    """Ask whether channels are planes of a stack: many, without names, and neighbours nearly the same.

    Parameters
    ----------
    values : some of each channel, (N,) each, of the same places.

    Returns
    -------
    The question, or "" where there is none to ask.
    """
    if len(names) < _PLANES or not all(is_default_name(name) for name in names):
        return ""
    alike = [_correlation(one, other) for one, other in pairwise(values)]
    if np.median(alike) < _ALIKE:
        return ""
    return (
        f"Are these z planes or time points? The {len(names)} channels have no names, and neighbours are "
        f"nearly the same (correlation {np.median(alike):.2f}). If so, open one plane (--z), or save the "
        "file with its axes named."
    )


def _correlation(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    if one.std() == 0 or other.std() == 0:
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])
