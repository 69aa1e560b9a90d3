"""Speed of one picture: against the same network in eager float32, StarDist and Cellpose 3.

    python benchmarks/speed.py
    python benchmarks/speed.py --stardist WEIGHTS --cellpose WEIGHTS --sizes 512 1024 2048 4096

Everyone is warm and takes turns with the others. A ratio is one median over another of this run; beside it
stands the PQ of each where the image is a sample with exact labels. The other tools run where `nucleus-kd
baselines install` put them, and see nuclei at the size they were made for.
"""

from __future__ import annotations

from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

import _common as common
from _common import BenchmarkError, Finding, Target
from _mosaic import Mosaic

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Container, Mapping

    from napari_nucleus_kd.config import Recipe
    from napari_nucleus_kd.pipeline import Result
    from napari_nucleus_kd.segmenters import Segmenter
    from napari_nucleus_kd.types import FloatArray

EAGER = "eager float32"
_TOOLS = {"stardist": ("StarDist", Target(">", 1)), "cellpose": ("Cellpose 3", Target(">=", 15))}
_WARM_UP = 2
_FEWEST_ROUNDS = 3  # of a large picture


def parse() -> argparse.Namespace:
    parser = common.options("Speed of one picture, end to end.", rounds=15)
    common.add_model(parser)
    parser.add_argument(
        "--sizes",
        nargs="+",
        type=common.positive,
        default=[512],
        metavar="N",
        help="edges of pictures in pixels; at the first, engines and the parts of a run are compared, too",
    )
    parser.add_argument("--image", default="fluorescence", help="sample name or file; its middle is taken")
    parser.add_argument(
        "--devices",
        nargs="+",
        metavar="DEVICE",
        help="engines; the first is judged (default: openvino if installed, then cpu)",
    )
    for name, (title, _) in _TOOLS.items():
        parser.add_argument(f"--{name}", metavar="WEIGHTS", help=f"of {title}: their place or name")
    return parser.parse_args()


def main() -> int:
    arguments = parse()
    import torch

    from napari_nucleus_kd.compare.computer import limited_threads

    threads = arguments.threads or torch.get_num_threads()
    with limited_threads(threads):
        return compare(arguments, threads)


def compare(arguments: argparse.Namespace, threads: int) -> int:
    from napari_nucleus_kd.config import Recipe
    from napari_nucleus_kd.package import load_model
    from napari_nucleus_kd.pipeline import ONE_TILE_PX

    if arguments.sizes[0] > ONE_TILE_PX:
        raise BenchmarkError(f"the first of --sizes is taken apart: it must be at most {ONE_TILE_PX}")
    model = load_model(arguments.model)
    devices = arguments.devices or _cpu_engines()
    engines = {device: Recipe(model=arguments.model, device=device) for device in devices}
    tools = {name: tool_recipe(name, weights) for name in _TOOLS if (weights := getattr(arguments, name))}
    findings = []
    for size in arguments.sizes:
        (picture, labels), is_first = load_picture(arguments.image, size), size == arguments.sizes[0]
        contestants = {devices[0]: engines[devices[0]], **tools}
        if is_first:
            contestants |= {**engines, EAGER: _eager(engines[devices[0]])}
        rounds = max(_FEWEST_ROUNDS, round(arguments.rounds * arguments.sizes[0] / size))
        seconds, results = measure(
            contestants, picture, rounds, in_parts=[*devices, EAGER] if is_first else []
        )
        found = {name: in_words(result, labels) for name, result in results.items()}
        about = {name: segmenter.description for name, r in results.items() if (segmenter := r.segmenter)}
        if is_first:
            findings += judge_ours(seconds, found, about, devices)
        findings += judge_tools(seconds, found, about, devices[0], size)
    facts = common.machine(threads) | {
        "model": f"{model.spec.name} {model.spec.version} {model.hash[:12]}",
        "image": arguments.image,
        "rounds": arguments.rounds,
    }
    return common.report("speed", findings, facts, strict=arguments.strict)


