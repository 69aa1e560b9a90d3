"""Runs a network on the best processor there is, and says which and why."""

from __future__ import annotations

import math
import threading
import warnings
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import torch
from torch import nn

from napari_nucleus_kd.errors import DeviceError
from napari_nucleus_kd.networks.student import CONTEXT_PX
from napari_nucleus_kd.tiling import plan_tiles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from napari_nucleus_kd.package import Model
    from napari_nucleus_kd.tiling import Tile
    from napari_nucleus_kd.types import FloatArray

DEVICES = ("auto", "cuda", "mps", "openvino", "cpu")
_BLOCK_PX, _LEAST_BLOCK_PX = 1024, 256  # edge of the blocks of a picture, and when memory is short
_WHOLE = 1.4  # pictures up to so many blocks across are run whole: blocks see their surroundings again
_EXAMPLE_PX = 64  # enough to trace a network; its shapes stay dynamic
_OPEN: dict[tuple[str, str, str, int], Engine] = {}
_MOST_OPEN = 4  # a few models are compared
_LOCK = threading.Lock()


class Runner(Protocol):
    """One way to run a network, and how many pictures it takes at once."""

    description: str
    batch_size: int

    def __call__(self, batch: FloatArray) -> FloatArray:
        """Map (N, 3, H, W) to (N, M, H, W), both float32."""


class Engine:
    """A network on a device, with what to do when the device runs out of memory.

    Large pictures go through the network in blocks, several at once where the device gains from it.
    Out of memory, fewer blocks go at once, then smaller ones, then the CPU takes over.

    Attributes
    ----------
    description : device and number type for people, with the reason for the choice.
    notes : everything that did not go as chosen ("GPU out of memory, ..."), in order.
    """

    def __init__(
        self,
        runner: Runner,
        fall_back: Callable[[], Runner],
        multiple_px: int,
        notes: Sequence[str] = (),
    ):
        self._runner = runner
        self._fall_back = fall_back
        self._multiple_px = multiple_px
        self._block_px = _BLOCK_PX
        self._at_once = 1  # blocks in the batch that was tried last
        self._lock = threading.Lock()
        self.notes = list(notes)

    @property
    def description(self) -> str:
        """Device, number type and reason, for people."""
        return self._runner.description

    def run(self, picture: FloatArray) -> FloatArray:
        """Run the network.

        Parameters
        ----------
        picture : (3, H, W) float32; H and W are multiples of the model's multiple_px.

        Returns
        -------
        (M, H, W) float32

        Raises
        ------
        DeviceError if the memory does not suffice, on the CPU too.
        """
        with self._lock:
            while True:
                try:
                    return self._run_blocks(picture)
                except (RuntimeError, MemoryError) as error:
                    self._make_room(error, picture[0].size)

    def _run_blocks(self, picture: FloatArray) -> FloatArray:
        shape = picture.shape[1], picture.shape[2]
        if shape[0] * shape[1] <= (_WHOLE * self._block_px) ** 2:
            self._at_once = 1
            return self._run_batch(picture[None])[0]  # type: ignore[no-any-return]
        same_shape: dict[tuple[int, int], list[Tile]] = {}
        for tile in plan_tiles(shape, self._block_px, CONTEXT_PX, self._multiple_px):
            same_shape.setdefault(tile.window.shape_yx, []).append(tile)
        maps: FloatArray | None = None
        for tiles in same_shape.values():
            for start in range(0, len(tiles), self._runner.batch_size):
                part = tiles[start : start + self._runner.batch_size]
                self._at_once = len(part)
                found = self._run_batch(np.stack([picture[:, *tile.window.slices] for tile in part]))
                if maps is None:
                    maps = np.empty((found.shape[1], *shape), np.float32)
                for tile, values in zip(part, found, strict=True):
                    maps[:, *tile.core.slices] = values[:, *tile.core.within(tile.window).slices]
        assert maps is not None
        return maps

    def _run_batch(self, batch: FloatArray) -> FloatArray:
        return self._runner(np.ascontiguousarray(batch, dtype=np.float32))

    def _make_room(self, error: Exception, pixels: int) -> None:
        """Change what the next attempt does, or raise: nothing is left to try."""
        runner, full = self._runner, _is_out_of_memory(error)
        on_cpu = isinstance(runner, _TorchRunner) and runner.device.type == "cpu"
        smaller = min(self._block_px, math.isqrt(pixels)) // 2
        if full and self._at_once > 1:
            runner.batch_size = self._at_once // 2
            self.notes.append(f"{runner.description}: out of memory, blocks at once now {runner.batch_size}")
        elif full and smaller >= _LEAST_BLOCK_PX:
            self._block_px = smaller
            self.notes.append(f"{runner.description}: out of memory, blocks of {smaller} px now")
        elif not on_cpu:
            self._runner, self._block_px = self._fall_back(), _BLOCK_PX
            why = "out of memory" if full else _first_line(error)
            self.notes.append(f"{runner.description} failed ({why}); went on with {self._runner.description}")
        elif full:
            raise DeviceError(
                "not enough memory on the CPU; close other programs, or choose a part of the image"
            ) from error
        else:
            raise error
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def open_engine(model: Model, device: str = "auto") -> Engine:
    """Put a model on a device; the same model and device give the same engine again.

    Parameters
    ----------
    device : "auto" takes the first of available_devices(). Or one of these, or
        "cuda:N". torch's number of threads is left as it is.

    Raises
    ------
    DeviceError if the device is unknown or not there.
    ModelError if the weights do not fit.
    """
    check_device(device)
    key = (model.hash, model.spec.model_dump_json(), device, torch.get_num_threads())
    with _LOCK:
        if key not in _OPEN:
            while len(_OPEN) >= _MOST_OPEN:
                _OPEN.pop(next(iter(_OPEN)))
            _OPEN[key] = _open(model, device)
        return _OPEN[key]


