"""Check that Linux has what Qt and napari need from the system, and install it where that is possible.

Where it cannot be installed (not Debian-like, or neither root nor passwordless sudo) the exact command is
printed and the exit status is 1. With --optional nothing is done where there is no display, and what is
missing is only a warning. On macOS and Windows Qt needs nothing.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import shutil
import subprocess
import sys

# Library that the loader must find, and the Debian and Ubuntu package that has it.
LIBRARIES = {
    "libEGL.so.1": "libegl1",
    "libGL.so.1": "libgl1",
    "libGLX_mesa.so.0": "libglx-mesa0",
    "libglib-2.0.so.0": "libglib2.0-0",
    "libdbus-1.so.3": "libdbus-1-3",
    "libfontconfig.so.1": "libfontconfig1",
    "libxkbcommon-x11.so.0": "libxkbcommon-x11-0",
    "libxcb-cursor.so.0": "libxcb-cursor0",
    "libxcb-icccm.so.4": "libxcb-icccm4",
    "libxcb-image.so.0": "libxcb-image0",
    "libxcb-keysyms.so.1": "libxcb-keysyms1",
    "libxcb-randr.so.0": "libxcb-randr0",
    "libxcb-render-util.so.0": "libxcb-render-util0",
    "libxcb-shape.so.0": "libxcb-shape0",
    "libxcb-xinerama.so.0": "libxcb-xinerama0",
    "libxcb-xkb.so.1": "libxcb-xkb1",
}
PROGRAMS = {"xvfb-run": "xvfb", "xauth": "xauth"}


def _has_library(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def missing(*, need_xvfb: bool) -> dict[str, str]:
    """Return what is not there: {library or program: Debian package}."""
    absent = {name: package for name, package in LIBRARIES.items() if not _has_library(name)}
    if need_xvfb:
        absent |= {name: package for name, package in PROGRAMS.items() if shutil.which(name) is None}
    return absent


def _privilege() -> list[str] | None:
    """Return what to put before apt-get so that it may install, or None if nothing can."""
    if os.geteuid() == 0:
        return []
    sudo = shutil.which("sudo")
    if sudo and subprocess.run([sudo, "-n", "true"], capture_output=True, check=False).returncode == 0:
        return [sudo, "-n"]
    return None


def install(packages: list[str], privilege: list[str]) -> bool:
    """Install Debian packages; return whether apt-get said that it worked."""
    # The list of packages may be old or absent (containers), so it is fetched before a second try.
    apt = [*privilege, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq"]
    command = [*apt, "install", "-y", "--no-install-recommends", *packages]
    print(f"installing {' '.join(packages)}", flush=True)
    if subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode == 0:
        return True
    subprocess.run([*apt, "update"], stdout=subprocess.DEVNULL, check=False)
    return subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode == 0


def _remedy(absent: dict[str, str]) -> str:
    if shutil.which("apt-get"):
        packages = " ".join(sorted(set(absent.values())))
        return f"Type:\n  sudo apt-get update && sudo apt-get install -y {packages}"
    return "Install them with this system's package manager (the names above are those of the libraries)."


def main(arguments: list[str] | None = None) -> int:
    """Check, install if possible, say what is left; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--optional",
        action="store_true",
        help="for showing a window: nothing without a display, never xvfb, only warn",
    )
    optional: bool = parser.parse_args(arguments).optional
    has_display = bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    if not sys.platform.startswith("linux") or (optional and not has_display):
        return 0
    need_xvfb = not os.environ.get("DISPLAY") and not optional
    absent = missing(need_xvfb=need_xvfb)
    if absent and shutil.which("apt-get"):
        privilege = _privilege()
        if privilege is not None and install(sorted(set(absent.values())), privilege):
            absent = missing(need_xvfb=need_xvfb)
    if not absent:
        return 0
    print(f"The napari window needs, and this machine has not: {', '.join(sorted(absent))}.", file=sys.stderr)
    print(_remedy(absent), file=sys.stderr)
    return 0 if optional else 1


if __name__ == "__main__":
    sys.exit(main())
