"""Run benchmarks one after the other: run_benchmarks.py [NAME...] [ARGUMENT...].

Without a name all of benchmarks/*.py run. What follows the names goes to each of them:
`run_benchmarks.py accuracy index.csv --split val`.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"
_NO_BENCHMARKS = {"make_index"}  # prepares data, measures nothing


def benchmarks() -> dict[str, Path]:
    """Return every benchmark by its name."""
    files = sorted(FOLDER.glob("[!_]*.py"))
    return {file.stem: file for file in files if file.stem not in _NO_BENCHMARKS}


def chosen(arguments: list[str]) -> tuple[list[Path], list[str]]:
    """Split the arguments into the benchmarks that they name (all if none) and the rest."""
    known = benchmarks()
    names = []
    for argument in arguments:
        if Path(argument).suffix not in ("", ".py") or Path(argument).stem not in known:
            break
        names.append(Path(argument).stem)
    return [known[name] for name in names or known], arguments[len(names) :]


def main(arguments: list[str]) -> int:
    """Run them; return 1 if one failed, 2 if the first argument is no benchmark."""
    scripts, rest = chosen(arguments)
    if rest and len(rest) == len(arguments) and not rest[0].startswith("-"):
        print(f"no benchmark {rest[0]!r}; choose from {', '.join(benchmarks())}", file=sys.stderr)
        return 2
    failed = []
    for script in scripts:
        print(f"== {script.name}", flush=True)
        if subprocess.run([sys.executable, str(script), *rest], check=False).returncode:
            failed.append(script.name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
