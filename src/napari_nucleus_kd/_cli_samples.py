"""What `nucleus-kd samples` does: the sample images as files, to try the other commands on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from napari_nucleus_kd import io
from napari_nucleus_kd.errors import WriteError
from napari_nucleus_kd.io.atomic import make_folder
from napari_nucleus_kd.io.samples import SAMPLES, find_sample, sample, sample_labels
from napari_nucleus_kd.pipeline import save

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rich.console import Console


def write_samples(names: Sequence[str], output: Path, console: Console, *, overwrite: bool) -> None:
    """Write sample images as NAME.ome.tif, and where their nuclei are known NAME_labels.tif.

    Parameters
    ----------
    names : of SAMPLES; none for all.

    Raises
    ------
    SettingsError : there is no sample of such a name.
    WriteError : a file is there already and `overwrite` is False, or the disk refuses.
    """
    chosen = [find_sample(name) for name in dict.fromkeys(names)] or SAMPLES
    pictures = {each.name: output / f"{each.name}.ome.tif" for each in chosen}
    truths = {s.name: output / f"{s.name}_labels.tif" for s in chosen if s.labels_file is not None}
    there = next((path for path in (*pictures.values(), *truths.values()) if path.exists()), None)
    if there is not None and not overwrite:
        raise WriteError(f"{there} exists; add --overwrite or choose another --output")
    make_folder(output)
    table = Table("image", "labels", "what it shows", box=None, padding=(0, 1))
    for each in chosen:
        image, labels, known = sample(each.name), sample_labels(each.name), ""
        picture = save(image, pictures[each.name], overwrite=overwrite)
        if labels is not None:
            truth, size = truths[each.name], image.pixel_size_um
            known = io.save_labels(labels, truth, pixel_size_um=size, overwrite=overwrite).name
        table.add_row(escape(picture.name), escape(known), escape(each.description))
    console.print(table)
    console.print(escape(f"in {output}"), soft_wrap=True, highlight=False)
