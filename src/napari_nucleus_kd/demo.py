"""Segment the sample images, write what was found, and show it: `python -m napari_nucleus_kd.demo`."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from napari_nucleus_kd import pipeline
from napari_nucleus_kd.config import Recipe
from napari_nucleus_kd.errors import NucleusKDError
from napari_nucleus_kd.evaluate import as_seen
from napari_nucleus_kd.io.samples import SAMPLES, sample, sample_labels
from napari_nucleus_kd.metrics import scores

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import numpy.typing as npt

    from napari_nucleus_kd.pipeline import Result
    from napari_nucleus_kd.types import Image

_OUTLINE = (0, 229, 255)  # stands out from grey, pink, purple and brown


@dataclass(frozen=True, slots=True)
class Row:
    """What the demo found in one image; pq is None where nobody knows the truth."""

    name: str
    nuclei: int
    seconds: float
    pq: float | None
    notes: tuple[str, ...]


def overlay(image: Image, result: Result) -> npt.NDArray[np.uint8]:
    """Draw the outlines of the nuclei on the picture as the network saw it, (Y, X, 3)."""
    from skimage.segmentation import find_boundaries

    picture = as_seen(image, result.recipe)
    picture[find_boundaries(result.nuclei.labels, mode="inner")] = _OUTLINE
    return picture


def segment_sample(name: str, recipe: Recipe, folder: Path) -> Row:
    """Segment one sample image; writes its overlay, labels and recipe into `folder`."""
    from skimage.io import imsave

    image, truth = sample(name), sample_labels(name)
    result = pipeline.segment(image, recipe)
    pipeline.save(result, folder / f"{name}_labels.tif", overwrite=True)
    imsave(folder / f"{name}_overlay.png", overlay(image, result), check_contrast=False)
    pq = None if truth is None else scores(truth, result.nuclei.labels)["pq"]
    return Row(name, result.nuclei.count, result.seconds, pq, result.notes)


def table(rows: Sequence[Row]) -> Table:
    """Return what was found as a table for the terminal."""
    shown = Table("image", "nuclei", "seconds", "PQ against the exact truth")
    for column in shown.columns[1:]:
        column.justify = "right"
    for row in rows:
        pq = "not known" if row.pq is None else f"{row.pq:.3f}"
        shown.add_row(row.name, str(row.nuclei), f"{row.seconds:.2f}", pq)
    return shown


def can_show(environment: Mapping[str, str], system: str) -> bool:
    """Say whether there is a screen with a person before it."""
    if environment.get("CI"):
        return False
    on_screen = environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY")
    return system in ("win32", "darwin") or bool(on_screen)


def _show(folder: Path, console: Console) -> None:
    if find_spec("napari") is None:
        console.print("napari is not installed, so no window opens: pip install 'napari-nucleus-kd[qt]'")
        return
    console.print("Opening napari; close it to end.")
    # In a process of its own: if Qt cannot start it ends the whole process, and the results are kept.
    command = [sys.executable, "-m", "napari_nucleus_kd.widgets.demo_window", str(folder)]
    if subprocess.run(command, check=False).returncode:
        console.print("napari could not show the results; they are in the folder above.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; return the exit status."""
    parser = argparse.ArgumentParser(description="Segment the sample images with the shipped model.")
    parser.add_argument("--output", type=Path, default=Path("demo_output"), help="folder for the results")
    parser.add_argument("--segmenter", default=Recipe().segmenter, help="student or classical")
    parser.add_argument("--no-window", action="store_true", help="never open napari")
    options = parser.parse_args(arguments)
    console = Console()
    folder: Path = options.output.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    try:
        for entry in [each for each in SAMPLES if each.learnt]:
            console.print(f"{entry.name}: {escape(entry.description)}", soft_wrap=True, highlight=False)
            rows.append(segment_sample(entry.name, Recipe(segmenter=options.segmenter), folder))
    except NucleusKDError as error:
        console.print(f"[bold red]Error:[/] {escape(str(error))}", soft_wrap=True)
        return 1
    console.print(table(rows))
    for note in dict.fromkeys(note for row in rows for note in row.notes):
        console.print(escape(note), soft_wrap=True, style="dim")
    console.print(f"Outlines, labels and recipes are in {escape(str(folder))}", soft_wrap=True)
    if not options.no_window and can_show(os.environ, sys.platform):
        _show(folder, console)
    return 0


if __name__ == "__main__":
    sys.exit(main())
