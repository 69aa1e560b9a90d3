"""Another tool in a process of its own, and what may go wrong with it."""

import gc
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from napari_nucleus_kd import pipeline, segmenters
from napari_nucleus_kd.baselines import TOOLS, Worker
from napari_nucleus_kd.config import Recipe
from napari_nucleus_kd.errors import BaselineError, DeviceError, ModelError
from napari_nucleus_kd.segmenters import baseline

PICTURE = np.zeros((3, 40, 50), np.float32)


def worker(weights):
    return Worker(TOOLS["cellpose"], weights)


def test_an_image_is_segmented_by_the_tool(fake_tool, draw):
    pixels, truth = draw(150, 190)
    result = pipeline.segment(pixels, segmenter="cellpose", weights=fake_tool())
    assert result.nuclei.count == pytest.approx(truth.max(), rel=0.15)
    assert result.diameter_px == pytest.approx(17, abs=3)
    assert result.recipe.percentiles == (1.0, 99.0)
    assert any("Cellpose 3.1, none.weights, on cpu" in note for note in result.notes)
    again = pipeline.segment(pixels, result.recipe)
    np.testing.assert_array_equal(again.nuclei.labels, result.nuclei.labels)


def test_other_weights_than_the_recipes_are_refused(fake_tool, draw):
    pixels, _ = draw(64, 64)
    result = pipeline.segment(pixels, segmenter="cellpose", weights=fake_tool())
    with pytest.raises(ModelError, match="other weights"):
        pipeline.segment(pixels, result.recipe.model_copy(update={"weights": fake_tool("other")}))


def test_one_process_serves_all_images_and_ends_when_nobody_holds_it(fake_tool):
    weights = fake_tool()
    recipe = Recipe(segmenter="cellpose", weights=weights)
    one, other = (segmenters.load("cellpose", recipe)._worker for _ in range(2))
    assert one is other
    process = one._process
    newer = fake_tool("newer")
    assert segmenters.load("cellpose", recipe.model_copy(update={"weights": newer}))._worker is not one
    del one, other
    gc.collect()
    assert process.poll() is not None


def test_a_process_that_died_is_replaced(fake_tool):
    recipe = Recipe(segmenter="cellpose", weights=fake_tool())
    first = segmenters.load("cellpose", recipe)._worker
    first.stop()
    first._process.wait()
    second = segmenters.load("cellpose", recipe)
    assert second._worker is not first
    assert second.maps(PICTURE, None).values.shape == (3, 40, 50)


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        ("crash", DeviceError, r"(?s)Cellpose 3 ended by signal 6.*about to crash.*smaller tiles"),
        ("no memory", DeviceError, "CUDA out of memory.*smaller tiles"),
        ("fault", BaselineError, "Cellpose 3 failed: KeyError: 'flows'"),
        ("garbage", BaselineError, "did not answer as expected.*baselines list"),
        ("too few rows", BaselineError, r"float32 \(3, 39, 50\) instead of float32 \(3, 40, 50\)"),
    ],
)
def test_a_tool_that_fails_says_how(fake_tool, fault, error, words):
    with pytest.raises(error, match=words):
        worker(fake_tool(fault)).maps(PICTURE, (40, 50))


def test_labels_that_are_none_are_refused(fake_tool, draw):
    tool = worker(fake_tool("labels below 0"))
    maps = tool.maps(np.repeat(draw(64, 64)[0][None] / np.float32(255), 3, 0), (64, 64))
    with pytest.raises(BaselineError, match="labels below 0"):
        tool.decode(maps, (64, 64), 0.5, 10)


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        ("silent end", DeviceError, "ended with status 3.*prints while it loads"),
        ("says too little", BaselineError, "did not answer as expected: weights: is missing"),
    ],
)
def test_a_tool_that_cannot_be_opened_says_why(fake_tool, fault, error, words):
    with pytest.raises(error, match=words):
        worker(fake_tool(fault))


def test_weights_that_are_not_there_are_never_replaced(fake_tool, tmp_path):
    with pytest.raises(ModelError, match=r"no file .*nothing\.pth"):
        worker(str(tmp_path / "nothing.pth"))
    with pytest.raises(ModelError, match="Cellpose 3 needs weights"):
        segmenters.load("cellpose", Recipe(segmenter="cellpose"))
    with pytest.raises(DeviceError, match="does not run on openvino; take auto"):
        segmenters.load("cellpose", Recipe(segmenter="cellpose", weights=fake_tool(), device="openvino"))


def test_a_tool_that_hangs_can_be_stopped_from_another_thread(fake_tool):
    tool, began = worker(fake_tool("hang")), time.monotonic()
    threading.Timer(0.5, tool.stop).start()
    with pytest.raises(DeviceError, match="Cellpose 3 ended by signal 9"):
        tool.maps(PICTURE, (40, 50))
    assert time.monotonic() - began < 30


def test_an_answer_that_nobody_waited_for_is_not_taken_for_the_next(fake_tool):
    tool = worker(fake_tool("hang"))
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        tool.maps(PICTURE, (40, 50))
    with pytest.raises(DeviceError, match="ended by signal 9"):
        tool.maps(PICTURE, (40, 50))


def test_the_closed_worker_ends_its_process(fake_tool):
    tool = worker(fake_tool())
    tool.close()
    assert not tool.is_alive
    with pytest.raises(BaselineError, match="Cellpose 3 was closed"):
        tool.maps(PICTURE, (40, 50))


def test_a_folder_of_weights_has_a_hash_of_all_its_files(tmp_path):
    for name in ("a.h5", "config.json"):
        (tmp_path / name).write_text(name)
    before = baseline._hash(tmp_path)
    (tmp_path / "config.json").write_text("other")
    assert baseline._hash(tmp_path) != before == before.lower() and len(before) == 64
    assert baseline._hash(Path(tmp_path / "a.h5")) != before


def test_a_tool_teaches_with_the_weights_that_are_named(fake_tool, draw):
    import torch

    from napari_nucleus_kd.instances import MAP_NAMES
    from napari_nucleus_kd.train.data import Batch
    from napari_nucleus_kd.train.settings import DistillSettings
    from napari_nucleus_kd.train.teacher import load_teacher

    weights = fake_tool()
    pixels, truth = draw(128, 128)
    x = torch.from_numpy(np.repeat(pixels[None, None] / np.float32(255), 3, axis=1))
    maps = torch.zeros(1, len(MAP_NAMES), 128, 128)
    nobody = torch.zeros(1, 1, 128, 128)
    teacher = load_teacher(DistillSettings(teachers=(f"segmenter:cellpose:{weights}",)), torch.device("cpu"))
    lesson = teacher(Batch(x, maps, nobody, nobody))
    foreground = lesson.maps[0, 0].numpy() > 0.5
    said = lesson.said[0, 0].numpy() > 0
    assert ((foreground == (truth > 0)) | ~said).mean() > 0.9 and foreground.sum() > 500
    with pytest.raises(ModelError, match="Cellpose 3 needs weights"):
        load_teacher(DistillSettings(teachers=("segmenter:cellpose",)), torch.device("cpu"))
