"""Run the benchmarks named, or all of benchmarks/*.py, one after the other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"


def chosen(names: list[str]) -> list[Path]:
    """Return the benchmark files of these names ("speed", "speed.py" or a path); all if none is given."""
    if not names:
        return sorted(path for path in FOLDER.glob("*.py") if not path.name.startswith("_"))
    return [Path(name) if Path(name).is_file() else FOLDER / f"{Path(name).stem}.py" for name in names]


def main(names: list[str]) -> int:
    """Run them; return 1 if one failed, 2 if one does not exist."""
    scripts = chosen(names)
    if missing := [path for path in scripts if not path.is_file()]:
        print(f"no benchmark {', '.join(map(str, missing))} in {FOLDER}", file=sys.stderr)
        return 2
    failed = []
    for script in scripts:
        print(f"== {script.name}", flush=True)
        if subprocess.run([sys.executable, str(script)], check=False).returncode:
            failed.append(script.name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
