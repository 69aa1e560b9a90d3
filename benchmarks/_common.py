"""What the benchmarks share: options, interleaved timing, and one table and one JSON line at the end."""

from __future__ import annotations

import argparse
import json
import operator
import os
import platform
import random
import statistics
import sys
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_COMPARE = {"<=": operator.le, "<": operator.lt, ">=": operator.ge, ">": operator.gt}
_PAUSE_S = 0.05  # threads of the one before stop spinning
_TABLE_WIDTH = 130  # where the output is not a terminal


class BenchmarkError(Exception):
    """A benchmark cannot run; the text says why, for people."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a value should be.

    Attributes
    ----------
    relation : one of <=, <, >= and >.
    limit : in the finding's unit.
    """

    relation: str
    limit: float

    def met_by(self, value: float) -> bool:
        """Say whether a value is within the target."""
        return bool(_COMPARE[self.relation](value, self.limit))


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a benchmark's result.

    Attributes
    ----------
    key : name in the JSON line.
    what : name for people.
    value : the result; None if it was not measured.
    unit : "x" for ratios, "%" for shares (0 to 1), "s", "GB" (value in bytes), "" for numbers.
    target : what it should be; None where there is no target.
    seen : absolute numbers, which say something about this machine only, or why there is no value.
    """

    key: str
    what: str
    value: float | None
    unit: str = "x"
    target: Target | None = None
    seen: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without a target or a value."""
        return None if self.target is None or self.value is None else self.target.met_by(self.value)


def skipped(key: str, what: str, reason: str) -> Finding:
    """Return the line of something that could not be measured."""
    return Finding(key, what, None, seen=f"skipped: {reason}")


def options(description: str, rounds: int) -> argparse.ArgumentParser:
    """Return a parser of the options that all benchmarks take."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--rounds", type=positive, default=rounds, help="times that each thing is measured")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if a target is missed")
    return parser


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add the options of a benchmark that runs a network."""
    parser.add_argument("--model", default="nucleus-student", help="name or folder of a model package")
    parser.add_argument("--threads", type=positive, help="of everyone (default: as torch chooses)")


def positive(text: str) -> int:
    """Read a whole number above 0."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def run(benchmark: Callable[[], int]) -> None:
    """Run a benchmark's main function and exit with its status; what it cannot do is one line."""
    from napari_nucleus_kd.errors import NucleusKDError

    try:
        sys.exit(benchmark())
    except (BenchmarkError, NucleusKDError) as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        sys.exit(2)


def say(text: str) -> None:
    """Tell a person what is going on; the result alone goes to standard output."""
    print(text, file=sys.stderr, flush=True)


def interleave(
    contestants: Mapping[str, Callable[[], float]], rounds: int, pause_s: float = _PAUSE_S
) -> dict[str, list[float]]:
    """Let contestants take turns, in another order each round, so that a busy spell hits all of them.

    Parameters
    ----------
    contestants : functions that do the work once and return the seconds it took.

    Returns
    -------
    The seconds of every round, a contestant.
    """
    order = random.Random(0)
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name in order.sample(list(contestants), len(contestants)):
            time.sleep(pause_s)
            seconds[name].append(contestants[name]())
    return seconds


def timed(work: Callable[[], object]) -> Callable[[], float]:
    """Return a function that does the work and returns the seconds it took."""

    def measure() -> float:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    return measure


def ratio(over: list[float], under: list[float]) -> float:
    """Return the ratio of two medians."""
    return statistics.median(over) / statistics.median(under)


def in_words(seconds: list[float]) -> str:
    """Return the median and the middle half of the times."""
    median = statistics.median(seconds)
    factor, unit = (1000, "ms") if median < 1 else (1, "s")
    if len(seconds) < 4:
        return f"{median * factor:.3g} {unit}"
    low, _, high = statistics.quantiles(seconds, n=4)
    return f"{median * factor:.3g} {unit} ({low * factor:.3g} to {high * factor:.3g})"


def machine(threads: int | None = None) -> dict[str, Any]:
    """Return what the numbers depend on.

    Parameters
    ----------
    threads : that networks were given; None if no network ran.
    """
    facts: dict[str, Any] = {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": threads,
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "napari-nucleus-kd": version("napari-nucleus-kd"),
    }
    if hasattr(os, "getloadavg"):
        facts["load"] = round(os.getloadavg()[0], 1)  # of the last minute
    return facts


def report(name: str, findings: list[Finding], facts: Mapping[str, Any], *, strict: bool = False) -> int:
    """Print the table and the JSON line.

    Parameters
    ----------
    facts : what the numbers depend on: `machine()`, the model, sizes.
    strict : whether a missed target is a failure.

    Returns
    -------
    int : exit status.
    """
    _print_table(name, findings, facts)
    missed = [finding.key for finding in findings if finding.met is False]
    results = {
        f.key: {
            "value": f.value,
            "unit": f.unit,
            "target": None if f.target is None else f"{f.target.relation} {f.target.limit:g}",
            "met": f.met,
            "seen": f.seen,
        }
        for f in findings
    }
    print(json.dumps({"benchmark": name, **facts, "results": results, "missed": missed}), flush=True)
    return 1 if strict and missed else 0


def _print_table(name: str, findings: list[Finding], facts: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    caption = ", ".join(f"{key} {value}" for key, value in facts.items() if value is not None)
    table = Table(title=name, caption=escape(caption), caption_justify="left")
    for column in ("what", "result", "target", "", "on this machine"):
        table.add_column(column, justify="right" if column in ("result", "target") else "left")
    for finding in findings:
        target = (
            ""
            if finding.target is None
            else f"{finding.target.relation} {_amount(finding, finding.target.limit)}"
        )
        result = "-" if finding.value is None else _amount(finding, finding.value)
        verdict = {True: "[green]met[/]", False: "[bold red]missed[/]", None: ""}[finding.met]
        table.add_row(escape(finding.what), result, target, verdict, escape(finding.seen))
    console = Console()
    if not console.is_terminal:
        console = Console(width=_TABLE_WIDTH)
    console.print(table)


def _amount(finding: Finding, value: float) -> str:
    match finding.unit:
        case "%":
            return f"{100 * value:.4g} %"
        case "GB":
            return f"{value / 1e9:.2f} GB"
        case "":
            return f"{value:g}"
        case unit:
            return f"{value:.3g} {unit}"


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
