"""Read the files of a package of unknown origin: of limited size, and never as code."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from napari_nucleus_kd.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path

MAX_TEXT_BYTES = 256 * 1024
MAX_TENSOR_BYTES = 4 * 1024**3


def read_tensors(path: Path) -> dict[str, Any]:
    """Return the arrays of a safetensors file by name.

    Raises
    ------
    ModelError if it is missing, too large or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    check_size(path, MAX_TENSOR_BYTES)
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} is not a safetensors file: {error}. Get the package again.") from error
    return dict(tensors)


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file.

    Raises
    ------
    ModelError if it is missing, too large or not text.
    """
    check_size(path, MAX_TEXT_BYTES)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error


def check_size(path: Path, limit: int) -> None:
    """Raise ModelError unless there is such a file of at most `limit` bytes."""
    if not path.is_file():
        raise ModelError(f"{path} is missing; get the package again")
    if path.stat().st_size > limit:
        raise ModelError(f"{path} has {path.stat().st_size} bytes, more than the {limit} allowed")


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    check_size(path, MAX_TENSOR_BYTES)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
