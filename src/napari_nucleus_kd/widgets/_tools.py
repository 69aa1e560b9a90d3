"""The tools of the Correct widget: one table for buttons, keys and help; needs no Qt."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

from napari_nucleus_kd import edit

if TYPE_CHECKING:
    from collections.abc import Callable

    Path = list[tuple[float, float]]
    # Labels (Y, X), where a person clicked or drew, and what gives the number of a new nucleus.
    Change = Callable[[Any, Path, Callable[[], int]], edit.Edit]


class Gesture(Enum):
    """What a tool waits for on the canvas."""

    CLICK = auto()
    STROKE = auto()
    OUTLINE = auto()
    BOX = auto()
    NONE = auto()


@dataclass(frozen=True, slots=True)
class Tool:
    """One tool.

    Attributes
    ----------
    word : on its button.
    key : as napari writes it; free in napari's own Labels layers.
    does : what it does, for tooltip and help.
    ask : what to do on the canvas once it is chosen.
    change : the correction; None for tools that take longer or change nothing.
    also : another key; "" for none.
    """

    word: str
    key: str
    gesture: Gesture
    does: str
    ask: str = ""
    change: Change | None = None
    also: str = ""

    @property
    def shown_key(self) -> str:
        """The key as people read it.

        >>> BOX.shown_key
        '⇧A'
        """
        return self.key.replace("Shift-", "⇧")

    @property
    def at_once(self) -> bool:
        """True if its key needs no further gesture: it acts on the nucleus under the cursor."""
        return self.gesture is Gesture.CLICK


_CLICK_ONE = "Click on a nucleus"

ADD = Tool(
    "Add here",
    "A",
    Gesture.CLICK,
    "Add the nucleus that the model sees at a point",
    "Click on the nucleus that is missing",
)
BOX = Tool(
    "Add in box",
    "Shift-A",
    Gesture.BOX,
    "Add the one nucleus that the model sees in a box",
    "Drag a box around the nucleus that is missing",
)
VERIFY = Tool(
    "Verified",
    "C",
    Gesture.BOX,
    "Mark a box as verified: all nuclei in it are right, and none is missing",
    "Drag a box around what you have verified",
)
UNVERIFY = Tool(
    "Not verified",
    "Shift-C",
    Gesture.BOX,
    "Take the mark away in a box",
    "Drag a box around what is not verified",
)
PAINT = Tool(
    "Paint verified",
    "K",
    Gesture.NONE,
    "Paint with the brush what you have verified; once more goes back to the nuclei",
)
MARKS = (VERIFY, UNVERIFY, PAINT)  # not of nuclei, but of what is verified
SMALL = Tool(
    "Small…",
    "Shift-S",
    Gesture.NONE,
    "Show the nuclei below an area; Enter removes them, once more keeps them",
)
BORDER = Tool(
    "Border…",
    "Shift-B",
    Gesture.NONE,
    "Show the nuclei that touch the border of the layer; Enter removes them, once more keeps them",
)
REMOVALS = (SMALL, BORDER)
PREVIOUS = Tool("Previous", "Shift-N", Gesture.NONE, "Go to the previous nucleus")
NEXT = Tool("Next", "N", Gesture.NONE, "Go to the next nucleus, line by line")

TOOLS = (
    Tool(
        "Merge",
        "G",
        Gesture.STROKE,
        "Make one nucleus of all that a stroke crosses",
        "Drag from one nucleus into another",
        lambda labels, path, _: edit.merge(labels, path),
    ),
    Tool(
        "Split",
        "S",
        Gesture.STROKE,
        "Cut a nucleus along a stroke",
        "Drag across the nucleus to cut",
        lambda labels, path, fresh: edit.split(labels, path, fresh()),
    ),
    Tool(
        "At waist",
        "W",
        Gesture.CLICK,
        "Cut a nucleus where it is narrowest",
        _CLICK_ONE,
        lambda labels, path, fresh: edit.split_at_waist(labels, path[0], fresh()),
    ),
    Tool(
        "Delete",
        "D",
        Gesture.CLICK,
        "Remove a nucleus",
        _CLICK_ONE,
        lambda labels, path, _: edit.delete(labels, path[0]),
        "Delete",
    ),
    Tool(
        "Fill holes",
        "H",
        Gesture.CLICK,
        "Fill the holes of a nucleus",
        _CLICK_ONE,
        lambda labels, path, _: edit.fill_holes(labels, path[0]),
    ),
    Tool(
        "Smooth",
        "T",
        Gesture.CLICK,
        "Smooth an outline (Gaussian of 2 px)",
        _CLICK_ONE,
        lambda labels, path, _: edit.smooth(labels, path[0]),
    ),
    Tool(
        "Grow",
        ".",
        Gesture.CLICK,
        "Make a nucleus 1 px wider on every side",
        _CLICK_ONE,
        lambda labels, path, _: edit.grow(labels, path[0], 1),
    ),
    Tool(
        "Shrink",
        ",",
        Gesture.CLICK,
        "Make a nucleus 1 px narrower on every side",
        _CLICK_ONE,
        lambda labels, path, _: edit.grow(labels, path[0], -1),
    ),
    Tool(
        "Redraw",
        "R",
        Gesture.OUTLINE,
        "Give a nucleus a new outline, or add one where there is none",
        "Drag around the nucleus; the outline closes by itself",
        lambda labels, path, fresh: edit.redraw(labels, path, fresh()),
    ),
    ADD,
    BOX,
    PREVIOUS,
    NEXT,
    *REMOVALS,
    *MARKS,
)
RIGHT = Tool("Right", "Y", Gesture.NONE, "This nucleus is right as it is now: accept it and go on")
REMOVE = Tool("Delete", "Shift-D", Gesture.NONE, "Delete the nucleus under review and go on")
LATER = Tool("Unsure", "U", Gesture.NONE, "Leave the nucleus for the end of the review and go on")
BACK = Tool("Back", "Shift-Y", Gesture.NONE, "Go back to the nucleus that was accepted last")
REVIEW_TOOLS = (RIGHT, REMOVE, LATER, BACK)  # their keys are bound while a review runs

UNDO_KEY, REDO_KEY, HELP_KEY = "Ctrl+Z", "Ctrl+⇧Z", "?"
_STROKES = [tool.word for tool in TOOLS if tool.gesture not in (Gesture.CLICK, Gesture.NONE)]
ABOUT_KEYS = (
    "Keys act on the nucleus under the cursor; "
    f"{', '.join(_STROKES[:-1])} and {_STROKES[-1]} wait for a stroke."
)


def key_help() -> list[tuple[str, str]]:
    """Return every key and what it does, made from the table that binds them."""
    return [
        *((f"{t.shown_key} or {t.also}" if t.also else t.shown_key, t.does) for t in TOOLS),
        *((t.shown_key, f"In a review: {t.does[:1].lower()}{t.does[1:]}") for t in REVIEW_TOOLS),
        ("Esc", "Put the chosen tool away"),
        ("Space", "Hold it to move the view while a tool is chosen"),
        (UNDO_KEY, "Undo, together with what was painted and marked as verified"),
        (REDO_KEY, "Redo"),
        (HELP_KEY, "Show or hide these keys"),
    ]
