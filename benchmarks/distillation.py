"""Teacher and students side by side: size, arithmetic, time, memory, and quality with 95% intervals.

python benchmarks/distillation.py INDEX.csv --teacher MODEL --students MODEL... [--report FILE.md]

The time is that of the network on one 512 x 512 picture on the CPU, the contestants taking turns; the
memory that of a process of its own. Judges on the "val" images. Prints one table and one JSON line.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from rich.console import Console

import _common
from napari_nucleus_kd._cli_show import show
from napari_nucleus_kd.config import Recipe
from napari_nucleus_kd.engine import open_engine
from napari_nucleus_kd.evaluate import OVERALL, evaluate_steps, summary
from napari_nucleus_kd.io.atomic import write_text
from napari_nucleus_kd.package import load_model

if TYPE_CHECKING:
    import argparse

SIZE_PX = 512
QUALITY = {"pq": "PQ", "aji": "AJI", "count_r2": "R2"}
_FEWER, _TENTH, _KEPT = 48, 0.1, 0.98  # of its parameters; or of its time, and then of its PQ


def parse() -> argparse.Namespace:
    parser = _common.options(__doc__.splitlines()[0], rounds=11)
    parser.add_argument("index", type=Path, nargs="?", help="CSV of annotated images")
    parser.add_argument("--teacher", help="model name or folder")
    parser.add_argument("--students", nargs="+", default=["nucleus-student"], help="model names or folders")
    parser.add_argument("--report", type=Path, help="Markdown file to write")
    parser.add_argument("--threads", type=_common.positive, default=torch.get_num_threads())
    return parser.parse_args()


def main() -> int:
    """Measure, judge, and print."""
    args = parse()
    if args.index is None:
        print("distillation: skipped, no INDEX.csv given (make one with benchmarks/make_index.py)")
        return 0
    if args.teacher is None:
        raise SystemExit("distillation: name a --teacher; docs/training.md says how ours was trained")
    torch.set_num_threads(args.threads)
    names = [args.teacher, *args.students]
    facts = {name: _measure(name, args.threads) for name in names}
    picture = np.random.default_rng(0).random((3, SIZE_PX, SIZE_PX), np.float32)
    engines = {name: open_engine(load_model(name), "cpu") for name in names}
    for engine in engines.values():
        engine.run(picture)  # the first run is slower
    turns = {name: _common.timed(lambda e=engine: e.run(picture)) for name, engine in engines.items()}
    seconds = _common.interleave(turns, args.rounds)
    for name in names:
        facts[name]["ms"] = 1000 * statistics.median(seconds[name])
        facts[name]["metrics"] = _judge(name, args.index)
    verdicts, met = zip(*(_verdict(name, args.teacher, facts) for name in args.students), strict=True)
    lines = [*_table(names, facts), *(line for verdict in verdicts for line in ("", verdict))]
    text = "".join(line + "\n" for line in lines)
    print(text)
    if args.report:
        write_text(args.report, text)
    print(json.dumps({"benchmark": "distillation", **_common.machine(args.threads), "models": facts}))
    return int(args.strict and not all(met))


def _measure(name: str, threads: int) -> dict:
    model = load_model(name)
    script = Path(__file__).with_name("_run_network.py")
    command = [sys.executable, str(script), name, str(SIZE_PX), str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise _common.BenchmarkError(f"{name} does not run: {done.stderr.strip().splitlines()[-1]}")
    return {
        "version": model.spec.version,
        "parameters": sum(p.numel() for p in model.network().parameters()),
        "bytes": (model.folder / "weights.safetensors").stat().st_size,
        **json.loads(done.stdout.splitlines()[-1]),
    }


def _judge(name: str, index: Path) -> dict:
    console = Console(stderr=True, quiet=not sys.stderr.isatty())
    found = summary(show(evaluate_steps(index, "val", Recipe(model=name, device="cpu")), console))
    return {source: values for source, values in found.items() if source != OVERALL}


def _table(names: list[str], facts: dict) -> list[str]:
    """Return one column a model."""
    sources = sorted(facts[names[0]]["metrics"], key=lambda s: -facts[names[0]]["metrics"][s]["images"][0])
    rows = [
        ("parameters", lambda f: f"{f['parameters'] / 1e6:.2f} M"),
        ("on disk", lambda f: f"{f['bytes'] / 1e6:.1f} MB"),
        ("multiply-adds, 512 x 512", lambda f: f"{f['multiply_adds'] / 1e9:.2f} G"),
        ("time, 512 x 512, median", lambda f: f"{f['ms']:.0f} ms"),
        ("peak memory of the process", lambda f: f"{f['peak'] / 1e9:.2f} GB"),
    ]
    cells = [[what, *(show_it(facts[name]) for name in names)] for what, show_it in rows]
    for source in sources:
        for key, head in QUALITY.items():
            found = [facts[name]["metrics"][source].get(key) for name in names]
            if all(found):
                cells.append(
                    [f"{source}: {head}", *(f"{m:.3f} ({low:.3f} to {high:.3f})" for m, low, high in found)]
                )
    head = ["", *(f"{Path(name).name} {facts[name]['version']}" for name in names)]
    return [f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *cells]]


def _verdict(name: str, teacher: str, facts: dict) -> tuple[str, bool]:
    """Say, and tell, whether a student is small enough, or quick and good enough, against its teacher."""
    mine, theirs = facts[name], facts[teacher]
    fewer, time = theirs["parameters"] / mine["parameters"], mine["ms"] / theirs["ms"]
    kept = {s: mine["metrics"][s]["pq"][0] / m["pq"][0] for s, m in theirs["metrics"].items()}
    worst = min(kept, key=lambda s: kept[s])
    met = []
    if fewer >= _FEWER:
        met.append(f"at least {_FEWER} times fewer parameters")
    if time <= _TENTH and kept[worst] >= _KEPT:
        met.append(f"at least {_KEPT:.0%} of the teacher's PQ on every source at a tenth of its time")
    told = (
        f"{Path(name).name}: {fewer:.1f} times fewer parameters, {time:.3f} of the time, "
        f"{kept[worst]:.1%} of the PQ where it loses most ({worst}). "
        f"Goal met: {' and '.join(met) or 'none'}."
    )
    return told, bool(met)


if __name__ == "__main__":
    _common.run(main)
