"""Makes an index of a folder of images and label images: pairs them and splits them honestly."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from napari_nucleus_kd.errors import ReadError
from napari_nucleus_kd.index import COLUMNS, MORE_COLUMNS, SEEN_COLUMNS, Row, read_index, read_splits
from napari_nucleus_kd.io import image_suffix, label_groups, read
from napari_nucleus_kd.io.atomic import make_folder, write_csv
from napari_nucleus_kd.modality import suggest_modality
from napari_nucleus_kd.types import Progress

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from napari_nucleus_kd.types import Image

_IMAGE_FOLDERS = ("images", "image", "imgs", "img")
_LABEL_FOLDERS = ("labels", "label", "masks", "mask", "gt")
_LABEL_ENDINGS = ("_labels", "_label", "_masks", "_mask", "_gt")
_HELD_OUT = {"val": 0.2, "tune": 0.1}  # share of the images, at least
_THUMB_PX = 32
_ROWS = 1024  # thumbnails that are compared with all others at once
_ALIKE = 0.9  # correlation of thumbnails from which two images show the same place
# What a tile's name adds to that of its image: _x12_y7, -tile_3, _r0-c4; bare numbers may be dates.
_TILE = re.compile(r"[ ._-]+(?:tile|crop|patch|part|row|col|x|y|z|t|r|c)[ _-]?\d+$", re.IGNORECASE)


def find_pairs(folder: Path) -> list[tuple[Path, Path]]:
    """Pair the images of a folder with their label images.

    Either `images/` and `labels/` (or `masks/`) hold files of the same names, or a label image lies
    beside its image and its name ends in _labels, _label, _masks, _mask or _gt, or an OME-Zarr image
    holds its labels itself. The folder may be such an OME-Zarr image.

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
                    f"{path}: has several labels, {', '.join([*inside, *also])}; list the images in a CSV "
                    f"index, with one for each in the column labels, as {path.name}/labels/{inside[0]}"
                )
            marks[stem] = path / "labels" / inside[0]
    if not pictures and not marks:
        raise ReadError(
            f"{folder}: no image in it; it needs images/ and labels/, or NAME.tif and NAME_labels.tif"
        )
    alone = [f"{pictures[stem].name} has no label image" for stem in pictures if stem not in marks]
    alone += [f"{marks[stem].name} has no image" for stem in marks if stem not in pictures]
    if alone:
        more = f", and {len(alone) - 5} more" if len(alone) > 5 else ""
        raise ReadError(
            f"{folder}: {'; '.join(alone[:5])}{more}. Add what is missing, or take the others away."
        )
    return [(pictures[stem], marks[stem]) for stem in sorted(pictures)]


