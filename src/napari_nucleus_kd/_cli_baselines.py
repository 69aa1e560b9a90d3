"""What `nucleus-kd baselines` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from rich.markup import escape
from rich.table import Table

from napari_nucleus_kd import baselines
from napari_nucleus_kd._cli_info import show_facts
from napari_nucleus_kd._cli_show import show
from napari_nucleus_kd.config import Recipe
from napari_nucleus_kd.io.samples import sample, sample_labels
from napari_nucleus_kd.metrics import match, overlap
from napari_nucleus_kd.pipeline import segment_steps

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

_SAMPLE = "fluorescence"


def show_baselines(console: Console) -> None:
    """Print where each tool is, or how to get it."""
    table = Table("name", "tool", "version", "where")
    for name, found in baselines.installed().items():
        title = baselines.TOOLS[name].title
        if isinstance(found, str):
            table.add_row(name, title, "-", escape(found))
        else:
            table.add_row(name, title, found.version, escape(f"{found.python} ({found.how})"))
    console.print(table)
    console.print(
        "Does it work with your weights? nucleus-kd baselines check NAME --weights WEIGHTS", highlight=False
    )


def use_environment(name: str, python: Path, console: Console) -> None:
    """Take a tool from an environment of the person's, and say so."""
    found = baselines.use(name, python)
    console.print(
        escape(f"{baselines.TOOLS[name].title} ({found.version}) is taken from {found.python}"),
        soft_wrap=True,
        highlight=False,
    )


def install_tool(name: str, python: str | None, extra: list[str], console: Console) -> None:
    """Install a tool into an environment of its own."""
    found = show(baselines.install_steps(name, python, extra), console)
    console.print(
        escape(
            f"{baselines.TOOLS[name].title} ({found.version}) is installed in {found.python.parent.parent}"
        ),
        soft_wrap=True,
        highlight=False,
    )


def remove_tool(name: str, console: Console) -> None:
    """Remove the environment that was made for a tool; one of the person's is only forgotten."""
    removed = baselines.remove(name)
    said = "it is not used any more; nothing was removed" if removed is None else f"removed: {removed}"
    console.print(escape(said), soft_wrap=True, highlight=False)


def check_tool(name: str, weights: str, device: str | None, console: Console) -> None:
    """Segment the fluorescence sample with a tool, and print what came of it."""
    recipe = Recipe(segmenter=name, weights=weights, device=device or "auto")
    image, truth = sample(_SAMPLE), sample_labels(_SAMPLE)
    assert truth is not None
    result = show(segment_steps(image, recipe), console)
    found = match(overlap(truth.astype(np.int32), result.nuclei.labels))
    assert result.segmenter is not None
    facts = [
        ("tool", result.segmenter.description),
        ("weights", f"sha256 {result.recipe.model_hash}"),
        ("found", f"{result.nuclei.count} nuclei in the {_SAMPLE} sample, which has {truth.max()}"),
        ("PQ", f"{found.pq:.3f}"),
        ("seconds", f"{result.seconds:.1f}, with loading"),
    ]
    show_facts(facts, console)
