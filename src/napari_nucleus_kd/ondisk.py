"""Segments an image of any size into an OME-Zarr label image; interrupted runs go on where they stopped.

Until the end everything is under `<name>.partial` with a journal, and a lock keeps a second run away.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_nucleus_kd import segmenters
from napari_nucleus_kd.config import Recipe
from napari_nucleus_kd.enhancer import load_enhancer
from napari_nucleus_kd.errors import WriteError
from napari_nucleus_kd.io.atomic import put_in_place
from napari_nucleus_kd.io.labels import check_target, zarr_words
from napari_nucleus_kd.job import measure_diameter, prepare, used_channels
from napari_nucleus_kd.measure import features_steps
from napari_nucleus_kd.types import Progress

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    import numpy.typing as npt

    from napari_nucleus_kd.job import Job
    from napari_nucleus_kd.tiling import TileDone
    from napari_nucleus_kd.types import FloatArray, Image

_CHUNK_PX = 1024
_COARSEST_PX = 512  # no further pyramid level once both edges are within this
_JOURNAL, _SCORES = "journal.json", "scores.float32"
_ENHANCED = "enhanced.zarr"  # the picture that the segmenter sees, while the run lasts
_TABLE, _ROWS = "nuclei", 1 << 16  # array of one row a nucleus, and rows of its chunks
_FORMAT = 2  # of the journal and of what is unfinished; runs of another one start anew
_ATTRIBUTE = "napari-nucleus-kd"  # of the Zarr group: what the run says of itself


def segment_to_zarr_steps(
    image: Image,
    path: str | os.PathLike[str],
    recipe: Recipe | None = None,
    *,
    overwrite: bool = False,
) -> Generator[Progress, None, Path]:
    """Find the nuclei of an image of any size and write them as an OME-Zarr 0.5 label image.

    Memory does not grow with the image, but for what is measured of each nucleus. A run that was
    cancelled or killed goes on where it stopped when the same recipe, model and image are asked for
    again.

    Parameters
    ----------
    path : ends in .zarr; usually .ome.zarr.
    overwrite : replace what is there, once the new labels are complete.

    Yields
    ------
    Progress

    Returns
    -------
    The absolute path written.

    Raises
    ------
    WriteError if the path exists and overwrite is False, its suffix is not .zarr, another run is
    writing it, or the disk refuses. Otherwise see pipeline.segment.
    """
    recipe = recipe or Recipe()
    path = Path(path).expanduser().absolute()
    _check_target(path, overwrite)
    with _locked(path):
        _check_target(path, overwrite)  # another run may have finished while this one waited
        try:
            yield from _write(image, path, recipe)
        except OSError as error:
            raise WriteError(
                f"{path} cannot be written: {error}. Check space and permissions, then start again: "
                "the run goes on where it stopped."
            ) from error
    return path


def partial_path(path: Path) -> Path:
    """Return where a run keeps its unfinished labels."""
    return path.with_name(path.name + ".partial")


def read_notes(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Return the choices and fallbacks of the run that wrote OME-Zarr labels, for a person.

    Labels that do not say how they were made have none.
    """
    import zarr

    attributes: dict[str, Any] = dict(zarr.open_group(os.fspath(path), mode="r").attrs)
    return tuple(attributes.get(_ATTRIBUTE, {}).get("notes", ()))


def read_table(path: str | os.PathLike[str]) -> dict[str, npt.NDArray[Any]]:
    """Return what was measured of each nucleus of OME-Zarr labels; see measure.features.

    Labels that were not written by a run have no columns.
    """
    import zarr

    group = zarr.open_group(os.fspath(path), mode="r")
    if _TABLE not in group:
        return {}
    table: Any = group[_TABLE]
    values = table[:]
    columns = {name: values[:, i] for i, name in enumerate(table.attrs["columns"])}
    return columns | {"label": columns["label"].astype(np.int64)}


