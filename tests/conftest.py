"""Synthetic nuclei with known truth, and a network that needs no training to find them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):  # they share the cores, also what they start
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(workers))))

# They take minutes each: begun first, so that no worker is left alone with one at the end.
LONG = ("test_retrain.py", "test_cli_train.py", "test_finetune_apart.py", "test_finetune.py")


def pytest_collection_modifyitems(items):
    """Run the longest files first."""
    items.sort(key=lambda item: item.path.name not in LONG)


def draw_nuclei(height, width, seed=0, radius=(6.0, 11.0), spacing=26):
    """Return (Y, X) uint8 pixels and int32 labels: ellipses on a jittered grid, brightest in the middle."""
    rng = np.random.default_rng(seed)
    pixels = rng.normal(20, 3, (height, width)).astype(np.float32)
    labels = np.zeros((height, width), np.int32)
    count = 0
    for cy in range(spacing // 2, height + spacing // 2, spacing):
        for cx in range(spacing // 2, width + spacing // 2, spacing):
            y, x = cy + rng.uniform(-6, 6), cx + rng.uniform(-6, 6)
            a, angle = rng.uniform(*radius), rng.uniform(0, np.pi)
            b = a * rng.uniform(0.7, 1)
            y0, x0 = max(0, int(y - a) - 1), max(0, int(x - a) - 1)
            if y0 >= height or x0 >= width:
                continue
            yy, xx = np.mgrid[y0 : min(height, int(y + a) + 2), x0 : min(width, int(x + a) + 2)]
            u = (yy - y) * np.cos(angle) + (xx - x) * np.sin(angle)
            v = (xx - x) * np.cos(angle) - (yy - y) * np.sin(angle)
            depth = (u / a) ** 2 + (v / b) ** 2
            inside = (depth < 1) & (labels[yy, xx] == 0)
            if inside.sum() < 30:
                continue
            count += 1
            labels[yy[inside], xx[inside]] = count
            pixels[yy[inside], xx[inside]] += 120 + 80 * (1 - depth[inside])
    return pixels.clip(0, 255).astype(np.uint8), labels


@pytest.fixture(scope="session")
def draw():
    """Give tests draw_nuclei."""
    return draw_nuclei


@pytest.fixture(scope="session")
def random_enhancer(tmp_path_factory):
    """Return the folder of an enhancer with random weights, of which something is seen."""
    import torch

    from napari_nucleus_kd.networks.enhancer import MULTIPLE_PX, Generator, GeneratorConfig
    from napari_nucleus_kd.package import ModelSpec, save_model

    torch.manual_seed(2)
    config = GeneratorConfig(width=4, depth=2, levels=2)
    network = Generator(config)
    pictures = np.stack([draw_nuclei(64, 64, seed)[0][None] for seed in range(8)])
    with torch.no_grad():
        network.body[-1].weight *= 1 / network.draw(torch.from_numpy(pictures / np.float32(255))).std()
    spec = ModelSpec(
        name="drawer",
        version="1",
        architecture="enhancer",
        options=config.model_dump(),
        maps=("enhanced",),
        multiple_px=MULTIPLE_PX,
        diameter_px=24,
        size_range=(16, 40),
    )
    picture = np.random.default_rng(0).random((3, 64, 64), np.float32)
    return str(save_model(tmp_path_factory.mktemp("models") / "drawer", network.eval(), spec, "", picture))


@pytest.fixture(scope="session")
def spots_architecture():
    """Register a network of fixed convolutions that finds bright spots."""
    import torch
    from torch import nn

    from napari_nucleus_kd import package
    from napari_nucleus_kd.config import Settings

    class SpotsConfig(Settings):
        log_diameter: float = 0.0
        sharpness: float = 30.0

    smooth = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    slope = torch.tensor([-1.0, -2.0, 0.0, 2.0, 1.0]) / 8

    class Spots(nn.Module):
        """Nuclei are bright and brightest in the middle, so the slope points there."""

        def __init__(self, config):
            super().__init__()
            self.see = nn.Conv2d(3, 3, 5, padding=2, bias=False)
            self.say = nn.Conv2d(3, 5, 1)
            kernels = [torch.outer(smooth, smooth), torch.outer(slope, smooth), torch.outer(smooth, slope)]
            k, reach = config.sharpness, 15.0
            with torch.no_grad():
                self.see.weight.copy_(torch.stack(kernels)[:, None].expand(3, 3, 5, 5) / 3)
                self.say.weight.zero_()
                self.say.weight[[0, 1, 2, 3], [0, 0, 1, 2], 0, 0] = torch.tensor([k, 4.0, reach, reach])
                self.say.bias.copy_(torch.tensor([-0.35 * k, -3.0, 0.0, 0.0, config.log_diameter]))

        def forward(self, x):
            maps = self.say(self.see(x)).float()
            parts = torch.sigmoid(maps[:, :2]), 0.3 * torch.tanh(maps[:, 2:4]), maps[:, 4:]
            return torch.cat(parts, 1)

    module = ModuleType("nucleus_kd_test_networks")
    module.SpotsConfig, module.build = SpotsConfig, Spots
    sys.modules[module.__name__] = module
    package._ARCHITECTURES["spots"] = (f"{module.__name__}:SpotsConfig", f"{module.__name__}:build")
    yield Spots, SpotsConfig
    del package._ARCHITECTURES["spots"], sys.modules[module.__name__]


@pytest.fixture(scope="session")
def save_network():
    """Return a function that writes a network and its settings as a package and returns its folder."""
    import torch

    from napari_nucleus_kd.package import ModelSpec, save_model

    def save(folder, network, config, picture=None, *, card="", half=False, **spec):
        spec = {"architecture": "student", "diameter_px": 20, "size_range": (10, 40), **spec}
        spec.setdefault("maps", getattr(config, "maps", None))
        spec = ModelSpec(name=folder.name, version="1", options=config.model_dump(mode="json"), **spec)
        picture = torch.rand(3, 64, 64).numpy() if picture is None else picture
        return save_model(folder, network.eval(), spec, card, picture, half=half)

    return save


@pytest.fixture(scope="session")
def make_model(spots_architecture, save_network, tmp_path_factory):
    """Return a function that writes a package of the spots network and returns its folder."""
    network, config = spots_architecture

    def make(
        name="spots", size_range=(10.0, 40.0), half=False, enlarge_to_px=None, expected_px=None, **options
    ):
        return save_network(
            tmp_path_factory.mktemp("models") / name,
            network(config(**options)),
            config(**options),
            np.random.default_rng(0).random((3, 64, 64), np.float32),
            card="# Spots",
            half=half,
            architecture="spots",
            maps=("foreground", "distance", "offset_y", "offset_x", "log_diameter"),
            diameter_px=18.0,
            size_range=size_range,
            enlarge_to_px=enlarge_to_px,
            expected_px=expected_px or {},
        )

    return make


@pytest.fixture(scope="session")
def spots(make_model):
    """Folder of a ready package."""
    return make_model()


@pytest.fixture
def finish():
    """Return a function that runs a generator to its end and returns (result, everything it yielded)."""

    def run(steps):
        seen = []
        while True:
            try:
                seen.append(next(steps))
            except StopIteration as stop:
                return stop.value, seen

    return run


@pytest.fixture(scope="session")
def same_nuclei():
    """Return a function: share of nuclei of a that b has with IoU above 0.99."""

    def share(a, b):
        both = (a > 0) & (b > 0)
        pairs, overlap = np.unique(np.stack([a[both], b[both]]), axis=1, return_counts=True)
        area_a, area_b = np.bincount(a.ravel()), np.bincount(b.ravel())
        iou = overlap / (area_a[pairs[0]] + area_b[pairs[1]] - overlap)
        return float((iou > 0.99).sum() / max(1, np.count_nonzero(area_a[1:])))

    return share


@pytest.fixture(scope="session")
def timm():
    """Give timm, which needs torchvision; the CPU build of torch lacks two operators that this asks for."""
    import torch

    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        torch.nucleus_kd_tests_keep = library
    except ImportError:
        pass
    return pytest.importorskip("timm")


@pytest.fixture
def fake_tool(monkeypatch, tmp_path):
    """Put a tool that finds bright spots in the place of Cellpose; return a function that makes its weights.

    The weights are a file with the name of what it does wrong, see tests/baselines/faketool.py.
    """
    from napari_nucleus_kd.baselines import Found, worker
    from napari_nucleus_kd.segmenters import baseline

    script = Path(__file__).parent / "baselines" / "faketool.py"
    monkeypatch.setattr(worker, "_SERVE", str(script))
    monkeypatch.setattr(worker, "find", lambda name: Found(Path(sys.executable), "3.1", "for tests"))
    monkeypatch.setattr(baseline, "_OPEN", {})

    def weights(fault="none"):
        file = tmp_path / f"{fault}.weights"
        file.write_text(fault, encoding="utf-8")
        return str(file)

    return weights
