"""A CSV index of annotated images: what is trained on, tuned on and judged by."""

from __future__ import annotations

import csv
import hashlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import fastremap
import numpy as np

from napari_nucleus_kd.channels import asked_channels, choose_channels
from napari_nucleus_kd.config import OF_NUCLEAR_CHANNELS
from napari_nucleus_kd.errors import LabelsError, NucleusKDError, ReadError
from napari_nucleus_kd.faults import (
    named,
    pieces,
    refuse_background,
    refuse_channels,
    refuse_jpeg,
    refuse_pieces,
    refuse_values,
    shown,
)
from napari_nucleus_kd.io import read
from napari_nucleus_kd.metrics import known_part
from napari_nucleus_kd.types import Modality, Progress
from napari_nucleus_kd.words import count

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from napari_nucleus_kd.types import Array, Image, LabelArray

_log = logging.getLogger(__name__)
_FEW_NUCLEI = 3  # an image of as few values may be a picture
_LARGE = 1 << 20  # larger numbers would cost memory, and exactness in float32
COLUMNS = ("image", "labels", "modality", "source", "split")
MORE_COLUMNS = ("valid", "taught")  # these may be missing
SEEN_COLUMNS = ("scaling_low", "scaling_high", "diameter_px", "channel_weights")  # these, too; as in a Recipe


@dataclass(frozen=True, slots=True)
class Row:
    """One annotated image.

    Attributes
    ----------
    labels : None where nobody annotated anything: only a teacher can say something of it.
    source : the data set it comes from.
    valid : image that is not 0 where the annotation is complete; None: everywhere.
    taught : labels that no person made, but a teacher; only where there are none of a person.
    low, high : of a part of a larger image: intensities that become 0 and 1 in the whole, one for each
        channel; None: they are measured on this image.
    diameter_px : of a part of a larger image: typical diameter of the nuclei in the whole; None: measured.
    weights : of a part of a larger image: of each channel in the blend that is seen; (): the brightest.
    """

    image: Path
    labels: Path | None
    modality: Modality
    source: str
    valid: Path | None = None
    taught: Path | None = None
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None
    diameter_px: float | None = None
    weights: tuple[float, ...] = ()

    @property
    def name(self) -> str:
        """File name of the image."""
        return self.image.name

    @property
    def seen(self) -> dict[str, Any]:
        """How the image that this is a part of is seen, as settings of a Recipe; {} of a whole image."""
        known: dict[str, Any] = {} if self.diameter_px is None else {"diameter_px": self.diameter_px}
        if self.low is not None:
            channels = tuple(range(len(self.low)))
            known |= {"scaling_low": self.low, "scaling_high": self.high, "channels": channels}
            known["modality"] = self.modality
        if self.weights:
            known |= {"mapping": "blend", "channel_weights": self.weights}
        return known

    @property
    def seen_cells(self) -> tuple[str, ...]:
        """What SEEN_COLUMNS say of it in an index."""
        diameter = None if self.diameter_px is None else (self.diameter_px,)
        numbers = (self.low, self.high, diameter, self.weights)
        return tuple(" ".join(map(repr, some or ())) for some in numbers)


def read_splits(index: Path) -> dict[str, list[Row]]:
    """Return the rows of every split, the splits in alphabetical order; see read_index."""
    splits: dict[str, list[Row]] = {}
    for values in _rows(index):
        splits.setdefault(values["split"], []).append(_row(index, values))
    return dict(sorted(splits.items()))


def read_index(index: Path, split: str) -> list[Row]:
    """Return the rows of one split.

    Parameters
    ----------
    index : CSV with the columns image, labels, modality, source, split, and perhaps valid, taught and those
        of SEEN_COLUMNS (numbers, parted by spaces); paths relative to the file. An image without labels has
        none there.
    split : for example "train", "tune" or "val".

    Raises
    ------
    ReadError : the file, a column or the split is missing, a modality is unknown, or numbers make no sense.
    """
    rows = [_row(index, values) for values in _rows(index) if values["split"] == split]
    if not rows:
        raise ReadError(f"{index}: no row has split {split!r}")
    return rows


