"""Run Cellpose or StarDist for another program, in the environment where the tool is installed.

This file is run by that environment's Python: it needs nothing but Python 3.9, the tool and the tool's
NumPy. Requests come on stdin, answers go to stdout; each is a line of JSON, followed by the bytes of the
arrays that it announces. Whatever the tool prints goes to stderr. The process ends with its stdin.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from typing import IO, Any

import numpy as np

Array = Any  # numpy.ndarray, whose type older versions cannot say more of

_CERTAIN = 1e-6  # a probability is this far from 0 and 1, so that its logit is finite
_ITERATIONS = 200  # of Cellpose's flow, in network pixels
_FLOW_THRESHOLD = 0.4  # Cellpose's default


class Unusable(Exception):
    """The weights are not there or not those of this tool."""


class NoDevice(Exception):
    """The device is not there."""


class Cellpose:
    """A Cellpose model, version 3 or 4."""

    def __init__(self, weights: str, device: str):
        import cellpose.models as models
        import torch

        named = {*models.MODEL_NAMES, *_user_models(models)}
        known = {name for name in named if "transformer" not in name}  # these need another class
        if not os.path.isfile(weights) and weights not in known:
            # Cellpose would quietly take, and download, its default model.
            raise Unusable(
                f"no file {weights}, and no Cellpose model has this name; give the file of a model, or one "
                f"of {', '.join(sorted(known))}, which Cellpose downloads itself"
            )
        self.device, self.threads = _torch_device(torch, device), torch.get_num_threads()
        self.model = models.CellposeModel(
            gpu=self.device.type != "cpu", device=self.device, pretrained_model=weights
        )
        self.version = _version("cellpose")
        self.transformer = int(self.version.split(".")[0]) >= 4  # Cellpose-SAM: three channels

    def about(self) -> dict[str, Any]:
        """Tell what was loaded."""
        net, size = self.model.net, float(getattr(self.model, "diam_mean", 30.0))
        return {
            "version": self.version,
            "weights": os.fspath(self.model.pretrained_model),
            "device": str(self.device),
            "threads": self.threads,
            "parameters": sum(p.numel() for p in net.parameters()),
            "diameter_px": size,
            # Cellpose 3 keeps how large the nuclei were that it learnt from, before they were rescaled.
            "default_diameter_px": float(getattr(self.model, "diam_labels", size)),
            "grid": 1,
            "foreground": 0.5,
            "colour": self.transformer,
            "maps": ["foreground", "flow_y", "flow_x"],
        }

    def maps(self, picture: Array, size: list[int]) -> Array:
        """Return (3, h, w) float32: probability of a nucleus, and the flow towards its middle."""
        from cellpose import transforms

        colour = np.ascontiguousarray(np.moveaxis(picture, 0, -1))
        seen = transforms.resize_image(colour, Ly=size[0], Lx=size[1])
        options = {"normalize": False, "compute_masks": False}
        if self.transformer:
            flows = self.model.eval(seen, channel_axis=-1, **options)[1]
        else:
            flows = self.model.eval(seen.mean(-1), channels=[0, 0], rescale=1.0, **options)[1]
        flow, logit = np.reshape(flows[1], (2, *size)), np.reshape(flows[2], (1, *size))
        return np.concatenate([1 / (1 + np.exp(-logit)), flow]).astype(np.float32)

    def decode(self, maps: Array, shape: list[int], scale: float, foreground: float, min_area: int) -> Array:
        """Return labels (Y, X) int32."""
        from cellpose import dynamics

        large = _enlarged(maps, shape, scale)
        probability = np.clip(large[0], _CERTAIN, 1 - _CERTAIN)
        masks = dynamics.resize_and_compute_masks(
            np.ascontiguousarray(large[1:]),
            np.log(probability / (1 - probability)),
            niter=max(1, round(_ITERATIONS / scale)),
            cellprob_threshold=float(np.log(foreground / (1 - foreground))),
            flow_threshold=_FLOW_THRESHOLD,
            min_size=min_area,
            device=self.device,
        )
        masks = masks[0] if isinstance(masks, tuple) else masks
        return np.asarray(masks, np.int32).reshape(shape)


class StarDist:
    """A StarDist 2-D model."""

    def __init__(self, weights: str, device: str):
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # it may not be alone on the GPU
        kind, _, number = device.partition(":")
        if kind == "cpu" or number:
            os.environ["CUDA_VISIBLE_DEVICES"] = number or "-1"
        import tensorflow as tf

        self.gpus = tf.config.list_physical_devices("GPU")
        self.threads = tf.config.threading.get_intra_op_parallelism_threads() or _tensorflow_threads()
        if kind == "cuda" and not self.gpus:
            raise NoDevice(f"TensorFlow sees no {device}; take cpu, or install TensorFlow for your GPU")
        from csbdeep.models.pretrained import get_registered_models
        from stardist.models import StarDist2D

        folder = os.path.abspath(weights)
        known, _ = get_registered_models(StarDist2D)
        if os.path.isfile(os.path.join(folder, "config.json")):
            if not any(name.endswith(".h5") for name in os.listdir(folder)):
                raise Unusable(f"{folder} has a config.json but no weights (*.h5); copy the whole folder")
            name, base = os.path.basename(folder), os.path.dirname(folder)
            self.model = StarDist2D(None, name=name, basedir=base)
        elif weights in known:
            self.model = StarDist2D.from_pretrained(weights)
        else:
            raise Unusable(
                f"{weights} is no folder of a StarDist model (with config.json and weights), and no StarDist "
                f"model has this name; give the folder, or one of {', '.join(sorted(known))}, which StarDist "
                "downloads itself"
            )

    def about(self) -> dict[str, Any]:
        """Tell what was loaded."""
        config = self.model.config
        if len(set(config.grid)) != 1:
            raise Unusable(f"this StarDist model has the grid {config.grid}; only square grids can be used")
        return {
            "version": _version("stardist"),
            "weights": os.fspath(self.model.logdir),
            "device": "gpu" if self.gpus else "cpu",
            "threads": self.threads,
            "parameters": int(self.model.keras_model.count_params()),
            "diameter_px": None,
            "default_diameter_px": None,
            "grid": int(config.grid[0]),
            "foreground": float(self.model.thresholds.prob),
            "colour": config.n_channel_in == 3,
            "maps": ["foreground", *(f"distance_{ray}" for ray in range(config.n_rays))],
        }

    def maps(self, picture: Array, size: list[int]) -> Array:
        """Return (1 + rays, h, w) float32 on the model's grid: probability, and distances to the edge."""
        from scipy.ndimage import gaussian_filter, zoom

        grid = self.model.config.grid[0]
        colour = self.model.config.n_channel_in == 3
        seen = np.moveaxis(picture, 0, -1) if colour else picture.mean(0)
        wanted = [n * grid for n in size]
        factors = [n / old for n, old in zip(wanted, seen.shape)]  # noqa: B905  (Python 3.9)
        if wanted != list(seen.shape[:2]):
            blur = [max(0.0, (1 / factor - 1) / 2) for factor in factors]
            smooth = gaussian_filter(seen, [*blur, 0][: seen.ndim], mode="nearest")
            seen = zoom(smooth, [*factors, 1][: seen.ndim], order=1, mode="nearest", grid_mode=True)
        prob, dist = self.model.predict(seen, axes="YXC" if colour else "YX")[:2]
        return np.concatenate([prob[None], np.moveaxis(dist, -1, 0)]).astype(np.float32)

    def decode(self, maps: Array, shape: list[int], scale: float, foreground: float, min_area: int) -> Array:
        """Return labels (Y, X) int32."""
        from stardist.geometry import polygons_to_label
        from stardist.nms import non_maximum_suppression

        grid = self.model.config.grid
        enlarge = 1 / (scale * grid[0])
        points, scores, distances = non_maximum_suppression(
            np.ascontiguousarray(np.moveaxis(maps[1:], 0, -1)),
            np.ascontiguousarray(maps[0]),
            grid=grid,
            prob_thresh=foreground,
            nms_thresh=self.model.thresholds.nms,
        )
        labels = polygons_to_label(
            distances,
            (points + 0.5) * enlarge - 0.5,
            shape=tuple(shape),
            prob=scores,
            scale_dist=(enlarge, enlarge),
        )
        return np.where(np.bincount(labels.ravel())[labels] >= min_area, labels, 0).astype(np.int32)