def load_picture(name: str, size: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the middle of an image's first channel, (size, size), and its exact labels if they are known.

    A sample is repeated as far as needed.
    """
    from napari_nucleus_kd.io import read
    from napari_nucleus_kd.io.samples import SAMPLES, sample, sample_labels

    is_sample = name in [s.name for s in SAMPLES]
    image = sample(name) if is_sample else read(name)
    height, width = image.shape_yx
    if is_sample and min(height, width) < size:
        mosaic = Mosaic(size, name)
        return mosaic.whole(), mosaic.labels()
    if min(height, width) < size:
        raise BenchmarkError(f"{name} has {height} x {width} pixels, fewer than --size {size}")
    y, x = (height - size) // 2, (width - size) // 2
    middle = slice(y, y + size), slice(x, x + size)
    labels = sample_labels(name) if is_sample else None
    picture = np.ascontiguousarray(image.pixels[0, *middle])
    return picture, None if labels is None else labels[middle]


def tool_recipe(name: str, weights: str) -> Recipe:
    """Return a recipe of another tool that takes the diameter that it assumes where none is told."""
    from napari_nucleus_kd import segmenters
    from napari_nucleus_kd.config import Recipe

    common.say(f"starting {name}")
    recipe = Recipe(segmenter=name, weights=weights, device="cpu")
    diameter = segmenters.load(name, recipe).default_diameter_px
    return recipe.model_copy(update={"diameter_px": diameter})


def measure(
    recipes: Mapping[str, Recipe], picture: np.ndarray, rounds: int, in_parts: Container[str]
) -> tuple[dict[str, list[float]], dict[str, Result]]:
    """Return the seconds of each recipe's runs, and what it found.

    Parameters
    ----------
    in_parts : recipes of which the network and the decoding are timed by themselves, too.
    """
    from napari_nucleus_kd.job import prepare
    from napari_nucleus_kd.pipeline import segment, to_image

    image = to_image(picture)
    results: dict[str, Result] = {}
    turns: dict[str, Callable[[], float]] = {}
    for name, recipe in recipes.items():
        common.say(f"warming up {name}")
        for _ in range(_WARM_UP):
            results[name] = segment(image, recipe)
        turns[f"{name}: whole"] = common.timed(partial(segment, image, recipe))
        if name in in_parts:
            result, tile = results[name], prepare(image, recipe).tile(image.pixels)
            maps, segmenter = result.maps, result.segmenter
            assert maps is not None and segmenter is not None
            turns[f"{name}: network"] = common.timed(partial(segmenter.maps, tile, result.diameter_px))
            turns[f"{name}: decoding"] = common.timed(partial(segmenter.decode, maps, result.recipe.decode))
    common.say(f"{len(turns)} things to time, {rounds} rounds")
    return common.interleave(turns, rounds), results


def _eager(recipe: Recipe) -> Recipe:
    """Return a recipe with the network as it is trained: float32, nothing fused or reordered."""
    from napari_nucleus_kd import segmenters

    if EAGER not in segmenters.names():
        segmenters.register(EAGER, _eager_loader())
    return recipe.model_copy(update={"segmenter": EAGER, "device": "cpu"})


def _eager_loader() -> Callable[[Recipe], Segmenter]:
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


def in_words(result: Result, labels: np.ndarray | None) -> str:
    """Say how many nuclei a run found, and if the labels are known, how well."""
    from napari_nucleus_kd.metrics import match, overlap

    found = result.nuclei
    pq = "" if labels is None else f", PQ {match(overlap(labels, found.labels)).pq:.3f}"
    return f"{found.count} nuclei{pq}"


def judge_ours(
    seconds: Mapping[str, list[float]], found: Mapping[str, str], about: Mapping[str, str], devices: list[str]
) -> list[Finding]:
    """Compare every engine with eager float32, and the parts of the first engine's run with its whole."""
    findings = []
    for device in devices:
        target = Target("<=", 0.5) if device == devices[0] else None
        findings += _engine_to_eager(device, seconds, f"{found[device]}; {about[device]}", target)
    findings += _shares(devices[0], seconds)
    whole, network = (common.in_words(seconds[f"{EAGER}: {part}"]) for part in ("whole", "network"))
    seen = f"{whole}, network {network}, {found[EAGER]}"
    return [*findings, Finding("eager", EAGER, 1.0, seen=seen)]


def _engine_to_eager(
    device: str, seconds: Mapping[str, list[float]], found: str, target: Target | None
) -> list[Finding]:
    whole, network = seconds[f"{device}: whole"], seconds[f"{device}: network"]
    eager_whole, eager_network = seconds[f"{EAGER}: whole"], seconds[f"{EAGER}: network"]
    seen = f"{common.in_words(whole)}, {found}"
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


def judge_tools(
    seconds: Mapping[str, list[float]],
    found: Mapping[str, str],
    about: Mapping[str, str],
    device: str,
    size: int,
) -> list[Finding]:
    """Say how many times faster the first engine is than each of the other tools."""
    findings = []
    ours = seconds[f"{device}: whole"]
    for name, (title, target) in _TOOLS.items():
        key, what = f"{name}_{size}", f"{size} px: times as fast as {title} ({device})"
        if name not in found:
            findings.append(common.skipped(key, what, f"give --{name} WEIGHTS"))
            continue
        theirs = seconds[f"{name}: whole"]
        times = f"{common.in_words(theirs)} to {common.in_words(ours)}"
        seen = f"{times}; {found[name]} to {found[device]} of ours; {about[name]}"
        findings.append(Finding(key, what, common.ratio(theirs, ours), target=target, seen=seen))
    return findings


if __name__ == "__main__":
    common.run(main)
