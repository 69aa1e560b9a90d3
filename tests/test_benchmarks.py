"""The benchmarks run, measure what they say, and end with one JSON line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="a source package comes without benchmarks")


@pytest.fixture
def modules(monkeypatch):
    """Import the benchmarks' modules as they import each other."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    names = ("_common", "_mosaic", "scaling", "speed", "startup")
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    import _common
    import _mosaic
    import scaling
    import speed
    import startup

    yield SimpleNamespace(common=_common, mosaic=_mosaic, scaling=scaling, speed=speed, startup=startup)
    for name in names:
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def student(save_network, tmp_path_factory):
    """Folder of a student that finds what is bright, by its full-resolution path alone."""
    import torch

    from napari_nucleus_kd.networks.student import StudentConfig, build_student

    config = StudentConfig(widths=(8, 8, 8, 8, 8), decoder_widths=(8, 8, 8, 8), head_width=4)
    network = build_student(config)
    with torch.no_grad():
        for parameter in (network.fine[0].weight, network.head[0][0].weight, network.head[1].weight):
            parameter.zero_()
        network.fine[0].weight[0] = 1 / 27
        network.fine[1].bias[0] = 2.0  # four times the brightness
        network.head[0][0].weight[0, 8 // 4, 1, 1] = 1.0
        network.head[1].weight[:2, 0, 0, 0] = 5.0
        network.head[1].bias[:] = torch.tensor([-8.0, -8.0, 0.0, 0.0, -9.0, 0.0])
    test_input = np.random.default_rng(0).random((3, 64, 64), np.float32)
    return save_network(tmp_path_factory.mktemp("models") / "bright", network, config, test_input)


def start(name: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), *map(str, arguments)]
    merged = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8", **environment}
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env=merged, check=False)


def results(name: str, *arguments: object, **environment: str) -> dict[str, dict]:
    """Run a benchmark; its last line of output is the JSON line, and it names the machine."""
    done = start(name, *arguments, **environment)
    assert done.returncode == 0, done.stderr
    line = json.loads(done.stdout.splitlines()[-1])
    assert line["benchmark"] == name and line["cpu"]
    return line["results"]


@pytest.mark.parametrize("name", ["speed", "scaling", "startup"])
def test_help_answers(name):
    done = start(name, "--help")
    assert done.returncode == 0 and "--rounds" in done.stdout


def test_contestants_take_turns(modules):
    turns = []
    names = ("a", "b", "c")
    contestants = {n: lambda n=n: turns.append(n) or float(ord(n)) for n in names}
    seconds = modules.common.interleave(contestants, 5, pause_s=0)
    assert seconds == {n: [float(ord(n))] * 5 for n in names}
    rounds = [turns[i : i + 3] for i in range(0, 15, 3)]
    assert all(sorted(r) == ["a", "b", "c"] for r in rounds) and len({tuple(r) for r in rounds}) > 1


def test_ratio_is_of_medians(modules):
    assert modules.common.ratio([1, 100, 4], [2, 2, 50]) == 2


@pytest.mark.parametrize(
    ("relation", "value", "met"),
    [
        ("<=", 2, True),
        ("<", 2, False),
        (">=", 2, True),
        (">", 2, False),
        ("<", 1.9, True),
        (">=", 1.9, False),
    ],
)
def test_target(modules, relation, value, met):
    assert modules.common.Target(relation, 2).met_by(value) is met


def test_report_ends_with_one_json_line_and_fails_only_if_strict(modules, capsys):
    common = modules.common
    findings = [
        common.Finding("slow", "too slow", 0.7, "%", common.Target("<=", 0.4), "7 s"),
        common.skipped("other", "another", "not here"),
    ]
    assert common.report("speed", findings, {"cpu": "x"}) == 0
    out = capsys.readouterr().out
    line = json.loads(out.splitlines()[-1])
    assert line["missed"] == ["slow"] and line["results"]["slow"]["value"] == 0.7
    assert line["results"]["other"]["value"] is None
    assert "70 %" in out and "<= 40 %" in out and "missed" in out and "skipped: not here" in out
    assert common.report("speed", findings, {}, strict=True) == 1


@pytest.mark.parametrize("kind", ["tiff", "zarr"])
def test_mosaic_on_disk_is_the_mosaic(modules, kind, tmp_path):
    from napari_nucleus_kd.io import read

    mosaic = modules.mosaic.Mosaic(700)
    suffix, write = modules.mosaic.WRITERS[kind]
    write(mosaic, tmp_path / f"m{suffix}")
    image = read(tmp_path / f"m{suffix}")
    pixels = np.asarray(image.pixels)[0]
    assert pixels.shape == (700, 700) and image.pixel_size_um == pytest.approx(0.325)
    for y, x in mosaic.corners():
        tile = mosaic.tile(y, x)
        np.testing.assert_array_equal(pixels[y : y + tile.shape[0], x : x + tile.shape[1]], tile)
    if kind == "zarr":
        block = pixels[600:602, 698:700].astype(float).mean()
        assert np.asarray(image.levels[1])[0, 300, 349] == int(block)


