"""What was asked of which image, kept beside the labels so that a run can be repeated and resumed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import ValidationError

from napari_nucleus_kd.config import Recipe, Settings

if TYPE_CHECKING:
    from pathlib import Path


class Plane(Settings):
    """Which plane of the file was read."""

    series: int = 0
    z: int | None = None
    t: int = 0


class Question(Settings):
    """What was asked: an image as it was then, and the settings given."""

    source: str
    modified_ns: int
    plane: Plane
    request: Recipe

    def differences(self, other: Question) -> list[str]:
        """Name what differs, for a person; empty if the answer must be the same."""
        if self.source != other.source:
            return [f"it was made from {self.source}"]
        found = ["the image has changed since"] if self.modified_ns != other.modified_ns else []
        found += [] if self.plane == other.plane else ["it was made from another plane"]
        mine, theirs = self.request.model_dump(), other.request.model_dump()
        return found + [f"{name} was {mine[name]}" for name in mine if mine[name] != theirs[name]]


class RunRecord(Settings):
    """One finished image: the question and what came of it."""

    question: Question
    labels: str
    nuclei: int
    seconds: float
    notes: tuple[str, ...]
    version: str


def question(source: Path, plane: Plane, request: Recipe) -> Question:
    """Return what is asked of `source` now; the device is left out, it does not change the labels."""
    return Question(
        source=str(source.resolve()),
        modified_ns=source.stat().st_mtime_ns,
        plane=plane,
        request=request.model_copy(update={"device": "auto"}),
    )


def read_record(path: Path) -> RunRecord | None:
    """Return the record, or None if there is none that this version understands."""
    try:
        return RunRecord.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
