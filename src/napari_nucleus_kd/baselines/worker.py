"""Another tool in a process of its own: arrays go there and come back, and a crash there is none here."""

from __future__ import annotations

import json
import tempfile
import threading
import weakref
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from napari_nucleus_kd import apart
from napari_nucleus_kd.baselines import serve
from napari_nucleus_kd.baselines.environments import Tool, clean_environment, find
from napari_nucleus_kd.config import Settings, complaint
from napari_nucleus_kd.errors import BaselineError, DeviceError, ModelError

if TYPE_CHECKING:
    import numpy.typing as npt

_PATIENCE_S = 2.0  # for a tool to go when it is not wanted any more
_SERVE = serve.__file__  # run there
_LINE = 1 << 20  # bytes; no line of an answer is longer


class About(Settings):
    """What a tool says of the model that it has loaded.

    Attributes
    ----------
    weights : file or folder.
    device : as the tool calls it.
    threads : that its network takes on a processor.
    diameter_px : to which nuclei are brought for its network; None if it takes all as they are.
    default_diameter_px : of the nuclei, that the tool assumes where none is told; None if it has none.
    grid : pixels of the picture that share one of the maps.
    foreground : probability above which the tool by itself takes a pixel as nucleus.
    colour : whether the network sees colours, or grey only.
    maps : names of what the network tells of each pixel.
    """

    version: str
    weights: Path
    device: str
    threads: int
    parameters: int
    diameter_px: float | None
    default_diameter_px: float | None
    grid: int
    foreground: float
    colour: bool
    maps: tuple[str, ...]


class Worker:
    """A tool with a model loaded, until it is closed or nobody holds it any more.

    Raises
    ------
    BaselineError : the tool is not installed, or fails. ModelError : the weights cannot be used.
    DeviceError : the process died, or has too little memory.
    """

    def __init__(self, tool: Tool, weights: str, device: str = "auto"):
        self._tool = tool
        self._lock = threading.Lock()
        python = str(find(tool.name).python)
        with ExitStack() as stack:
            self._said = stack.enter_context(tempfile.TemporaryFile())
            self._process = stack.enter_context(
                apart.started([python, _SERVE, tool.served_as], self._said, _PATIENCE_S, clean_environment())
            )
            answer, _ = self._ask({"do": "open", "weights": weights, "device": device})
            try:
                self.about = About.model_validate(answer)
            except ValidationError as error:
                raise BaselineError(self._garbled(complaint(error))) from error
            self.close = weakref.finalize(self, stack.pop_all().close)

    @property
    def is_alive(self) -> bool:
        """Whether the process is there."""
        return self._process.poll() is None

    def stop(self) -> None:
        """End the process at once, also from another thread; what it has in hand is lost."""
        self._process.kill()
        self._process.wait()

    def maps(self, picture: npt.NDArray[np.float32], size: tuple[int, int]) -> npt.NDArray[np.float32]:
        """Return what the network tells of a picture.

        Parameters
        ----------
        picture : (3, Y, X) float32.
        size : of the maps, (h, w).

        Returns
        -------
        (M, h, w) float32, in the order of `about.maps`.
        """
        shape = (len(self.about.maps), *size)
        return self._array({"do": "maps", "size": size}, picture, np.dtype(np.float32), shape)

    def decode(
        self,
        maps: npt.NDArray[np.float32],
        shape_yx: tuple[int, int],
        scale: float,
        foreground: float,
        min_area_px: int,
    ) -> npt.NDArray[np.int32]:
        """Return what the tool makes of maps: labels (Y, X) int32, not always numbered without gaps.

        Parameters
        ----------
        maps : (M, h, w) float32; their last row and column may reach beyond the picture.
        shape_yx : of the picture.
        scale : map pixels for a pixel of the picture.
        """
        asked = {
            "do": "decode",
            "shape": shape_yx,
            "scale": scale,
            "foreground": foreground,
            "min_area": min_area_px,
        }
        labels = self._array(asked, maps, np.dtype(np.int32), shape_yx)
        if labels.size and labels.min() < 0:
            raise BaselineError(self._garbled("labels below 0"))
        return labels

    def _array(
        self, request: dict[str, Any], sent: npt.NDArray[Any], kind: np.dtype[Any], shape: tuple[int, ...]
    ) -> npt.NDArray[Any]:
        _, found = self._ask(request, sent, expected=np.empty(shape, kind))
        assert found is not None
        return found

    def _ask(
        self, request: dict[str, Any], *arrays: npt.NDArray[Any], expected: npt.NDArray[Any] | None = None
    ) -> tuple[dict[str, Any], npt.NDArray[Any] | None]:
        process, title = self._process, self._tool.title
        assert process.stdin is not None and process.stdout is not None
        with self._lock:
            if self._said.closed:
                raise BaselineError(f"{title} was closed")
            try:
                with apart.waiting_for(process):
                    serve.write_message(process.stdin, request, *arrays)
                    answer = self._answer(process.stdout, expected)
            except OSError:
                answer = None
            except (TypeError, ValueError) as error:
                self.stop()
                raise BaselineError(self._garbled(str(error))) from error
            except BaseException:  # Ctrl-C, for instance: its answer would be taken for the next one
                self.stop()
                raise
            if answer is None:
                raise DeviceError(
                    f"{title} ended {apart.how_it_ended(process, self._said)}; close other programs, take "
                    "smaller tiles, or another device"
                )
        message, found = answer
        if "error" not in message:
            return message, found
        text = str(message.get("text", ""))
        if message["error"] == "weights":
            raise ModelError(text)
        if message["error"] == "device":
            raise DeviceError(f"{title}: {text}")
        if message["error"] == "memory":
            raise DeviceError(f"{title}: {text}; close other programs, or take smaller tiles")
        raise BaselineError(f"{title} failed: {text}")

    def _answer(
        self, pipe: IO[bytes], expected: npt.NDArray[Any] | None
    ) -> tuple[dict[str, Any], npt.NDArray[Any] | None] | None:
        """Read an answer, and its array into the one that is expected; None if the process has gone.

        Raises
        ------
        ValueError : it is none.
        """
        line = pipe.readline(_LINE)
        if not line:
            return None
        message = json.loads(line)
        if not line.endswith(b"\n") or not isinstance(message, dict):
            raise ValueError("a line that is no answer")
        told = [(np.dtype(kind), tuple(shape)) for kind, shape in message.pop("arrays", [])]
        if "error" in message or expected is None:
            if told:
                raise ValueError("arrays that nobody asked for")
            return message, None
        if told != [(expected.dtype, expected.shape)]:
            got = ", ".join(f"{kind} {shape}" for kind, shape in told) or "nothing"
            raise ValueError(f"{got} instead of {expected.dtype} {expected.shape}")
        if pipe.readinto(expected.reshape(-1).view(np.uint8)) != expected.nbytes:  # type: ignore[attr-defined]
            return None
        return message, expected

    def _garbled(self, what: str) -> str:
        return (
            f"{self._tool.title} did not answer as expected: {what}. Perhaps another version of it is "
            f"installed; see nucleus-kd baselines list"
        )
