"""Where it helps to enhance nuclei first: GeNSeg-Net's ablation, other kinds of images, and the student.

    python benchmarks/enhancement.py INDEX.csv --output FOLDER [--parts student ablation] [--report FILE.md]

*student*: the shipped student without and with the enhancer. *retrained*: the same student, trained on
enhanced images, which replace the picture, or lie in it as a channel of their own: in place of green, which
eosin absorbs, all nuclei dark, as in H&E. *ablation*: tables 5 and 6 of the paper, with five generators and
discriminators; the network of three classes behind them learns from ideal nuclei, as in the paper, the ones
without enhancement from the pictures, as plain grey or as enhancers see them; the last line has the student's
enhancer. *other kinds*: all of it learns from one kind of images and is judged on the others. *cost*: time
and memory at 512 x 512 pixels. *samples*: the student without and with the enhancer on drawn pictures.

All networks but that one get the same steps and crops. Judges on the "val" images, with 95% bootstrap
intervals over images. A stopped run goes on where it was when it is started again; what the folder holds of
another version of the code is taken for its own, so choose a new one then. Prints tables and one JSON line.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

import _common as common
from napari_nucleus_kd._cli_samples import write_samples
from napari_nucleus_kd._cli_show import show
from napari_nucleus_kd.config import Recipe
from napari_nucleus_kd.enhancer import load_enhancer, seen_by_enhancers
from napari_nucleus_kd.evaluate import FEWEST_IMAGES, evaluate_steps
from napari_nucleus_kd.index import COLUMNS, read_splits
from napari_nucleus_kd.io.atomic import write_csv, write_text
from napari_nucleus_kd.io.images import write_image
from napari_nucleus_kd.io.read import read
from napari_nucleus_kd.io.samples import SAMPLES, sample
from napari_nucleus_kd.metrics import bootstrap
from napari_nucleus_kd.modality import suggest_modality
from napari_nucleus_kd.networks.enhancer import GeneratorConfig
from napari_nucleus_kd.package import load_model
from napari_nucleus_kd.pipeline import enhance_steps, save, seen, segment
from napari_nucleus_kd.train.enhancing_run import enhancing_steps
from napari_nucleus_kd.train.enhancing_settings import EnhancingSettings
from napari_nucleus_kd.train.run import run_steps
from napari_nucleus_kd.train.settings import CropSettings, TrainSettings
from napari_nucleus_kd.types import Channel, Image, Modality, finish
from napari_nucleus_kd.words import count

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from napari_nucleus_kd.index import Row
    from napari_nucleus_kd.package import Model

METRICS = {"aji": "AJI", "aji_plus": "AJI+", "dice": "Dice", "dq": "DQ", "sq": "SQ", "pq": "PQ"}
# generator, discriminator: tables 5 and 6 of the paper
VARIANTS: dict[str, tuple[dict[str, Any], str]] = {
    "basic / basic": ({"blocks": "resnet", "levels": 0}, "patch"),
    "U-Net / basic": ({"blocks": "unet"}, "patch"),
    "basic / transformer": ({"blocks": "resnet", "levels": 0}, "transformer"),
    "ResNet-9 down and up / transformer": ({"blocks": "resnet"}, "transformer"),
    "Res-CBAM down and up / transformer": ({}, "transformer"),
}
BEST = "Res-CBAM down and up / transformer"
KINDS = {
    "fluorescence": ("dsb2018-fluorescence", "dsb2018-fluorescence-other"),
    "stained": ("dsb2018-stained", "consep"),
}
# What images are made into, and the kind that they are taken for then: the drawn picture alone, or in place
# of one channel, for students that are retrained; the grey that enhancers see.
_MADE = {
    "replacing": Modality.FLUORESCENCE,
    "extra": Modality.HE,
    "stretched": Modality.FLUORESCENCE,
}
PARTS = ("student", "samples", "retrained", "ablation", "other kinds", "cost")
_ENHANCER = {"learning_rate": 3e-4, "discriminator_rate": 0.1, "between_weight": 6}  # as of the shipped one
_COST_PX = 512
_RETRAINED = TrainSettings(  # but for name and steps; crops as those of the shipped student
    start=Recipe().model,
    learning_rate=5e-4,
    average=0.99,
    crops=CropSettings(size_range=(24, 40), wide_share=0.08),
    enlarge_to_px=30,
)
Scores = dict[str, list[dict[str, float]]]  # of every image, by source


@dataclass(frozen=True, slots=True)
class Way:
    """One way to segment, its networks' parameters, and what became of the images."""

    name: str
    parameters: int
    scores: Scores

    def values(self, metric: str, sources: Iterable[str]) -> list[float]:
        """Return one metric of every image of some sources."""
        return [score[metric] for source in sources for score in self.scores.get(source, [])]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("index", type=Path, nargs="?", help="CSV of annotated images")
    parser.add_argument("--output", type=Path, default=Path("runs/enhancement"))
    parser.add_argument("--report", type=Path, help="Markdown file to write")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument(
        "--enhancer", default="nucleus-enhancer", help="of the student (default: the shipped one)"
    )
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--steps", type=int, default=600, help="of every network (default: 600)")
    parser.add_argument(
        "--student-steps", type=int, default=400, help="of the students that are retrained (default: 400)"
    )
    parser.add_argument("--width", type=int, default=16, help="of every network (default: 16)")
    parser.add_argument("--rounds", type=common.positive, default=9, help="times that each cost is measured")
    return parser.parse_args()


