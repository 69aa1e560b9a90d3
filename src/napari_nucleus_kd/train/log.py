"""What a run writes of its course: log.csv, curves.png, and events for TensorBoard."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from napari_nucleus_kd.errors import SettingsError
from napari_nucleus_kd.io.atomic import beside, write_csv

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# step, learning_rate, and "train TERM", "tune TERM" and what is watched, "val METRIC"
Record = dict[str, float]


def write_log(folder: Path, records: Sequence[Record]) -> None:
    """Write log.csv, one line a check, and curves.png, one plot a term.

    Raises
    ------
    WriteError : the disk refuses.
    """
    names = _names(records)
    lines = [[r["step"], *(f"{r[n]:.6g}" if n in r else "" for n in names[1:])] for r in records]
    write_csv(folder / "log.csv", [names, *lines])
    with beside(folder / "curves.png") as partial:
        draw_curves(records, partial)


def _names(records: Sequence[Record]) -> list[str]:
    """Return the names of all values, step first; what is watched may have begun or ended in between."""
    return list(dict.fromkeys(name for record in records for name in record))


def draw_curves(records: Sequence[Record], path: Path) -> None:
    """Write a PNG with one plot a term: the batches trained on, and the tuning images."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    terms = list(dict.fromkeys(name.split(" ", 1)[1] for name in _names(records) if " " in name))
    steps = [record["step"] for record in records]
    columns = 4
    rows = -(-len(terms) // columns)
    taught = any(term.startswith("soft ") for term in terms)
    figure = Figure(figsize=(3 * columns, 2.3 * rows), layout="constrained")
    for place, term in enumerate(terms):
        axes = figure.add_subplot(rows, columns, place + 1, title=term)
        for kind, style in (("train", "o-"), ("tune", "s--"), ("val", "d:")):
            values = [r.get(f"{kind} {term}", math.nan) for r in records]
            if not all(map(math.isnan, values)):
                with_teachers = taught and kind == "train" and term == "objective"
                label = "train, with the teachers" if with_teachers else kind
                axes.plot(steps, values, style, ms=3, label=label, clip_on=False)
        axes.set_ylim(bottom=0)
        axes.legend(fontsize="small")
    figure.supxlabel("step")
    FigureCanvasAgg(figure)
    figure.savefig(path, format="png")


def open_tensorboard(folder: Path, step: int) -> Any:
    """Return a writer of events for TensorBoard that goes on after a step.

    Raises
    ------
    SettingsError : TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise SettingsError(
            "tensorboard=true needs TensorBoard: pip install tensorboard, or set it to false"
        ) from error
    return SummaryWriter(folder / "tensorboard", purge_step=step + 1)
