"""A CSV index of annotated images: what is trained on, tuned on and judged by."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_nucleus_kd.errors import LabelsError, ReadError
from napari_nucleus_kd.io import read
from napari_nucleus_kd.types import Modality

if TYPE_CHECKING:
    from pathlib import Path

    from napari_nucleus_kd.types import LabelArray

COLUMNS = ("image", "labels", "modality", "source", "split")


@dataclass(frozen=True, slots=True)
class Row:
    """One annotated image.

    Attributes
    ----------
    labels : None where nobody annotated anything: only a teacher can say something of it.
    source : the data set it comes from.
    valid : image that is not 0 where the annotation is complete; None: everywhere.
    """

    image: Path
    labels: Path | None
    modality: Modality
    source: str
    valid: Path | None = None

    @property
    def name(self) -> str:
        """File name of the image."""
        return self.image.name


def splits_in(index: Path) -> set[str]:
    """Return the splits that a CSV index has rows of.

    Raises
    ------
    ReadError : see read_index.
    """
    return {row["split"] for row in _rows(index)}


def read_index(index: Path, split: str) -> list[Row]:
    """Return the rows of one split.

    Parameters
    ----------
    index : CSV with the columns image, labels, modality, source, split, and perhaps valid; paths relative
        to the file. An image without labels has none there.
    split : for example "train", "tune" or "val".

    Raises
    ------
    ReadError : the file, a column or the split is missing, or a modality is unknown.
    """
    rows = [row for row in _rows(index) if row["split"] == split]
    if not rows:
        raise ReadError(f"{index}: no row has split {split!r}")
    known = {modality.value for modality in Modality}
    for row in rows:
        if row["modality"] not in known:
            raise ReadError(f"{index}: modality {row['modality']!r} is not one of {', '.join(sorted(known))}")
    root = index.parent
    return [
        Row(
            root / row["image"],
            root / row["labels"] if row["labels"] else None,
            Modality(row["modality"]),
            row["source"],
            root / row["valid"] if row.get("valid") else None,
        )
        for row in rows
    ]


def _rows(index: Path) -> list[dict[str, str]]:
    try:
        with index.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            missing = set(COLUMNS) - set(reader.fieldnames or ())
            if missing:
                raise ReadError(
                    f"{index}: no column {', '.join(sorted(missing))}; needs {', '.join(COLUMNS)}"
                )
            return list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ReadError(f"{index} cannot be read as a CSV index: {error}") from error


def true_labels(row: Row) -> LabelArray:
    """Read the labels of a row to judge by, (Y, X) int32.

    Raises
    ------
    ReadError : it has none, or they cannot be read.
    LabelsError : see read_labels.
    """
    if row.labels is None:
        raise ReadError(f"{row.image}: has no labels, so nothing can be judged by it; split it as train")
    return read_labels(row.labels)


def read_labels(path: Path) -> LabelArray:
    """Read instance labels from an image file, (Y, X) int32.

    Raises
    ------
    ReadError : it cannot be read.
    LabelsError : it is not a 2-D integer image.
    """
    image = read(path)
    labels = np.asarray(image.pixels)
    if len(labels) != 1 or labels.dtype.kind not in "ui":
        raise LabelsError(
            f"{path}: labels must be one plane of whole numbers, not {len(labels)} planes of {labels.dtype}"
        )
    plane: LabelArray = labels[0].astype(np.int32)
    return plane
