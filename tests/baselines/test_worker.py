"""Another tool in a process of its own, and what may go wrong with it."""

import gc
import os
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from napari_nucleus_kd import apart, pipeline, segmenters
from napari_nucleus_kd.baselines import TOOLS, Worker, weights_digest
from napari_nucleus_kd.cli import app
from napari_nucleus_kd.config import Recipe
from napari_nucleus_kd.errors import BaselineError, DeviceError, ModelError, SettingsError
from napari_nucleus_kd.index import read_labels
from napari_nucleus_kd.ondisk import segment_to_zarr_steps
from napari_nucleus_kd.segmenters import baseline
from napari_nucleus_kd.types import Modality

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


def test_in_tiles_and_on_disk_a_tool_finds_the_same(fake_tool, draw, finish, same_nuclei, tmp_path):
    pixels = draw(420, 480)[0]
    recipe = Recipe(segmenter="cellpose", weights=fake_tool(), diameter_px=18)
    whole = pipeline.segment(pixels, recipe).nuclei.labels
    in_tiles = recipe.model_copy(update={"tile_px": 128})
    place = tmp_path / "labels.ome.zarr"
    path, progress = finish(segment_to_zarr_steps(pipeline.to_image(pixels), place, in_tiles))
    assert max(p.done for p in progress) >= 12
    found = read_labels(path)
    assert same_nuclei(whole, found) > 0.99 and same_nuclei(found, whole) > 0.99


def test_of_the_same_maps_a_tool_is_asked_once_and_what_it_said_stays(fake_tool, draw, monkeypatch):
    real, asked = Worker.decode, []

    def decode(*arguments):
        asked.append(arguments)
        return real(*arguments)

    monkeypatch.setattr(Worker, "decode", decode)
    tool = baseline.load(Recipe(segmenter="cellpose", weights=fake_tool()))
    pixels, _ = draw(150, 190, 0, (8.0, 11.0))  # about the tool's own size: else it had to look again
    maps = tool.maps(np.repeat(pixels[None] / np.float32(255), 3, 0), None)
    assert tool.diameter_in(maps) == pytest.approx(17, abs=2)
    found = tool.decode(maps, tool.decode_defaults).labels
    before = found.copy()
    found[:] = 0  # as a person may who corrects them
    np.testing.assert_array_equal(tool.decode(maps, tool.decode_defaults).labels, before)
    assert len(asked) == 1
    tool.decode(maps, tool.decode_defaults.model_copy(update={"foreground": 0.7}))
    assert len(asked) == 2


class OneSize:
    """A Worker with one nucleus in each picture; of other sizes than its own it errs, or sees nothing."""

    is_alive = True
    about = SimpleNamespace(
        diameter_px=18.0,
        default_diameter_px=18.0,
        grid=1,
        foreground=0.5,
        parameters=7,
        colour=False,
        maps=("foreground", "y", "x"),
    )

    def __init__(self, true_px):
        self.true_px, self.looks = true_px, []

    def maps(self, picture, size):
        return np.zeros((3, *size), np.float32)

    def decode(self, maps, shape, scale, foreground, min_area):
        self.looks.append(round(scale, 2))
        wrong = self.true_px * scale / self.about.diameter_px
        radius = 0 if max(wrong, 1 / wrong) > 4 else self.true_px * wrong**-0.4 / 2
        y, x = np.ogrid[: shape[0], : shape[1]]
        return (np.hypot(y - shape[0] / 2, x - shape[1] / 2) < radius).astype(np.int32)


@pytest.mark.parametrize(
    ("true_px", "looks"), [(18.0, [1]), (45.0, [1, 0.58, 0.46]), (5.0, [1, 2, 2.91, 3.56])]
)
def test_the_diameter_is_looked_at_again_where_the_tool_sees_nuclei_well(true_px, looks):
    worker = OneSize(true_px)
    tool = baseline.BaselineSegmenter("cellpose", lambda: (worker, "0"), Modality.FLUORESCENCE)
    patch = np.zeros((3, 256, 256), np.float32)
    suits = tool.diameter_in(tool.maps(patch, None))
    assert (suits is None) == (len(looks) > 1), "at that scale it cannot tell"
    worker.looks.clear()
    assert tool.estimate_diameter([patch]) == pytest.approx(true_px, rel=0.1)
    assert worker.looks == pytest.approx(looks, rel=0.1)


def test_where_no_diameter_is_told_it_is_that_of_the_nuclei_it_learnt_from(fake_tool):
    usual, large = (
        segmenters.load("cellpose", Recipe(segmenter="cellpose", weights=fake_tool(fault)))
        for fault in ("none", "learnt from large ones")
    )
    assert (usual.default_diameter_px, usual.scale(None), usual.scale(36.0)) == (18, 1, 0.5)
    assert (large.default_diameter_px, large.scale(None), large.scale(18.0)) == (36, 0.5, 1)


