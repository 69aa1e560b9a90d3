"""What was asked of which image, kept beside the labels so that a run can be repeated and resumed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from napari_nucleus_kd.config import Recipe, Settings

if TYPE_CHECKING:
    from pathlib import Path

_SHOWN = 60  # characters of a value; checksums have 64


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
        mine, theirs = _settings(self.request), _settings(other.request)
        changed = [name for name in mine if mine[name] != theirs[name]]
        return found + [
            f"{name} was {_told(mine[name])} and is {_told(theirs[name])} now" for name in changed
        ]


def _settings(request: Recipe) -> dict[str, Any]:
    """Return the settings by name, those of decoding among them."""
    values = request.model_dump(mode="json")
    return values | {f"decode.{name}": value for name, value in values.pop("decode").items()}


def _told(value: object) -> str:
    """Return the value of a setting for a person; checksums shortened."""
    text = "not given" if value is None else str(value)
    return text if len(text) <= _SHOWN else f"{text[:12]}..."


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
