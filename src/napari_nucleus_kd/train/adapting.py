"""What is made of a trained adapter: a package of its own, judged on panels that it never saw."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_nucleus_kd import metrics
from napari_nucleus_kd.channels import scaled_panel
from napari_nucleus_kd.config import Recipe
from napari_nucleus_kd.evaluate import Score
from napari_nucleus_kd.index import read_truth
from napari_nucleus_kd.io import read
from napari_nucleus_kd.io.samples import sample
from napari_nucleus_kd.pipeline import segment_steps
from napari_nucleus_kd.simulate import simulate
from napari_nucleus_kd.train.data import network_input
from napari_nucleus_kd.types import Channel, Image, Modality, Progress

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from napari_nucleus_kd.index import Row
    from napari_nucleus_kd.package import Model, ModelSpec
    from napari_nucleus_kd.train.settings import AdapterSettings
    from napari_nucleus_kd.types import FloatArray, LabelArray

JUDGED_CHANNELS = (2, 20)  # of the panels that adapters are judged on, fewest and most
HOW = (
    "On panels of {} to {} channels that were drawn around the nuclei of the validation images, with the "
    "student that it learnt in front of; the diameter is estimated by that."
)


def adapter_spec(student: ModelSpec, settings: AdapterSettings) -> ModelSpec:
    """Return what the package of an adapter says, that learnt in front of a student."""
    return student.model_copy(
        update={
            "architecture": settings.architecture,
            "options": settings.options,
            "maps": ("seen_1", "seen_2", "seen_3"),
            "multiple_px": 8,
        }
    )


def panel_rows(rows: Sequence[Row]) -> list[Row]:
    """Return the annotated rows around whose nuclei a panel can be drawn."""
    return [row for row in rows if row.modality is Modality.FLUORESCENCE and row.labels is not None]


def drawn_panel(
    row: Row,
    seed: int,
    channels: tuple[int, int] = JUDGED_CHANNELS,
    nuclear: Sequence[int | str] | None = None,
) -> tuple[Image, int]:
    """Draw a panel around the nuclei of a row.

    Parameters
    ----------
    seed : the same gives the same panel.
    channels : fewest and most.
    nuclear : channels of a row's image that has several; None: by their names.

    Returns
    -------
    The image, in memory, and the index of the channel with the nuclei.
    """
    rng = np.random.default_rng(seed)
    picture = network_input(row, read(row.image), nuclear).max(axis=0)
    labels: LabelArray = read_truth(row).labels
    drawn = simulate(picture, labels, rng, int(rng.integers(channels[0], channels[1] + 1)))
    names = tuple(Channel(name) for name in drawn.names)
    return Image((drawn.pixels,), names, name=row.name), drawn.nuclear


def panel_score_steps(
    rows: Sequence[Row],
    recipe: Recipe,
    channels: tuple[int, int],
    nuclear: Sequence[int | str] | None = None,
    seed: int = 0,
) -> Generator[Progress, None, list[Score]]:
    """Segment a panel drawn around the nuclei of each row, and compare with its labels; see drawn_panel.

    Yields
    ------
    Progress after each panel, with its PQ.
    """
    found = []
    for i, row in enumerate(rows):
        image, _ = drawn_panel(row, seed + i, channels, nuclear)
        result = yield from segment_steps(image, recipe)
        truth = read_truth(row)
        values = metrics.scores(*truth.and_found(result.nuclei.labels))
        diameter = metrics.median_diameter(truth.nuclei)
        found.append(Score(row.name, row.source, values, result.diameter_px, diameter, result.seconds))
        yield Progress(i + 1, len(rows), row.name, {"pq": values["pq"]})
    return found


def judged_channels(adapter: ModelSpec) -> tuple[int, int]:
    """Return the fewest and most channels of the panels that an adapter is judged on."""
    fewest, most = JUDGED_CHANNELS
    return fewest, min(most, int(adapter.options.get("channels", most)))


def judge_steps(
    adapter: Model, student: str, rows: Sequence[Row], nuclear: Sequence[int | str] | None = None
) -> Generator[Progress, None, list[Score]]:
    """Score an adapter in front of a student on panels around the nuclei of rows."""
    recipe = Recipe(model=student, mapping=str(adapter.folder), modality=Modality.FLUORESCENCE)
    return (yield from panel_score_steps(rows, recipe, judged_channels(adapter.spec), nuclear))


def test_panel() -> FloatArray:
    """Return the input that a package of an adapter is tested with, (3, Y, X): a part of a drawn sample."""
    image = sample("multiplex")
    return scaled_panel(np.asarray(image.pixels[:3, :128, :128]))
