"""How the commands show the course of long steps, and accuracy."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from threading import Event
from typing import TYPE_CHECKING, TypeVar

from rich.console import Group
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from napari_nucleus_kd.evaluate import SHOWN, tellable
from napari_nucleus_kd.train.card import HEADS

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from rich.console import Console, RenderableType

    from napari_nucleus_kd import types

T = TypeVar("T")


def show(steps: Generator[types.Progress, None, T], console: Console) -> T:
    """Run steps to their end behind a progress bar with time left; returns their result.

    Raises
    ------
    KeyboardInterrupt : after Ctrl-C, once the step in hand is done and the steps are closed.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[values]}"),
    )
    with Progress(*columns, console=console) as bar, _ctrl_c_waits() as pressed:
        task, stepped = bar.add_task("starting", total=None, values=""), False
        while not pressed.is_set():
            try:
                step = next(steps)
            except StopIteration as stop:
                bar.update(task, visible=stepped)
                result: T = stop.value
                return result
            stepped = True
            shown = {k: v for k, v in step.values.items() if k == "objective"} or step.values
            values = " ".join(f"{name} {value:.3f}" for name, value in shown.items())
            bar.update(
                task, completed=step.done, total=step.total or None, description=step.message, values=values
            )
    steps.close()
    raise KeyboardInterrupt


def show_new_notes(name: str, notes: Sequence[str], console: Console, said: set[str]) -> None:
    """Print the notes of an image that no image before had; `said`, those that were, takes them in."""
    for note in notes:
        if note in said:
            continue
        said.add(note)
        console.print(f"{escape(name)}: {escape(note)}", soft_wrap=True, style="dim")


@contextmanager
def _ctrl_c_waits() -> Iterator[Event]:
    """Let the step in hand end after Ctrl-C; pressed again, it breaks off at once."""
    pressed = Event()
    if threading.current_thread() is not threading.main_thread():  # nobody can press there
        yield pressed
        return

    def note(_number: int, _frame: object) -> None:
        pressed.set()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)


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