def _row(index: Path, values: dict[str, str]) -> Row:
    known = [modality.value for modality in Modality]
    if values["modality"] not in known:
        raise ReadError(f"{index}: modality {values['modality']!r} is not one of {', '.join(sorted(known))}")
    valid, taught = (_file(index, values[name]) if values.get(name) else None for name in MORE_COLUMNS)
    return Row(
        _file(index, values["image"]),
        _file(index, values["labels"]) if values["labels"] else None,
        Modality(values["modality"]),
        values["source"],
        valid,
        taught,
        *_seen(index, values),
    )


def _seen(
    index: Path, values: dict[str, str]
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None, float | None, tuple[float, ...]]:
    """Return the numbers of SEEN_COLUMNS; None where there are none."""
    try:
        low, high, diameter, weights = (
            tuple(float(text) for text in (values.get(name) or "").split()) for name in SEEN_COLUMNS
        )
    except ValueError as error:
        raise ReadError(
            f"{index}: {', '.join(SEEN_COLUMNS)} must be numbers parted by spaces: {error}"
        ) from error
    rising = len(low) == len(high) and all(-np.inf < a < b < np.inf for a, b in zip(low, high, strict=True))
    if not rising or len(diameter) > 1 or any(not 1 < d < np.inf for d in diameter):
        raise ReadError(
            f"{index}: scaling_low {low}, scaling_high {high}, diameter_px {diameter}: give one pair for "
            "each channel, low below high, and one diameter above 1 px; or leave them empty"
        )
    if weights and not (len(weights) == len(low) and min(weights) >= 0 < sum(weights) < np.inf):
        raise ReadError(
            f"{index}: channel_weights {weights}: give one for each channel that has scaling_low, none below "
            "0 and not all of them 0; or leave them empty"
        )
    return low or None, high or None, diameter[0] if diameter else None, weights


def _file(index: Path, text: str) -> Path:
    """Return the place of a file that an index names, without detours; a link keeps its name."""
    place = index.parent / text
    return place.parent.resolve() / place.name


def _rows(index: Path) -> list[dict[str, str]]:
    if not index.exists():
        raise ReadError(f"there is no file or folder {index}")
    try:
        with index.open(newline="", encoding="utf-8-sig") as file:  # Excel writes the mark
            reader = csv.DictReader(file)
            missing = set(COLUMNS) - set(reader.fieldnames or ())
            if missing:
                raise ReadError(
                    f"{index}: no column {', '.join(sorted(missing))}; needs {', '.join(COLUMNS)}"
                )
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ReadError(f"{index} cannot be read as a CSV index: {error}") from error
    for line, row in enumerate(rows, 2):
        if not row["image"] or any(row[name] is None for name in COLUMNS):
            raise ReadError(f"{index}, line {line}: needs a value for each of {', '.join(COLUMNS)}")
    return rows


@dataclass(frozen=True, eq=False, slots=True)
class Truth:
    """The annotation of an image to judge by.

    Attributes
    ----------
    labels : (Y, X) int32, as they are in the file.
    valid : (Y, X) bool, where they are complete; None: everywhere.
    """

    labels: LabelArray
    valid: npt.NDArray[np.bool_] | None

    @property
    def nuclei(self) -> LabelArray:
        """The labels to judge by, (Y, X) int32; of an annotation of a part, of what lies wholly there."""
        return self.and_found(self.labels)[0]

    def and_found(self, found: LabelArray) -> tuple[LabelArray, LabelArray]:
        """Return the nuclei, and of those found what can be judged by them; see metrics.known_part."""
        if self.valid is None:
            return self.labels, found
        true, judged = known_part(self.labels, found, self.valid)
        return true.astype(np.int32, copy=False), judged.astype(np.int32, copy=False)


def read_truth(row: Row) -> Truth:
    """Read the annotation of a row to judge by.

    Raises
    ------
    ReadError : it has none, or it cannot be read. LabelsError : see read_labels.
    """
    labels = read_labels(_labels_of(row))
    return Truth(labels, None if row.valid is None else _valid_of(row.valid, row, labels.shape))


def true_labels(row: Row) -> LabelArray:
    """Read the labels of a row to judge by; see read_truth, and Truth.nuclei."""
    return read_truth(row).nuclei


def _labels_of(row: Row) -> Path:
    if row.labels is None:
        raise ReadError(
            f"{shown(row.image)}: has no labels, so nothing can be judged by it; leave it out of the images "
            "to judge by (it may be in the split train or tune)"
        )
    return row.labels