def _write(image: Image, path: Path, recipe: Recipe) -> Generator[Progress, None, None]:
    import zarr

    partial = partial_path(path)
    yield Progress(0, 0, "opening the model")
    request = _request(image, recipe)
    journal = _read_journal(partial, request)
    if journal is None:
        job = prepare(image, recipe)
        shutil.rmtree(partial, ignore_errors=True)
        job = measure_diameter((yield from _enhanced(partial, job)))
        journal = _begin(partial, request, job)
    else:
        resolved = Recipe.model_validate_json(journal["recipe"])
        job = prepare(image, resolved.model_copy(update={"device": recipe.device}))
        if job.enhancer is not None:  # once there is a journal, the picture is whole
            job = job.seeing(zarr.open_array(str(partial / _ENHANCED), mode="r"))
        yield Progress(0, 0, f"going on after tile {journal['tiles']}")
    labels = zarr.open_array(str(partial / "0"), mode="r+")

    def record(done: TileDone) -> None:
        _keep_scores(partial, journal["next_label"], done.scores)
        journal.update(tiles=done.index + 1, next_label=done.next_label, notes=_notes(journal, job))
        _write_journal(partial, journal)

    count = yield from job.run_tiles(
        labels, start_tile=journal["tiles"], next_label=journal["next_label"], on_tile_done=record
    )
    columns = yield from _measure(partial, image, job, labels, count)
    yield from _finish(partial, path, job, columns, _notes(journal, job))


def _enhanced(partial: Path, job: Job) -> Generator[Progress, None, Job]:
    """Return the job with its picture enhanced on disk, if that is asked for."""
    import zarr

    if job.enhancer is None:
        return job
    shape = (1, *job.region.shape_yx)
    chunks = (1, *(min(_CHUNK_PX, n) for n in shape[1:]))
    drawn = zarr.create_array(str(partial / _ENHANCED), shape=shape, dtype="uint8", chunks=chunks)
    return (yield from job.enhanced_steps(drawn))


def _notes(journal: dict[str, Any], job: Job) -> list[str]:
    """Return the notes of all sittings of a run, each once."""
    return list(dict.fromkeys((*journal["notes"], *job.all_notes())))


def _begin(partial: Path, request: str, job: Job) -> dict[str, Any]:
    """Make the empty full-resolution level and the journal."""
    import zarr

    group = zarr.open_group(str(partial), mode="a", zarr_format=3)
    _make_level(group, 0, job.region.shape_yx)
    journal = {
        "request": request,
        "recipe": job.recipe.model_dump_json(),
        "notes": list(job.all_notes()),
        "tiles": 0,
        "next_label": 1,
    }
    _write_journal(partial, journal)
    return journal


def _keep_scores(partial: Path, first_label: int, scores: FloatArray | None) -> None:
    """Add the scores of a tile's nuclei to those of the tiles before it."""
    if scores is not None:
        with (partial / _SCORES).open("r+b" if first_label > 1 else "wb") as file:
            file.seek((first_label - 1) * scores.itemsize)  # a killed run may have written beyond
            file.write(scores.tobytes())


def _measure(
    partial: Path, image: Image, job: Job, labels: Any, count: int
) -> Generator[Progress, None, dict[str, npt.NDArray[Any]]]:
    """Measure the nuclei, now that all of them are written."""
    pixels, names = used_channels(image, job.recipe)
    file = partial / _SCORES
    scores = np.fromfile(file, np.float32, count) if file.exists() else None
    return (
        yield from features_steps(
            labels,
            count,
            pixels,
            channel_names=names,
            pixel_size_um=job.recipe.pixel_size_um,
            scores=scores,
        )
    )


def _finish(
    partial: Path, path: Path, job: Job, columns: dict[str, npt.NDArray[Any]], notes: list[str]
) -> Generator[Progress, None, None]:
    """Add the pyramid, the table and the metadata, then give the folder its name."""
    import zarr

    group = zarr.open_group(str(partial), mode="r+")
    scales = [1]
    while max(group[f"{len(scales) - 1}"].shape) > _COARSEST_PX:
        yield Progress(0, 0, f"pyramid level {len(scales)}")
        _halve(group, len(scales))
        scales.append(2 ** len(scales))
    group.attrs["ome"] = zarr_words(
        path.name, scales, job.recipe.pixel_size_um, (job.region.y0, job.region.x0)
    )
    table = group.create_array(
        _TABLE, data=np.stack(list(columns.values()), 1, dtype=np.float64), chunks=(_ROWS, 1), overwrite=True
    )
    table.attrs["columns"] = list(columns)
    group.attrs[_ATTRIBUTE] = {
        "recipe": job.recipe.model_dump_json(),
        "nuclei": len(columns["label"]),
        "notes": notes,
    }
    for stray in partial.rglob("*.partial"):  # chunks that a killed run was writing
        stray.unlink()
    shutil.rmtree(partial / _ENHANCED, ignore_errors=True)
    put_in_place(partial, path)
    # Only now: without it the next run would not go on, but start from nothing.
    with suppress(OSError):
        (path / _JOURNAL).unlink()
        (path / _SCORES).unlink(missing_ok=True)


