"""A CSV index of annotated images: what is trained on, tuned on and judged by."""

from __future__ import annotations

import csv
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cc3d
import fastremap
import numpy as np

from napari_nucleus_kd.errors import LabelsError, NucleusKDError, ReadError
from napari_nucleus_kd.io import read
from napari_nucleus_kd.types import Modality

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    from napari_nucleus_kd.types import Array, LabelArray

_log = logging.getLogger(__name__)
_LARGE = 1 << 20  # larger numbers would cost memory, and exactness in float32
_MASK_PIECES = 3  # so many separate pieces under the only number are hardly one nucleus
_CRUMB = 0.1  # pieces below this share of the largest one of their number are slips of the pen
_IN_PARTS = 0.1  # share of the numbers that may stand for several pieces that are no crumbs
_JPEG = (".jpg", ".jpeg", ".jpe")
_OWN_NUMBERS = (
    "give each nucleus its own number (for instance with skimage.measure.label, then part those that touch)"
)
COLUMNS = ("image", "labels", "modality", "source", "split")
MORE_COLUMNS = ("valid", "taught")  # these may be missing
SEEN_COLUMNS = ("scaling_low", "scaling_high", "diameter_px")  # these, too; as in a Recipe


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
        return known

    @property
    def seen_cells(self) -> tuple[str, ...]:
        """What SEEN_COLUMNS say of it in an index."""
        numbers = (self.low, self.high, None if self.diameter_px is None else (self.diameter_px,))
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
    root = index.parent
    valid, taught = (root / values[name] if values.get(name) else None for name in MORE_COLUMNS)
    return Row(
        root / values["image"],
        root / values["labels"] if values["labels"] else None,
        Modality(values["modality"]),
        values["source"],
        valid,
        taught,
        *_seen(index, values),
    )