def read_valid(path: Path) -> npt.NDArray[np.bool_]:
    """Read where an annotation is complete, (Y, X) bool: where an image is not 0.

    Raises
    ------
    ReadError : it cannot be read. LabelsError : it has several channels, or is a JPEG.
    """
    refuse_jpeg(path)
    valid: npt.NDArray[np.bool_] = np.asarray(_plane(path) != 0)
    return valid


def read_labels(path: Path, *, in_pieces: bool = False) -> LabelArray:
    """Read instance labels from an image file, (Y, X) int32; whole numbers saved as float are taken.

    Parameters
    ----------
    in_pieces : nuclei may lie in several pieces, as some programs find them.

    Raises
    ------
    ReadError : it cannot be read.
    LabelsError : it is not one plane of whole numbers from 0 on, a JPEG, a mask or map of classes (one number
        for three separate pieces, or more than a tenth of the numbers for several that are no crumbs), its
        background is a number, or its numbers change from pixel to pixel, as in a picture.
    """
    refuse_jpeg(path)
    plane = _plane(path)
    refuse_values(path, plane)
    whole_numbers = plane.astype(np.int64)
    refuse_background(path, whole_numbers)
    if plane.size and whole_numbers.max() >= _LARGE:
        whole_numbers, _ = fastremap.renumber(whole_numbers)
    found: LabelArray = whole_numbers.astype(np.int32)
    refuse_pieces(path, found, allowed=in_pieces)
    return found


def _plane(path: Path) -> npt.NDArray[Any]:
    with named(path):
        pixels = np.asarray(read(path).pixels)
    refuse_channels(path, pixels)
    plane: npt.NDArray[Any] = pixels[0]
    return plane


def read_annotation(
    row: Row, shape_yx: tuple[int, int]
) -> tuple[LabelArray | None, npt.NDArray[np.bool_] | None]:
    """Read what is said of an image of this shape: its labels, and where they are complete.

    The labels are those of a person, or else of a teacher.

    Raises
    ------
    ReadError, LabelsError : they cannot be read, or do not fit the image.
    """
    path = row.labels or row.taught
    labels = None if path is None else read_labels(path)
    if labels is not None and labels.shape != shape_yx:
        raise ReadError(
            f"{shown(row.image)}: is {shape_yx} pixels, its labels are {labels.shape}; give the labels of "
            "this very image, neither scaled nor cropped"
        )
    return labels, None if row.valid is None else _valid_of(row.valid, row, shape_yx)


