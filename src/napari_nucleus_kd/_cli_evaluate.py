"""What `nucleus-kd evaluate` does, and how accuracy is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.table import Table

from napari_nucleus_kd._cli_train import show
from napari_nucleus_kd.evaluate import SHOWN, check_report, evaluate_steps, report_steps, summary, tellable
from napari_nucleus_kd.train.card import HEADS

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import RenderableType

    from napari_nucleus_kd.config import Recipe


def evaluate_model(
    data: Path, split: str, recipe: Recipe, output: Path | None, *, true_diameter: bool, overwrite: bool
) -> None:
    """Judge on annotated images behind a progress bar, print the means, and write a report if wished.

    Raises
    ------
    WriteError : a report is there and overwrite is False; it is told before the work.
    """
    console = Console()
    if output is not None:
        check_report(output, overwrite=overwrite)
    if data.is_dir():
        console.print("All images of the folder are judged: none of them may have been trained on.")
    scores = show(evaluate_steps(data, split, recipe, true_diameter=true_diameter), console)
    console.print(metrics_table(summary(scores)))
    if output is not None:
        show(report_steps(data, split, recipe, scores, output, overwrite=overwrite), console)
        console.print(f"report: {output}", soft_wrap=True, markup=False)


def metrics_table(metrics: dict[str, dict[str, list[float]]]) -> Group:
    """Return tables of evaluate.summary, one a source, that fit a terminal of 80 columns."""
    return Group(*(part for source, values in metrics.items() for part in _of_source(source, values)))


def _of_source(source: str, values: dict[str, list[float]]) -> list[RenderableType]:
    """Return a table, with dashes for what so few images cannot tell, and below it the reason."""
    heads = {**HEADS, "count_r2": "R2"}
    told, notes = tellable(values)
    shown = [name for name in (*SHOWN, "count_r2") if name in told]
    count = int(values["images"][0])
    title = f"{source}: {count} image{'s' if count != 1 else ''}"
    table = Table("", *(heads[name] for name in shown), title=title, box=None, padding=(0, 1))
    for row, part in (("mean", 0), ("95% from", 1), ("to", 2)):
        numbers = (told[name][part] for name in shown)
        table.add_row(row, *("-" if number is None else f"{number:.3f}" for number in numbers))
    return [table, *notes]
