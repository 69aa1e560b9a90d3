"""What each part of the student's objective is worth, and what a teacher is worth with few annotations.

python benchmarks/ablation.py INDEX.csv --teacher MODEL --output FOLDER [--report FILE.md]

Trains students with the same small budget: on the annotation alone, then with distillation, the hybrid
loss, consistency and layer-wise dropout added one after another, and with distillation at a lower
temperature, also with half of the crops cut from annotated images; with all annotated images and with a
share of them, the others then being there without labels. At a share below 1 the teacher, too, is trained
on that share only. Each with several seeds. Judges on the "val" images.

All images with the split "tune" keep their labels whatever the share: they choose the best step of students
and teachers alike. At a share below 1 one teacher serves all seeds. A stopped run goes on where it was when
it is started again; with other data or steps it wants another folder. Prints one table and one JSON line.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console

from napari_nucleus_kd._cli_show import show
from napari_nucleus_kd.config import Recipe
from napari_nucleus_kd.evaluate import evaluate_steps
from napari_nucleus_kd.index import COLUMNS, Row, read_splits
from napari_nucleus_kd.io.atomic import write_csv, write_text
from napari_nucleus_kd.metrics import bootstrap
from napari_nucleus_kd.networks.student import STUDENTS
from napari_nucleus_kd.package import load_model
from napari_nucleus_kd.train.run import run_steps
from napari_nucleus_kd.train.settings import CropSettings, DistillSettings, LossWeights, TrainSettings

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True, slots=True)
class Objective:
    """What a student learns by beside the annotation.

    Attributes
    ----------
    temperature : of the teacher; None: there is none.
    balanced : half of the crops are of annotated images, however few these are; else each image of a source
        is drawn as often, so that at a share of 5 % one crop in twenty is annotated.
    """

    temperature: float | None = None
    tversky: float = 0.0
    consistency: float = 0.0
    dropout: float = 0.0
    balanced: bool = False


# Each adds to the one before it; the last two are the second one at a temperature that softens less.
VARIANTS = {
    "annotation alone": Objective(),
    "+ distillation": Objective(14),
    "+ hybrid loss": Objective(14, tversky=1),
    "+ consistency": Objective(14, tversky=1, consistency=1),
    "+ layer-wise dropout": Objective(14, tversky=1, consistency=1, dropout=0.2),
    "annotation + distillation at T 2": Objective(2),
    "the same, half of the crops annotated": Objective(2, balanced=True),
}
PLAIN, *_ = VARIANTS
SHARES = (1.0, 0.25, 0.1, 0.05)


@dataclass(frozen=True, slots=True)
class Trial:
    """One student: with which part of the annotation, which objective and which seed."""

    share: float
    variant: str
    seed: int

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"{self.share:g}-{list(VARIANTS).index(self.variant)}-{self.seed}"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("index", type=Path, nargs="?", help="CSV of annotated images")
    parser.add_argument("--teacher", help="model that teaches where all annotations are used")
    parser.add_argument("--output", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--report", type=Path, help="Markdown file to write")
    parser.add_argument("--steps", type=int, default=600, help="of a student (default: 600)")
    parser.add_argument("--teacher-steps", type=int, default=1200, help="of a teacher (default: 1200)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    return parser.parse_args()


def part_of(index: Path, share: float, folder: Path) -> tuple[Path, Path, Path]:
    """Write indices with a share of the labels: without the other images, and with them unlabelled.

    In the last one these are sources of their own, so that half of the crops are cut from them.

    Of each source the same images are kept whatever the seed, and those of a smaller share are among those
    of a larger one. The "val" images are left out: nothing here may see them.
    """
    rng = np.random.default_rng(0)
    known: list[list[str]] = []
    unknown: list[list[str]] = []
    for split, rows in read_splits(index).items():
        for source in sorted({row.source for row in rows} if split != "val" else ()):
            group = [row for row in rows if row.source == source]
            order = rng.permutation(len(group))
            kept = (
                set(order[: max(1, round(share * len(group)))].tolist()) if split == "train" else set(order)
            )
            known += [_line(row, split, labels=True) for i, row in enumerate(group) if i in kept]
            unknown += [_line(row, split, labels=False) for i, row in enumerate(group) if i not in kept]
    folder.mkdir(parents=True, exist_ok=True)
    apart = [[*line[:3], f"{line[3]} unlabelled", *line[4:]] for line in unknown]
    paths = tuple(folder / f"{name}-{share:g}.csv" for name in ("annotated", "all", "balanced"))
    for path, lines in zip(paths, (known, known + unknown, known + apart), strict=True):
        write_csv(path, [[*COLUMNS, "valid"], *lines])
    return paths


def _line(row: Row, split: str, *, labels: bool) -> list[str]:
    truth = str(row.labels.resolve()) if labels and row.labels is not None else ""
    valid = str(row.valid.resolve()) if labels and row.valid is not None else ""
    return [str(row.image.resolve()), truth, row.modality.value, row.source, split, valid]


def settings_of(trial: Trial, teacher: str, steps: int) -> TrainSettings:
    """Return how a trial is trained."""
    by = VARIANTS[trial.variant]
    distill = None
    if by.temperature is not None:
        distill = DistillSettings(teachers=(teacher,), flips=False, temperature=by.temperature)
    return TrainSettings(
        name="student",
        student=STUDENTS["compact"].model_copy(update={"dropout": by.dropout}),
        pretrained=True,
        crops=CropSettings(batch=4, crop_px=192, size_range=(24, 40)),
        enlarge_to_px=30,
        distill=distill,
        loss=LossWeights(tversky=by.tversky, consistency=by.consistency),
        steps=steps,
        warmup_steps=50,
        average=0.99,
        check_every=200,
        check_batches=4,
        seed=trial.seed,
    )


def keep_apart(args: argparse.Namespace) -> None:
    """Refuse a folder whose results were made from something else; note what these are made from."""
    made_from = {
        "index": hashlib.sha256(args.index.read_bytes()).hexdigest(),
        "teacher": args.teacher and load_model(args.teacher).hash,
        "steps": [args.steps, args.teacher_steps],
        "variants": {name: asdict(by) for name, by in VARIANTS.items()},
    }
    note = args.output / "made_from.json"
    if note.exists() or any(args.output.glob("*/pq.json")):
        before = json.loads(note.read_text()) if note.exists() else {}
        objectives = list(before.pop("variants", {}).items()), list(made_from["variants"].items())
        changed = any(old != new for old, new in zip(*objectives, strict=False))  # later ones may be new
        if changed or before != {name: made_from[name] for name in before} or not before:
            raise SystemExit(
                f"ablation: {args.output} holds results of other data, teacher, steps or objectives"
            )
    args.output.mkdir(parents=True, exist_ok=True)
    write_text(note, json.dumps(made_from, indent=2))


def teacher_of(share: float, args: argparse.Namespace, console: Console) -> str:
    """Return the teacher at a share of the annotations; trains it if need be."""
    if share == 1 and args.teacher:
        return str(args.teacher)
    folder = args.output / f"teacher-{share:g}"
    if not (folder / "teacher/model.json").exists():
        annotated, *_ = part_of(args.index, share, args.output)
        settings = settings_of(Trial(share, PLAIN, 0), "", args.teacher_steps)
        large = settings.model_copy(update={"name": "teacher", "student": STUDENTS["large"]})
        show(run_steps(large, annotated, folder), console)
    return str(folder / "teacher")


def judged(trial: Trial, args: argparse.Namespace, console: Console) -> dict[str, list[float]]:
    """Return the PQ of every validation image, by source; trains and judges if that was not done before."""
    folder = args.output / trial.name
    result = folder / "pq.json"
    if result.exists():
        return dict(json.loads(result.read_text()))
    annotated, everything, balanced = part_of(args.index, trial.share, args.output)
    by, teacher, index = VARIANTS[trial.variant], "", annotated
    if by.temperature is not None:
        teacher, index = teacher_of(trial.share, args, console), balanced if by.balanced else everything
    settings = settings_of(trial, teacher, args.steps)
    show(run_steps(settings, index, folder), console)
    model = str(folder / settings.name)
    steps = evaluate_steps(args.index, "val", Recipe(model=model, device="cpu"))
    found: dict[str, list[float]] = {}
    for score in show(steps, console):
        found.setdefault(score.source, []).append(score.values["pq"])
    write_text(result, json.dumps(found))
    (folder / "checkpoint.pt").unlink()
    return found


def rows_of(
    found: dict[Trial, dict[str, list[float]]], sources: Sequence[str], seeds: int
) -> Iterable[tuple[float, str, dict[str, list[tuple[float, float, float]]]]]:
    """Yield share, variant, and for each source the PQ and its gain over the annotation alone.

    Of each image the mean over the seeds is taken; the intervals are over images.
    """
    trained = {(trial.share, trial.variant) for trial in found}
    for share, variant in sorted(trained, key=lambda key: (-key[0], list(VARIANTS).index(key[1]))):
        cells = {}
        for source in sources:
            here, base = (
                np.mean([found[Trial(share, v, seed)][source] for seed in range(seeds)], axis=0)
                for v in (variant, PLAIN)
            )
            cells[source] = [bootstrap(here), bootstrap(here - base)]
        yield share, variant, cells


def table(rows: Iterable[tuple[float, str, dict]], sources: Sequence[str]) -> str:
    """Return the result as Markdown."""
    head = ["annotated", "objective", *(f"{source}: PQ (95%); gain" for source in sources)]
    lines = [" | ".join(head), "|".join(["---"] * len(head))]
    for share, variant, cells in rows:
        texts = []
        for source in sources:
            (mean, low, high), (gain, worst, best) = cells[source]
            text = f"{mean:.3f} ({low:.3f} to {high:.3f})"
            if variant != PLAIN:
                text += f"; {gain:+.3f} ({worst:+.3f} to {best:+.3f})"
            texts.append(text)
        lines.append(" | ".join([f"{share:.0%}", variant, *texts]))
    return "".join(f"| {line} |\n" for line in lines)


def main() -> None:
    """Train, judge, and print."""
    args = parse()
    if args.index is None:
        print("ablation: skipped, no INDEX.csv given (make one with benchmarks/make_index.py)")
        return
    keep_apart(args)
    variants = list(dict.fromkeys([PLAIN, *args.variants]))  # gains are over the first
    console = Console(stderr=True, quiet=not sys.stderr.isatty())
    trials = [
        Trial(share, variant, seed)
        for seed in range(args.seeds)  # the first seed of everything first: an early, rough answer
        for share in args.shares
        for variant in variants
        if share < 1 or not VARIANTS[variant].balanced  # where all is annotated it is nothing new
    ]
    found = {}
    for i, trial in enumerate(trials, 1):
        found[trial] = judged(trial, args, console)
        print(f"{i}/{len(trials)} {trial.name}: " + _means(found[trial]), file=sys.stderr, flush=True)
    counts = {s: len(v) for s, v in next(iter(found.values())).items()}
    sources = sorted(counts, key=lambda s: -counts[s])
    rows = list(rows_of(found, sources, args.seeds))
    text = table(rows, sources)
    print(text)
    if args.report:
        write_text(args.report, text)
    flat = [{"share": s, "variant": v, "pq_and_gain": c} for s, v, c in rows]
    print(json.dumps({"benchmark": "ablation", "steps": args.steps, "seeds": args.seeds, "rows": flat}))


def _means(found: dict[str, list[float]]) -> str:
    return " ".join(f"{source} {np.mean(values):.3f}" for source, values in sorted(found.items()))


if __name__ == "__main__":
    main()
