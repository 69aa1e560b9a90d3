"""Makes an index of a folder of images and label images: pairs them and splits them honestly."""

from __future__ import annotations

import csv
import os
import re
from io import StringIO
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from napari_nucleus_kd.errors import ReadError
from napari_nucleus_kd.index import COLUMNS, Row, read_index, splits_in
from napari_nucleus_kd.io import IMAGE_SUFFIXES, read
from napari_nucleus_kd.io.atomic import write_text
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
_ALIKE = 0.9  # correlation of thumbnails from which two images show the same place
# What a tile's name adds to that of its image: x12_y7, tile_3, r0-c4, 1024_2048.
_TILE = re.compile(
    r"[ ._-]*(?:(?:tile|crop|patch|part|x|y|z|t|r|c|row|col)[ _-]?\d+|\d+[_-]\d+)$", re.IGNORECASE
)


def find_pairs(folder: Path) -> list[tuple[Path, Path]]:
    """Pair the images of a folder with their label images.

    Either `images/` and `labels/` (or `masks/`) hold files of the same names, or a label image lies
    beside its image and its name ends in _labels, _label, _masks, _mask or _gt.

    Raises
    ------
    ReadError : the folder cannot be read or holds no image, or an image or label image is alone.
    """
    try:
        inside = {path.name.lower(): path for path in sorted(folder.iterdir())}
    except OSError as error:
        raise ReadError(f"{folder} cannot be read: {error.strerror or error}") from error
    images = next((inside[name] for name in _IMAGE_FOLDERS if name in inside), None)
    labels = next((inside[name] for name in _LABEL_FOLDERS if name in inside), None)
    if images is not None and labels is None:
        raise ReadError(f"{folder}: has {images.name}/, but no labels/ (or masks/) beside it")
    if images is not None and labels is not None:
        pictures, marks = _by_stem(images), _by_stem(labels)
        marks = {
            _without_ending(stem) if stem not in pictures else stem: path for stem, path in marks.items()
        }
    else:
        found = _by_stem(folder)
        marks = {_without_ending(stem): path for stem, path in found.items() if _without_ending(stem) != stem}
        pictures = {stem: path for stem, path in found.items() if _without_ending(stem) == stem}
    alone = [f"{pictures[stem].name} has no label image" for stem in pictures if stem not in marks]
    alone += [f"{marks[stem].name} has no image" for stem in marks if stem not in pictures]
    if not pictures and not marks:
        raise ReadError(
            f"{folder}: no image in it; it needs images/ and labels/, or NAME.tif and NAME_labels.tif"
        )
    if alone:
        more = f", and {len(alone) - 5} more" if len(alone) > 5 else ""
        raise ReadError(
            f"{folder}: {'; '.join(alone[:5])}{more}. Add what is missing, or take the others away."
        )
    return [(pictures[stem], marks[stem]) for stem in sorted(pictures)]


def index_steps(folder: Path, index: Path, *, seed: int = 0) -> Generator[Progress, None, Path]:
    """Write the CSV index of a folder of pairs, with modality and split of each image.

    Tiles of one image (by their names) and images that show the same place (by their pixels) stay on one
    side of the split. With fewer than three groups of images nothing can be held out: all are "train" and
    "tune", and none is "val".

    Parameters
    ----------
    index : the CSV to write; its paths are relative to it.

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
    splits = _splits(_groups([path for path, _ in pairs], np.stack(thumbs)), seed)
    text = StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for (picture, labels), modality, split in zip(pairs, modalities, splits, strict=True):
        places = (os.path.relpath(path, index.parent) for path in (picture, labels))
        start = (*places, modality, folder.resolve().name)
        writer.writerows([(*start, name) for name in split])
    write_text(index, text.getvalue())
    return index


def unlabelled_steps(index: Path, folder: Path, combined: Path) -> Generator[Progress, None, Path]:
    """Write an index of what another one lists and of the images in a folder, which nobody annotated.

    Parameters
    ----------
    folder : images; label images are left out.
    combined : the CSV to write.

    Raises
    ------
    ReadError, WriteError
    """
    found = {stem: path for stem, path in _by_stem(folder).items() if _without_ending(stem) == stem}
    if not found:
        raise ReadError(f"{folder}: no image in it")
    text = StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((*COLUMNS, "valid"))
    for split in sorted(splits_in(index)):
        for row in read_index(index, split):
            files = (row.image, row.labels, row.valid)
            image, labels, valid = ("" if f is None else os.path.relpath(f, combined.parent) for f in files)
            writer.writerow((image, labels, row.modality.value, row.source, split, valid))
    for done, path in enumerate(found.values(), 1):
        modality, source = suggest_modality(read(path))[0].value, folder.resolve().name
        writer.writerow((os.path.relpath(path, combined.parent), "", modality, source, "train", ""))
        yield Progress(done, len(found), f"looking at {path.name}")
    write_text(combined, text.getvalue())
    return combined


def _by_stem(folder: Path) -> dict[str, Path]:
    """Return the images of a folder by their names without suffix."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        suffix = max((s for s in IMAGE_SUFFIXES if path.name.lower().endswith(s)), key=len, default="")
        if suffix and not path.name.startswith("."):
            stem = path.name[: -len(suffix)]
            if stem in found:
                raise ReadError(f"{folder}: {found[stem].name} and {path.name} have one name; rename one")
            found[stem] = path
    return found


def _without_ending(stem: str) -> str:
    ending = next((e for e in _LABEL_ENDINGS if stem.lower().endswith(e)), "")
    return stem[: len(stem) - len(ending)]


def _thumbnail(image: Image) -> npt.NDArray[np.float64]:
    """Return a small grey picture of zero mean and unit length, (N,); zeros of an even image."""
    from skimage.transform import resize

    grey = np.asarray(image.levels[-1], np.float64).mean(axis=0)
    small = resize(grey, (_THUMB_PX, _THUMB_PX), anti_aliasing=True).ravel()
    small = np.nan_to_num(small) - np.nan_to_num(small).mean()
    length = float(np.linalg.norm(small))
    scaled: npt.NDArray[np.float64] = small / length if length else small
    return scaled


def _groups(paths: Sequence[Path], thumbs: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
    """Return the number of the group of each image; images of one group must not be parted."""
    names = []
    for path in paths:
        name = path.name.split(".")[0]
        while (shorter := _TILE.sub("", name)) and shorter != name:
            name = shorter
        names.append(name)
    same = np.array(names)[:, None] == np.array(names)
    _, group = sparse.csgraph.connected_components(same | (thumbs @ thumbs.T > _ALIKE), directed=False)
    numbers: npt.NDArray[np.int32] = group
    return numbers


def _splits(groups: npt.NDArray[np.int32], seed: int) -> list[tuple[str, ...]]:
    """Return the splits of each image."""
    left = list(np.random.default_rng(seed).permutation(int(groups.max()) + 1))
    if len(left) < 3:
        return [("train", "tune")] * len(groups)
    split = np.full(len(groups), "train", dtype=object)
    for needed, (name, share) in zip((2, 1), _HELD_OUT.items(), strict=True):  # groups that must be left
        while len(left) > needed and (split == name).sum() < share * len(groups):
            split[groups == left.pop()] = name
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
