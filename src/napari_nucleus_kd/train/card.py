"""The model card: what a person should know before trusting a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_nucleus_kd.evaluate import FEWEST_IMAGES, SHOWN, tellable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_nucleus_kd.package import ModelSpec
    from napari_nucleus_kd.train.enhancing_settings import EnhancingSettings
    from napari_nucleus_kd.train.learner import Trained
    from napari_nucleus_kd.train.settings import TrainSettings

AS_USED = "Default settings: the diameter is estimated by the model."
HEADS = {
    "pq": "PQ",
    "dq": "DQ",
    "sq": "SQ",
    "ap50": "AP@0.5",
    "ap75": "AP@0.75",
    "aji": "AJI",
    "aji_plus": "AJI+",
    "dice": "Dice",
}

_BLENDED = "The result has {:.0%} of the learnt weights and {:.0%} of those that it started from."


def write_card(
    spec: ModelSpec,
    settings: TrainSettings,
    trained: Trained,
    notes: Sequence[str] = (),
    how: str = AS_USED,
) -> str:
    """Return the card as Markdown: purpose, data, recipe, metrics with intervals, limits, reproduction.

    Parameters
    ----------
    notes : what is to be known of the data, in sentences; see index.check_rows_steps.
    how : how it was judged, in sentences.
    """
    origin_told = f"AdamW at {settings.learning_rate:g}, {settings.schedule}; {_network(settings)}"
    lines = [
        f"{trained.steps} steps of {_batch(settings)}; the weights are those of step "
        f"{trained.best_step}, the best on the images that it was tuned by.",
        f"{origin_told}; seed {settings.seed}; on {trained.processor}.",
        *([] if settings.blend == 1 else [_BLENDED.format(settings.blend, 1 - settings.blend)]),
        *_teachers(settings),
    ]
    recipe = settings.model_copy(update={"steps": max(settings.steps, trained.steps)})
    return card(spec, recipe, lines, _command(settings), notes, how)


def card(
    spec: ModelSpec,
    recipe: TrainSettings | EnhancingSettings,
    lines: Sequence[str],
    command: str,
    notes: Sequence[str],
    how: str,
    why: str = "",
) -> str:
    """Return a card; see write_card.

    Parameters
    ----------
    recipe : settings that make the same model again.
    lines : what was done, in sentences.
    command : that repeats it, with recipe.json.
    why : why it was not judged; "": there were too few images.
    """
    return "\n".join(
        [
            f"# {spec.name} {spec.version}",
            "",
            recipe.purpose,
            "",
            "## Data and licence",
            "",
            *(f"- {line}" for line in (*spec.data, *notes)),
            f"- Licence of the weights: {spec.licence or 'not stated'}"
            + (f"; mind that of {spec.parent}, from which it started" if spec.parent else ""),
            "",
            "## Metrics",
            "",
            *_metrics(spec.metrics, how, why),
            "",
            "## Limits",
            "",
            *(f"- {line}" for line in recipe.limits),
            *(_sizes(spec) if spec.rescales else []),
            "",
            "## Recipe",
            "",
            *lines,
            "",
            "## Reproduce",
            "",
            f"    {command}",
            "",
            "with recipe.json:",
            "",
            "```json",
            recipe.model_dump_json(indent=2, exclude={"dataset", "unlabelled"}),  # places on one computer
            "```",
            "",
        ]
    )


def _sizes(spec: ModelSpec) -> list[str]:
    smallest, largest = spec.size_range
    return [
        f"- Nuclei with a median diameter below {smallest:g} px are enlarged to "
        f"{spec.enlarge_to_px or smallest:g} px first, above {largest:g} px shrunk to that.",
        *(
            f"- In {modality} images it first looks for nuclei of about {px:g} px."
            for modality, px in spec.expected_px.items()
        ),
    ]


def _network(settings: TrainSettings) -> str:
    """Say what learnt."""
    student = f"encoder {settings.student.encoder}, from {origin(settings)}"
    if settings.adapter is None:
        return student
    behind = "stayed as it was" if settings.adapter.frozen_student else "learnt with it"
    low, high = settings.adapter.panel
    return f"on panels of {low} to {high} channels; the student behind it ({student}) {behind}"


def _command(settings: TrainSettings) -> str:
    dataset = settings.dataset
    data = "index.csv" if dataset is None or dataset.is_dir() else dataset.name
    if settings.distill is None:
        return f"nucleus-kd train recipe.json --data {data} --output runs/again"
    teachers = " ".join(f"--teacher {name}" for name in settings.distill.teachers)
    unlabelled = "" if settings.unlabelled is None else " --unlabelled DIR"
    return f"nucleus-kd distill recipe.json {teachers} --data {data}{unlabelled} --output runs/again"


def _teachers(settings: TrainSettings) -> list[str]:
    distill = settings.distill
    if distill is None:
        return []
    return [
        f"Taught by {', '.join(distill.teachers)} (weight {distill.taught:g}, temperature "
        f"{distill.temperature:g}) beside the annotation (weight {distill.truth:g})."
    ]


def _metrics(metrics: dict[str, dict[str, list[float]]], how: str, why: str) -> list[str]:
    if not metrics:
        few = (
            "Not judged: too few images to keep some back from training, or none has the split val.\n"
            "Annotate images that do not look alike, at least three, before you trust this model."
        )
        return [why or few]
    return [
        "Mean over the validation images, which were never trained or tuned on; 95% bootstrap interval",
        f"over images (1,000 replicates), where there are at least {FEWEST_IMAGES}.",
        how,
        "A model that it started from, or that taught it, may have seen these images.",
        "",
        *metrics_lines(metrics),
    ]


def origin(settings: TrainSettings) -> str:
    """Say what the weights are before the first step."""
    if settings.start is not None:
        return f"the model {settings.start}"
    frozen = ", which stayed as they were" if settings.frozen_encoder else ""
    if settings.encoder_of is not None:
        return f"the weights of the encoder of {settings.encoder_of}{frozen}"
    if not settings.pretrained:
        return "random weights"
    return f"its pretrained weights{frozen}"


def _batch(settings: TrainSettings) -> str:
    crops = settings.crops
    times = settings.accumulate * settings.devices
    return f"{crops.batch * times} crops of {crops.crop_px} px"


def metrics_lines(metrics: dict[str, dict[str, list[float]]]) -> list[str]:
    """Return the lines of a Markdown table of evaluate.summary."""
    lines = [
        "| source | images | " + " | ".join(HEADS[name] for name in SHOWN) + " |",
        "|---" * (len(SHOWN) + 2) + "|",
    ]
    for source, values in metrics.items():
        told, _ = tellable(values)
        cells = [_cell(*told[name]) for name in SHOWN]
        lines.append(f"| {source} | {values['images'][0]:.0f} | " + " | ".join(cells) + " |")
    return lines


def _cell(mean: float | None, low: float | None, high: float | None) -> str:
    """Return a mean with its interval, which few images do not have."""
    return f"{mean:.3f}" if low is None else f"{mean:.3f} ({low:.3f} to {high:.3f})"