def _halve(group: Any, level: int) -> None:
    """Write a level with every second label of the one before: averages would invent labels."""
    fine = group[f"{level - 1}"]
    height, width = fine.shape
    coarse = _make_level(group, level, (-(-height // 2), -(-width // 2)))
    step = 2 * _CHUNK_PX
    for y in range(0, height, step):
        for x in range(0, width, step):
            block = fine[y : y + step, x : x + step][::2, ::2]
            coarse[y // 2 : y // 2 + block.shape[0], x // 2 : x // 2 + block.shape[1]] = block


def _make_level(group: Any, level: int, shape: tuple[int, int]) -> Any:
    chunks = tuple(min(_CHUNK_PX, n) for n in shape)
    return group.create_array(
        f"{level}", shape=shape, dtype="uint32", chunks=chunks, dimension_names=["y", "x"], overwrite=True
    )


def _request(image: Image, recipe: Recipe) -> str:
    """Return a fingerprint of what decides the labels: image, recipe, weights and version.

    The device is left out: a run that a GPU began may go on without one.
    """
    from napari_nucleus_kd import __version__

    segmenter = segmenters.load(recipe.segmenter, recipe)
    _, height, width = image.pixels.shape
    source: dict[str, Any] = {"shape": list(image.pixels.shape), "type": str(image.pixels.dtype)}
    if image.source is not None and image.source.exists():
        stat = image.source.stat()
        source |= {"file": str(image.source), "bytes": stat.st_size, "changed": stat.st_mtime_ns}
    # The plane in hand is not in the file's name, so look at the middle of the picture as well.
    y, x = max(0, height // 2 - 128), max(0, width // 2 - 128)
    middle = np.ascontiguousarray(image.pixels[:, y : y + 256, x : x + 256])
    source["middle"] = hashlib.sha256(middle.tobytes()).hexdigest()
    asked = {
        "recipe": recipe.model_dump(mode="json", include=recipe.model_fields_set - {"device"}),
        "model": segmenter.model_hash,
        "enhancer": None if recipe.enhance is None else load_enhancer(recipe.enhance).hash,
        "image": source,
        "version": __version__,
        "format": _FORMAT,
    }
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def _read_journal(partial: Path, request: str) -> dict[str, Any] | None:
    """Return the journal of the same request; None if there is none to go on with."""
    try:
        journal = json.loads((partial / _JOURNAL).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return journal if isinstance(journal, dict) and journal.get("request") == request else None


def _write_journal(partial: Path, journal: dict[str, Any]) -> None:
    scratch = partial / f"{_JOURNAL}.new"
    scratch.write_text(json.dumps(journal), encoding="utf-8")
    scratch.replace(partial / _JOURNAL)


def _check_target(path: Path, overwrite: bool) -> None:
    if path.suffix.lower() != ".zarr":
        raise WriteError(f"{path.name} must end in .zarr; labels of any size are written as OME-Zarr")
    check_target(path, overwrite)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep other runs, also of other processes, from the same output; a killed run frees it."""
    from filelock import FileLock, Timeout

    file = path.with_name(path.name + ".lock")
    # Not per thread: a window may close the generator from another thread than it ran in.
    lock = FileLock(str(file), timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise WriteError(f"another run is writing {path}; wait for it, or choose another name") from error
    try:
        yield
    finally:
        with suppress(OSError):
            file.unlink(missing_ok=True)
        lock.release()
