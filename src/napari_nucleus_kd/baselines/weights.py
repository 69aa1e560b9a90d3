"""The files of another tool's weights, and their fingerprint."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from napari_nucleus_kd.io.checked import sha256

if TYPE_CHECKING:
    from pathlib import Path

_LOADED = ("config.json", "thresholds.json", "*.h5", "*.hdf5")  # of a StarDist model's folder


def weight_files(weights: Path) -> list[Path]:
    """Return the files that are loaded of a file or of a StarDist folder; none of what is not there."""
    if weights.is_dir():
        return sorted(file for pattern in _LOADED for file in weights.glob(pattern))
    return [weights] if weights.is_file() else []


def weights_digest(weights: Path, version: str = "") -> str:
    """Return the SHA-256 of a version and of what is loaded of weights, as 64 hexadecimal digits."""
    found = hashlib.sha256(version.encode())
    for path in weight_files(weights):
        found.update(path.suffix.encode() + sha256(path).encode())
    return found.hexdigest()