TOOLS = {"cellpose": Cellpose, "stardist": StarDist}


def _enlarged(maps: Array, shape: list[int], scale: float) -> Array:
    """Return maps (M, h, w) at the resolution of the picture, bilinear; corners stay where they are."""
    import torch

    if scale == 1:
        return maps
    # Padding by one keeps the last row, whose size the factor rounds down.
    padded = torch.from_numpy(np.pad(maps, [(0, 0), (0, 1), (0, 1)], mode="edge"))[None]
    large = torch.nn.functional.interpolate(
        padded, scale_factor=1 / scale, mode="bilinear", align_corners=False, recompute_scale_factor=False
    )
    return large[0, :, : shape[0], : shape[1]].numpy()


def _user_models(models: Any) -> list[str]:
    return [str(name) for name in getattr(models, "get_user_models", list)()]


def _torch_device(torch: Any, name: str) -> Any:
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, found in there.items() if found))
    kind, _, number = name.partition(":")
    if not there.get(kind, False) or (number and int(number) >= torch.cuda.device_count()):
        raise NoDevice(f"its PyTorch sees no {name}; take cpu, or install a build of PyTorch for the device")
    return torch.device(name)


def _tensorflow_threads() -> int:
    """Return how many threads TensorFlow takes by itself: what it reads in a variable, or all cores."""
    told = os.environ.get("TF_NUM_INTRAOP_THREADS", "")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (int(told) if told.isdecimal() else 0) or cores or 1


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package)


