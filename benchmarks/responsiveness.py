"""How long the window does not answer while a model is fine-tuned in the background.

    python benchmarks/responsiveness.py
    python tools/with_display.py python benchmarks/responsiveness.py    # without a screen

A real napari window in which somebody pans and paints all the time, first alone, then during fine-tuning.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import _common as common

LIMIT_MS = 100.0


def main() -> int:
    """Measure and print."""
    parser = common.options(__doc__.splitlines()[0], rounds=1)
    parser.add_argument("--model", default="nucleus-student", help="name or folder of a model package")
    parser.add_argument("--steps", type=common.positive, default=60, help="of fine-tuning")
    args = parser.parse_args()
    gaps: dict[str, list[float]] = {"alone": [], "training": []}
    for _ in range(args.rounds):
        for name, found in measured(args.model, args.steps).items():
            gaps[name] += [1000 * gap for gap in found]
    alone, busy = gaps["alone"], gaps["training"]
    target = common.Target("<", LIMIT_MS)
    late, late_alone = (sum(gap > LIMIT_MS for gap in times) for times in (busy, alone))
    findings = [
        common.Finding(
            "longest", "longest time without an answer", max(busy), "ms", target, f"{max(alone):.3g} ms alone"
        ),
        common.Finding(
            "slowest", "slowest of a thousand", slowest(busy), "ms", seen=f"{slowest(alone):.3g} ms alone"
        ),
        common.Finding("late", f"times above {LIMIT_MS:.0f} ms", late, "", seen=f"{late_alone} alone"),
    ]
    facts = common.machine() | {"model": args.model, "steps": args.steps, "rounds": args.rounds}
    return common.report("responsiveness", findings, facts, strict=args.strict)


def measured(model: str, steps: int) -> dict[str, list[float]]:
    """Return the gaps, s, of one window."""
    script = Path(__file__).with_name("_answer_while_training.py")
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(script), folder, model, str(steps)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise common.BenchmarkError(f"the window failed: {done.stderr.strip()[-500:]}")
    found: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
    return found


def slowest(values: list[float]) -> float:
    """Return the 99.9th percentile."""
    return statistics.quantiles(values, n=1000)[-1]


if __name__ == "__main__":
    common.run(main)
