"""Pairs images with their label images by their names, or says what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari_nucleus_kd.errors import ReadError
from napari_nucleus_kd.faults import shown
from napari_nucleus_kd.io import image_suffix, label_groups

if TYPE_CHECKING:
    from collections.abc import Sequence

_IMAGE_FOLDERS = ("images", "image", "imgs", "img")
_LABEL_FOLDERS = ("labels", "label", "masks", "mask", "gt")
_LABEL_ENDINGS = ("_cp_masks", "_labels", "_label", "_masks", "_mask", "_gt")  # the longer ones first
ENHANCED, RECORD = "_enhanced.ome.tif", "_enhancement_run.json"  # what enhance writes of an image
_CELLPOSE = "_seg.npy"  # how the name of what Cellpose keeps for itself ends


def find_pairs(folder: Path) -> list[tuple[Path, Path]]:
    """Pair the images of a folder with their label images.

    Either `images/` and `labels/` (or `masks/`) hold files of the same names, or a label image lies
    beside its image and its name ends in _labels, _label, _masks, _mask, _gt or _cp_masks (Cellpose), or
    an OME-Zarr image holds its labels itself. The folder may be such an OME-Zarr image.

    Raises
    ------
    ReadError : the folder cannot be read or holds no image, or an image or label image is alone, or an
        image has several label images.
    """
    pictures, marks = _found(folder)
    for stem, path in pictures.items():
        if inside := label_groups(path):
            also = [marks[stem].name] if stem in marks else []
            if len(inside) + len(also) > 1:
                raise ReadError(
                    f"{shown(path)}: has several labels, {', '.join([*inside, *also])}; list the images in a "
                    f"CSV index, with one for each in the column labels, as {path.name}/labels/{inside[0]}"
                )
            marks[stem] = path / "labels" / inside[0]
    if not pictures and not marks:
        raise ReadError(
            f"{shown(folder)}: no image in it; it needs images/ and labels/, or NAME.tif and NAME_labels.tif"
        )
    if pictures.keys() != marks.keys():
        raise ReadError(
            _half_of_a_pair(folder) or _cellpose(folder, pictures, marks) or _alone(folder, pictures, marks)
        )
    return [(pictures[stem], marks[stem]) for stem in sorted(pictures)]


def _alone(folder: Path, pictures: dict[str, Path], marks: dict[str, Path]) -> str:
    """Say which images have no label image, and the other way round."""
    alone = [f"{path.name} has no label image" for stem, path in pictures.items() if stem not in marks]
    alone += [f"{path.name} has no image" for stem, path in marks.items() if stem not in pictures]
    more = f", and {len(alone) - 5} more" if len(alone) > 5 else ""
    return f"{shown(folder)}: {'; '.join(alone[:5])}{more}. Add what is missing, or take the others away."


def _half_of_a_pair(folder: Path) -> str:
    """Say which folder was meant by the images/ or labels/ in it; "" if the other one is not beside it."""
    place = folder.resolve()
    if place.name.lower() not in (*_IMAGE_FOLDERS, *_LABEL_FOLDERS):
        return ""
    others = _LABEL_FOLDERS if place.name.lower() in _IMAGE_FOLDERS else _IMAGE_FOLDERS
    beside = next((path.name for path in _entries(place.parent) if path.name.lower() in others), None)
    if beside is None:
        return ""
    both = shown(place.parent)
    return f"{shown(folder)} is one half of a pair, {beside}/ lies beside it; did you mean {both}?"


def _cellpose(folder: Path, pictures: dict[str, Path], marks: dict[str, Path]) -> str:
    """Say what to do with files of Cellpose that stand in for label images; "" if there are none."""
    places = {path.parent for path in pictures.values()}
    places |= {path for path in _entries(folder) if path.name.lower() in _LABEL_FOLDERS}
    found = [
        place / f"{stem}{_CELLPOSE}"
        for stem in pictures.keys() - marks.keys()
        for place in places
        if (place / f"{stem}{_CELLPOSE}").is_file()
    ]
    if not found:
        return ""
    first = min(found)
    return (
        f"{shown(first)} is Cellpose's own file ({len(found)} such). It may hold programs and is not read: "
        "in Cellpose choose 'Save masks as PNG/tif', which writes "
        f"{first.name.removesuffix(_CELLPOSE)}_cp_masks beside it"
    )


def _found(folder: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """Return images, and label images in files of their own, by the stem of the image."""
    if image_suffix(folder).endswith(".zarr"):
        return {stem_of(folder): folder}, {}
    inside = {path.name.lower(): path for path in _entries(folder)}
    images = next((inside[name] for name in _IMAGE_FOLDERS if name in inside), None)
    labels = next((inside[name] for name in _LABEL_FOLDERS if name in inside), None)
    if images is not None:
        pictures = by_stem(images)
        if labels is None and not any(label_groups(path) for path in pictures.values()):
            raise ReadError(
                _cellpose(folder, pictures, {})
                or f"{shown(folder)}: has {images.name}/, but no labels/ (or masks/) beside it"
            )
        found = {} if labels is None else by_stem(labels)
        marked = [(stem if stem in pictures else without_ending(stem), path) for stem, path in found.items()]
    else:
        found = by_stem(folder)
        marked = [
            (without_ending(stem), path) for stem, path in found.items() if without_ending(stem) != stem
        ]
        pictures = {stem: path for stem, path in found.items() if without_ending(stem) == stem}
    marks: dict[str, Path] = {}
    for stem, path in marked:
        if stem in marks:
            raise ReadError(
                f"{shown(folder)}: {marks[stem].name} and {path.name} are labels of one image; keep one"
            )
        marks[stem] = path
    return pictures, marks


def by_stem(folder: Path) -> dict[str, Path]:
    """Return the images of a folder by their names without suffix; see without_enhanced."""
    found: dict[str, Path] = {}
    for path in without_enhanced(_entries(folder)):
        stem = stem_of(path)
        if stem != path.name and not path.name.startswith("."):
            if stem in found:
                raise ReadError(
                    f"{shown(folder)}: {found[stem].name} and {path.name} have one name; rename one"
                )
            found[stem] = path
    return found


def without_enhanced(paths: Sequence[Path]) -> list[Path]:
    """Return files without the enhanced pictures of those among them, which are no images of their own."""
    stems = [path.with_name(stem_of(path)) for path in paths if image_suffix(path)]
    drawn = {Path(f"{stem}{ENHANCED}") for stem in stems if Path(f"{stem}{RECORD}").exists()}
    return [path for path in paths if path not in drawn]


def stem_of(path: Path) -> str:
    """Return the name of an image without its suffix; the whole name of what is no image."""
    return path.name[: len(path.name) - len(image_suffix(path))]


def without_ending(stem: str) -> str:
    """Return the name that a label image shares with its image; of an image, its own."""
    ending = next((e for e in _LABEL_ENDINGS if stem.lower().endswith(e)), "")
    return stem[: len(stem) - len(ending)]


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError as error:
        raise ReadError(f"there is no folder {folder}; check its name") from error
    except OSError as error:
        raise ReadError(f"{folder} cannot be read: {error.strerror or error}") from error
