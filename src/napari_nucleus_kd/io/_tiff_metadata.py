"""Channel names, colours and pixel size from the dialects of TIFF."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from napari_nucleus_kd.io._choice import um_per_unit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CREDIBLE_UM = (0.02, 5.0)  # 72 dpi is 353 um, a 4800 dpi flatbed scanner 5.3 um
_UM_PER_CENTIMETRE = 10000.0
_UM_PER_RESOLUTION_UNIT = {2: 25400.0, 3: _UM_PER_CENTIMETRE}  # inch, centimetre
Sizes = tuple[float | None, float | None]


@dataclass(frozen=True)
class Words:
    """What a file says of its channels and its pixel size; empty where it says nothing."""

    names: Sequence[str | None] = ()
    colors: Sequence[str | None] = ()
    size_um: Sizes = (None, None)  # x, y
    notes: Sequence[str] = ()


def describe(tif: Any, series: Any, number: int, count: int) -> Words:
    """Collect the words of one series with `count` channels."""
    if tif.is_ome and tif.ome_metadata:
        return _from_ome(tif, series, number, count)
    if tif.is_imagej and tif.imagej_metadata:
        return _from_imagej(tif, series, count)
    if series.kind in _BY_KIND:
        return _BY_KIND[series.kind](tif, series, number)
    if tif.is_micromanager and tif.micromanager_metadata:
        return _from_micromanager(tif)
    size, notes = credible_size(*_tag_sizes(series.keyframe), "the TIFF's resolution tags")
    return Words(_page_names(series), [], size, notes)


def credible_size(x_um: float | None, y_um: float | None, origin: str) -> tuple[Sizes, list[str]]:
    """Take a printing resolution as pixel size only where it can be a microscope's; says so."""
    low, high = CREDIBLE_UM
    if x_um is None or y_um is None or not (low <= x_um <= high and low <= y_um <= high):
        return (None, None), []
    return (x_um, y_um), [f"pixel size {x_um:.4g} um is from {origin}, which some programs set at random"]


def _tag_sizes(page: Any) -> Sizes:
    """Edges in um by the XResolution, YResolution and ResolutionUnit tags."""
    unit = _finite(page.tags.valueof("ResolutionUnit", default=2))
    scale = None if unit is None else _UM_PER_RESOLUTION_UNIT.get(int(unit))
    x, y = (_per_unit(page, f"{axis}Resolution") for axis in "XY")
    if scale is None or not x or not y:
        return None, None
    return scale / x, scale / y


def _per_unit(page: Any, tag: str) -> float | None:
    value = page.tags.valueof(tag)
    try:
        return float(value[0] / value[1])
    except (TypeError, ZeroDivisionError, IndexError):
        return None


def _page_names(series: Any) -> list[str | None]:
    """Return names by the PageName tag, where each page has its own."""
    pages = [p for p in series.pages if p is not None][:64]
    names = [p.tags.valueof("PageName") if hasattr(p, "tags") else None for p in pages]
    usable = all(isinstance(n, str) and n.strip() for n in names) and len(set(names)) == len(names)
    return names if usable else []


def _from_ome(tif: Any, series: Any, number: int, count: int) -> Words:
    try:
        root = ElementTree.fromstring(tif.ome_metadata)
    except ElementTree.ParseError:
        return Words(notes=["the OME description is damaged: channel names and pixel size are not known"])
    images = root.findall("{*}Image")
    named = [i for i in images if i.get("Name") == series.name]
    if len(images) == len(tif.series):
        named = [images[number]]
    pixels = named[0].find("{*}Pixels") if len(named) == 1 else None
    if pixels is None:
        return Words(notes=["the OME description does not name this image's channels and pixel size"])
    names: list[str | None] = []
    colors: list[str | None] = []
    notes: list[str] = []
    for channel in pixels.findall("{*}Channel")[:count]:
        repeat = _samples(channel, count, notes)
        color = _number(channel, "Color", notes)
        names += [channel.get("Name") or channel.get("Fluor")] * repeat
        colors += [None if color is None else _ome_color(int(color))] * repeat
    sizes = _ome_size(pixels, "X", notes), _ome_size(pixels, "Y", notes)
    return Words(names[:count], colors[:count], sizes, list(dict.fromkeys(notes)))


def _samples(channel: Any, count: int, notes: list[str]) -> int:
    """Return how many of the `count` channels one of OME's is; a damaged file may claim billions."""
    said = _number(channel, "SamplesPerPixel", notes)
    if said is None or 1 <= said <= count + 1:  # one more: alpha, which was left out
        return int(said or 1)
    notes.append(f"SamplesPerPixel in the OME description is {said:g} of {count} channels: ignored")
    return 1


def _number(element: Any, key: str, notes: list[str]) -> float | None:
    """Return a number that the OME description gives; adds a note and returns None if it is none."""
    text = element.get(key)
    if text is None:
        return None
    value = _finite(text)
    if value is None:
        notes.append(f"{key} in the OME description is no number ({text[:40]!r}): ignored")
    return value