def _valid_of(path: Path, row: Row, shape_yx: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    valid = read_valid(path)
    if valid.shape != shape_yx:
        raise ReadError(f"{shown(path)}: is {valid.shape} pixels, its image is {shape_yx}; make it as large")
    return valid


def check_rows_steps(
    learnt: Sequence[Row],
    judged: Sequence[Row],
    channels: Sequence[int | str] | None = None,
    mapping: str = "nuclear",
) -> Generator[Progress, None, list[str]]:
    """Look at images and annotation of all rows, so that a fault shows before hours of work, not after.

    Parameters
    ----------
    judged : rows to judge by; they must have labels.
    channels : nuclear channels of images that have several; None takes those named like a nuclear stain.
    mapping : of the recipe that judges; some need no nuclear channels.

    Yields
    ------
    Progress after each image.

    Returns
    -------
    What a person should know of the data, in sentences; it is logged as a warning, too.

    Raises
    ------
    ReadError : names the first faulty images with their faults.
    """
    faults, counts = [], {}
    rows = dict.fromkeys(learnt, False) | dict.fromkeys(judged, True)
    for done, (row, to_judge) in enumerate(rows.items(), 1):
        try:
            counts[row] = _look_at(row, channels, mapping, to_judge=to_judge)
        except NucleusKDError as error:
            faults.append(str(error))
        yield Progress(done, len(rows), "checking the images")
    needed, what = (learnt, "learn from") if learnt else (judged, "judge by")
    if needed and not faults and all(counts[row] == (0, 0) for row in needed):
        empty = needed[0].labels or needed[0].image
        faults.append(f"{shown(empty)} and all other labels to {what} are empty; annotate some nuclei")
    if not faults:
        copies = _copies(learnt, [row for row in judged if counts[row][0] > 0])
        faults += dict.fromkeys(
            f"{shown(row.image)} is learnt from, and {shown(same.image)} judges: they are one picture; "
            "give it one split, or leave it out"
            for row, same in copies
        )
    if faults:
        raise ReadError(_some(faults, "\n"))
    spare = {row: parts - numbers for row, (numbers, parts) in counts.items() if parts > numbers}
    if not spare:
        return []
    names = _some([row.name for row in spare], ", ")
    note = (
        f"{count(sum(spare.values()), 'separate piece')} with the number of another one, in {len(spare)} of "
        f"{count(len(counts), 'image')} ({names}): training takes each piece as a nucleus, "
        "judging each number."
    )
    _log.warning(note)
    return [note]


def _copies(rows: Sequence[Row], others: Sequence[Row]) -> Iterator[tuple[Row, Row]]:
    """Yield rows whose image file is that of another row, or holds the same bytes, and that other row."""
    same_size: dict[int, list[Row]] = {}
    for other in others:
        same_size.setdefault(other.image.stat().st_size, []).append(other)
    known: dict[int, dict[str, Row]] = {}  # what is in them; most sizes are there once, and need no reading
    for row in rows:
        size = row.image.stat().st_size
        if size in same_size:
            if size not in known:
                known[size] = {_content(other.image): other for other in same_size[size]}
            if (found := known[size].get(_content(row.image))) is not None:
                yield row, found


def _content(image: Path) -> str:
    """Return what two files share that hold the same bytes; of a folder (OME-Zarr) its place."""
    if image.is_dir():
        return str(image.resolve())
    with image.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _look_at(
    row: Row, channels: Sequence[int | str] | None, mapping: str, *, to_judge: bool
) -> tuple[int, int]:
    """Return how many nuclei an image has and in how many pieces; (-1, -1) if nobody annotated it."""
    if to_judge:
        _labels_of(row)
    with named(row.image):
        image = read(row.image)
    if row.low is None and mapping in OF_NUCLEAR_CHANNELS:
        choose_channels(image, asked_channels(image, channels, row.modality), row.modality)
    try:
        labels, _ = read_annotation(row, image.shape_yx)
    except LabelsError as error:
        path = row.labels or row.taught
        if path is None or _are_labels(path) or not _are_labels(row.image):
            raise
        raise LabelsError(
            f"{shown(row.image)} holds labels and {shown(path)} does not: they look exchanged. Exchange the "
            "two folders, or the columns image and labels of the CSV index"
        ) from error
    if labels is None:
        return -1, -1
    if labels.any():
        with named(row.image):
            _check_picture(row.image, image, labels)
    owner, _ = pieces(labels)
    return len(np.unique(owner)), len(owner)


def _are_labels(path: Path) -> bool:
    """Tell whether a file that should be a picture holds labels of at least a few nuclei."""
    try:
        return len(np.unique(read_labels(path))) > _FEW_NUCLEI
    except NucleusKDError:
        return False


def _check_picture(path: Path, image: Image, labels: LabelArray) -> None:
    """Raise ReadError if an image file cannot be the picture of its labels, which hold nuclei."""
    if not any(_differs(level) for level in reversed(image.levels)):
        raise ReadError(
            f"{path}: every pixel is the same, or none is finite, but its labels hold nuclei; export "
            "the image again, or leave it out"
        )
    line = int(labels.any(axis=1).argmax())  # first: mostly it differs there, and the others need not be read
    if len(image.pixels) == 1 and all(
        np.array_equal(np.asarray(image.pixels[0, part]), labels[part]) for part in (line, slice(None))
    ):
        raise ReadError(
            f"{path}: holds the very numbers of its labels, so it is the label image, not the picture; "
            "give the picture"
        )


def _differs(pixels: Array) -> bool:
    """Tell whether a channel of (C, Y, X) pixels has two finite values that float32 tells apart."""
    with np.errstate(over="ignore"):
        planes = (np.asarray(plane).astype(np.float32) for plane in pixels)
        finite = (plane[np.isfinite(plane)] for plane in planes)
        return any(values.size > 0 and bool(np.ptp(values) > 0) for values in finite)


def _some(texts: Sequence[str], between: str) -> str:
    """Return the first five texts and how many more there are."""
    more = [f"... and {len(texts) - 5} more"] if len(texts) > 5 else []
    return between.join([*texts[:5], *more])
