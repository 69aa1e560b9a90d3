"""A model made one's own."""

import csv
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_nucleus_kd import package
from napari_nucleus_kd.config import Recipe
from napari_nucleus_kd.errors import ModelError, SettingsError
from napari_nucleus_kd.index import read_labels, read_splits
from napari_nucleus_kd.metrics import diameters
from napari_nucleus_kd.package import load_model
from napari_nucleus_kd.pipeline import to_image
from napari_nucleus_kd.project import UNKNOWN
from napari_nucleus_kd.train import finetune
from napari_nucleus_kd.train.finetune import (
    FinetuneSettings,
    Preview,
    accept,
    begun,
    compare_steps,
    finetune_steps,
    reject,
)
from napari_nucleus_kd.train.loop import train_steps
from napari_nucleus_kd.train.settings import CropSettings, DistillSettings, TrainSettings
from napari_nucleus_kd.types import Modality, Region
from napari_nucleus_kd.versions import restore, versions

QUICK = FinetuneSettings(steps=4, batch=2, crop_px=64, check_every=1, device="cpu")


@pytest.fixture
def roots(tmp_path, monkeypatch):
    folders = package.model_roots()[0], tmp_path / "installed"
    monkeypatch.setattr(package, "model_roots", lambda: folders)
    monkeypatch.setattr("napari_nucleus_kd.versions.model_roots", lambda: folders)
    return folders


@pytest.fixture
def judged(monkeypatch):
    """Hashes of the models that were judged, and the devices that it was done on, in order."""
    true, seen = finetune.score_steps, []

    def noted(rows, recipe):
        seen.append((load_model(recipe.model).hash, recipe.device))
        return true(rows, recipe)

    monkeypatch.setattr(finetune, "score_steps", noted)
    return seen


def preview(shown):
    pixels = np.random.default_rng(0).integers(0, 255, (80, 90), np.uint8)
    recipe = Recipe(modality=Modality.FLUORESCENCE, diameter_px=18, model="gone", model_hash="0")
    return Preview(to_image(pixels), recipe, Region(8, 8, 72, 80), shown.append)


def test_old_and_new_are_judged_on_what_is_held_out(parent, index, tmp_path, roots, finish, judged):
    shown = []
    tuned, seen = finish(finetune_steps(str(parent), index, tmp_path / "run", QUICK, preview(shown)))
    assert tuned.parent.spec.name == "mine" and tuned.model.spec.parent == "mine"
    assert (
        tuned.model.spec.data[-1] == "Before, as mine: somewhere"
        and "SHA-256 of index, labels" in tuned.model.card
    )
    assert not tuned.model.spec.metrics and "These images are tiles" not in tuned.model.card
    assert [s.name for s in tuned.before] == [s.name for s in tuned.after] == ["4.png"]
    assert tuned.gain is None, "one image judges nothing"
    assert tuned.mean_pq == (tuned.before[0].values["pq"], tuned.after[0].values["pq"])
    assert [labels.shape for labels in shown] == [(64, 72)] * 4
    log = list(csv.DictReader((tmp_path / "run/log.csv").read_text().splitlines()))
    assert len(log) == 4 and not any("val PQ" in told for told in (*log, *(p.values for p in seen)))
    learning = [i for i, p in enumerate(seen) if p.message == "training"]
    assert {p.total for p in seen[learning[0] : learning[-1] + 1]} == {4}, "a check keeps the progress"
    assert any(p.message != "training" for p in seen[learning[1] : learning[2]]), "and yields meanwhile"
    changed = tuned.model.network().state_dict()
    assert any(not torch.equal(t, changed[n]) for n, t in tuned.parent.network().state_dict().items())
    assert len(judged) == len(set(judged)) == 5, "each model is judged once"
    assert judged[0] == (tuned.parent.hash, "cpu") and (tuned.model.hash, "cpu") in judged

    beside, _ = finish(compare_steps(tuned, 0, "cpu"))
    assert beside.true.shape == beside.before.shape == beside.after.shape == beside.image.shape_yx


def test_each_accepted_model_is_a_version_and_each_can_be_brought_back(
    parent, index, tmp_path, roots, finish
):
    runs = []
    for seed in (0, 1):  # two runs of one parent, neither knows of the other
        settings = QUICK.model_copy(update={"seed": seed, "steps": 1})
        runs.append(finish(finetune_steps(str(parent), index, tmp_path / f"run{seed}", settings))[0])
    first, second = (accept(tuned) for tuned in runs)
    assert accept(runs[0]).folder == first.folder, "it is a version already"
    assert (first.folder, second.folder) == (roots[1] / "mine-1", roots[1] / "mine-2")
    assert load_model("mine-1").hash == runs[0].model.hash != load_model("mine-2").hash
    assert first.card.startswith("# mine-1 ") and "## Compared with mine" in first.card
    assert "Not judged: too little was verified" in first.card
    reject(tmp_path / "run0")
    assert not (tmp_path / "run0").exists() and load_model("mine-1").verify() < 1e-3
    assert [model.spec.name for model in versions("mine-2")] == ["mine-1", "mine-2"]
    third = restore("mine-1")
    assert (third.spec.name, third.hash, third.spec.parent) == ("mine-3", first.hash, "mine-1")
    assert versions("mine-1")[-1].folder == third.folder and restore("mine-3").folder == third.folder
    after, _ = finish(finetune_steps("mine-1", index, tmp_path / "again", QUICK))
    assert accept(after).spec.name == "mine-4"
    assert not list(roots[1].glob(".*"))


