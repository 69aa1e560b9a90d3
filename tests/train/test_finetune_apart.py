"""Fine-tuning in a process of its own."""

import csv
import os
import signal
import sys

import numpy as np
import psutil
import pytest

from napari_nucleus_kd.config import Recipe
from napari_nucleus_kd.errors import DeviceError, ModelError
from napari_nucleus_kd.pipeline import to_image
from napari_nucleus_kd.project import UNKNOWN
from napari_nucleus_kd.train.apart import finetune_apart_steps
from napari_nucleus_kd.train.finetune import FinetuneSettings, Preview, finetune_steps
from napari_nucleus_kd.types import Modality, Region

QUICK = FinetuneSettings(steps=4, batch=2, crop_px=64, check_every=2, device="cpu")


@pytest.fixture
def preview():
    """Make a preview of a part of an image that begins far from its corner, and the list it shows into."""
    shown = []
    pixels = np.random.default_rng(0).integers(0, 255, (400, 420), np.uint8)
    recipe = Recipe(modality=Modality.FLUORESCENCE, diameter_px=18, scaling_low=(0.0,), scaling_high=(255.0,))
    return Preview(to_image(pixels), recipe, Region(200, 220, 264, 292), shown.append), shown


def test_it_comes_to_the_same_as_here(parent, index, tmp_path, finish, preview):
    with index.open("a") as file:
        file.write(f"0.png,,fluorescence,{UNKNOWN},train\n")
    asked, shown = preview
    here, steps_here = finish(finetune_steps(str(parent), index, tmp_path / "here", QUICK, asked))
    shown_here = [labels.copy() for labels in shown]
    shown.clear()
    apart, steps = finish(finetune_apart_steps(str(parent), index, tmp_path / "apart", QUICK, asked))
    assert apart.model.hash == here.model.hash and apart.model.folder.parent == tmp_path / "apart"
    values = [[score.values for score in tuned.after] for tuned in (here, apart)]
    assert values[0] == values[1] and apart.mean_pq == here.mean_pq
    assert apart.unverified == here.unverified == 1
    assert [(p.done, p.total, p.message) for p in steps] == [(p.done, p.total, p.message) for p in steps_here]
    assert len(shown) == len(shown_here) == 2
    for labels, before in zip(shown, shown_here, strict=True):
        np.testing.assert_array_equal(labels, before)


def test_stopped_it_goes_on_from_the_step_in_hand(parent, index, tmp_path, finish):
    steps = finetune_apart_steps(str(parent), index, tmp_path / "run", QUICK)
    for progress in steps:
        if progress.message == "training" and progress.done == 3:
            break
    steps.close()
    whole, _ = finish(finetune_steps(str(parent), index, tmp_path / "whole", QUICK))
    tuned, later = finish(finetune_apart_steps(str(parent), index, tmp_path / "run", QUICK))
    assert min(p.done for p in later if p.message == "training") == 4
    assert tuned.model.hash == whole.model.hash
    log = list(csv.DictReader((tmp_path / "run/log.csv").read_text().splitlines()))
    assert [int(line["step"]) for line in log] == [2, 4]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_killed_it_is_told_and_goes_on_from_its_last_check(parent, index, tmp_path, finish):
    steps = finetune_apart_steps(str(parent), index, tmp_path / "run", QUICK)
    for progress in steps:
        if progress.message == "training" and progress.done == 3:
            break
    (child,) = [c for c in psutil.Process().children() if "napari_nucleus_kd.apart" in c.cmdline()]
    os.kill(child.pid, signal.SIGKILL)
    with pytest.raises(DeviceError, match="by signal 9"):
        next(steps)
    _, later = finish(finetune_apart_steps(str(parent), index, tmp_path / "run", QUICK))
    assert min(p.done for p in later if p.message == "training") == 3


def test_errors_are_those_of_this_package(index, tmp_path, finish):
    with pytest.raises(ModelError, match="no model 'nobody'"):
        finish(finetune_apart_steps("nobody", index, tmp_path / "run", QUICK))
