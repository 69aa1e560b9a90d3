"""Speed of one picture: against the same network in eager float32, StarDist and Cellpose 3.

    python benchmarks/speed.py
    python benchmarks/speed.py --stardist-python ENV/bin/python --stardist-weights FOLDER

Everyone is warm and takes turns with the others. A ratio is one median over another of this run.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

import _common as common
from _baselines import Baseline
from _common import BenchmarkError, Finding, Target
from _mosaic import Mosaic

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping

    from napari_nucleus_kd.config import Recipe
    from napari_nucleus_kd.pipeline import Result
    from napari_nucleus_kd.segmenters import Segmenter
    from napari_nucleus_kd.types import FloatArray

    Contestants = dict[str, Callable[[], float]]

EAGER = "eager float32"
_BASELINES = {"stardist": ("StarDist", Target(">", 1)), "cellpose": ("Cellpose 3", Target(">=", 15))}
_WARM_UP = 2


def parse() -> argparse.Namespace:
    parser = common.options("Speed of one picture, end to end.", rounds=15)
    common.add_model(parser)
    parser.add_argument("--size", type=common.positive, default=512, help="edge of the picture in pixels")
    parser.add_argument("--image", default="fluorescence", help="sample name or file; its middle is taken")
    parser.add_argument(
        "--devices",
        nargs="+",
        metavar="DEVICE",
        help="engines; the first is judged (default: openvino if installed, then cpu)",
    )
    for name, (title, _) in _BASELINES.items():
        parser.add_argument(f"--{name}-python", type=Path, metavar="FILE", help=f"Python that has {title}")
        kind = "folder of its model" if name == "stardist" else "file of its weights"
        parser.add_argument(f"--{name}-weights", type=Path, metavar="PATH", help=kind)
    return parser.parse_args()


def main() -> int:
    arguments = parse()
    import torch

    from napari_nucleus_kd.package import load_model

    torch.set_num_threads(arguments.threads or torch.get_num_threads())
    threads = torch.get_num_threads()
    model = load_model(arguments.model)
    devices = arguments.devices or _cpu_engines()
    picture = load_picture(arguments.image, arguments.size)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nucleus-kd-speed-")))
        baselines = open_baselines(arguments, threads, folder, stack)
        ours = open_ours(devices, arguments.model, picture)
        contestants: Contestants = {}
        for run, _ in ours.values():
            contestants |= run
        contestants |= _baseline_turns(baselines, picture, folder)
        common.say(f"{len(contestants)} contestants, {arguments.rounds} rounds")
        seconds = common.interleave(contestants, arguments.rounds)
        findings = judge_ours(seconds, {name: result for name, (_, result) in ours.items()}, devices)
        findings += judge_baselines(seconds, baselines, devices[0])
    facts = common.machine(threads) | {
        "model": f"{model.spec.name} {model.spec.version} {model.hash[:12]}",
        "picture": f"{arguments.image} {arguments.size} x {arguments.size}",
        "rounds": arguments.rounds,
    }
    return common.report("speed", findings, facts, strict=arguments.strict)


def load_picture(name: str, size: int) -> np.ndarray:
    """Return the middle of an image's first channel, (size, size); a sample is repeated as far as needed."""
    from napari_nucleus_kd.io import read
    from napari_nucleus_kd.io.samples import SAMPLES, sample

    is_sample = name in [s.name for s in SAMPLES]
    image = sample(name) if is_sample else read(name)
    height, width = image.shape_yx
    if is_sample and min(height, width) < size:
        return Mosaic(size, name).whole()
    if min(height, width) < size:
        raise BenchmarkError(f"{name} has {height} x {width} pixels, fewer than --size {size}")
    y, x = (height - size) // 2, (width - size) // 2
    return np.ascontiguousarray(image.pixels[0, y : y + size, x : x + size])


def open_ours(devices: list[str], model: str, picture: np.ndarray) -> dict[str, tuple[Contestants, Result]]:
    """Return for each engine its turns (whole run, network, decoding) and what it found."""
    from napari_nucleus_kd import segmenters
    from napari_nucleus_kd.config import Recipe

    eager = _eager_loader()
    if EAGER not in segmenters.names():
        segmenters.register(EAGER, eager)
    recipes = {device: Recipe(model=model, device=device) for device in devices}
    recipes[EAGER] = Recipe(model=model, segmenter=EAGER, device="cpu")
    return {name: _turns(name, recipe, picture) for name, recipe in recipes.items()}


def _turns(name: str, recipe: Recipe, picture: np.ndarray) -> tuple[Contestants, Result]:
    from napari_nucleus_kd.job import prepare
    from napari_nucleus_kd.pipeline import segment, to_image

    common.say(f"warming up {name}")
    result = segment(picture, recipe)
    for _ in range(_WARM_UP - 1):
        result = segment(picture, recipe)
    image, maps, segmenter = to_image(picture), result.maps, result.segmenter
    assert maps is not None and segmenter is not None
    tile = prepare(image, recipe).tile(image.pixels)
    return {
        f"{name}: whole": common.timed(lambda: segment(image, recipe)),
        f"{name}: network": common.timed(lambda: segmenter.maps(tile, result.diameter_px)),
        f"{name}: decoding": common.timed(lambda: segmenter.decode(maps, result.recipe.decode)),
    }, result


