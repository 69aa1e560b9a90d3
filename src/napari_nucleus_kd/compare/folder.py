"""The folder of a comparison: what another one left there is replaced only if somebody wants it."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from napari_nucleus_kd.compare.comparison import fit_for_a_folder, kept_path
from napari_nucleus_kd.errors import WriteError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from napari_nucleus_kd.compare.comparison import Case, Contestant

REPORT = ("comparison.json", "comparison.csv", "images.csv", "report.html")  # written in this order


def holds_comparison(folder: Path) -> bool:
    """Tell whether a folder holds the report of a comparison."""
    return (folder / REPORT[0]).exists()


def refuse_others(
    folder: Path, cases: Sequence[Case], contestants: Sequence[Contestant], *, overwrite: bool = False
) -> None:
    """Raise WriteError if a folder holds another comparison, or files of others called like a report's.

    More or fewer of the same images and segmenters are the same comparison, which may go on there.

    Parameters
    ----------
    overwrite : another comparison may be replaced, unless its labels are to be compared themselves.
    """
    there = [name for name in REPORT if (folder / name).exists()]
    if there and not holds_comparison(folder):
        raise WriteError(f"{folder / there[0]} is there and belongs to no comparison; choose another folder")
    if not there:
        return
    if overwrite:
        needed = [c.labels for c in contestants if c.labels is not None]
        if inside := [path for path in needed if path.resolve().is_relative_to(_labels(folder).resolve())]:
            raise WriteError(f"{inside[0]} is to be compared and would be replaced; choose another folder")
        return
    images, names = _listed(folder / REPORT[0])
    for what, before, asked in (
        ("images", images, _places(case.shown for case in cases)),
        ("segmenters", names, _names(contestant.name for contestant in contestants)),
    ):
        if not (before <= asked or asked <= before):
            raise WriteError(
                f"{folder} holds a comparison of other {what}; choose another folder, or add --overwrite to "
                "replace it"
            )


def forget_former(folder: Path) -> None:
    """Remove the report of a comparison from a folder, and what its segmenters found, but nothing else.

    Raises
    ------
    WriteError : the disk refuses.
    """
    if not holds_comparison(folder):
        return
    try:
        for outcome in sorted(_labels(folder).glob("*/*.json")):
            kept_path(folder, outcome.parent.name, outcome.stem).unlink(missing_ok=True)
            outcome.unlink()
            with suppress(OSError):  # not empty yet
                outcome.parent.rmdir()
        for name in reversed(REPORT):  # the first says whose the others are
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise WriteError(
            f"{folder}: the comparison that is there cannot be removed: {error.strerror or error}; choose "
            "another folder"
        ) from error


def _labels(folder: Path) -> Path:
    return folder / "labels"


def _listed(report: Path) -> tuple[set[Path], set[str]]:
    """Return the images and segmenters that a report tells of."""
    try:
        told = json.loads(report.read_text(encoding="utf-8"))
        return _places(told["images"]), _names(told["segmenters"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise WriteError(
            f"{report} cannot be read as that of a comparison; choose another folder, or add --overwrite to "
            "replace it"
        ) from error


def _places(images: Iterable[str]) -> set[Path]:
    return {Path(image).resolve() for image in images}


def _names(segmenters: Iterable[str]) -> set[str]:
    return {fit_for_a_folder(name).casefold() for name in segmenters}
