"""What `nucleus-kd finetune` does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console

from napari_nucleus_kd._cli_show import show
from napari_nucleus_kd.evaluate import FEWEST_IMAGES
from napari_nucleus_kd.project import TILE_PX, Project
from napari_nucleus_kd.train.finetune import accept, begun, data_steps, finetune_steps
from napari_nucleus_kd.words import count

if TYPE_CHECKING:
    from pathlib import Path

    from napari_nucleus_kd.train.finetune import FinetuneSettings, Tuned


def finetune_model(
    project: Path, model: str, output: Path, settings: FinetuneSettings, *, install: bool
) -> None:
    """Fine-tune a model on what is verified in a project, say what it gained, and install it if wished.

    What is verified is written into the run's folder once; a run that goes on learns from the same.
    """
    console = Console()
    if begun(output) is not None:
        console.print("This run goes on with what was verified when it began.")
    with Project(project, write=False) as opened:
        data = show(data_steps(opened, output), console)
    for note in data.notes:
        console.print(note, markup=False)
    console.print(f"{data.taught} verified nuclei to learn from, {data.judged} to judge by.")
    tuned = show(finetune_steps(model, data.index, output, settings), console)
    console.print(_gain(tuned))
    if install:
        console.print(f"installed: {accept(tuned).spec.name}", markup=False)
    else:
        console.print("To make it the next version of the model: the same command with --install")


def _gain(tuned: Tuned) -> str:
    """Return old and new PQ on the held-out tiles, in words; of too few tiles no number."""
    tiles = len(tuned.after)
    if tuned.mean_pq is None or tuned.gain is None:
        return (
            f"Not judged: of the tiles that are completely verified one in five is held out, which gives "
            f"{tiles}; {FEWEST_IMAGES} are needed. Verify about {5 * (FEWEST_IMAGES - tiles)} more tiles of "
            f"{TILE_PX} px."
        )
    before, after = tuned.mean_pq
    text = f"PQ on {count(tiles, 'tile')} that it did not learn from: {after:.3f}, before {before:.3f}"
    mean, low, high = tuned.gain
    return f"{text}; gain {mean:+.3f} (95%: {low:+.3f} to {high:+.3f})."