def _seen(
    index: Path, values: dict[str, str]
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None, float | None]:
    """Return the numbers of SEEN_COLUMNS; None where there are none."""
    try:
        low, high, diameter = (
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
    return low or None, high or None, diameter[0] if diameter else None


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


def true_labels(row: Row) -> LabelArray:
    """Read the labels of a row to judge by, (Y, X) int32.

    Raises
    ------
    ReadError : it has none, or only of a part, or they cannot be read.
    LabelsError : see read_labels.
    """
    return read_labels(_complete_labels(row))


def _complete_labels(row: Row) -> Path:
    if row.labels is None or row.valid is not None:
        what = "no labels" if row.labels is None else "labels of a part only"
        raise ReadError(f"{row.image}: has {what}, so nothing can be judged by it; split it as train or tune")
    return row.labels


def read_valid(path: Path) -> npt.NDArray[np.bool_]:
    """Read where an annotation is complete, (Y, X) bool: where an image is not 0.

    Raises
    ------
    ReadError : it cannot be read. LabelsError : it has several channels, or is a JPEG.
    """
    _refuse_jpeg(path)
    valid: npt.NDArray[np.bool_] = np.asarray(_plane(path) != 0)
    return valid


def read_labels(path: Path) -> LabelArray:
    """Read instance labels from an image file, (Y, X) int32; whole numbers saved as float are taken.

    Raises
    ------
    ReadError : it cannot be read.
    LabelsError : it is not one plane of whole numbers from 0 on, a JPEG, or a mask or map of classes: one
        number for three separate pieces, or more than a tenth of the numbers for several that are no crumbs.
    """
    _refuse_jpeg(path)
    plane = _plane(path)
    whole = plane.dtype.kind in "uib" or (plane.dtype.kind == "f" and bool((plane == np.rint(plane)).all()))
    if not whole or (plane.size and plane.min() < 0):
        raise LabelsError(
            f"{path}: labels must be whole numbers from 0 on; these are {_range(plane)}. Export the numbers "
            "of the nuclei as they are: no probabilities, not scaled"
        )
    if plane.size and float(plane.max()) >= 2**63:
        raise LabelsError(f"{path}: labels must be below 2**63; these are {_range(plane)}. Number them anew")
    whole_numbers = plane.astype(np.int64)
    if plane.size and whole_numbers.max() >= _LARGE:
        whole_numbers, _ = fastremap.renumber(whole_numbers)
    found: LabelArray = whole_numbers.astype(np.int32)
    _check_pieces(path, found)
    return found


def _refuse_jpeg(path: Path) -> None:
    if path.suffix.lower() in _JPEG:
        raise LabelsError(f"{path}: JPEG does not keep the numbers of labels; export them as PNG or TIFF")


def _check_pieces(path: Path, labels: LabelArray) -> None:
    """Raise LabelsError if numbers do not stand for nuclei; see read_labels."""
    owner, area = _pieces(labels)
    numbers, of, count = np.unique(owner, return_inverse=True, return_counts=True)
    if len(numbers) == 1 and count[0] >= _MASK_PIECES:
        raise LabelsError(
            f"{path}: one number for {count[0]} separate pieces is a mask, not labels; {_OWN_NUMBERS}"
        )
    largest = np.zeros(len(numbers))
    np.maximum.at(largest, of, area)
    parts = np.bincount(of[area >= _CRUMB * largest[of]], minlength=len(numbers))
    several = int((parts > 1).sum())
    if several > _IN_PARTS * len(numbers) and parts.sum() - len(numbers) > 1:
        raise LabelsError(
            f"{path}: {several} of {len(numbers)} numbers stand for several separate pieces each, as in a "
            f"map of classes or in tiles joined without numbering anew; {_OWN_NUMBERS}"
        )


def _pieces(labels: LabelArray) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Return number and area of every piece that is apart from the others of its number, also by a corner."""
    pieces = cc3d.connected_components(labels, connectivity=8).ravel()
    area = np.bincount(pieces)
    owner = np.zeros(len(area), np.int32)
    owner[pieces] = labels.ravel()
    return owner[1:], area[1:]


def _plane(path: Path) -> npt.NDArray[Any]:
    pixels = np.asarray(read(path).pixels)
    if len(pixels) != 1:
        raise LabelsError(
            f"{path}: has {len(pixels)} channels; labels are one plane of whole numbers, 0 for the "
            "background and another number for each nucleus. Export the numbers, not their colours"
        )
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
            f"{row.image}: is {shape_yx} pixels, its labels are {labels.shape}; give the labels of this very "
            "image, neither scaled nor cropped"
        )
    valid = None if row.valid is None else read_valid(row.valid)
    if valid is not None and valid.shape != shape_yx:
        raise ReadError(f"{row.valid}: is {valid.shape} pixels, its image is {shape_yx}; make it as large")
    return labels, valid


def check_rows(learnt: Sequence[Row], judged: Sequence[Row]) -> list[str]:
    """Look at images and annotation of all rows, so that a fault shows before hours of work, not after.

    Parameters
    ----------
    judged : rows to judge by; their annotation must be complete.

    Returns
    -------
    What a person should know of the data, in sentences; it is logged as a warning, too.

    Raises
    ------
    ReadError : names the first faulty images with their faults.
    """
    faults, counts = [], {}
    for row, to_judge in (dict.fromkeys(learnt, False) | dict.fromkeys(judged, True)).items():
        try:
            counts[row] = _look_at(row, to_judge=to_judge)
        except NucleusKDError as error:
            faults.append(str(error))
    if learnt and not faults and all(counts[row] == (0, 0) for row in learnt):
        faults.append(
            f"{learnt[0].labels} and all other labels to learn from are empty; annotate some nuclei"
        )
    if faults:
        raise ReadError(_some(faults, "\n"))
    spare = {row: pieces - numbers for row, (numbers, pieces) in counts.items() if pieces > numbers}
    if not spare:
        return []
    names = _some([row.name for row in spare], ", ")
    note = (
        f"{sum(spare.values())} separate pieces share the number of another one, in {len(spare)} of "
        f"{len(counts)} images ({names}): training takes each piece as a nucleus, judging each number."
    )
    _log.warning(note)
    return [note]


def _look_at(row: Row, *, to_judge: bool) -> tuple[int, int]:
    """Return how many nuclei an image has and in how many pieces; (-1, -1) if nobody annotated it."""
    if to_judge:
        _complete_labels(row)
    image = read(row.image)
    labels, _ = read_annotation(row, image.shape_yx)
    if labels is None:
        return -1, -1
    if labels.any() and not any(_differs(level) for level in reversed(image.levels)):
        raise ReadError(
            f"{row.image}: every pixel is the same, or none is finite, but its labels hold nuclei; export "
            "the image again, or leave it out"
        )
    owner, _ = _pieces(labels)
    return len(np.unique(owner)), len(owner)


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


def _range(plane: npt.NDArray[Any]) -> str:
    if not np.isfinite(plane).all():
        return f"{plane.dtype}, not all of them finite"
    return f"{plane.dtype} from {plane.min():g} to {plane.max():g}"
