"""Makes an index of a folder of images and label images, and splits them honestly."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from napari_nucleus_kd.errors import ReadError
from napari_nucleus_kd.faults import named
from napari_nucleus_kd.index import COLUMNS, MORE_COLUMNS, SEEN_COLUMNS, Row, read_index, read_splits
from napari_nucleus_kd.io import read
from napari_nucleus_kd.io.atomic import make_folder, write_csv
from napari_nucleus_kd.modality import suggest_modality
from napari_nucleus_kd.pairs import by_stem, find_pairs, stem_of, without_ending
from napari_nucleus_kd.types import Progress

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from napari_nucleus_kd.types import Image, Modality

_HELD_OUT = {"val": 0.2, "tune": 0.1}  # share of the images, at least
_THUMB_PX = 32
_ROWS = 1024  # thumbnails that are compared with all others at once
_ALIKE = 0.9  # correlation of thumbnails from which two images show the same place
# What a tile's name adds to that of its image: _x12_y7, -tile_3, _r0-c4; bare numbers may be dates.
_TILE = re.compile(r"[ ._-]+(?:tile|crop|patch|part|row|col|x|y|z|t|r|c)[ _-]?\d+$", re.IGNORECASE)


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
    ReadError : see pairs.find_pairs and io.read. WriteError : the disk refuses.
    """
    pairs = find_pairs(folder)
    modalities, thumbs = [], []
    for done, (path, _) in enumerate(pairs, 1):
        with named(path):
            image = read(path)
            modalities.append(suggest_modality(image)[0].value)
            thumbs.append(_thumbnail(image))
        yield Progress(done, len(pairs), f"looking at {path.name}")
    splits = _splits(_groups([stem_of(path) for path, _ in pairs], np.stack(thumbs)), seed)
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
    if taught is not None and not taught.is_dir():
        raise ReadError(f"labels:{taught}: there is no such folder; give the folder of the label images")
    splits = read_splits(index)
    listed = {row.image.resolve() for rows in splits.values() for row in rows}
    found = [
        path
        for stem, path in by_stem(folder).items()
        if without_ending(stem) == stem and path.resolve() not in listed
    ]
    if not found:
        raise ReadError(f"{folder}: no image in it that is not among the annotated ones")
    if index.resolve() == combined.resolve():
        raise ReadError(f"{index} would be overwritten; choose another output folder")
    told = {} if taught is None else {without_ending(stem): file for stem, file in by_stem(taught).items()}
    if taught is not None and not any(stem_of(path) in told for path in found):
        raise ReadError(f"{taught}: no label image in it has the name of an image in {folder}")
    splits.setdefault("train", [])
    for done, path in enumerate(found, 1):
        modality, source = _modality(path), folder.resolve().name
        splits["train"].append(Row(path, None, modality, source, taught=told.get(stem_of(path))))
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


def _modality(path: Path) -> Modality:
    with named(path):
        return suggest_modality(read(path))[0]


def _place(path: Path, root: Path) -> str:
    """Return where a file is as seen from a folder; the whole path if it is on another drive."""
    try:
        return os.path.relpath(path.resolve(), root.resolve())
    except ValueError:
        return str(path.resolve())


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
    ReadError : see index.read_index and pairs.find_pairs.
    """
    if not data.is_dir():
        return read_index(data, split)
    source = data.resolve().name
    return [Row(path, labels, _modality(path), source) for path, labels in find_pairs(data)]
