"""Which images a command line names, and what their results are called."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from glob import glob, has_magic
from os.path import commonpath
from pathlib import Path
from typing import TYPE_CHECKING

from napari_nucleus_kd.errors import SettingsError
from napari_nucleus_kd.io import image_suffix
from napari_nucleus_kd.pairs import without_enhanced

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_RESULT_ENDINGS = ("_labels.tif", "_labels.tiff", "_labels.ome.tif", "_labels.ome.zarr")


@dataclass(frozen=True, slots=True)
class Job:
    """One image and the name that its results start with.

    Attributes
    ----------
    problem : why there is no image: `source` is then a folder or pattern that gave none.
    """

    source: Path
    name: str
    problem: str = ""


def _in_folder(folder: Path) -> list[Path]:
    """Return the images directly in a folder."""
    found = [
        path
        for path in sorted(folder.iterdir())
        if image_suffix(path)
        and not path.name.startswith(".")
        and (path.is_file() or path.suffix.lower() == ".zarr")
    ]
    return _without_results(found)


def _without_results(found: Sequence[Path]) -> list[Path]:
    """Return the images among files: results of this program are none; see pairs.without_enhanced."""
    return without_enhanced([path for path in found if not path.name.lower().endswith(_RESULT_ENDINGS)])


def _expand(text: str) -> list[Path]:
    """Return what one argument names: a file, the images of a folder, or the matches of a pattern."""
    path = Path(text).expanduser()
    if path.is_dir() and path.suffix.lower() != ".zarr":
        return _in_folder(path)
    # A file may have brackets in its name, so a pattern is tried only where no such file is.
    if not path.exists() and has_magic(text):
        return _without_results([Path(match) for match in sorted(glob(str(path), recursive=True))])
    return [path]


def _expand_or_say(text: str) -> tuple[list[Path], str]:
    """Return what one argument names, and why it names nothing."""
    try:
        found = _expand(text)
    except OSError as error:
        return [], f"{error.filename or text} cannot be looked into: {error.strerror or error}"
    return found, "" if found else f"no image found in {text}; results of this program are left out"


def find_jobs(arguments: Sequence[str]) -> list[Job]:
    """Return a job for every image that the arguments name, each once, in the order named.

    A file that is named but absent, and a folder or pattern without an image, are kept: they fail later,
    alone.

    Raises
    ------
    SettingsError if they name no image at all.
    """
    found: dict[Path, Path] = {}
    empty: list[Job] = []
    for argument in arguments:
        paths, problem = _expand_or_say(argument)
        if problem:
            empty.append(Job(Path(argument), argument, problem))
        for path in paths:
            found.setdefault(path.resolve(), path)
    if not any(_may_exist(path) for path in found.values()):
        reasons = "; ".join(job.problem for job in empty) or f"not there: {', '.join(arguments)}"
        raise SettingsError(
            f"{reasons}; name an image, a folder with images in it, or a pattern like 'slides/**/*.tif'"
        )
    return [*name_jobs(list(found.values())), *empty]


def _may_exist(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return True  # in a folder that we may not look into


def _stem(path: Path) -> str:
    suffix = image_suffix(path)
    return path.name[: -len(suffix)] if suffix else path.stem


def _clashing(names: Iterable[str]) -> set[str]:
    # Without case: on Windows and macOS "A" and "a" are one file.
    counts = Counter(name.casefold() for name in names)
    return {name for name, count in counts.items() if count > 1}


def _long_name(path: Path, root: Path) -> str:
    """Return the folders below `root`, the name and its suffix, joined by "-": unlike for unlike paths."""
    relative = path.relative_to(root)
    return "-".join((*relative.parts[:-1], relative.name.replace(".", "-")))


def name_jobs(paths: Sequence[Path]) -> list[Job]:
    """Name the results of each image so that no two share a file.

    The name is the image's own without suffix. Where several images of one run share it, theirs are made
    of the folders in which they differ and the suffix too: a/x.tif and b/x.tif give a-x-tif and b-x-tif.
    """
    full = [path.resolve() for path in paths]
    names = [_stem(path) for path in paths]
    clashing = _clashing(names)
    shared = [path.parent for path, name in zip(full, names, strict=True) if name.casefold() in clashing]
    if shared:
        root = Path(commonpath(shared))
        names = [
            _long_name(path, root) if name.casefold() in clashing else name
            for path, name in zip(full, names, strict=True)
        ]
    clashing = _clashing(names)
    names = [
        f"{name}-{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
        if name.casefold() in clashing
        else name
        for path, name in zip(full, names, strict=True)
    ]
    return [Job(path, name) for path, name in zip(paths, names, strict=True)]
