"""Run a command with a display: under xvfb where Linux has none, else as it is.

Qt's "offscreen" platform does not draw napari's canvas, so a machine without a screen needs xvfb.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

XVFB = ["xvfb-run", "-a", "-s", "-screen 0 1280x1024x24"]


def needs_xvfb() -> bool:
    """Say whether this is a Linux machine without a display."""
    return sys.platform.startswith("linux") and not os.environ.get("DISPLAY")


def main(command: list[str]) -> int:
    """Run the command and return its exit status."""
    if not command:
        print("usage: with_display.py COMMAND [ARGUMENT...]", file=sys.stderr)
        return 2
    if needs_xvfb():
        if shutil.which("xvfb-run") is None:
            print("no DISPLAY and no xvfb-run; see tools/qt_system_libs.py", file=sys.stderr)
            return 1
        # Wayland has no xvfb; without this Qt would ignore the X display made here.
        environment = {**os.environ, "QT_QPA_PLATFORM": "xcb"}
        return subprocess.run([*XVFB, *command], env=environment, check=False).returncode
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
