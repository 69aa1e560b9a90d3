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
from napari_nucleus_kd.errors import NucleusKDError
from napari_nucleus_kd.io.samples import sample, sample_labels
from napari_nucleus_kd.metrics import match, overlap
from napari_nucleus_kd.pipeline import segment_steps

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from napari_nucleus_kd.pipeline import Result
    from napari_nucleus_kd.types import LabelArray

_SAMPLE = "fluorescence"


def show_baselines(console: Console, *, check: bool = False) -> bool:
    """Print where each tool is, or how to get it, and with which weights it was seen to work.

    Parameters
    ----------
    check : whether to try each that is there, with these weights; without any, whether it can be imported.

    Returns
    -------
    Whether all that were tried work.
    """
    table = Table("name", "tool", "version", "where", "works with")
    weights, all_work = baselines.checked(), True
    for name, found in baselines.installed().items():
        title, known = baselines.TOOLS[name].title, weights.get(name)
        if isinstance(found, str):
            table.add_row(name, title, "-", escape(found), "-")
            continue
        works = "not checked yet" if known is None else escape(known)
        if check:
            try:
                works += _tried(name, known, found.python, console)
            except NucleusKDError as error:
                works, all_work = f"[red]failed:[/] {escape(str(error))}", False
        table.add_row(name, title, found.version, escape(f"{found.python} ({found.how})"), works)
    console.print(table)
    console.print(
        "Does it work with your weights? nucleus-kd baselines check NAME --weights WEIGHTS", highlight=False
    )
    return all_work


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
    """Segment the fluorescence sample with a tool, print what came of it, and note that it works."""
    result, pq = _try(name, weights, device, console)
    assert result.segmenter is not None
    facts = [
        ("tool", result.segmenter.description),
        ("weights", f"sha256 {result.recipe.model_hash}"),
        ("found", f"{result.nuclei.count} nuclei in the {_SAMPLE} sample, which has {_truth().max()}"),
        ("PQ", f"{pq:.3f}"),
        ("seconds", f"{result.seconds:.1f}, with loading"),
    ]
    show_facts(facts, console)
    baselines.note_checked(name, weights)


def _tried(name: str, weights: str | None, python: Path, console: Console) -> str:
    """Return what to say of a tool that works, or can be imported, if there are no weights to try it with."""
    if weights is None:
        baselines.import_in(baselines.TOOLS[name], python)
        return ""
    result, pq = _try(name, weights, None, console)
    return f": {result.nuclei.count} nuclei of the sample, PQ {pq:.3f}"


def _try(name: str, weights: str, device: str | None, console: Console) -> tuple[Result, float]:
    """Return what a tool makes of the sample, and its PQ; if it fails, forget that it works."""
    recipe = Recipe(segmenter=name, weights=weights, device=device or "auto")
    try:
        result = show(segment_steps(sample(_SAMPLE), recipe), console)
    except NucleusKDError:
        baselines.forget_checked(name)
        raise
    return result, match(overlap(_truth(), result.nuclei.labels)).pq


def _truth() -> LabelArray:
    truth = sample_labels(_SAMPLE)
    assert truth is not None
    return truth.astype(np.int32)
