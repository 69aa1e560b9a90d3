"""What seconds depend on: the processor, and how many threads networks take of it."""

from __future__ import annotations

import os
import platform
from contextlib import contextmanager
from typing import TYPE_CHECKING

from napari_nucleus_kd.baselines import THREADS

if TYPE_CHECKING:
    from collections.abc import Iterator


def computer() -> dict[str, str | int]:
    """Return the "processor", how many of its "cores" may be used, and the "threads" that PyTorch takes."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": cores or 1,
        "threads": torch.get_num_threads(),
    }


@contextmanager
def limited_threads(number: int | None) -> Iterator[None]:
    """Let networks take so many threads, here and in tools that are started meanwhile.

    Parameters
    ----------
    number : of threads; None changes nothing.
    """
    if number is None:
        yield
        return
    import torch

    threads, before = torch.get_num_threads(), {name: os.environ.get(name) for name in THREADS}
    try:
        torch.set_num_threads(number)
        os.environ |= dict.fromkeys(THREADS, str(number))
        yield
    finally:
        torch.set_num_threads(threads)
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
