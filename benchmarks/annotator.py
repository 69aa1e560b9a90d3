"""How fast the loop of correcting and retraining brings a model to images it has never seen the like of.

python benchmarks/annotator.py INDEX.csv --output FOLDER [--report FILE.md] [--shifts ...] [--seeds 3]

Trains the shipped network without one kind of image, then lets a simulated person teach it that kind: round
by round one tile of 256 x 256 pixels is chosen, what the model draws badly there (IoU up to 0.7) gets its
ground truth, the tile is marked as verified in a project, and the model is fine-tuned on all that is verified
so far. Which tile is next is chosen as the program suggests, by uncertainty alone, or at random. Judges on
the "val" images of the new and of the old kind.

A stopped run goes on where it was when it is started again. Prints tables and one JSON line.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from rich.console import Console

import _common
from napari_nucleus_kd._cli_show import show
from napari_nucleus_kd.config import Recipe
from napari_nucleus_kd.errors import ProjectError
from napari_nucleus_kd.evaluate import evaluate_steps
from napari_nucleus_kd.index import COLUMNS, Row, read_labels, read_splits
from napari_nucleus_kd.io import read
from napari_nucleus_kd.io.atomic import beside, make_folder, write_csv, write_text
from napari_nucleus_kd.metrics import bootstrap, match, overlap
from napari_nucleus_kd.networks.student import STUDENTS
from napari_nucleus_kd.pipeline import segment
from napari_nucleus_kd.project import Project, grid, next_offset
from napari_nucleus_kd.train.finetune import FinetuneSettings, data_steps, finetune_steps
from napari_nucleus_kd.train.run import run_steps
from napari_nucleus_kd.train.settings import CropSettings, TrainSettings
from napari_nucleus_kd.train.suggest import suggest, survey_steps

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from napari_nucleus_kd.project import ProjectImage
    from napari_nucleus_kd.types import LabelArray, Region

STRATEGIES = {"promise": "as suggested", "uncertainty": "uncertainty alone", "random": "at random"}
_POOL = 40  # images of the new kind among which tiles are chosen, at most
_LOOKED_AT = 4  # tiles of each, at most
_GOOD_IOU = 0.7  # above, a person leaves an outline as it is
_SAME_IOU = 0.1  # from there to the other, it is mended; below, it is removed and another one drawn


@dataclass(frozen=True, slots=True)
class Shift:
    """Sources that the model begins with, and those that are new to it."""

    old: tuple[str, ...]
    new: tuple[str, ...]


SHIFTS = {
    "fluorescence-to-he": Shift(("dsb2018-fluorescence", "dsb2018-fluorescence-other"), ("consep",)),
    "stained-to-fluorescence": Shift(("dsb2018-stained", "consep"), ("dsb2018-fluorescence",)),
}


@dataclass(frozen=True, slots=True)
class Round:
    """What a round of correcting and retraining cost and brought.

    Attributes
    ----------
    nuclei : in the tile.
    corrected : nuclei of the tile that were drawn, mended or removed, each counted once: those that the model
        had not found with an IoU above 0.7, and those it had found that are none. The others were left as it
        draws them.
    seconds : of retraining; 0 where there was nothing yet to learn from.
    new : mean PQ on the "val" images of the new kind.
    """

    nuclei: int
    corrected: int
    seconds: float
    new: float


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("index", type=Path, nargs="?", help="CSV of annotated images")
    parser.add_argument("--output", type=Path, default=Path("runs/annotator"))
    parser.add_argument("--report", type=Path, help="Markdown file to write; a picture beside it")
    parser.add_argument("--shifts", nargs="+", default=list(SHIFTS), choices=SHIFTS)
    parser.add_argument("--strategies", nargs="+", default=list(STRATEGIES), choices=STRATEGIES)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--base-steps", type=int, default=3000, help="before the new kind (default: 3000)")
    parser.add_argument("--all-steps", type=int, default=1500, help="on all of the new kind (default: 1500)")
    parser.add_argument("--steps", type=int, default=FinetuneSettings().steps, help="of each round")
    return parser.parse_args()


def rows_of(index: Path, sources: Sequence[str], *splits: str) -> list[Row]:
    """Return the rows of some sources and splits."""
    found = read_splits(index)
    return [row for split in splits for row in found.get(split, []) if row.source in sources]


def write_rows(path: Path, rows: Iterable[tuple[Row, str]]) -> Path:
    """Write an index of rows, each with its split."""
    lines = [
        (str(row.image.resolve()), str(row.labels.resolve()), row.modality.value, row.source, split)
        for row, split in rows
        if row.labels is not None
    ]
    make_folder(path.parent)
    write_csv(path, [COLUMNS, *lines])
    return path


def trained(args: argparse.Namespace, shift: Shift, folder: Path, console: Console) -> tuple[Path, Path]:
    """Return a model that knows the old kind only, and one that went on from it with all of the new kind."""
    settings = TrainSettings(
        name="base",
        student=STUDENTS["compact"],
        pretrained=True,
        crops=CropSettings(batch=4, crop_px=192, size_range=(24, 40)),
        enlarge_to_px=30,
        steps=args.base_steps,
        average=0.995,
    )
    base = folder / "base" / "base"
    going_on = {"name": "everything", "start": str(base), "pretrained": False, "learning_rate": 5e-4}
    later = settings.model_copy(update=going_on | {"steps": args.all_steps})
    for plan, sources in ((settings, shift.old), (later, shift.old + shift.new)):
        place = folder / plan.name
        if not (place / plan.name / "model.json").exists():
            rows = [(r, split) for split in ("train", "tune") for r in rows_of(args.index, sources, split)]
            show(run_steps(plan, write_rows(folder / f"{plan.name}.csv", rows), place), console)
    return base, folder / "everything" / "everything"


def mean_pq(model: Path, rows: Sequence[Row], folder: Path, console: Console) -> float:
    """Return the mean PQ of a model on images."""
    index = write_rows(folder / "judged.csv", ((row, "val") for row in rows))
    scores = show(evaluate_steps(index, "val", Recipe(model=str(model), device="cpu")), console)
    return float(np.mean([score.values["pq"] for score in scores]))


class Annotator:
    """A simulated person with a project of images of the new kind, and the model of the moment.

    Parameters
    ----------
    folder : of this person; the project and the runs are made there.
    pool : images among which tiles are chosen, with the labels that the person would give.
    """

    def __init__(self, folder: Path, pool: Sequence[Row], base: Path, console: Console):
        self.folder, self.pool, self.base, self.console = folder, pool, base, console
        self.rounds: list[Round] = []
        self.chosen: list[tuple[int, Region]] = []
        shutil.rmtree(folder, ignore_errors=True)
        self.project = Project.create(folder / "project.nucleus-kd")
        self.entries: dict[int, ProjectImage] = {}
        self.arrays: dict[int, tuple[LabelArray, np.ndarray]] = {}

    @property
    def model(self) -> Path:
        """Folder of the model of the moment."""
        done = len(self.rounds)
        return self.folder / f"round-{done}" / "model" if done else self.base

    def choose(self, strategy: str, seed: int) -> tuple[int, Region]:
        """Choose the next tile of all images, with the model of the moment."""
        if strategy == "random":
            shapes = [read(row.image).shape_yx for row in self.pool]
            everywhere = [(i, region) for i, shape in enumerate(shapes) for region in grid(shape)]
            free = [place for place in everywhere if place not in self.chosen]
            return free[np.random.default_rng((seed, len(self.rounds))).integers(len(free))]
        tiles = {}
        for i, row in enumerate(self.pool):
            recipe = Recipe(model=str(self.model), modality=row.modality, device="cpu")
            entry = self.entries.get(i)
            offset = next_offset(self.project.folder) if entry is None else self.project.offset_of(entry)
            steps = survey_steps(read(row.image), recipe, most=_LOOKED_AT, offset=offset)
            for tile in show(steps, self.console):
                tiles[i, tile.region] = tile
        places = {id(tile): place for place, tile in tiles.items()}
        known = [tiles[place] for place in self.chosen if place in tiles]
        others = [tile for place, tile in tiles.items() if place not in self.chosen]
        (best,) = suggest(others, 1, known=known, strategy=strategy)
        return places[id(best)]

    def annotate(self, i: int, region: Region) -> tuple[int, int]:
        """Give a tile its ground truth, and mark it; returns the nuclei in it and those to be corrected."""
        row = self.pool[i]
        image, truth = read(row.image), read_labels(row.labels)
        recipe = Recipe(model=str(self.model), modality=row.modality, device="cpu")
        result = segment(image, recipe)
        if i not in self.entries:
            reference, first = self.project.refer_to(row.image), result.nuclei.labels
            steps = self.project.add_steps(reference, first, modality=row.modality, recipe=result.recipe)
            self.entries[i] = show(steps, self.console)
            self.arrays[i] = first.copy(), np.zeros(truth.shape, bool)
        labels, verified = self.arrays[i]
        true, found = (np.unique(part[region.slices]) for part in (truth, result.nuclei.labels))
        true, found = true[true > 0], found[found > 0]
        pairs = overlap(truth[region.slices], result.nuclei.labels[region.slices])
        good = pairs.iou > _GOOD_IOU
        well_true, well_found = true[pairs.shared.row[good]], found[pairs.shared.col[good]]
        # What was there goes; what the model draws well comes in as it draws it; the person draws the rest.
        labels[np.isin(labels, np.unique(labels[region.slices])) & ~verified] = 0
        for numbers, chosen, open_to in (
            (result.nuclei.labels, well_found, ~verified),
            (truth, np.setdiff1d(true, well_true), True),
        ):
            drawn = np.isin(numbers, chosen) & open_to  # one at the tile's edge as a whole
            labels[drawn] = numbers[drawn] + int(labels.max())
        verified[region.slices] = True
        self.entries[i].touch()
        self.entries[i].save(labels, verified)
        self.chosen.append((i, region))
        same = match(pairs, _SAME_IOU).tp
        return len(true), len(true) + len(found) - same - len(well_true)

    def retrain(self, settings: FinetuneSettings) -> float:
        """Fine-tune on all that is verified; returns how many seconds that took."""
        began = time.perf_counter()
        run = self.folder / f"round-{len(self.rounds) + 1}"
        data = show(data_steps(self.project, run), self.console)
        tuned = show(finetune_steps(str(self.model), data.index, run, settings), self.console)
        shutil.copytree(tuned.model.folder, run / "model")
        return time.perf_counter() - began

    def play(self, strategy: str, seed: int, settings: FinetuneSettings, judged: Sequence[Row]) -> None:
        """Choose a tile, annotate it, retrain, and judge on images of the new kind."""
        nuclei, corrected = self.annotate(*self.choose(strategy, seed))
        try:
            seconds = self.retrain(settings)
        except ProjectError:  # all that is verified so far is kept to judge by
            seconds = 0.0
            shutil.copytree(self.model, self.folder / f"round-{len(self.rounds) + 1}" / "model")
        self.rounds.append(Round(nuclei, corrected, seconds, 0.0))
        new = mean_pq(self.model, judged, self.folder, self.console)
        self.rounds[-1] = replace(self.rounds[-1], new=new)


def learnt(args: argparse.Namespace, name: str, strategy: str, seed: int, console: Console) -> dict[str, Any]:
    """Return how a person's model came on, as JSON; what was done before is not done again."""
    shift, folder = SHIFTS[name], args.output / name / f"{strategy}-{seed}"
    result = args.output / name / f"{strategy}-{seed}.json"
    if result.exists():
        return dict(json.loads(result.read_text()))
    base, _ = trained(args, shift, args.output / name, console)
    rows = rows_of(args.index, shift.new, "train", "tune")
    order = np.random.default_rng(seed).permutation(len(rows))[:_POOL]
    person = Annotator(folder, [rows[i] for i in order], base, console)
    judged = rows_of(args.index, shift.new, "val")
    for _ in range(args.rounds):
        settings = FinetuneSettings(steps=args.steps, seed=seed, device="cpu")
        person.play(strategy, seed, settings, judged)
        _common.say(f"{name} {strategy} {seed}: {asdict(person.rounds[-1])}")
    old = mean_pq(person.model, rows_of(args.index, shift.old, "val"), folder, console)
    found = {"rounds": [asdict(r) for r in person.rounds], "old": old, "threads": torch.get_num_threads()}
    write_text(result, json.dumps(found))
    shutil.rmtree(folder)
    return found