def test_a_version_knows_how_large_the_verified_nuclei_are(
    parent, index, tmp_path, roots, finish, monkeypatch
):
    rows = [row for row in read_splits(index)["train"] if row.modality is Modality.FLUORESCENCE]
    known = np.concatenate([diameters(read_labels(row.labels)) for row in rows])
    monkeypatch.setattr(finetune, "ENOUGH", len(known))
    tuned, _ = finish(finetune_steps(str(parent), index, tmp_path / "run", QUICK))
    assert tuned.model.spec.expected_px[Modality.FLUORESCENCE] == pytest.approx(np.median(known), abs=0.01)
    assert "In fluorescence images it first looks for nuclei of about" in tuned.model.card
    assert load_model(str(parent)).spec.expected_px == {}


def test_a_gain_comes_with_its_interval(parent, index, more_held_out, tmp_path, roots, finish):
    tuned, seen = finish(finetune_steps(str(parent), index, tmp_path / "run", QUICK))
    assert len(tuned.model.spec.metrics["s0"]["pq"]) == 3
    assert "estimated by the model" not in tuned.model.card and "These images are tiles" in tuned.model.card
    log = list(csv.DictReader((tmp_path / "run/log.csv").read_text().splitlines()))
    told = [p.values["val PQ"] for p in seen if "val PQ" in p.values]
    assert told == pytest.approx([float(line["val PQ"]) for line in log], rel=1e-5) and len(told) == 4
    mean, low, high = tuned.gain
    assert low <= mean <= high
    pairs = list(zip(tuned.before, tuned.after, strict=True))
    assert [(b.name, a.name) for b, a in pairs] == [(f"{i}.png", f"{i}.png") for i in (4, 5, 6, 7)]
    assert mean == pytest.approx(sum(a.values["pq"] - b.values["pq"] for b, a in pairs) / 4)
    assert "95% interval over tiles" in accept(tuned).card
    scored = [replace(tuned.before[0], values={"pq": pq}) for pq in (0.5, 0.51, 0.55, 0.59)]
    few = replace(tuned, before=tuple(scored[:1] * 3), after=tuple(scored[1:]))
    mean, low, high = few.gain
    assert mean == pytest.approx(0.05) and low < 0 < high, "three of one sign are no proof"


def test_without_held_out_images_there_is_no_number(parent, index, tmp_path, roots, finish):
    index.write_text("".join(f"{line}\n" for line in index.read_text().splitlines() if ",val" not in line))
    with ThreadPoolExecutor(1) as window:  # which trains in another thread
        tuned, _ = window.submit(finish, finetune_steps(str(parent), index, tmp_path / "run", QUICK)).result()
    assert (tuned.before, tuned.after, tuned.gain, tuned.mean_pq) == ((), (), None, None)
    assert "val PQ" not in (tmp_path / "run/log.csv").read_text()
    assert "Not judged: too little was verified" in accept(tuned).card
    assert tuned.tiles == 0


def test_without_held_out_images_old_and_new_are_seen_where_nobody_verified(
    parent, index, tmp_path, roots, finish
):
    lines = [line for line in index.read_text().splitlines() if ",val" not in line]
    index.write_text("".join(f"{line}\n" for line in [*lines, f"4.png,,fluorescence,{UNKNOWN},train"]))
    tuned, _ = finish(finetune_steps(str(parent), index, tmp_path / "run", QUICK))
    assert (tuned.before, tuned.tiles) == ((), 1)
    beside, _ = finish(compare_steps(tuned, 0, "cpu"))
    assert beside.image.name == "4.png" and not beside.true.any()
    assert beside.before.shape == beside.after.shape == beside.image.shape_yx


def test_one_program_at_a_time_is_at_a_run(parent, index, tmp_path, roots, finish):
    output = tmp_path / "run"
    steps = finetune_steps(str(parent), index, output, QUICK)
    next(steps)
    with pytest.raises(SettingsError, match="another window or program is at the run"):
        next(finetune_steps(str(parent), index, output, QUICK))
    with pytest.raises(SettingsError, match="another window or program is at the run"):
        reject(output)
    while (at := next(steps)).total != 4 or at.done < 2:
        pass
    assert at.message != "training", "in the middle of a check"
    steps.close()
    assert begun(output) == (str(parent), QUICK)
    with pytest.raises(SettingsError, match="holds a run with other"):
        finish(finetune_steps(str(parent), index, output, QUICK.model_copy(update={"keep": 0.5})))
    assert begun(output) == (str(parent), QUICK), "what it refused is not noted"
    tuned, seen = finish(finetune_steps(str(parent), index, output, QUICK))
    assert [p.done for p in seen if p.message == "training"] == [3, 4]
    log = list(csv.DictReader((output / "log.csv").read_text().splitlines()))
    assert [int(line["step"]) for line in log] == [1, 2, 3, 4] and tuned.model.verify() < 1e-3
    reject(output)
    assert not output.exists() and begun(output) is None


