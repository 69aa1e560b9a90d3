"""The model in the wheel: whole, small, described, and as good as its card says on pictures it never saw."""

from dataclasses import replace

import numpy as np
import pytest

from napari_nucleus_kd.config import Recipe
from napari_nucleus_kd.engine import open_engine
from napari_nucleus_kd.ideal import ideal_nuclei
from napari_nucleus_kd.io.samples import sample, sample_labels
from napari_nucleus_kd.metrics import match, overlap
from napari_nucleus_kd.package import load_model
from napari_nucleus_kd.pipeline import ENHANCER, enhance, seen, segment
from napari_nucleus_kd.simulate import simulate
from napari_nucleus_kd.types import Channel, Image, Modality

NAME, ADAPTER = "nucleus-student", "nucleus-adapter"


def test_the_package_is_whole_small_and_described():
    model = load_model(NAME)
    model.verify()
    assert (model.folder / "weights.safetensors").stat().st_size < 8e6
    assert len(model.card) > 1000
    assert model.spec.licence
    assert {"consep", "dsb2018-fluorescence", "dsb2018-stained"} <= set(model.spec.metrics)


@pytest.mark.parametrize(("name", "floor"), [("fluorescence", 0.6), ("he", 0.6), ("multiplex", 0.6)])
def test_the_drawn_samples_are_segmented(name, floor):
    """They look unlike the training images, and their truth is exact."""
    found = segment(sample(name), device="cpu").nuclei.labels
    assert match(overlap(sample_labels(name), found)).pq > floor


@pytest.mark.parametrize("name", ["fluorescence", "he"])
def test_engines_agree_on_the_labels(name):
    """Bfloat16 or OpenVINO against float32: the nuclei are the same."""
    pytest.importorskip("openvino")
    cpu = segment(sample(name), device="cpu")
    openvino = segment(sample(name), device="openvino", diameter_px=cpu.diameter_px)
    assert match(overlap(cpu.nuclei.labels, openvino.nuclei.labels)).pq >= 0.99


def test_bfloat16_agrees_with_float32_on_the_labels(monkeypatch):
    import torch

    from napari_nucleus_kd import engine

    image = sample("he")
    fast = segment(image, device="cpu")
    monkeypatch.setattr(engine, "_OPEN", {})
    monkeypatch.setattr(engine, "number_type", lambda device: (torch.float32, "float32"))
    assert "float32" in open_engine(load_model(NAME), "cpu").description
    exact = segment(image, device="cpu", diameter_px=fast.diameter_px)
    assert match(overlap(exact.nuclei.labels, fast.nuclei.labels)).pq >= 0.99
    assert np.any(exact.nuclei.labels)


def test_the_shipped_adapter_is_whole_small_and_described():
    model = load_model(ADAPTER)
    model.verify()
    assert model.role == "adapter" and (model.folder / "weights.safetensors").stat().st_size < 5e5
    assert len(model.card) > 1000 and model.spec.licence
    assert {"dsb2018-fluorescence"} <= set(model.spec.metrics)


def test_the_shipped_adapter_finds_the_nuclear_stain_of_the_sample_without_its_name():
    image = sample("multiplex")
    nameless = replace(image, channels=tuple(Channel(f"channel {i}") for i in range(len(image.channels))))
    result = segment(nameless, mapping=ADAPTER, device="cpu")
    weights = dict(zip(result.recipe.channels, result.recipe.channel_weights, strict=True))
    nuclear = [channel.name for channel in image.channels].index("DAPI")
    assert weights[nuclear] > 0.5
    known = segment(image, device="cpu").nuclei.labels
    assert match(overlap(known, result.nuclei.labels)).f1 > 0.9


@pytest.mark.parametrize("seed", range(3))
def test_the_shipped_adapter_chooses_a_nuclear_channel_of_a_drawn_panel(seed):
    picture = np.asarray(sample("fluorescence").pixels[0], np.float32)
    picture = np.clip(picture / np.percentile(picture, 99.8), 0, 1)
    drawn = simulate(picture, sample_labels("fluorescence"), np.random.default_rng(seed), 12)
    image = Image((drawn.pixels,), tuple(map(Channel, drawn.names)))
    _, recipe = seen(image, Recipe(mapping=ADAPTER, modality=Modality.FLUORESCENCE))
    weights = dict(zip(recipe.channels, recipe.channel_weights, strict=True))
    assert sum(weight for c, weight in weights.items() if drawn.kinds[c] == "nuclear") > 0.5


def test_the_shipped_enhancer_is_whole_small_and_described():
    model = load_model(ENHANCER)
    model.verify()
    assert model.role == "enhancer" and (model.folder / "weights.safetensors").stat().st_size < 8e6
    assert len(model.card) > 1000 and model.spec.licence
    assert {"dsb2018-fluorescence", "dsb2018-stained", "consep"} <= set(model.spec.metrics)


@pytest.mark.parametrize("name", ["multiplex", "he"])
def test_the_shipped_enhancer_draws_the_nuclei_of_samples(name):
    drawn = np.asarray(enhance(sample(name), device="cpu").pixels[0]) / 255
    labels = sample_labels(name)
    alike = np.corrcoef(drawn.ravel(), ideal_nuclei(labels).ravel())[0, 1]
    assert alike > 0.5 and drawn[labels > 0].mean() > 0.25 and drawn[labels == 0].mean() < 0.1


def test_the_shipped_enhancer_leaves_no_seams():
    cells = np.asarray(sample("fluorescence").pixels[0])
    times = [-(-edge // length) for edge, length in zip((700, 1100), cells.shape, strict=True)]
    picture = np.tile(cells, times)[:700, :1100].astype(np.float32)
    picture[:, 550:] *= 0.3  # so that windows, which are judged as wholes, differ
    drawn = np.asarray(enhance(picture, device="cpu").pixels[0], np.float32)
    step = np.abs(np.diff(drawn, axis=1)).mean(axis=0)
    borders = [x + side for x in (294, 512, 588, 806) for side in (-1, 0)]
    elsewhere = np.delete(step, [*borders, *range(545, 556)])
    assert step[borders].max() <= elsewhere.max()


def test_the_shipped_enhancer_keeps_an_empty_image_empty():
    noise = np.random.default_rng(0).normal(100, 3, (200, 240)).clip(0, 255).astype(np.uint8)
    assert np.asarray(enhance(noise, device="cpu").pixels).mean() < 255 * 0.1