def _found(folder: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """Return images, and label images in files of their own, by the stem of the image."""
    if image_suffix(folder).endswith(".zarr"):
        return {_stem(folder): folder}, {}
    inside = {path.name.lower(): path for path in _entries(folder)}
    images = next((inside[name] for name in _IMAGE_FOLDERS if name in inside), None)
    labels = next((inside[name] for name in _LABEL_FOLDERS if name in inside), None)
    if images is not None:
        pictures = _by_stem(images)
        if labels is None and not any(label_groups(path) for path in pictures.values()):
            raise ReadError(f"{folder}: has {images.name}/, but no labels/ (or masks/) beside it")
        found = {} if labels is None else _by_stem(labels)
        marked = [(stem if stem in pictures else _without_ending(stem), path) for stem, path in found.items()]
    else:
        found = _by_stem(folder)
        marked = [
            (_without_ending(stem), path) for stem, path in found.items() if _without_ending(stem) != stem
        ]
        pictures = {stem: path for stem, path in found.items() if _without_ending(stem) == stem}
    marks: dict[str, Path] = {}
    for stem, path in marked:
        if stem in marks:
            raise ReadError(f"{folder}: {marks[stem].name} and {path.name} are labels of one image; keep one")
        marks[stem] = path
    return pictures, marks


def index_steps(folder: Path, index: Path, *, seed: int = 0) -> Generator[Progress, None, Path]:
    """Write the CSV index of a folder of pairs, with modality and split of each image.

    Tiles of one image (by their names) and images that show the same place (by their pixels) stay on one
    side of the split. With fewer than three groups of images nothing can be held out: all are "train" and
    "tune", and none is "val".

    Parameters
    ----------
    index : the CSV to write, in a folder that is made if need be; its paths are relative to it.

    Yields
    ------
    Progress after each image.

    Raises
    ------
    ReadError : see find_pairs and read. WriteError : the disk refuses.
    """
    pairs = find_pairs(folder)
    modalities, thumbs = [], []
    for done, (path, _) in enumerate(pairs, 1):
        image = read(path)
        modalities.append(suggest_modality(image)[0].value)
        thumbs.append(_thumbnail(image))
        yield Progress(done, len(pairs), f"looking at {path.name}")
    splits = _splits(_groups([_stem(path) for path, _ in pairs], np.stack(thumbs)), seed)
    lines: list[tuple[str, ...]] = [COLUMNS]
    for (picture, labels), modality, split in zip(pairs, modalities, splits, strict=True):
        places = (_place(path, index.parent) for path in (picture, labels))
        start = (*places, modality, folder.resolve().name)
        lines += [(*start, name) for name in split]
    make_folder(index.parent)
    write_csv(index, lines)
    return index


def unlabelled_steps(
    index: Path, folder: Path, combined: Path, taught: Path | None = None
) -> Generator[Progress, None, Path]:
    """Write an index of what another one lists and of the images in a folder, which nobody annotated.

    Images that the other index lists already are left out: they may be there to judge by.

    Parameters
    ----------
    folder : images; label images are left out.
    combined : the CSV to write.
    taught : folder of label images that a teacher made of some of them; same names, or those endings.

    Raises
    ------
    ReadError, WriteError
    """
    splits = read_splits(index)
    listed = {row.image.resolve() for rows in splits.values() for row in rows}
    found = [
        path
        for stem, path in _by_stem(folder).items()
        if _without_ending(stem) == stem and path.resolve() not in listed
    ]
    if not found:
        raise ReadError(f"{folder}: no image in it that is not among the annotated ones")
    if index.resolve() == combined.resolve():
        raise ReadError(f"{index} would be overwritten; choose another output folder")
    told = {} if taught is None else {_without_ending(stem): file for stem, file in _by_stem(taught).items()}
    if taught is not None and not any(_stem(path) in told for path in found):
        raise ReadError(f"{taught}: no label image in it has the name of an image in {folder}")
    splits.setdefault("train", [])
    for done, path in enumerate(found, 1):
        modality, source = suggest_modality(read(path))[0], folder.resolve().name
        splits["train"].append(Row(path, None, modality, source, taught=told.get(_stem(path))))
        yield Progress(done, len(found), f"looking at {path.name}")
    lines: list[tuple[str, ...]] = [(*COLUMNS, *MORE_COLUMNS, *SEEN_COLUMNS)]
    for split, rows in splits.items():
        for row in rows:
            files = (row.image, row.labels, row.valid, row.taught)
            image, labels, *more = ("" if file is None else _place(file, combined.parent) for file in files)
            more += row.seen_cells
            lines.append((image, labels, row.modality.value, row.source, split, *more))
    make_folder(combined.parent)
    write_csv(combined, lines)
    return combined


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise ReadError(f"{folder} cannot be read: {error.strerror or error}") from error


def _place(path: Path, root: Path) -> str:
    """Return where a file is as seen from a folder; the whole path if it is on another drive."""
    try:
        return os.path.relpath(path.resolve(), root.resolve())
    except ValueError:
        return str(path.resolve())


def _by_stem(folder: Path) -> dict[str, Path]:
    """Return the images of a folder by their names without suffix."""
    found: dict[str, Path] = {}
    for path in _entries(folder):
        stem = _stem(path)
        if stem != path.name and not path.name.startswith("."):
            if stem in found:
                raise ReadError(f"{folder}: {found[stem].name} and {path.name} have one name; rename one")
            found[stem] = path
    return found


def _stem(path: Path) -> str:
    """Return the name of an image without its suffix; the whole name of what is no image."""
    return path.name[: len(path.name) - len(image_suffix(path))]


def _without_ending(stem: str) -> str:
    ending = next((e for e in _LABEL_ENDINGS if stem.lower().endswith(e)), "")
    return stem[: len(stem) - len(ending)]


def _thumbnail(image: Image) -> npt.NDArray[np.float32]:
    """Return a small grey picture without uneven light, of unit length, (N,); zeros of an even image."""
    from scipy.ndimage import gaussian_filter
    from skimage.transform import resize

    with np.errstate(over="ignore"):
        pixels = np.asarray(image.levels[-1]).astype(np.float32)
    grey = np.nan_to_num(pixels, posinf=0, neginf=0).mean(axis=0)
    small = resize(grey, (_THUMB_PX, _THUMB_PX), anti_aliasing=True)
    small = (small - gaussian_filter(small, _THUMB_PX / 6)).ravel()
    length = float(np.linalg.norm(small))
    scaled: npt.NDArray[np.float32] = (small / length if length else small).astype(np.float32)
    return scaled


def _groups(stems: Sequence[str], thumbs: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
    """Return the number of the group of each image; images of one group must not be parted."""
    first: dict[str, int] = {}
    pairs = []
    for i, stem in enumerate(stems):
        name = stem
        while (shorter := _TILE.sub("", name)) and shorter != name:
            name = shorter
        pairs.append((i, first.setdefault(name, i)))
    # All at once would need memory with the square of their number.
    for start in range(0, len(thumbs), _ROWS):
        alike = np.argwhere(thumbs[start : start + _ROWS] @ thumbs.T > _ALIKE)
        pairs += [(start + i, j) for i, j in alike.tolist()]
    rows, columns = np.array(pairs).T
    graph = sparse.coo_array((np.ones(len(rows), bool), (rows, columns)), shape=(len(stems), len(stems)))
    _, group = sparse.csgraph.connected_components(graph, directed=False)
    numbers: npt.NDArray[np.int32] = group
    return numbers


def _splits(groups: npt.NDArray[np.int32], seed: int) -> list[tuple[str, ...]]:
    """Return the splits of each image; the largest group is always trained on."""
    sizes = np.bincount(groups)
    if len(sizes) < 3:
        return [("train", "tune")] * len(groups)
    left = [int(g) for g in np.random.default_rng(seed).permutation(len(sizes)) if g != sizes.argmax()]
    split = np.full(len(groups), "train", dtype=object)
    for needed, (name, share) in zip((1, 0), _HELD_OUT.items(), strict=True):  # groups that must be left
        wanted, taken = share * len(groups), 0
        fitting = [g for g in left if sizes[g] <= wanted] or [min(left, key=lambda g: int(sizes[g]))]
        for group in fitting:
            if len(left) > needed and (not taken or taken + sizes[group] / 2 <= wanted):
                split[groups == group] = name
                left.remove(group)
                taken += int(sizes[group])
    return [(str(name),) for name in split]


def read_rows(data: Path, split: str) -> list[Row]:
    """Return the rows of one split of a CSV index, or all pairs of a folder.

    Raises
    ------
    ReadError : see index.read_index and find_pairs.
    """
    if not data.is_dir():
        return read_index(data, split)
    source = data.resolve().name
    return [Row(path, labels, suggest_modality(read(path))[0], source) for path, labels in find_pairs(data)]