def limits_of(args: argparse.Namespace, name: str, console: Console) -> dict[str, float]:
    """Return the PQ of the model before, on both kinds, and of the one that learnt everything."""
    shift, folder = SHIFTS[name], args.output / name
    result = folder / "limits.json"
    if not result.exists():
        base, everything = trained(args, shift, folder, console)
        new, old = (rows_of(args.index, kind, "val") for kind in (shift.new, shift.old))
        found = {
            "before": mean_pq(base, new, folder, console),
            "old": mean_pq(base, old, folder, console),
            "everything": mean_pq(everything, new, folder, console),
        }
        write_text(result, json.dumps(found))
    return dict(json.loads(result.read_text()))


def summed_up(limits: dict[str, float], runs: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Return the lines of a Markdown table: what each way of choosing had reached, and what it cost."""
    used = {str(run.get("threads", "unknown")) for found in runs.values() for run in found}
    threads = " or ".join(sorted(used))
    lines = [
        f"PQ before {limits['before']:.3f}, with all images of the new kind {limits['everything']:.3f}; "
        f"on the old kind {limits['old']:.3f} before.",
        "",
        "| tiles chosen | nuclei corrected (in the tiles) | PQ (95%) | of everything "
        f"| change on the old kind | seconds a round (threads: {threads}) |",
        "|---" * 6 + "|",
    ]
    for strategy, found in runs.items():
        mean, low, high = bootstrap([run["rounds"][-1]["new"] for run in found])
        corrected, nuclei = (
            np.mean([sum(r[key] for r in run["rounds"]) for run in found]) for key in ("corrected", "nuclei")
        )
        kept = np.mean([run["old"] for run in found]) - limits["old"]
        seconds = np.median([r["seconds"] for run in found for r in run["rounds"] if r["seconds"]])
        cells = (
            STRATEGIES[strategy],
            f"{corrected:.0f} ({nuclei:.0f})",
            f"{mean:.3f} ({low:.3f} to {high:.3f})",
            f"{mean / limits['everything']:.0%}",
            f"{kept:+.3f}",
            f"{seconds:.0f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def draw(
    limits: dict[str, dict[str, float]], found: dict[str, dict[str, list[dict[str, Any]]]], path: Path
) -> None:
    """Write a picture: PQ on the new kind against the nuclei corrected; mean and range over the seeds."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * len(found), 4), layout="constrained")
    for place, (name, runs) in enumerate(found.items(), 1):
        axes = figure.add_subplot(1, len(found), place, title=name.replace("-", " "))
        for colour, (strategy, persons) in zip(("#0072b2", "#d55e00", "#666666"), runs.items(), strict=False):
            x = np.array([[0, *np.cumsum([r["corrected"] for r in p["rounds"]])] for p in persons])
            y = np.array([[limits[name]["before"], *(r["new"] for r in p["rounds"])] for p in persons])
            axes.plot(x.mean(0), y.mean(0), "o-", ms=3, color=colour, label=STRATEGIES[strategy])
            axes.fill_between(x.mean(0), y.min(0), y.max(0), color=colour, alpha=0.15, lw=0)
        for share, style in ((1.0, "-"), (0.9, "--")):
            level = share * limits[name]["everything"]
            axes.axhline(level, color="black", lw=0.8, ls=style, label=f"{share:.0%} of everything")
        axes.set_xlabel("nuclei corrected")
        axes.set_ylabel("PQ on images of the new kind")
        axes.legend(fontsize="small")
    FigureCanvasAgg(figure)
    with beside(path) as partial:
        figure.savefig(partial, format="png", dpi=150)


def main() -> None:
    """Teach, judge, and print."""
    args = parse()
    if args.index is None:
        print("annotator: skipped, no INDEX.csv given (make one with benchmarks/make_index.py)")
        return
    console = Console(stderr=True, quiet=not sys.stderr.isatty())
    limits = {name: limits_of(args, name, console) for name in args.shifts}
    found: dict[str, dict[str, list[dict[str, Any]]]] = {
        name: {strategy: [] for strategy in args.strategies} for name in args.shifts
    }
    for seed in range(args.seeds):  # the first seed of everything first: an early, rough answer
        for name, strategy in product(args.shifts, args.strategies):
            found[name][strategy].append(learnt(args, name, strategy, seed, console))
    lines: list[str] = []
    for name in args.shifts:
        lines += [f"**{name.replace('-', ' ')}**", "", *summed_up(limits[name], found[name]), ""]
    text = "\n".join(lines)
    print(text)
    if args.report:
        draw(limits, found, args.report.with_suffix(".png"))
        write_text(args.report, text)
    print(json.dumps({"benchmark": "annotator", "limits": limits, "runs": found}))


if __name__ == "__main__":
    main()