def test_mosaic_has_no_joints(modules):
    period = modules.mosaic.Mosaic(512)._period.astype(float)
    steps = np.abs(np.diff(np.pad(period, (0, 1), mode="wrap"), axis=0)).mean(1)
    joints = steps[[511, 1023]]
    assert (joints <= steps.max() * 0.1).all()  # beside its mirror image a row meets itself


def test_mosaic_labels_are_those_of_its_pixels_each_copy_for_itself(modules):
    from napari_nucleus_kd.faults import pieces
    from napari_nucleus_kd.io.samples import sample_labels

    labels, truth = modules.mosaic.Mosaic(700).labels(), sample_labels("fluorescence")
    assert labels.shape == (700, 700) and labels.dtype == np.int32
    np.testing.assert_array_equal(labels[:341, :309] > 0, truth[171:, 203:] > 0)
    numbers, _ = pieces(labels)
    assert len(numbers) == labels.max() > truth.max()
    assert modules.mosaic.Mosaic(700, "ihc").labels() is None


def test_same_share_counts_what_only_one_image_has(modules):
    one = np.zeros((40, 40), np.int32)
    one[:10, :10], one[20:30, :10], one[20:30, 20:30] = 1, 2, 3
    other = np.zeros_like(one)
    other[:10, :10], other[20:30, :9], other[20:30, 20:30], other[35:, 35:] = 8, 5, 9, 4
    assert modules.scaling.same_share(one, other) == (0.5, (3, 4))
    assert modules.scaling.same_share(one, one) == (1.0, (3, 3))
    assert modules.scaling.same_share(one * 0, one * 0) == (1.0, (0, 0))


def test_speed_takes_turns_with_other_tools(modules, student, fake_tool, monkeypatch, capsys):
    monkeypatch.setattr("os.environ", dict(os.environ))
    sizes = ("--devices", "cpu", "--sizes", "128", "160", "--cellpose", fake_tool())
    monkeypatch.setattr(sys, "argv", ["speed", "--model", str(student), "--rounds", "1", *sizes])
    assert modules.speed.main() == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])["results"]
    assert found["cpu_whole"]["value"] > 0 and found["cpu_whole"]["target"] == "<= 0.5"
    assert 0 < found["decoding_share"]["value"] < 1
    for size in (128, 160):
        theirs, none = found[f"cellpose_{size}"], found[f"stardist_{size}"]
        assert theirs["value"] > 0 and theirs["target"] == ">= 15" and "Cellpose 3.1" in theirs["seen"]
        assert theirs["seen"].count(", PQ 0.") == 2
        assert none["value"] is None and "give --stardist WEIGHTS" in none["seen"]


def test_speed_says_which_weights_are_not_there(modules, student, fake_tool, monkeypatch, capsys):
    fake_tool()
    missing = ("--cellpose", "none.pth")
    monkeypatch.setattr(sys, "argv", ["speed", "--model", str(student), "--devices", "cpu", *missing])
    with pytest.raises(SystemExit):
        modules.common.run(modules.speed.main)
    assert "none.pth" in capsys.readouterr().err


def test_scaling_goes_from_disk_to_disk(student, tmp_path):
    sizes = ("--sizes", 256, "--reference", 256, "--agreement", 640, "--formats", "tiff")
    found = results(
        "scaling", "--model", student, "--rounds", 1, *sizes, "--device", "cpu", "--folder", tmp_path
    )
    assert found["tiff_256_time"]["value"] == 1 and " 0 nuclei" not in found["tiff_256_time"]["seen"]
    assert 1e8 < found["tiff_256_memory"]["value"] < 2e9
    assert found["tile_agreement"]["value"] > 0.99 and "nuclei" in found["tile_agreement"]["seen"]
    assert not list(tmp_path.iterdir())


def test_startup_loads_nothing_heavy_and_says_what_it_skips():
    found = results("startup", "--rounds", 1, DISPLAY="", WAYLAND_DISPLAY="")
    assert found["heavy"]["met"] is True and found["help"]["value"] > 0
    if sys.platform == "linux":
        assert found["widget"]["value"] is None and "no display" in found["widget"]["seen"]


def test_startup_refuses_a_heavy_import(modules, monkeypatch):
    monkeypatch.setattr(modules.startup, "_IMPORT", "import dask")
    with pytest.raises(modules.common.BenchmarkError, match="loads dask"):
        modules.startup.check_imports()


@pytest.mark.parametrize("path", sorted(BENCHMARKS.glob("nucleus-*.json")), ids=lambda path: path.stem)
def test_recipes_of_models_can_be_read(path):
    from napari_nucleus_kd._cli_options import Trained
    from napari_nucleus_kd._cli_train import kind_of, read_settings
    from napari_nucleus_kd.train.enhancing_settings import read_enhancing

    is_student = kind_of(path) is Trained.student
    settings = read_settings(path) if is_student else read_enhancing(path, {})
    assert settings.name == path.stem and settings.licence and settings.data