def available_devices() -> tuple[str, ...]:
    """Return the devices that "auto" would consider here, best first."""
    found = []
    if torch.cuda.is_available():
        found += ["cuda", *(f"cuda:{i}" for i in range(1, torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        found.append("mps")
    processor = ["openvino", "cpu"] if find_spec("openvino") is not None else ["cpu"]
    if _cpu_has_bf16():
        processor.reverse()  # as fast as OpenVINO when idle, faster under load (benchmarks/speed.py)
    return (*found, *processor)


def check_device(device: str) -> None:
    """Raise DeviceError unless the device is "auto" or there."""
    if device == "auto":
        return
    there = available_devices()
    if device in there or (device == "cuda:0" and "cuda" in there):
        return
    if device == "openvino":
        raise DeviceError("openvino is not installed; pip install 'napari-nucleus-kd[openvino]', or take cpu")
    if device.split(":")[0] not in DEVICES:
        raise DeviceError(f"unknown device {device!r}; choose from {', '.join(DEVICES)} or cuda:N")
    raise DeviceError(f"device {device!r} is not there; this computer has {', '.join(there)}")


def _open(model: Model, device: str) -> Engine:
    network, multiple_px = model.network(), model.spec.multiple_px
    reason = ""
    if device == "auto":
        device = available_devices()[0]
        reason = "" if device in ("cuda", "mps") else "no GPU found"

    def on_cpu() -> Runner:
        return _TorchRunner(network, torch.device("cpu"), reason)

    if device == "openvino":
        try:
            return Engine(_OpenVinoRunner(network, reason), on_cpu, multiple_px)
        except Exception as error:  # OpenVINO raises many kinds; torch on the CPU always works
            runner = on_cpu()
            note = f"OpenVINO failed ({_first_line(error)}); went on with {runner.description}"
            return Engine(runner, on_cpu, multiple_px, [note])
    return Engine(_TorchRunner(network, torch.device(device), reason), on_cpu, multiple_px)


class _TorchRunner:
    """torch on the CPU, CUDA or Apple's GPU; channels last, bfloat16 where the processor has it."""

    def __init__(self, network: nn.Module, device: torch.device, reason: str = ""):
        self.device = device
        self.batch_size = {"cpu": 1}.get(device.type, 4)
        self._dtype, dtype_name = number_type(device)
        fused = fuse(network)
        self._network = fused.to(device=device, dtype=self._dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.description = _describe(_device_name(device), dtype_name, device.type, reason)

    def __call__(self, batch: FloatArray) -> FloatArray:
        with torch.inference_mode():
            x = torch.from_numpy(batch).to(self.device, self._dtype).to(memory_format=torch.channels_last)
            maps = self._network(x).float().contiguous().cpu().numpy()
        return cast("FloatArray", maps)


class _OpenVinoRunner:
    """OpenVINO on the CPU; one compiled network takes every image size, as fast as a fixed one."""

    def __init__(self, network: nn.Module, reason: str = ""):
        import openvino

        core = openvino.Core()
        bf16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        options: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "NUM_STREAMS": 1,
        }
        converted = to_openvino(network, torch.zeros(1, 3, _EXAMPLE_PX, _EXAMPLE_PX))
        self._request = core.compile_model(converted, "CPU", options).create_infer_request()
        self.batch_size = 1
        self.description = _describe("CPU with OpenVINO", "bfloat16" if bf16 else "float32", "cpu", reason)

    def __call__(self, batch: FloatArray) -> FloatArray:
        maps: FloatArray = np.array(self._request.infer({0: batch})[0], dtype=np.float32)
        return maps


@contextmanager
def torchscript_allowed() -> Iterator[None]:
    """Silence torch's word that TorchScript is old: it is what OpenVINO and ImageJ read."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\.", DeprecationWarning)
        yield


def trace(network: nn.Module, example: torch.Tensor) -> torch.jit.ScriptModule:
    """Return a network as TorchScript, batch norms folded; batch, height and width stay free.

    Parameters
    ----------
    example : (B, 3, H, W) float32.
    """
    with torch.inference_mode(), torchscript_allowed():
        # Checking the trace takes four times as long as the trace; callers compare the outputs themselves.
        return cast(
            "torch.jit.ScriptModule",
            torch.jit.trace(fuse(network), example, check_trace=False),  # type: ignore[no-untyped-call]
        )


def to_openvino(network: nn.Module, example: torch.Tensor) -> Any:
    """Return a network as an openvino.Model of any batch, height and width; see `trace`."""
    import openvino

    traced = trace(network, example)
    with torch.inference_mode(), torchscript_allowed():
        return openvino.convert_model(traced, input=[-1, 3, -1, -1])


def number_type(device: torch.device) -> tuple[torch.dtype, str]:
    """Return the type of numbers that a processor is fastest with at enough precision, and its name."""
    if device.type == "cuda":
        # Compute capability 8 and later has bfloat16 in hardware; older GPUs only emulate it.
        new = torch.cuda.get_device_capability(device)[0] >= 8
        return (torch.bfloat16, "bfloat16") if new else (torch.float16, "float16")
    if device.type == "cpu" and _cpu_has_bf16():
        return torch.bfloat16, "bfloat16"
    return torch.float32, "float32"


def _cpu_has_bf16() -> bool:
    # Without hardware support bfloat16 is slower than float32.
    return any(
        bool(getattr(torch.cpu, name, bool)())
        for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    )


def fuse(network: nn.Module) -> nn.Module:
    """Return a copy whose batch norms are folded into the convolutions before them."""
    import copy

    from torch.nn.utils.fusion import fuse_conv_bn_eval

    network = copy.deepcopy(network).eval()
    for block in [m for m in network.modules() if isinstance(m, nn.Sequential)]:
        layers = list(block)
        for i, (first, second) in enumerate(pairwise(layers)):
            if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                block[i] = fuse_conv_bn_eval(first, second)
                block[i + 1] = nn.Identity()
    return network


def _describe(device: str, dtype: str, kind: str, reason: str) -> str:
    parts = [device, dtype]
    if kind == "cpu":
        threads = torch.get_num_threads()
        parts.append(f"{threads} thread{'s' if threads != 1 else ''}")
    return ", ".join(parts) + (f" ({reason})" if reason else "")


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"GPU {torch.cuda.get_device_name(device)}"
    return {"mps": "Apple GPU"}.get(device.type, "CPU")


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    text = str(error).lower()
    return "out of memory" in text or "can't allocate memory" in text or "not enough memory" in text


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:200] if text else type(error).__name__