def _eager_loader() -> Callable[[Recipe], Segmenter]:
    """Return a loader of the network as it is trained: float32, nothing fused or reordered."""
    import torch

    from napari_nucleus_kd.engine import Engine
    from napari_nucleus_kd.package import load_model
    from napari_nucleus_kd.segmenters.student import StudentSegmenter

    opened: dict[str, Engine] = {}

    class Eager:
        description = EAGER
        batch_size = 1

        def __init__(self, network: torch.nn.Module):
            self._network = network

        def __call__(self, batch: FloatArray) -> FloatArray:
            with torch.inference_mode():
                maps: FloatArray = self._network(torch.from_numpy(batch)).numpy()
            return maps

    def no_other() -> Any:
        raise BenchmarkError(f"the network failed in {EAGER}")

    def load(recipe: Recipe) -> Segmenter:
        model = load_model(recipe.model)
        if recipe.model not in opened:
            opened[recipe.model] = Engine(Eager(model.network()), no_other, model.spec.multiple_px)
        return StudentSegmenter(model, opened[recipe.model])

    return load


def _cpu_engines() -> list[str]:
    from napari_nucleus_kd.engine import available_devices

    return [device for device in available_devices() if device in ("openvino", "cpu")]


def open_baselines(
    arguments: argparse.Namespace, threads: int, folder: Path, stack: ExitStack
) -> dict[str, Baseline | str]:
    """Start the baselines that the command line names; the others get the reason for leaving them out."""
    opened: dict[str, Baseline | str] = {}
    for name, (title, _) in _BASELINES.items():
        python, weights = (getattr(arguments, f"{name}_{what}") for what in ("python", "weights"))
        if python is None or weights is None:
            opened[name] = f"give --{name}-python and --{name}-weights"
            continue
        common.say(f"starting {title}")
        opened[name] = stack.enter_context(Baseline(name, python, weights, threads, folder))
    return opened


def _baseline_turns(
    baselines: Mapping[str, Baseline | str], picture: np.ndarray, folder: Path
) -> Contestants:
    file = folder / "picture.npy"
    np.save(file, picture, allow_pickle=False)
    turns: Contestants = {}
    for name, baseline in baselines.items():
        if isinstance(baseline, Baseline):
            common.say(f"warming up {baseline.description}")
            for _ in range(_WARM_UP):
                baseline.segment(file)
            turns[name] = lambda baseline=baseline: baseline.segment(file)
    return turns


def judge_ours(
    seconds: Mapping[str, list[float]], results: Mapping[str, Result], devices: list[str]
) -> list[Finding]:
    """Compare every engine with eager float32, and the parts of the first engine's run with its whole."""
    findings = []
    for device in devices:
        target = Target("<=", 0.5) if device == devices[0] else None
        findings += _engine_to_eager(device, seconds, results[device], target)
    findings += _shares(devices[0], seconds)
    whole, network = (common.in_words(seconds[f"{EAGER}: {part}"]) for part in ("whole", "network"))
    seen = f"{whole}, network {network}, {results[EAGER].nuclei.count} nuclei"
    return [*findings, Finding("eager", EAGER, 1.0, seen=seen)]


def _engine_to_eager(
    device: str, seconds: Mapping[str, list[float]], result: Result, target: Target | None
) -> list[Finding]:
    assert result.segmenter is not None
    whole, network = seconds[f"{device}: whole"], seconds[f"{device}: network"]
    eager_whole, eager_network = seconds[f"{EAGER}: whole"], seconds[f"{EAGER}: network"]
    seen = f"{common.in_words(whole)}, {result.nuclei.count} nuclei; {result.segmenter.description}"
    return [
        Finding(
            f"{device}_whole",
            f"{device}: whole run to the same in {EAGER}",
            common.ratio(whole, eager_whole),
            target=target,
            seen=seen,
        ),
        Finding(
            f"{device}_whole_to_network",
            f"{device}: whole run to the {EAGER} network alone",
            common.ratio(whole, eager_network),
        ),
        Finding(
            f"{device}_network",
            f"{device}: network to the {EAGER} network",
            common.ratio(network, eager_network),
            seen=common.in_words(network),
        ),
    ]


def _shares(device: str, seconds: Mapping[str, list[float]]) -> list[Finding]:
    """Say where the time of a whole run goes."""
    whole, network, decoding = (seconds[f"{device}: {part}"] for part in ("whole", "network", "decoding"))
    rest = median(whole) - median(network) - median(decoding)
    return [
        Finding(
            "decoding_share",
            f"{device}: decoding's share of the whole run",
            median(decoding) / median(whole),
            "%",
            Target("<=", 0.4),
            common.in_words(decoding),
        ),
        Finding(
            "rest_share",
            f"{device}: neither network nor decoding (scaling, opening the model)",
            rest / median(whole),
            "%",
            seen=common.in_words([rest]),
        ),
    ]


def judge_baselines(
    seconds: Mapping[str, list[float]], baselines: Mapping[str, Baseline | str], device: str
) -> list[Finding]:
    """Say how many times faster the first engine is than each baseline."""
    findings = []
    for name, (title, target) in _BASELINES.items():
        what = f"times as fast as {title} ({device})"
        baseline = baselines[name]
        if isinstance(baseline, str):
            findings.append(common.skipped(name, what, baseline))
            continue
        speedup = common.ratio(seconds[name], seconds[f"{device}: whole"])
        seen = f"{common.in_words(seconds[name])}, {baseline.count()} nuclei; {baseline.description}"
        findings.append(Finding(name, what, speedup, target=target, seen=seen))
    return findings


if __name__ == "__main__":
    common.run(main)