@pytest.mark.parametrize(("name", "least_px"), [("cellpose", 15), ("stardist", 0)])
def test_small_nuclei_are_left_out_where_the_tool_does_so_itself(fake_tool, name, least_px):
    tool = segmenters.load(name, Recipe(segmenter=name, weights=fake_tool()))
    assert tool.decode_defaults.min_area_px == least_px
    picture = np.zeros((3, 64, 64), np.float32)
    picture[:, 30:32, 30:32] = 1
    assert tool.decode(tool.maps(picture, None), tool.decode_defaults).count == (least_px == 0)


@pytest.mark.parametrize(
    ("name", "diameter", "given", "asked"),
    [
        ("cellpose", None, (255, 151), (255, 151)),
        ("cellpose", 30.0, (265, 159), (160, 96)),  # 53 pixels become 32
        ("stardist", None, (256, 152), (128, 76)),
        ("stardist", 8.0, (260, 160), (416, 256)),  # 10 pixels become 32, on a grid of 2
    ],
)
def test_pictures_are_padded_so_that_nothing_is_stretched(
    fake_tool, draw, monkeypatch, name, diameter, given, asked
):
    real, seen = Worker.maps, []

    def maps(self, picture, size):
        seen.append((picture.shape[1:], size, bool(picture[:, 255:].any())))
        return real(self, picture, size)

    monkeypatch.setattr(Worker, "maps", maps)
    tool = segmenters.load(name, Recipe(segmenter=name, weights=fake_tool()))
    pixels, truth = draw(255, 151, 0, (12.0, 13.0), 40)
    found = tool.maps(np.repeat(pixels[None] / np.float32(255), 3, 0), diameter)
    assert seen == [(given, asked, name == "stardist")], "StarDist sees the border mirrored, Cellpose nothing"
    labels = tool.decode(found, tool.decode_defaults).labels
    for number in np.unique(truth[truth > 0]):  # each lies where it was drawn, to the last row
        inside = truth == number
        middle = np.argwhere(labels == np.bincount(labels[inside]).argmax()).mean(0)
        assert np.abs(middle - np.argwhere(inside).mean(0)).max() < 2


def test_a_tool_that_sees_no_colours_gets_the_haematoxylin_of_tissue(fake_tool, draw):
    truth = draw(150, 190)[1]
    stain = np.where(truth > 0, 2.0, 0.0)[..., None] * np.array([0.65, 0.70, 0.29])  # haematoxylin
    picture = (240 * np.exp(-stain)).astype(np.uint8)
    asked = {"segmenter": "cellpose", "modality": "H&E", "diameter_px": 17.0}
    grey = pipeline.segment(picture, Recipe(weights=fake_tool(), **asked))
    assert grey.nuclei.count == pytest.approx(truth.max(), rel=0.15)
    assert any("haematoxylin" in note for note in grey.notes)
    colour = pipeline.segment(picture, Recipe(weights=fake_tool("sees colours"), **asked))
    assert colour.nuclei.count < 5, "all but the nuclei is bright"
    assert not any("haematoxylin" in note for note in colour.notes)


def test_other_weights_than_the_recipes_are_refused(fake_tool, draw):
    pixels, _ = draw(64, 64)
    result = pipeline.segment(pixels, segmenter="cellpose", weights=fake_tool())
    with pytest.raises(ModelError, match="other weights"):
        pipeline.segment(pixels, result.recipe.model_copy(update={"weights": fake_tool("other")}))


def test_one_process_serves_all_images_and_ends_when_nobody_holds_it(fake_tool, monkeypatch):
    monkeypatch.setattr(baseline, "_MOST_OPEN", 1)
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
        ("no main memory", DeviceError, "there is too little memory; close other programs"),
        ("fault", BaselineError, "Cellpose 3 failed: KeyError: 'flows'"),
        ("odd arrays", BaselineError, "did not answer as expected.*baselines list"),
        ("endless array", BaselineError, r"float32 \(3000000, 3000000\) instead of float32 \(3, 40, 50\)"),
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
        tool.decode(maps, (64, 64), 1.0, 0.5, 10)


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        (
            "of another kind",
            ModelError,
            "of another kind.weights cannot be opened by cellpose .KeyError.*give weights",
        ),
        ("no network", ModelError, "could not be downloaded.*Name or service.*give their file"),
        ("too large to open", DeviceError, "there is too little memory; close other programs"),
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
    with pytest.raises(DeviceError, match="does not run on openvino; take auto, cpu, cuda, mps"):
        segmenters.load("cellpose", Recipe(segmenter="cellpose", weights=fake_tool(), device="openvino"))


def test_a_tool_that_hangs_can_be_stopped_from_another_thread(fake_tool):
    tool, began = worker(fake_tool("hang")), time.monotonic()
    threading.Timer(0.5, tool.stop).start()
    with pytest.raises(DeviceError, match="Cellpose 3 ended by signal 9"):
        tool.maps(PICTURE, (40, 50))
    assert time.monotonic() - began < 30


