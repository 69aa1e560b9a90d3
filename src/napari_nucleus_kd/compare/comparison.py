"""What a comparison is: who takes part, on which images, and what came of it; where that is kept."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from napari_nucleus_kd.config import Settings
from napari_nucleus_kd.index import read_truth, true_labels
from napari_nucleus_kd.io import read
from napari_nucleus_kd.io.atomic import write_text
from napari_nucleus_kd.mistakes import Mistakes, mistakes

if TYPE_CHECKING:
    from pathlib import Path

    from napari_nucleus_kd.config import Recipe
    from napari_nucleus_kd.index import Row
    from napari_nucleus_kd.types import LabelArray


class Size(StrEnum):
    """Which nucleus diameter a segmenter is told where its recipe names none."""

    ESTIMATED = "estimated"  # by itself, as a user gets who changes nothing
    OWN = "own"  # the one that it was made for, the same for all images
    ANNOTATED = "annotated"  # the median of the annotation, as of a user who measured it


@dataclass(frozen=True, slots=True)
class Contestant:
    """One way to find nuclei.

    Attributes
    ----------
    name : for people, and of its folder.
    recipe : how to segment; None with `labels`.
    labels : folder of label images that another program made, with the names of the images.
    """

    name: str
    recipe: Recipe | None = None
    size: Size = Size.ESTIMATED
    labels: Path | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """An image to compare on.

    Attributes
    ----------
    name : that no other case has, fit for a file.
    row : its files; without labels there is no ground truth.
    about : what a temporary file is a part of, for people.
    """

    name: str
    row: Row
    about: str = ""

    @property
    def shown(self) -> str:
        """Which image it is, for people."""
        return self.about or str(self.row.image.absolute())


class Facts(Settings):
    """What is known of a contestant.

    Attributes
    ----------
    description : tool, version, weights and processor.
    digest : of the weights; None without.
    parameters : numbers that were learnt; None where that is unknown.
    """

    description: str
    digest: str | None = None
    parameters: int | None = None


class Outcome(Settings):
    """What a contestant made of an image.

    Attributes
    ----------
    values : metrics by name, see metrics.scores; {} without ground truth.
    ap : average precision at metrics.STRICT_IOU; empty without ground truth.
    verdicts : number of nuclei by the name of their Verdict; {} without ground truth.
    seconds : of segmenting, the tool being open and warm; None for labels from a folder.
    begun : when the comparison was begun that made this, UTC.
    memory_bytes : most that the process that segments has of main memory, with all its libraries; of a tool
        in a process of its own, that one. None unless it was measured, see memory_steps.
    notes : what the segmenter had to change, for a person.
    problem : why it failed; it is then judged as if nothing had been found.
    """

    contestant: str
    image: str
    source: str
    request: str
    shape_yx: tuple[int, int]
    count: int
    values: dict[str, float] = Field({})
    ap: tuple[float, ...] = ()
    verdicts: dict[str, int] = Field({})
    diameter_px: float | None = None
    seconds: float | None = None
    begun: str = ""
    memory_bytes: int | None = None
    notes: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What all contestants made of all images.

    Attributes
    ----------
    outcomes : of each contestant, by its name, one an image, in the order of the cases.
    folder : holds the labels; see labels_of.
    measured : on which memory was measured; None if it was not.
    """

    cases: tuple[Case, ...]
    contestants: tuple[Contestant, ...]
    facts: dict[str, Facts]
    outcomes: dict[str, list[Outcome]]
    folder: Path
    measured: Case | None = None

    @property
    def judged(self) -> bool:
        """Whether there is ground truth."""
        return all(case.row.labels is not None for case in self.cases)

    def memory_of(self, contestant: str) -> int | None:
        """Return the memory_bytes of the image on which they were measured; None if they were not."""
        if self.measured is None:
            return None
        return self.outcomes[contestant][self.cases.index(self.measured)].memory_bytes

    def mistakes_of(self, contestant: str, case: Case) -> Mistakes:
        """Tell what became of the nuclei of a case with ground truth."""
        true, found = true_labels(case.row), self.labels_of(contestant, case)
        return mistakes(true, np.zeros_like(true) if found is None else found)

    def labels_of(self, contestant: str, case: Case) -> LabelArray | None:
        """Read what a contestant found, of an annotation of a part what can be judged; None if it failed."""
        path = kept_path(self.folder, contestant, case.name)
        if not path.exists():
            return None
        labels: LabelArray = np.asarray(read(path).pixels[0]).astype(np.int32)  # as they were, even if odd
        return labels if case.row.valid is None else read_truth(case.row).and_found(labels)[1]


def keep_outcome(outcome: Outcome, output: Path) -> Outcome:
    """Write what a contestant made of an image beside its labels; returns it."""
    path = kept_path(output, outcome.contestant, outcome.image, ".json")
    write_text(path, outcome.model_dump_json(indent=2) + "\n")
    return outcome


def kept_path(output: Path, contestant: str, case: str, suffix: str = "_labels.tif") -> Path:
    """Return where the labels are that a contestant found in a case; with another suffix, what is known."""
    return output / "labels" / fit_for_a_folder(contestant) / f"{case}{suffix}"


def fit_for_a_folder(name: str) -> str:
    """Return the name of a contestant's folder."""
    return re.sub(r"[^\w.-]+", "_", name).strip("._") or "contestant"