def read_message(pipe: IO[bytes]) -> tuple[dict[str, Any], list[Array]] | None:
    """Return a request and its arrays; None at the end of the pipe."""
    line = pipe.readline()
    if not line.endswith(b"\n"):
        return None
    message, arrays = json.loads(line), []
    for kind, shape in message.pop("arrays", []):
        content = np.zeros(shape, kind)
        if pipe.readinto(content.reshape(-1).view(np.uint8)) != content.nbytes:  # type: ignore[attr-defined]
            return None
        arrays.append(content)
    return message, arrays


def write_message(pipe: IO[bytes], message: dict[str, Any], *arrays: Array) -> None:
    """Write a message and its arrays."""
    told = [(array.dtype.str, array.shape) for array in arrays]
    # Before the first byte goes: what may fail afterwards would leave half a message.
    contents = [np.ascontiguousarray(array).reshape(-1).view(np.uint8).data for array in arrays]
    pipe.write(json.dumps({**message, "arrays": told}).encode() + b"\n")
    for content in contents:
        pipe.write(content)
    pipe.flush()


def _opened(weights: str, device: str) -> Any:
    """Open weights with the tool named on the command line."""
    name = sys.argv[1]
    try:
        return TOOLS[name](weights, device)
    except (Unusable, NoDevice, MemoryError, ImportError):
        raise
    except Exception as error:  # whatever a tool raises that reads a file of another kind
        traceback.print_exc()
        told = (
            f"{weights} cannot be opened by {name} ({type(error).__name__}: {error}); give weights of this "
            "tool"
        )
        if isinstance(error, OSError) and not os.path.exists(weights):
            told = (
                f"{weights} could not be downloaded by {name} ({error}); try again with a connection to the "
                "internet, or download these weights elsewhere and give their file"
            )
        raise Unusable(told) from error


def main() -> None:
    """Serve the tool named on the command line."""
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [path for path in sys.path if path != here]  # no place to import from
    back, to = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the tool prints is no answer
    sys.stdin = open(os.devnull)
    tool: Any = None
    while True:
        asked = read_message(back)
        if asked is None:
            return
        request, arrays = asked
        try:
            do = request.pop("do")
            if do == "open":
                tool = _opened(**request)
                write_message(to, tool.about())
            else:
                write_message(to, {}, getattr(tool, do)(*arrays, **request))
        except Unusable as error:
            write_message(to, {"error": "weights", "text": str(error)})
        except NoDevice as error:
            write_message(to, {"error": "device", "text": str(error)})
        except MemoryError:
            write_message(to, {"error": "memory", "text": "there is too little memory"})
        except BrokenPipeError:
            return
        except Exception as error:
            kind = "memory" if "out of memory" in str(error).lower() else "fault"
            traceback.print_exc()
            write_message(to, {"error": kind, "text": f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    main()
