"""Save what was measured of nuclei as CSV, Parquet or AnnData: complete under its name, or not at all."""

from __future__ import annotations

import csv
import re
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_nucleus_kd.errors import WriteError
from napari_nucleus_kd.io.atomic import beside

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    import numpy.typing as npt
    from anndata import AnnData

    Columns = Mapping[str, npt.NDArray[Any]]

_CELLS = 1 << 20  # of a table that are made text at once: all of them need a multiple of the memory
# How a table ends -> the optional library that writes it.
TABLE_SUFFIXES = {".csv": "", ".parquet": "pyarrow", ".h5ad": "anndata"}
_MARKER = re.compile(r"((?:ring |cell )?(?:mean|median|p\d+(?:\.\d+)?|integrated)) (.+)", re.DOTALL)


def save_table(
    columns: Columns,
    path: str | os.PathLike[str],
    *,
    pixel_size_um: float | None = None,
    image_name: str = "image",
    overwrite: bool = False,
) -> Path:
    """Write a table with one row for each nucleus.

    Parameters
    ----------
    columns : as cells.measure_cells and measure.features give them. Not changed.
    path : the suffix chooses the format: .csv, .parquet, or .h5ad for AnnData, see to_anndata.
    pixel_size_um : edge of one pixel; kept in .parquet (its metadata) and .h5ad.
    image_name : of the image that was measured; kept in .parquet and .h5ad.
    overwrite : replace what is there, once the new table is complete.

    Returns
    -------
    The absolute path written.

    Raises
    ------
    WriteError as check_table, or if the disk refuses; what was there stays.
    """
    path = check_table(path, overwrite=overwrite)
    with beside(path) as partial:
        if path.suffix.lower() == ".csv":
            write_columns(partial, columns)
        elif path.suffix.lower() == ".parquet":
            _write_parquet(partial, columns, pixel_size_um, image_name)
        else:
            to_anndata(columns, pixel_size_um=pixel_size_um, image_name=image_name).write_h5ad(
                partial, compression="gzip"
            )
    return path


def check_table(path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Return the absolute path of a table that may be written.

    Raises
    ------
    WriteError if its suffix is none of TABLE_SUFFIXES, the library for it is missing, there is no such
    folder, or the file exists and overwrite is False.
    """
    path = Path(path).expanduser().absolute()
    suffix = path.suffix.lower()
    if suffix not in TABLE_SUFFIXES:
        raise WriteError(f"{path.name} has no suffix for a table: use .csv, .parquet or .h5ad (AnnData)")
    library = TABLE_SUFFIXES[suffix]
    if library and find_spec(library) is None:
        raise WriteError(
            f"{path.name} takes {library}, which is not installed: pip install 'napari-nucleus-kd[tables]', "
            "or write a .csv"
        )
    if not path.parent.is_dir():
        raise WriteError(f"{path} cannot be written: there is no folder {path.parent}; make it first")
    if path.is_dir():
        raise WriteError(f"{path} is a folder and is not overwritten; choose another name")
    if path.exists() and not overwrite:
        raise WriteError(f"{path} exists already; choose another name, or allow overwriting")
    return path


def write_columns(path: Path, columns: Columns) -> None:
    """Write a CSV file with one row for each nucleus, numbers to seven digits.

    Raises
    ------
    OSError : the disk refuses.
    """
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        count = max((len(column) for column in columns.values()), default=0)
        rows = max(1, _CELLS // max(1, len(columns)))
        for start in range(0, count, rows):
            part = (column[start : start + rows] for column in columns.values())
            text = ([f"{v:.7g}" for v in c.tolist()] if c.dtype.kind == "f" else c.tolist() for c in part)
            writer.writerows(zip(*text, strict=True))


def to_anndata(columns: Columns, *, pixel_size_um: float | None = None, image_name: str = "image") -> AnnData:
    """Return a table of nuclei as AnnData, which squidpy and scimap take.

    Parameters
    ----------
    columns, pixel_size_um, image_name : see save_table.

    Returns
    -------
    AnnData with a row for each nucleus, named by its label. X and raw: mean intensities of the nuclei,
    float32; var: the markers; layers: what else was measured of each marker, "median", "p95", "ring_mean",
    ...; obs: the other columns, centroid_x_um and centroid_y_um in micrometres (px if the pixel size is
    unknown), the same as X_centroid and Y_centroid, and imageid, the names that scimap looks for;
    obsm["spatial"]: x, y; uns["napari-nucleus-kd"]: the unit of the centroids, and the edge of a pixel in it.
    """
    import anndata
    import pandas as pd

    markers: dict[str, dict[str, npt.NDArray[Any]]] = {}
    obs: dict[str, npt.NDArray[Any]] = {}
    for name, values in columns.items():
        found = _MARKER.fullmatch(name)
        if found is None:
            obs[name.replace("/", "_")] = values  # which would be a folder in the file
        else:
            markers.setdefault(found[2], {})[found[1]] = values
    unit, size = ("px", 1.0) if pixel_size_um is None else ("um", pixel_size_um)
    x, y = (np.asarray(obs.pop(f"centroid_{axis}")) * size for axis in "xy")
    obs |= {f"centroid_x_{unit}": x, f"centroid_y_{unit}": y, "X_centroid": x, "Y_centroid": y}
    index = np.asarray(columns["label"]).astype(str)
    table = anndata.AnnData(
        _matrix(markers, "mean", len(index)),
        obs=pd.DataFrame(obs, index=index),
        var=pd.DataFrame(index=pd.Index(list(markers), dtype=str)),
        obsm={"spatial": np.stack([x, y], axis=1)},
        uns={"napari-nucleus-kd": {"unit": unit, "pixel_size": size}},
    )
    table.obs["imageid"] = pd.Categorical([image_name] * len(index))
    table.raw = table
    for statistic in dict.fromkeys(name for of in markers.values() for name in of if name != "mean"):
        table.layers[statistic.replace(" ", "_")] = _matrix(markers, statistic, len(index))
    return table


def _matrix(
    markers: Mapping[str, Mapping[str, npt.NDArray[Any]]], statistic: str, rows: int
) -> npt.NDArray[np.float32]:
    """Return one statistic of every marker, (nuclei, markers) float32; NaN where it was not measured."""
    found = np.full((rows, len(markers)), np.nan, np.float32)
    for column, of in enumerate(markers.values()):
        if statistic in of:
            found[:, column] = of[statistic]
    return found


def _write_parquet(path: Path, columns: Columns, pixel_size_um: float | None, image_name: str) -> None:
    import pyarrow
    from pyarrow import parquet

    said = {"image": image_name, "pixel_size_um": "" if pixel_size_um is None else repr(pixel_size_um)}
    table = pyarrow.table(dict(columns)).replace_schema_metadata(said)
    parquet.write_table(table, path, compression="zstd")
