"""Accuracy of a segmenter on annotated images, with 95% bootstrap intervals.

python benchmarks/accuracy.py INDEX.csv [--split val] [--model NAME|FOLDER] [--true-diameter]

INDEX.csv comes from benchmarks/make_index.py. Prints one table and one JSON line.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console

from napari_nucleus_kd._cli_show import metrics_table, show
from napari_nucleus_kd.config import Recipe
from napari_nucleus_kd.evaluate import evaluate_steps, summary


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("index", type=Path, nargs="?", help="CSV of annotated images")
    parser.add_argument("--split", default="val", help="rows to judge on (default: val)")
    parser.add_argument("--segmenter", default="student")
    parser.add_argument("--model", default="nucleus-student", help="model name or folder")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--true-diameter", action="store_true", help="tell the segmenter the true size")
    return parser.parse_args()


def main() -> None:
    """Judge and print."""
    args = parse()
    if args.index is None:
        print("accuracy: skipped, no INDEX.csv given (make one with benchmarks/make_index.py)")
        return
    recipe = Recipe(segmenter=args.segmenter, model=args.model, device=args.device)
    steps = evaluate_steps(args.index, args.split, recipe, true_diameter=args.true_diameter)
    scores = show(steps, Console(stderr=True, quiet=not sys.stderr.isatty()))
    found = summary(scores)
    Console(width=160).print(metrics_table(found))
    print(json.dumps({"benchmark": "accuracy", **vars(args), "index": args.index.name, "metrics": found}))


if __name__ == "__main__":
    main()
