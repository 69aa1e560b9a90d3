"""StarDist and Cellpose as contestants, each in a process of its own environment that takes turns with us.

One process could not hold them: they want other versions of numpy, and TensorFlow beside Mesa's
OpenGL crashes.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from _common import BenchmarkError

if TYPE_CHECKING:
    from types import TracebackType
    from typing import IO

_WORKER = Path(__file__).with_name("_baseline_worker.py")
_PATIENCE_S = 600.0  # TensorFlow on a busy machine takes long to start
_TAIL_LINES = 8


class Baseline:
    """A baseline in its own process.

    Attributes
    ----------
    description : name and versions, as the process says.
    """

    def __init__(self, name: str, python: Path, weights: Path, threads: int, folder: Path):
        """Start it and wait until its model is open.

        Parameters
        ----------
        name : "stardist" or "cellpose".
        python : interpreter of the environment that has it.
        weights : StarDist model folder or Cellpose weights file.
        threads : that it may use.
        folder : for its images, labels and log.

        Raises
        ------
        BenchmarkError if the interpreter or the weights are not there, or it does not start.
        """
        for path in (python, weights):
            if not path.exists():
                raise BenchmarkError(f"{name}: {path} does not exist")
        self._name = name
        self._labels = folder / f"{name}_labels.npy"
        self._log = folder / f"{name}.log"
        command = [str(python), str(_WORKER), name, str(weights.resolve()), str(threads)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=_environment(threads),
            )
        self._lines: queue.Queue[str] = queue.Queue()
        self._listener = threading.Thread(target=self._listen, args=(self._process.stdout,), daemon=True)
        self._listener.start()
        try:
            self.description = str(self._answer()["description"])
        except BenchmarkError:
            self.close()
            raise

    def segment(self, image: Path) -> float:
        """Segment the (Y, X) image in a .npy file and return the seconds it took there."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"image": str(image), "labels": str(self._labels)}) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise BenchmarkError(f"{self._name} stopped: {self._last_words()}") from error
        return float(self._answer()["seconds"])

    def count(self) -> int:
        """Return how many nuclei it found the last time."""
        return int(np.count_nonzero(np.unique(np.load(self._labels, allow_pickle=False))))

    def close(self) -> None:
        """Stop the process."""
        self._process.kill()
        self._process.wait()
        self._listener.join()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with suppress(OSError):  # what it did not read any more
                stream.close()

    def __enter__(self) -> Baseline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _listen(self, stream: IO[str]) -> None:
        for line in stream:
            self._lines.put(line)
        self._lines.put("")

    def _answer(self) -> dict[str, Any]:
        try:
            line = self._lines.get(timeout=_PATIENCE_S)
        except queue.Empty:
            raise BenchmarkError(f"{self._name} gave no answer for {_PATIENCE_S:.0f} s") from None
        if not line:
            raise BenchmarkError(f"{self._name} stopped: {self._last_words()}")
        message: dict[str, Any] = json.loads(line)
        return message

    def _last_words(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return "\n".join(lines[-_TAIL_LINES:]) or "it said nothing"


def _environment(threads: int) -> dict[str, str]:
    """Return an environment with so many threads, and without a GPU: everyone runs on the CPU."""
    counts = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
    return {**os.environ, **dict.fromkeys(counts, str(threads)), "CUDA_VISIBLE_DEVICES": ""}
