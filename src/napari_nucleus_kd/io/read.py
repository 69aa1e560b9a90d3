"""Read any image file as a lazy Image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from napari_nucleus_kd.errors import ReadError
from napari_nucleus_kd.io._choice import Choice

if TYPE_CHECKING:
    import os

    from napari_nucleus_kd.types import Image

_TIFF_SUFFIXES = (".ome.tif", ".ome.tiff", ".ome.btf", ".tif", ".tiff", ".btf", ".tf8", ".lsm", ".stk")
_TIFF_SLIDES = (".qptiff", ".svs", ".ndpi", ".scn", ".bif")
_OPENSLIDE_SUFFIXES = (".mrxs", ".vms", ".vmu", ".svslide", ".dcm")
_PICTURES = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg", ".jpe"),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "WEBP": (".webp",),
    "JPEG2000": (".jp2", ".j2k"),
}
_ZARR_SUFFIXES = (".ome.zarr", ".zarr")
_PICTURE_SUFFIXES = tuple(suffix for group in _PICTURES.values() for suffix in group)

#: Suffixes that `read` takes; those ending in .zarr are folders.
IMAGE_SUFFIXES: tuple[str, ...] = (
    *_TIFF_SUFFIXES, *_TIFF_SLIDES, *_OPENSLIDE_SUFFIXES, *_PICTURE_SUFFIXES, *_ZARR_SUFFIXES,
)  # fmt: skip

_MAGIC = (
    ((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), "TIFF"),
    ((b"\x89PNG\r\n\x1a\n",), "PNG"),
    ((b"\xff\xd8\xff",), "JPEG"),
    ((b"GIF87a", b"GIF89a"), "GIF"),
    ((b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"), "JPEG2000"),
    ((b"BM",), "BMP"),
)
_FOREIGN = (
    (b"\x89HDF", "HDF5"), (b"ZISRAWFILE", "Zeiss CZI"), (b"\xda\xce\xbe\x0a", "Nikon ND2"),
    (b"\x70\0\0\0", "Leica LIF"), (b"%PDF", "PDF"), (b"PK\x03\x04", "zip"), (b"\x1f\x8b", "gzip"),
)  # fmt: skip


def read(path: str | os.PathLike[str], *, z: int | None = None, t: int = 0, series: int = 0) -> Image:
    """Open one plane of an image file; pixels are read when they are asked for.

    Parameters
    ----------
    path : a file, or a folder in the case of OME-Zarr.
    z : plane of a z-stack, counted from 0; None takes the middle one; the notes say which.
    t : time point, counted from 0.
    series : image within the file, counted from 0.

    Returns
    -------
    Image of dask levels, each (C, Y, X), full resolution first, in the file's own number type.
    PNG, JPEG and other pictures are decoded at once. pixel_size_um is None where the file does not say.

    Raises
    ------
    ReadError if there is no such file, z, t or series, or the file is empty, damaged, cut short,
    too large, or no image. Reading pixels later raises it too if the file was damaged since.
    """
    path = Path(path).expanduser().absolute()
    choice = Choice(z, t, series)
    if path.is_dir():
        return _read_folder(path, choice)
    head = _head(path)
    suffix = image_suffix(path) or path.suffix.casefold()
    if suffix in _OPENSLIDE_SUFFIXES:  # before their content: an .mrxs file looks like a JPEG
        from napari_nucleus_kd.io._slides import read_slide

        return read_slide(path, choice)
    kind = _kind(path, head)
    image = _read_kind(path, kind, choice)
    if suffix in IMAGE_SUFFIXES and kind != _kind_of_suffix(suffix):
        note = f"the file is named {suffix} but holds {kind}: read as {kind}"
        return replace(image, notes=(note, *image.notes))
    return image


def _read_folder(path: Path, choice: Choice) -> Image:
    from napari_nucleus_kd.io._zarr import is_zarr, read_zarr

    if not is_zarr(path):
        raise ReadError(
            f"{path.name} is a folder but not an OME-Zarr: it has no zarr metadata. Choose a file in it."
        )
    return read_zarr(path, choice)


def label_groups(path: Path) -> tuple[str, ...]:
    """Return the names of the label images inside an OME-Zarr image, which are at `path / "labels" / name`.

    There are none in anything else.

    Raises
    ------
    ReadError if their list is damaged.
    """
    if not path.is_dir():
        return ()
    from napari_nucleus_kd.io._zarr import list_labels

    return list_labels(path)


def _head(path: Path) -> bytes:
    """Return the first bytes of a file that is there, may be read and is not empty."""
    if not path.exists():
        raise ReadError(f"{path} is not there: no such file. Check the name and the folder.")
    if not path.is_file():
        raise ReadError(f"{path.name} is neither a file nor a folder. Choose an image file.")
    try:
        with path.open("rb") as file:
            head = file.read(32)
    except OSError as error:
        raise ReadError(f"{path.name} cannot be opened: {error.strerror}. Check its permissions.") from error
    if not head:
        raise ReadError(
            f"{path.name} is empty (0 bytes): the copy or download failed. Copy it again from its source."
        )
    return head


def image_suffix(path: Path) -> str:
    """Return the longest suffix of IMAGE_SUFFIXES that the name ends with, "" if none does."""
    name = path.name.casefold()
    return max((suffix for suffix in IMAGE_SUFFIXES if name.endswith(suffix)), key=len, default="")


def _kind_of_suffix(suffix: str) -> str:
    return next((kind for kind, suffixes in _PICTURES.items() if suffix in suffixes), "TIFF")


def _kind(path: Path, head: bytes) -> str:
    """Name the format by its content, whatever the file is called."""
    for starts, kind in _MAGIC:
        if head.startswith(starts):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    foreign = next((name for start, name in _FOREIGN if head.startswith(start)), None)
    what = f"a {foreign} file" if foreign else "not an image that this plugin knows by its first bytes"
    raise ReadError(
        f"{path.name} is {what}. Readable are TIFF, whole-slide files, OME-Zarr, PNG, JPEG and a few more; "
        "export the image as OME-TIFF or OME-Zarr from the program that made it."
    )


def _read_kind(path: Path, kind: str, choice: Choice) -> Image:
    if kind != "TIFF":
        from napari_nucleus_kd.io._picture import read_picture

        return read_picture(path, kind, choice)
    from napari_nucleus_kd.io._slides import has_openslide, read_slide
    from napari_nucleus_kd.io._tiff import read_tiff

    suffix = image_suffix(path) or path.suffix.casefold()
    if suffix == ".bif" and has_openslide():
        return read_slide(path, choice)  # stitches the overlapping tiles, which tifffile does not
    try:
        return read_tiff(path, choice)
    except ReadError as error:
        unknown_variant = error.__cause__ is not None  # else it broke one of our own rules
        if not (unknown_variant and suffix in _TIFF_SLIDES and has_openslide()):
            raise
        return read_slide(path, choice)