KILLED = """
import os, signal, sys
from pathlib import Path
from napari_nucleus_kd.train.finetune import FinetuneSettings, finetune_steps

model, index, output, settings = sys.argv[1:]
steps = finetune_steps(model, Path(index), Path(output), FinetuneSettings.model_validate_json(settings))
for progress in steps:
    if progress.done == 3 and progress.total == 4 and progress.message != "training":
        os.kill(os.getpid(), signal.SIGKILL)  # in the middle of a check
"""


@pytest.mark.skipif(sys.platform == "win32", reason="processes are ended in another way there")
def test_a_run_that_is_killed_goes_on_and_leaves_no_trace(parent, index, tmp_path, roots, finish):
    output = tmp_path / "run"
    arguments = [sys.executable, "-c", KILLED, str(parent), str(index), str(output), QUICK.model_dump_json()]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert list(output.glob(".judged-*")), "it was killed in the middle"
    shutil.copytree(output, tmp_path / "copy")
    reject(tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    model, settings = begun(output)
    tuned, seen = finish(finetune_steps(model, index, output, settings))
    assert [p.done for p in seen if p.message == "training"] == [3, 4]
    assert not list(output.glob(".*")) and tuned.model.verify() < 1e-3
    checkpoint = output / "checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:5000])  # the power failed
    with pytest.raises(SettingsError, match=r"checkpoint\.pt is damaged; discard this run"):
        finish(finetune_steps(model, index, output, settings))
    whole, _ = finish(finetune_steps(model, index, tmp_path / "whole", settings))
    assert whole.model.hash == tuned.model.hash, "as if nothing had happened"


def test_only_runs_are_removed(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/cat.png").touch()
    with pytest.raises(SettingsError, match="holds no training run"):
        reject(tmp_path / "photos")
    assert (tmp_path / "photos/cat.png").exists()
    (tmp_path / "photos/recipe.json").touch()
    with pytest.raises(SettingsError, match=r"cat\.png, which no training run writes"):
        reject(tmp_path / "photos")
    (tmp_path / "photos/cat.png").unlink()
    (tmp_path / "photos/data").mkdir()  # somebody's own
    with pytest.raises(SettingsError, match="data, which no training run writes"):
        reject(tmp_path / "photos")
    assert (tmp_path / "photos/data").exists()
    reject(tmp_path / "nothing")
    (tmp_path / "run/.data.0123abcd.partial").mkdir(parents=True)  # it was killed while data were written
    reject(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_of_models_only_the_candidate_goes_with_a_run(parent, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.lock").touch()
    shutil.copytree(parent, run / "best-so-far")
    with pytest.raises(SettingsError, match="best-so-far, which no training run writes"):
        reject(run)
    (run / "best-so-far").rename(run / "candidate")
    (run / "candidate/notes.txt").write_text("mine")
    with pytest.raises(SettingsError, match="candidate, which no training run writes"):
        reject(run)
    assert (run / "candidate/notes.txt").exists() and (run / "candidate/weights.safetensors").exists()
    (run / "candidate/notes.txt").unlink()
    reject(run)
    assert not run.exists()


def test_what_file_browsers_leave_keeps_no_run(parent, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(parent, run / "candidate")
    (run / "run.lock").touch()
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._log.csv", "candidate/.DS_Store"):
        (run / name).touch()
    reject(run)
    assert not run.exists()


def test_what_is_no_student_is_refused(spots, index, tmp_path, roots):
    with pytest.raises(ModelError, match="cannot be trained on"):
        list(finetune_steps(str(spots), index, tmp_path / "run", QUICK))


def test_annotation_corrects_the_teacher(parent, parent_config, index, tmp_path, finish):
    """Where everything is annotated and only elsewhere is taught, the teacher has no say."""
    common = {
        "student": parent_config,
        "start": str(parent),
        "crops": CropSettings(batch=2, crop_px=64),
        "steps": 2,
        "check_every": 2,
        "check_batches": 1,
        "warmup_steps": 0,
        "workers": 0,
        "precision": "32-true",
        "device": "cpu",
    }
    alone = finish(train_steps(TrainSettings(**common), index, tmp_path / "alone"))[0].network
    distill = DistillSettings(teachers=(str(parent),), truth=1, taught=1, flips=False, elsewhere=True)
    corrected, seen = finish(
        train_steps(TrainSettings(**common, distill=distill), index, tmp_path / "corrected")
    )
    assert seen[-1].values["soft foreground"] == 0
    for name, tensor in corrected.network.state_dict().items():
        torch.testing.assert_close(tensor, alone.state_dict()[name])