@pytest.fixture
def ctrl_c():
    """Let Ctrl-C interrupt, also where these tests were started in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_tool_that_hangs_in_a_tile_ends_with_the_job(fake_tool, draw, monkeypatch):
    monkeypatch.setattr(pipeline, "ONE_TILE_PX", 100)  # in tiles, the next one is prepared in another thread
    recipe = Recipe(segmenter="cellpose", weights=fake_tool("hang"), diameter_px=18)
    caught = []

    def segment():
        with pytest.raises(DeviceError, match="ended by signal 9"):
            pipeline.segment(draw(150, 190)[0], recipe)
        caught.append(True)

    job = threading.Thread(target=segment, daemon=True)
    job.start()
    until = time.monotonic() + 60
    while not apart._WAITED_FOR or (job.ident, job.ident) in apart._WAITED_FOR:
        assert job.is_alive() and time.monotonic() < until
        time.sleep(0.05)
    apart.end_waiting(job.ident)
    job.join(60)
    assert caught


def test_an_answer_that_nobody_waited_for_is_not_taken_for_the_next(fake_tool, ctrl_c):
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


def test_the_fingerprint_is_of_what_is_loaded_and_of_the_version(tmp_path):
    for name in ("a.h5", "config.json"):
        (tmp_path / name).write_text(name)
    before = weights_digest(tmp_path, "stardist 1")
    (tmp_path / ".DS_Store").write_text("seen by a file browser")
    (tmp_path / "logs").mkdir()
    assert weights_digest(tmp_path, "stardist 1") == before != weights_digest(tmp_path, "stardist 2")
    (tmp_path / "config.json").write_text("other")
    assert weights_digest(tmp_path, "stardist 1") != before and len(before) == 64


def test_weights_that_changed_are_loaded_anew(fake_tool):
    recipe = Recipe(segmenter="cellpose", weights=fake_tool())
    first = segmenters.load("cellpose", recipe)
    Path(recipe.weights).write_text("others")
    second = segmenters.load("cellpose", recipe)
    assert first._worker is not second._worker and first.model_hash != second.model_hash


@pytest.mark.parametrize("name", ["student", "classical"])
def test_weights_for_a_segmenter_that_takes_none_are_refused(name):
    with pytest.raises(SettingsError, match=f"mean nothing to the segmenter {name}; choose cellpose"):
        segmenters.load(name, Recipe(segmenter=name, weights="cyto3"))


def test_a_tool_that_is_installed_anew_is_started_anew(fake_tool, monkeypatch):
    recipe = Recipe(segmenter="cellpose", weights=fake_tool())
    first = baseline.load(recipe)
    assert baseline.load(recipe)._worker is first._worker
    monkeypatch.setattr(baseline, "environment_state", lambda name: ("/another/python", None))
    assert baseline.load(recipe)._worker is not first._worker


def test_the_command_line_segments_judges_and_forgets_the_thresholds_of_another_tool(
    fake_tool, draw, tmp_path
):
    pixels, truth = draw(150, 190)
    (tmp_path / "data").mkdir()
    tifffile.imwrite(tmp_path / "data/a.tif", pixels)
    tifffile.imwrite(tmp_path / "data/a_labels.tif", truth.astype(np.uint16))
    run = CliRunner().invoke
    named = ["--segmenter", "cellpose", "--weights", fake_tool()]
    out = str(tmp_path / "out")
    done = run(app, ["segment", str(tmp_path / "data/a.tif"), "--output", out, *named, "--foreground", "0.3"])
    assert done.exit_code == 0, done.output
    recipe = tmp_path / "out/a_recipe.json"
    assert Recipe.model_validate_json(recipe.read_bytes()).decode.foreground == 0.3
    again = ["segment", str(tmp_path / "data/a.tif"), "--recipe", str(recipe), "--output", f"{out}2"]
    assert run(app, [*again, "--segmenter", "classical"]).exit_code == 0
    other = Recipe.model_validate_json((tmp_path / "out2/a_recipe.json").read_bytes())
    assert (other.segmenter, other.weights, other.decode.foreground) == ("classical", None, 0.5)
    assert other.percentiles == (1.0, 99.8)
    judged = run(app, ["evaluate", "--data", str(tmp_path / "data"), *named])
    assert judged.exit_code == 0 and "PQ" in judged.output
    alone = run(app, ["evaluate", "--data", str(tmp_path / "data"), "--weights", fake_tool()])
    assert alone.exit_code == 2 and "mean nothing to the segmenter student" in " ".join(alone.output.split())


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
    lesson = teacher(Batch(x, maps, nobody, nobody, torch.zeros(len(x), 3)))
    foreground = lesson.maps[0, 0].numpy() > 0.5
    said = lesson.said[0, 0].numpy() > 0
    assert ((foreground == (truth > 0)) | ~said).mean() > 0.9 and foreground.sum() > 500
    with pytest.raises(ModelError, match="Cellpose 3 needs weights"):
        load_teacher(DistillSettings(teachers=("segmenter:cellpose",)), torch.device("cpu"))