def main() -> None:
    """Train, judge, and print."""
    args = parse()
    if args.index is None:
        print("enhancement: skipped, no INDEX.csv given (make one with benchmarks/make_index.py)")
        return
    args.output.mkdir(parents=True, exist_ok=True)
    console = Console(stderr=True, quiet=not sys.stderr.isatty())
    bench = Bench(args, console)
    judged = {
        "student": bench.student,
        "samples": bench.samples,
        "retrained": bench.retrained,
        "ablation": bench.ablation,
        "other kinds": bench.other_kinds,
    }
    ways = {part: judged[part]() for part in args.parts if part in judged}
    costs = bench.cost() if "cost" in args.parts else {}
    tables = [table(part, some) for part, some in ways.items()]
    text = "\n".join([*tables, cost_table(costs)] if costs else tables)
    print(text)
    if args.report:
        write_text(args.report, text + "\n")
    means = {
        f"{part}: {way.name}": {s: float(np.mean(way.values("pq", [s]))) for s in way.scores}
        for part, some in ways.items()
        for way in some
    }
    print(json.dumps({"benchmark": "enhancement", "steps": args.steps, "pq": means, "cost": costs}))


class Bench:
    """Trains what is not there yet, and judges it."""

    def __init__(self, args: argparse.Namespace, console: Console) -> None:
        self.args, self.console = args, console
        self.enhancer = load_enhancer(args.enhancer)
        self.index = self._without_val(args.index, args.output / "learnt.csv")

    def student(self) -> list[Way]:
        """Judge the shipped student without and with the enhancer."""
        return [
            self._judged("student", "as it is", Recipe()),
            self._judged("student", "enhanced", Recipe(enhance=self.args.enhancer)),
        ]

    def samples(self) -> list[Way]:
        """Judge it so on the samples, which are drawn; one of them shows a stain that it has not learnt."""
        known = [each for each in SAMPLES if each.labels_file is not None]
        folder = self.args.output / "samples"
        write_samples([each.name for each in known], folder, Console(quiet=True), overwrite=True)
        lines = [list(COLUMNS)]
        for each in known:
            place = (folder / each.name).resolve()
            modality = suggest_modality(sample(each.name))[0].value
            lines.append([f"{place}.ome.tif", f"{place}_labels.tif", modality, each.name, "val"])
        write_csv(folder / "index.csv", lines)
        return [
            self._judged("samples", "as it is", Recipe(), folder / "index.csv"),
            self._judged("samples", "enhanced", Recipe(enhance=self.args.enhancer), folder / "index.csv"),
        ]

    def retrained(self) -> list[Way]:
        """Train the shipped student on enhanced images, and judge it on such."""
        ways = []
        for how in ("replacing", "extra"):
            everything = self._made_index(how)
            name = f"student-{how}-{self.args.student_steps}-{self.enhancer.hash[:8]}"
            folder = self.args.output / name
            if not (folder / name / "model.json").exists():
                common.say(f"training {name}")
                learnt = self._without_val(everything, folder.with_suffix(".csv"))
                asked = _RETRAINED.model_copy(update={"name": name, "steps": self.args.student_steps})
                show(run_steps(asked, learnt, folder), self.console)
            recipe = Recipe(model=str(folder / name), modality=_MADE[how])
            ways.append(self._judged("retrained", how, recipe, everything, self.enhancer))
        return ways

    def _made_index(self, how: str) -> Path:
        """Write what is made of every image; return the index of that."""
        folder = self.args.output / f"images-{how}-{self.enhancer.hash[:8]}"
        folder.mkdir(exist_ok=True)
        lines = [list(COLUMNS)]
        for split, rows in read_splits(self.args.index).items():
            for number, row in enumerate(rows):
                if row.labels is None:
                    continue
                place = folder / f"{split}-{number}.ome.tif"
                if not place.exists():
                    _write_made(row, how, self.args.enhancer, place)
                told = [_MADE[how].value, row.source, split]
                lines.append([str(place.resolve()), str(row.labels.resolve()), *told])
        write_csv(folder / "index.csv", lines)
        return folder / "index.csv"

    def ablation(self) -> list[Way]:
        """Train every generator against its discriminator, and judge the networks of three classes behind."""
        pictures, ideal = self._unet("pictures"), self._unet("ideal")
        ways = [self._judged("ablation", "- / -", Recipe(model=pictures))]
        index = self._made_index("stretched")
        recipe = Recipe(model=self._unet("pictures", made=index), modality=_MADE["stretched"])
        ways.append(self._judged("ablation", "- / -, contrast stretched", recipe, index))
        for name in self.args.variants:
            recipe = Recipe(model=ideal, enhance=self._enhancer(name))
            ways.append(self._judged("ablation", name, recipe))
        recipe = Recipe(model=ideal, enhance=self.args.enhancer)
        return [*ways, self._judged("ablation", f"{self.enhancer.spec.name}, trained for longer", recipe)]

    def other_kinds(self) -> list[Way]:
        """Train on one kind of images, judge on all."""
        ways = []
        for kind in KINDS:
            pictures, ideal = self._unet("pictures", kind), self._unet("ideal", kind)
            learnt = f"learnt from {kind}"
            ways.append(self._judged("other kinds", f"{learnt}, as it is", Recipe(model=pictures)))
            recipe = Recipe(model=ideal, enhance=self._enhancer(BEST, kind))
            ways.append(self._judged("other kinds", f"{learnt}, enhanced", recipe))
        return ways

    def cost(self) -> dict[str, dict[str, float]]:
        """Measure a run on one picture, alone and with enhancement: seconds in turn, and memory."""
        image = sample("fluorescence")
        times = [-(-_COST_PX // edge) for edge in image.shape_yx]
        pixels = np.tile(np.asarray(image.pixels), (1, *times))[:, :_COST_PX, :_COST_PX]
        image = Image((np.ascontiguousarray(pixels),), image.channels)
        recipes = {
            "student": Recipe(diameter_px=20),
            "student, enhanced": Recipe(diameter_px=20, enhance=self.args.enhancer),
        }
        for recipe in recipes.values():
            segment(image, recipe)
        turns = {n: common.timed(lambda r=r: segment(image, r)) for n, r in recipes.items()}
        seconds = common.interleave(turns, self.args.rounds)
        return {
            name: {
                "seconds": float(np.median(seconds[name])),
                "times": common.ratio(seconds[name], seconds["student"]),
                "peak_bytes": float(self._memory(recipe)),
            }
            for name, recipe in recipes.items()
        }

    def _memory(self, recipe: Recipe) -> int:
        """Return the memory that one run takes in a process of its own."""
        import torch

        picture = np.random.default_rng(0).integers(0, 255, (1, _COST_PX, _COST_PX)).astype(np.uint8)
        worker = Path(__file__).with_name("_segment_file.py")
        with tempfile.TemporaryDirectory() as scratch:
            place, labels = Path(scratch) / "image.ome.tif", Path(scratch) / "labels.ome.zarr"
            write_image(place, picture, rgb=False, pixel_size_um=None)
            told = recipe.model_dump_json(exclude_unset=True)
            asked = [str(place), str(labels), told, str(torch.get_num_threads())]
            done = subprocess.run(
                [sys.executable, worker, *asked], capture_output=True, text=True, check=True
            )
        return int(json.loads(done.stdout.splitlines()[-1])["peak_bytes"])

    def _judged(
        self, part: str, name: str, recipe: Recipe, index: Path | None = None, before: Model | None = None
    ) -> Way:
        """Judge a recipe, or take what was found before; `before`: the enhancer that made the images."""
        models = [load_model(each) for each in (recipe.model, recipe.enhance) if each is not None]
        models += [] if before is None else [before]
        learnt = sum(model.parameters or 0 for model in models)
        asked = [recipe.model_dump(mode="json", exclude_unset=True), *(model.hash for model in models)]
        made_of = json.dumps(asked, sort_keys=True)
        place = self.args.output / f"{part} {name}.json".replace("/", "-")
        if place.exists() and (known := json.loads(place.read_text()))["recipe"] == made_of:
            return Way(name, learnt, known["scores"])
        scores: Scores = {}
        for score in show(evaluate_steps(index or self.args.index, "val", recipe), self.console):
            scores.setdefault(score.source, []).append({key: score.values[key] for key in METRICS})
        write_text(place, json.dumps({"recipe": made_of, "scores": scores}))
        means = ", ".join(f"{s} {np.mean([v['pq'] for v in some]):.3f}" for s, some in sorted(scores.items()))
        common.say(f"{part}, {name}: PQ {means}")
        return Way(name, learnt, scores)

    def _enhancer(self, variant: str, kind: str | None = None) -> str:
        generator, discriminator = VARIANTS[variant]
        shape = GeneratorConfig.model_validate({"width": self.args.width, **generator})
        return self._trained(
            f"enhancer {variant}", kind, generator=shape, discriminator=discriminator, **_ENHANCER
        )

    def _unet(self, learns_from: str, kind: str | None = None, made: Path | None = None) -> str:
        """Return a network of three classes; `made`: the index of what was made of the images."""
        of_width = {"width": self.args.width}
        return self._trained(
            f"classes {learns_from}{' stretched' if made else ''}",
            kind,
            index=self._without_val(made, made.with_name("learnt.csv")) if made else None,
            kind="three-classes",
            learns_from=learns_from,
            three_classes=of_width,
        )

    def _trained(self, what: str, only: str | None, index: Path | None = None, **settings: Any) -> str:
        """Return the folder of a package; trains it, on these images or all, if it is not there."""
        told = f"{what} {only or ''} {self.args.steps} {self.args.width}"
        name = "-".join(told.replace("/", " ").split()).lower()
        folder = self.args.output / name
        if (folder / name / "model.json").exists():
            return str(folder / name)
        known = {row.source for rows in read_splits(self.index).values() for row in rows}
        left = {source: 0.0 for source in known if only is not None and source not in KINDS[only]}
        crops = CropSettings(batch=4, crop_px=192, wide_share=0.25, scale_jitter=0.3, source_weights=left)
        asked = EnhancingSettings.model_validate(
            {
                "name": name,
                "steps": self.args.steps,
                "learning_rate": 1e-3,
                "average": 0.99,
                "check_every": max(1, self.args.steps // 4),
                "crops": crops,
                **settings,
            }
        )
        common.say(f"training {name}")
        return str(show(enhancing_steps(asked, index or self.index, folder), self.console).folder)

    def _without_val(self, index: Path, place: Path) -> Path:
        """Write an index without the images that are judged by: nothing here may see them."""
        lines = [
            [str(row.image.resolve()), str(row.labels.resolve()), row.modality.value, row.source, split]
            for split, rows in read_splits(index).items()
            for row in rows
            if split != "val" and row.labels is not None
        ]
        write_csv(place, [list(COLUMNS), *lines])
        return place


def _write_made(row: Row, how: str, enhancer: str, place: Path) -> None:
    """Write drawn nuclei of an image, alone or in place of green, or the grey that they are drawn of."""
    image = read(row.image)
    recipe = Recipe(modality=row.modality, enhance=enhancer)
    made, known = finish(enhance_steps(image, recipe))
    picture, _ = seen(image, known.enhanced_by(None))
    dark = known.polarity == "dark"
    if how == "extra":
        red, _, blue = np.round(255 * (picture if dark else 1 - picture)).astype(np.uint8)
        pixels = np.stack([red, 255 - np.asarray(made.pixels)[0], blue])
        made = Image((pixels,), tuple(map(Channel, ("red", "drawn", "blue"))), rgb=True)
    elif how == "stretched":
        stained = row.modality is not Modality.FLUORESCENCE
        grey = seen_by_enhancers(picture, dark=dark, stained=stained)
        made = Image((np.round(255 * grey[None]).astype(np.uint8),), (Channel("grey"),))
    save(made, place)


def table(part: str, ways: Sequence[Way]) -> str:
    """Return a part of the report as Markdown: all images, then the PQ of each source."""
    images = {source: len(scores) for way in ways for source, scores in way.scores.items()}
    sources = list(images)
    of_sources = [f"PQ, {source} ({count(some, 'image')})" for source, some in images.items()]
    head = [part, "parameters", *METRICS.values(), *of_sources]
    lines = [" | ".join(head), "|".join(["---"] * len(head))]
    for way in ways:
        cells = [_cell(way.values(metric, sources)) for metric in METRICS]
        cells += [_cell(way.values("pq", [source])) for source in sources]
        lines.append(" | ".join([way.name, f"{way.parameters / 1e6:.2f} M", *cells]))
    return "".join(f"| {line} |\n" for line in lines)


def _cell(values: list[float]) -> str:
    """Return a mean with its interval, which takes some images."""
    mean, low, high = bootstrap(values)
    return f"{mean:.3f} ({low:.3f} to {high:.3f})" if len(values) >= FEWEST_IMAGES else f"{mean:.3f}"


def cost_table(costs: dict[str, dict[str, float]]) -> str:
    """Return the cost as Markdown."""
    lines = [f"{_COST_PX} x {_COST_PX} pixels | time to the student alone | memory", "---|---|---"]
    lines += [
        f"{name} | {cost['times']:.2f} | {cost['peak_bytes'] / 1e9:.2f} GB" for name, cost in costs.items()
    ]
    return "".join(f"| {line} |\n" for line in lines)


if __name__ == "__main__":
    main()
