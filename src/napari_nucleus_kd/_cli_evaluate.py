"""What `nucleus-kd evaluate` does, and how accuracy is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console

from napari_nucleus_kd._cli_show import metrics_table, show
from napari_nucleus_kd.evaluate import check_report, evaluate_steps, report_steps, summary

if TYPE_CHECKING:
    from pathlib import Path

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