def _finite(value: Any) -> float | None:
    """Return what a file gives as a number, None if it is none."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _ome_size(pixels: Any, axis: str, notes: list[str]) -> float | None:
    value = _number(pixels, f"PhysicalSize{axis}", notes)
    scale = um_per_unit(pixels.get(f"PhysicalSize{axis}Unit", "um"))
    return value * scale if value and scale else None


def _ome_color(value: int) -> str:
    """Return "#rrggbb" of OME's signed 32-bit RGBA."""
    return f"#{(value & 0xFFFFFFFF) >> 8:06x}"


def _from_imagej(tif: Any, series: Any, count: int) -> Words:
    data = tif.imagej_metadata
    unit = f"{data.get('unit', '')}"
    scale = um_per_unit(unit)
    x, y = (_per_unit(series.keyframe, f"{axis}Resolution") for axis in "XY")
    size: Sizes = (None, None)
    notes: list[str] = []
    if scale and x and y:
        size = (scale / x, scale / y)
        if scale >= _UM_PER_CENTIMETRE:  # ImageJ turns printing resolutions into scales in cm or inch
            size, notes = credible_size(*size, f"ImageJ's scale in {unit}")
    said = data.get("Labels") or []
    labels = [said] if isinstance(said, str) else list(said)
    colors = [_hex(lut[:, -1]) for lut in data.get("LUTs") or []]
    return Words(labels if len(labels) == count else [], colors if len(colors) == count else [], size, notes)


def _hex(rgb: Any) -> str:
    red, green, blue = (int(v) & 0xFF for v in list(rgb)[:3])
    return f"#{red:02x}{green:02x}{blue:02x}"


def _from_qpi(tif: Any, series: Any, number: int) -> Words:
    """Return what the XML of each QPTIFF page says; the resolution tags are the scanner's own."""
    names: list[str | None] = []
    colors: list[str | None] = []
    notes: list[str] = []
    for page in series.pages:
        try:
            root = ElementTree.fromstring(page.description)
        except ElementTree.ParseError:
            names, colors, notes = [], [], ["the QPTIFF description is damaged: channel names are not known"]
            break
        name, marker, color = (root.findtext(key) for key in ("Name", "Biomarker", "Color"))
        names.append(f"{marker} ({name})" if marker and name and marker != name else marker or name)
        digits = re.findall(r"\d+", color or "")
        colors.append(_hex(digits) if len(digits) >= 3 else None)
    size = _tag_sizes(series.keyframe)
    if size[0] is None:
        size = _both(re.search(r"<PixelSizeMicrons>\s*([\d.eE+-]+)", series.keyframe.description))
    return Words(names, colors, size, notes)


def _from_svs(tif: Any, series: Any, number: int) -> Words:
    """Return the size by Aperio's MPP, which holds for the baseline (with its levels) alone."""
    if number != 0:
        return Words()
    return Words(size_um=_both(re.search(r"\bMPP\s*=\s*([\d.eE+-]+)", tif.pages[0].description)))


def _from_philips(tif: Any, series: Any, number: int) -> Words:
    found = re.search(r"DICOM_PIXEL_SPACING[^>]*>([^<]+)<", tif.philips_metadata or "")
    values = [_finite(v) for v in re.findall(r"[\d.eE+-]+", found[1])] if found else []
    if len(values) != 2 or not series.is_pyramidal:
        return Words()
    rows, columns = (v and v * 1e3 for v in values)  # mm; rows first
    return Words(size_um=(columns, rows))


def _from_bif(tif: Any, series: Any, number: int) -> Words:
    for page in tif.pages:
        packet = page.tags.valueof(700, default=b"")
        text = packet.decode(errors="replace") if isinstance(packet, bytes) else f"{packet}"
        found = re.search(r"ScanRes\s*=\s*\"([\d.]+)\"", text)
        if found:
            return Words(size_um=_both(found))
    return Words()


def _from_tags(tif: Any, series: Any, number: int) -> Words:
    """Scanners that write true resolution tags."""
    return Words(size_um=_tag_sizes(series.keyframe))


def _from_lsm(tif: Any, series: Any, number: int) -> Words:
    data = tif.lsm_metadata or {}
    colors = data.get("ChannelColors") or {}
    x, y = (_finite(data.get(f"VoxelSize{axis}")) for axis in "XY")
    return Words(
        list(colors.get("ColorNames") or []),
        [_hex(c) for c in colors.get("Colors") or []],
        (x * 1e6 if x else None, y * 1e6 if y else None),  # metres
    )


def _from_micromanager(tif: Any) -> Words:
    summary = tif.micromanager_metadata.get("Summary") or {}
    size = _finite(summary.get("PixelSize_um")) or None
    names = summary.get("ChNames") or []
    usable = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return Words(names if usable else [], [], (size, size))


def _both(found: re.Match[str] | None) -> Sizes:
    value = _finite(found[1]) if found else None
    return value, value


_BY_KIND: dict[str, Callable[[Any, Any, int], Words]] = {
    "qpi": _from_qpi,
    "svs": _from_svs,
    "ndpi": _from_tags,
    "scn": _from_tags,
    "philips": _from_philips,
    "bif": _from_bif,
    "lsm": _from_lsm,
}
