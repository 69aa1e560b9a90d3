"""`nucleus-kd compare`: fair, resumable, and honest about what few images and no truth can tell."""

import csv
import json
import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import tifffile
import torch
from typer.testing import CliRunner

from napari_nucleus_kd import apart, segmenters
from napari_nucleus_kd._cli_compare import contestant
from napari_nucleus_kd.baselines import environments, serve
from napari_nucleus_kd.cli import app
from napari_nucleus_kd.compare import (
    Case,
    Contestant,
    Size,
    agreement_steps,
    cases_of,
    compare_steps,
    memory,
    memory_steps,
    report_steps,
    standings,
)
from napari_nucleus_kd.compare import run as runs
from napari_nucleus_kd.compare.computer import limited_threads
from napari_nucleus_kd.config import Recipe
from napari_nucleus_kd.errors import BaselineError, DeviceError, ReadError, SettingsError, WriteError
from napari_nucleus_kd.evaluate import OVERALL
from napari_nucleus_kd.index import Row
from napari_nucleus_kd.metrics import scores
from napari_nucleus_kd.types import Modality, finish

CLASSICAL = Contestant("classical", Recipe(segmenter="classical"))


@pytest.fixture
def cases(draw, tmp_path):
    """Return a function that writes images and their labels, and what some other program made of them."""

    def make(count, *, labelled=True):
        out = []
        (tmp_path / "theirs").mkdir()
        for i in range(count):
            pixels, truth = draw(90 + 10 * i, 100, i)
            image, labels = tmp_path / f"{i}.tif", tmp_path / f"{i}_labels.tif"
            tifffile.imwrite(image, pixels)
            tifffile.imwrite(labels, truth.astype(np.uint16))
            theirs = np.where(truth % 3 == 1, 0, truth)  # a third of the nuclei is missed
            tifffile.imwrite(tmp_path / f"theirs/{i}_mask.tif", theirs.astype(np.uint16))
            source = "even" if i % 2 == 0 else "odd"
            row = Row(image, labels if labelled else None, Modality.FLUORESCENCE, source)
            out.append(Case(str(i), row))
        return out

    return make


@pytest.fixture
def theirs(tmp_path):
    return Contestant("theirs", labels=tmp_path / "theirs")


def test_each_is_judged_on_its_own_labels_and_against_the_first(cases, theirs, tmp_path):
    every = cases(8)
    comparison = finish(compare_steps(every, [theirs, CLASSICAL], tmp_path / "out"))
    assert comparison.judged and comparison.facts["classical"].parameters is None
    for case, outcome in zip(every, comparison.outcomes["theirs"], strict=True):
        truth = tifffile.imread(case.row.labels).astype(np.int32)
        assert outcome.values == scores(truth, comparison.labels_of("theirs", case))
        assert outcome.seconds is None and outcome.ap[0] == outcome.values["ap50"]
        assert outcome.verdicts["missed"] == len(np.unique(truth[truth % 3 == 1]))
        assert outcome.verdicts["correct"] == outcome.count and outcome.verdicts["spurious"] == 0
    assert all(o.seconds > 0 and o.diameter_px for o in comparison.outcomes["classical"])
    reached = standings(comparison)
    assert [(s.source, s.contestant, s.images) for s in reached] == [
        *(("even", name, 4) for name in ("theirs", "classical")),
        *(("odd", name, 4) for name in ("theirs", "classical")),
        *((OVERALL, name, 8) for name in ("theirs", "classical")),
    ]
    first, second = reached[-2:]
    assert first.ahead is None and first.p is None
    assert second.ahead[0] == pytest.approx(second.means["pq"][0] - first.means["pq"][0])
    assert second.ahead[1] < second.ahead[0] < second.ahead[2]
    assert 0 < second.p < 0.05, "better on all of 8 images"
    assert reached[1].p is None, "four images cannot tell"
    assert first.counts["found"] == sum(o.count for o in comparison.outcomes["theirs"])


def test_they_take_turns_and_are_warm_before_they_are_timed(cases, tmp_path, monkeypatch):
    ran = []

    def note(image, recipe):
        ran.append((image.name, recipe.diameter_px))
        return (yield from real(image, recipe))

    real = runs.segment_steps
    monkeypatch.setattr(runs, "segment_steps", note)
    others = [Contestant(str(d), Recipe(segmenter="classical", diameter_px=d)) for d in (11.0, 12.0, 13.0)]
    finish(compare_steps(cases(3), others, tmp_path / "out"))
    assert [d for name, d in ran if name == "0.tif"] == [11, 11, 12, 12, 13, 13], "once to warm up"
    assert [d for name, d in ran if name == "1.tif"] == [12, 13, 11]
    assert [d for name, d in ran if name == "2.tif"] == [13, 11, 12]


def test_what_had_to_be_opened_anew_is_warmed_up_again(cases, fake_tool, tmp_path, monkeypatch):
    real, ran = runs.segment_steps, []

    def note(image, recipe):
        ran.append(image.name)
        result = yield from real(image, recipe)
        if ran == ["0.tif", "0.tif"]:
            result.segmenter.running.stop()  # as a tool that dies
        return result

    monkeypatch.setattr(runs, "segment_steps", note)
    tool = Contestant("tool", Recipe(segmenter="cellpose", weights=fake_tool(), diameter_px=18))
    finish(compare_steps(cases(3), [tool], tmp_path / "out"))
    assert ran == ["0.tif", "0.tif", "1.tif", "1.tif", "2.tif"]


def test_another_name_or_source_is_taken_with_what_is_kept(cases, tmp_path):
    (case,) = cases(1)
    finish(compare_steps([case], [Contestant("my model", CLASSICAL.recipe)], tmp_path / "out"))
    renamed = Case(case.name, replace(case.row, source="other"))
    comparison = finish(
        compare_steps([renamed], [Contestant("my_model", CLASSICAL.recipe)], tmp_path / "out")
    )
    assert [(s.contestant, s.source) for s in standings(comparison)] == [("my_model", "other")]


def test_who_fails_on_an_image_without_nuclei_is_not_right(cases, theirs, tmp_path):
    (case,) = cases(1)
    tifffile.imwrite(case.row.labels, np.zeros((90, 100), np.uint16))
    (theirs.labels / "0_mask.tif").unlink()
    tifffile.imwrite(theirs.labels / "other.tif", np.zeros((90, 100), np.uint16))
    (outcome,) = finish(compare_steps([case], [theirs], tmp_path / "out")).outcomes["theirs"]
    assert outcome.problem and outcome.values["pq"] == 0 == sum(outcome.ap)


def test_odd_labels_that_a_segmenter_made_are_read_back(cases, tmp_path, monkeypatch):
    (case,) = cases(1)
    odd = np.ones((90, 100), np.int32)  # one outline over everything: refused from a person
    real = runs.segment_steps

    def all_of_it(image, recipe):
        result = yield from real(image, recipe)
        return replace(result, nuclei=replace(result.nuclei, labels=odd))

    monkeypatch.setattr(runs, "segment_steps", all_of_it)
    comparison = finish(compare_steps([case], [CLASSICAL], tmp_path / "out"))
    np.testing.assert_array_equal(comparison.labels_of("classical", case), odd)
    finish(report_steps(comparison, tmp_path / "out"))


def test_label_images_are_told_apart_by_their_whole_names(cases, theirs, tmp_path):
    case, other = cases(2)
    (theirs.labels / "0_mask.tif").rename(theirs.labels / "0.tif")
    tifffile.imwrite(theirs.labels / "0_labels.tif", np.zeros((90, 100), np.uint16))
    tifffile.imwrite(theirs.labels / "1_labels.tif", np.zeros((100, 100), np.uint16))
    found = finish(compare_steps([case, other], [theirs], tmp_path / "out")).outcomes["theirs"]
    assert found[0].count > 0 and "are labels of one image; keep one" in found[1].problem
    twin = tmp_path / "b" / "0.tif"
    twin.parent.mkdir()
    twin.write_bytes(case.row.image.read_bytes())
    both = cases_of([case.row, replace(case.row, image=twin)])
    assert len({c.name for c in both}) == 2 and all(c.name.startswith("0-") for c in both)
    with pytest.raises(SettingsError, match="several images are called 0"):
        finish(compare_steps(both, [theirs], tmp_path / "out"))
    with pytest.raises(SettingsError, match="two images are called 0"):
        finish(compare_steps([case, Case("0", other.row)], [CLASSICAL], tmp_path / "out"))


def test_a_broken_comparison_goes_on_and_what_changed_is_done_again(cases, theirs, tmp_path, monkeypatch):
    every = cases(2)
    steps = compare_steps(every, [CLASSICAL, theirs], tmp_path / "out")
    for progress in steps:
        if progress.message == "0, theirs":
            break
    steps.close()
    real, ran = runs.segment_steps, []

    def note(image, recipe):
        ran.append(image.name)
        return (yield from real(image, recipe))

    monkeypatch.setattr(runs, "segment_steps", note)

    def again(*contestants):
        ran.clear()
        finish(compare_steps(every, contestants, tmp_path / "out"))
        return set(ran)

    assert again(CLASSICAL, theirs) == {"1.tif"}
    assert again(CLASSICAL, theirs) == set()
    tifffile.imwrite(every[0].row.labels, tifffile.imread(every[0].row.labels) * 2)
    assert again(CLASSICAL, theirs) == {"0.tif"}, "other ground truth"
    other = Contestant("classical", Recipe(segmenter="classical", diameter_px=15))
    assert again(other) == {"0.tif", "1.tif"}, "other settings"
    told = tmp_path / "out/labels/classical/1.json"
    for broken in (b"{broken", b"\xff"):
        told.write_bytes(broken)
        assert again(other) == {"1.tif"}


def test_what_changes_within_an_ome_zarr_is_seen(cases, tmp_path):
    (case,) = cases(1)
    place = tmp_path / "labels.ome.zarr"
    (place / "0").mkdir(parents=True)
    (place / "0" / "chunk").write_bytes(b"12")
    entry = runs._Entry(CLASSICAL, runs.Facts(description=""))

    def request():
        return runs._request(entry, case, runs._stamps(place, None, case.row.labels))

    before = request()
    (place / "labels" / "nuclei").mkdir(parents=True)
    (place / "labels" / "nuclei" / "chunk").write_bytes(b"12")
    assert request() == before, "labels inside are no part of the image"
    time.sleep(0.02)
    (place / "0" / "chunk").write_bytes(b"34")
    assert request() != before


def test_seconds_of_another_sitting_are_told(cases, tmp_path):
    every, out = cases(2), tmp_path / "out"
    later = Contestant("later", CLASSICAL.recipe)
    steps = compare_steps(every, [CLASSICAL, later], out)
    next(steps)
    time.sleep(1.1)  # opening takes its time
    comparison = finish(steps)
    assert "sittings" not in finish(report_steps(comparison, out)).read_text()
    time.sleep(1.1)
    comparison = finish(compare_steps(every, [CLASSICAL, later, Contestant("new", CLASSICAL.recipe)], out))
    assert "measured in 2 sittings" in finish(report_steps(comparison, out)).read_text()


def test_a_fault_on_one_image_ends_nothing_and_seconds_are_those_of_the_others(cases, tmp_path, monkeypatch):
    real = runs.segment_steps

    def faulty(image, recipe):
        if image.name == "0.tif" and recipe.diameter_px == 15:
            raise MemoryError
        result = yield from real(image, recipe)
        return replace(result, seconds=9.0 if image.name == "0.tif" else 1.0)

    monkeypatch.setattr(runs, "segment_steps", faulty)
    fails = Contestant("fails", Recipe(segmenter="classical", diameter_px=15))
    comparison = finish(compare_steps(cases(2), [CLASSICAL, fails], tmp_path / "out"))
    assert comparison.outcomes["fails"][0].problem == "not enough memory"
    overall = [s for s in standings(comparison) if s.source == OVERALL]
    assert [s.seconds for s in overall] == [1.0, 1.0], "not of the image that only one could do"


def test_without_labels_an_image_that_went_is_a_failure(cases, tmp_path):
    first, second = cases(2, labelled=False)
    first.row.image.unlink()
    found = finish(compare_steps([first, second], [CLASSICAL], tmp_path / "out")).outcomes["classical"]
    assert found[0].problem and found[0].shape_yx == (0, 0) and found[1].count > 0


def test_files_of_others_are_not_replaced(cases, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/images.csv").write_text("somebody's")
    with pytest.raises(WriteError, match="belongs to no comparison"):
        finish(compare_steps(cases(1), [CLASSICAL], tmp_path / "out"))
    assert (tmp_path / "out/images.csv").read_text() == "somebody's"


def test_another_comparison_is_replaced_only_if_somebody_wants_it(cases, theirs, tmp_path):
    first, second = cases(2)
    out = tmp_path / "out"
    finish(report_steps(finish(compare_steps([first], [CLASSICAL, theirs], out)), out))
    finish(compare_steps([first, second], [CLASSICAL], out))  # more images, or fewer segmenters
    before = (out / "comparison.json").read_text()
    (out / "labels/classical/notes.txt").write_text("mine")
    other = Contestant("other", CLASSICAL.recipe)
    for images, each, what in (([second], theirs, "images"), ([first], other, "segmenters")):
        with pytest.raises(WriteError, match=f"out holds a comparison of other {what}; .*--overwrite"):
            finish(compare_steps(images, [each], out))
    elsewhere = finish(compare_steps([first], [other], tmp_path / "elsewhere"))
    with pytest.raises(WriteError, match="of other segmenters"):
        finish(report_steps(elsewhere, out))
    inside = Contestant("inside", labels=out / "labels/theirs")
    with pytest.raises(WriteError, match="is to be compared and would be replaced"):
        finish(compare_steps([first], [inside], out, overwrite=True))
    assert (out / "comparison.json").read_text() == before
    finish(compare_steps([first], [other], out, overwrite=True))
    assert not (out / "comparison.json").exists()
    assert {path.parent.name for path in out.glob("labels/*/*_labels.tif")} == {"other"}
    assert [path.name for path in (out / "labels/classical").iterdir()] == ["notes.txt"]
    (out / "comparison.json").write_text("[]")
    with pytest.raises(WriteError, match="cannot be read as that of a comparison"):
        finish(compare_steps([first], [other], out))


def test_labels_of_others_may_lie_in_pieces(cases, theirs, tmp_path):
    (case,) = cases(1)
    pieces = tifffile.imread(theirs.labels / "0_mask.tif")
    first, second, third = np.unique(pieces)[1:4]
    pieces[np.isin(pieces, (second, third))] = first
    tifffile.imwrite(theirs.labels / "0_mask.tif", pieces)
    (outcome,) = finish(compare_steps([case], [theirs], tmp_path / "out")).outcomes["theirs"]
    assert not outcome.problem and outcome.values["pq"] > 0.3


def test_an_image_that_cannot_be_shown_costs_its_picture_only(cases, tmp_path):
    (case,) = cases(1)
    comparison = finish(compare_steps([case], [CLASSICAL], tmp_path / "out"))
    case.row.image.write_bytes(b"damaged since")
    page = finish(report_steps(comparison, tmp_path / "out")).read_text()
    assert "Cannot be shown: " in page and "<table" in page


@pytest.mark.parametrize("labelled", [True, False])
def test_while_the_report_is_written_each_image_and_picture_is_told(labelled, cases, theirs, tmp_path):
    comparison = finish(compare_steps(cases(4, labelled=labelled), [CLASSICAL, theirs], tmp_path / "out"))
    told = Counter(progress.message for progress in report_steps(comparison, tmp_path / "out"))
    assert told["measuring the nuclei"] == 4
    assert told["looking where segmenters agree"] == (0 if labelled else 4)
    assert 2 <= sum(number for message, number in told.items() if message.startswith("drawing "))


def test_who_fails_is_judged_as_if_nothing_had_been_found_and_tried_again(cases, theirs, tmp_path):
    every = cases(3)
    (theirs.labels / "1_mask.tif").unlink()
    tifffile.imwrite(theirs.labels / "2_mask.tif", np.ones((3, 3), np.uint16))
    found = finish(compare_steps(every, [theirs], tmp_path / "out")).outcomes["theirs"]
    assert not found[0].problem
    assert "no label image has the name of 1.tif" in found[1].problem and found[1].values["pq"] == 0
    assert "is (3, 3), its image (110, 100)" in found[2].problem and found[2].verdicts["missed"] > 0
    comparison = finish(compare_steps(every, [theirs], tmp_path / "out"))
    assert sum(s.failed for s in standings(comparison)[:2]) == 2
    assert comparison.labels_of("theirs", every[1]) is None
    truth = tifffile.imread(every[1].row.labels)
    tifffile.imwrite(theirs.labels / "1_mask.tif", truth)
    found = finish(compare_steps(every, [theirs], tmp_path / "out")).outcomes["theirs"]
    assert not found[1].problem and found[1].values["pq"] == 1


def test_a_tool_that_dies_fails_on_that_image_only(fake_tool, cases, tmp_path):
    good = Contestant("good", Recipe(segmenter="cellpose", weights=fake_tool()))
    bad = Contestant("bad", Recipe(segmenter="cellpose", weights=fake_tool("crash")))
    comparison = finish(compare_steps(cases(2), [good, bad], tmp_path / "out"))
    assert not any(o.problem for o in comparison.outcomes["good"])
    assert all(o.problem and o.values["pq"] == 0 for o in comparison.outcomes["bad"])
    assert comparison.facts["good"].parameters is not None


@pytest.mark.parametrize("size", list(Size))
def test_the_diameter_is_the_one_that_was_asked_for(size, cases, tmp_path):
    (case,) = cases(1)
    each = Contestant("classical", Recipe(segmenter="classical"), size)
    (outcome,) = finish(compare_steps([case], [each], tmp_path / "out")).outcomes["classical"]
    truth = tifffile.imread(case.row.labels).astype(np.int32)
    expected = {
        Size.OWN: segmenters.load("classical", Recipe(segmenter="classical")).default_diameter_px,
        Size.ANNOTATED: runs.metrics.median_diameter(truth),
    }
    if size in expected:
        assert outcome.diameter_px == pytest.approx(expected[size])
    else:
        assert outcome.diameter_px not in expected.values()


def test_without_truth_it_says_who_agrees_and_where_they_do_not(cases, theirs, tmp_path):
    every = cases(4, labelled=False)
    comparison = finish(compare_steps(every, [CLASSICAL, theirs], tmp_path / "out"))
    assert not comparison.judged and not comparison.outcomes["theirs"][0].values
    pairs, places = finish(agreement_steps(comparison))
    mean, low, high = pairs["classical", "theirs"]
    assert 0.5 < low < mean < high < 0.95
    assert {place.case.name for place in places} == {"0", "1", "2", "3"}
    assert [p.agreement for p in places] == sorted(p.agreement for p in places)
    (standing, _, _, *_) = standings(comparison)
    assert standing.means == {} and standing.counts["found"] > 0


@pytest.mark.parametrize(
    ("contestants", "rule"),
    [
        ([], "at least one segmenter and one image"),
        ([CLASSICAL, CLASSICAL], "several are called classical"),
        ([Contestant("a b", CLASSICAL.recipe), Contestant("a_b", CLASSICAL.recipe)], "names that differ in"),
        ([Contestant("x", CLASSICAL.recipe, Size.ANNOTATED)], "no annotated diameter"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_the_work(contestants, rule, cases, tmp_path):
    with pytest.raises(SettingsError, match=rule):
        finish(compare_steps(cases(1, labelled=False), contestants, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_images_with_and_without_labels_are_not_mixed(cases, tmp_path):
    one, other = cases(2)
    mixed = [one, Case("x", Row(other.row.image, None, Modality.FLUORESCENCE, "odd"))]
    with pytest.raises(SettingsError, match="1 of 2 images have labels"):
        finish(compare_steps(mixed, [CLASSICAL], tmp_path / "out"))
    with pytest.raises(ReadError, match="no such folder of label images"):
        finish(compare_steps([one], [Contestant("gone", labels=tmp_path / "gone")], tmp_path / "out"))


@pytest.mark.parametrize(
    ("text", "name", "segmenter", "which", "size", "diameter"),
    [
        ("student", "student", "student", "nucleus-student", Size.ESTIMATED, None),
        ("student:my-model", "my-model", "student", "my-model", Size.ESTIMATED, None),
        ("classical@own", "classical @own", "classical", "nucleus-student", Size.OWN, None),
        ("cellpose:cyto3@17.5", "cellpose cyto3 @17.5", "cellpose", "cyto3", Size.ESTIMATED, 17.5),
        ("CP=cellpose:/a@b/w@annotated", "CP", "cellpose", "/a@b/w", Size.ANNOTATED, None),
        ("stardist:C:\\w\\a@b\\c", None, "stardist", "C:\\w\\a@b\\c", Size.ESTIMATED, None),
    ],
)
def test_a_contestant_is_named_in_one_word(text, name, segmenter, which, size, diameter):
    found = contestant(text, {"device": "cpu"})
    assert found.name == name or name is None
    assert (found.recipe.segmenter, found.size, found.recipe.diameter_px) == (segmenter, size, diameter)
    assert which == (found.recipe.weights or found.recipe.model) and found.recipe.device == "cpu"


def test_recipes_and_label_folders_are_contestants_too(tmp_path):
    file = tmp_path / "mine.json"
    file.write_text(Recipe(segmenter="classical", diameter_px=33, scaling_low=(1.0,)).model_dump_json())
    found = contestant(str(file), {})
    assert (found.name, found.recipe.segmenter, found.recipe.diameter_px) == ("mine", "classical", None)
    assert contestant(f"QuPath=labels:{tmp_path}", {}) == Contestant("QuPath", labels=tmp_path)
    for wrong, said in (("celpose:cyto3", "names no segmenter"), ("student@big", "a diameter in pixels")):
        with pytest.raises(SettingsError, match=said):
            contestant(wrong, {})


def test_memory_is_that_of_a_process_of_its_own_and_kept(cases, theirs, tmp_path, monkeypatch):
    every, out = cases(2), tmp_path / "out"
    comparison = finish(memory_steps(finish(compare_steps(every, [theirs, CLASSICAL], out))))
    small, large = comparison.outcomes["classical"]
    assert small.memory_bytes is None and 5e7 < large.memory_bytes < 5e9
    assert comparison.memory_of("classical") == large.memory_bytes and comparison.memory_of("theirs") is None
    monkeypatch.setattr(memory, "apart_steps", lambda *_: pytest.fail("it is known"))
    again = finish(memory_steps(finish(compare_steps(every, [theirs, CLASSICAL], out))))
    assert again.memory_of("classical") == large.memory_bytes


@pytest.mark.parametrize("error", [DeviceError("killed"), MemoryError(), RuntimeError("fault"), OSError()])
def test_where_memory_cannot_be_measured_the_report_says_why(error, cases, tmp_path, monkeypatch):
    def dies(*_):
        yield from ()
        raise error

    comparison = finish(compare_steps(cases(1), [CLASSICAL], tmp_path / "out"))
    monkeypatch.setattr(memory, "apart_steps", dies)
    comparison = finish(memory_steps(comparison))
    assert comparison.memory_of("classical") is None
    page = finish(report_steps(comparison, tmp_path / "out")).read_text()
    assert "its memory could not be measured" in page


def test_memory_of_another_image_is_not_shown(cases, tmp_path, monkeypatch):
    def measured(*_):
        yield from ()
        return 10**8

    every, out = cases(2), tmp_path / "out"
    monkeypatch.setattr(memory, "apart_steps", measured)
    finish(memory_steps(finish(compare_steps(every[:1], [CLASSICAL], out))))
    comparison = finish(compare_steps(every, [CLASSICAL], out))
    assert comparison.outcomes["classical"][0].memory_bytes and comparison.memory_of("classical") is None


def test_a_tool_is_measured_by_its_own_process(fake_tool, draw, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", draw(90, 90)[0])
    asked = {"segmenter": "cellpose", "weights": fake_tool()}
    held = finish(memory.segmenting_steps({"image": str(tmp_path / "a.tif"), "recipe": asked}))
    assert 1e7 < held < 0.8 * apart.held_bytes(psutil.Process()), "NumPy, but none of what this process has"


def test_memory_of_a_tool_is_that_of_its_process():
    holds = "import time; held = bytearray(b'1') * 150_000_000; time.sleep(1)"
    with memory._Watch() as watch:
        subprocess.run([sys.executable, "-c", holds], check=True)
    own, tool = (watch.peak(of_a_tool=of) for of in (False, True))
    assert 1.5e8 < tool < 3e8 and own == pytest.approx(psutil.Process().memory_info().rss, rel=0.2)


def test_on_one_image_the_nuclei_tell(cases, theirs, tmp_path):
    first, second = standings(finish(compare_steps(cases(1), [CLASSICAL, theirs], tmp_path / "out")))
    assert first.p is None and 0 < second.p < 1
    for standing in (first, second):
        pq, low, high = standing.means["pq"]
        assert low <= pq <= high and low < high
        assert np.isnan(standing.means["aji"][1]), "nothing is known of these"


def run(*arguments):
    return CliRunner().invoke(app, ["compare", *map(str, arguments)], env={"COLUMNS": "100"})


def test_the_command_writes_tables_and_a_page_that_needs_no_other_file(cases, theirs, tmp_path):
    cases(3)
    folder = tmp_path / "data"
    folder.mkdir()
    for file in [*tmp_path.glob("?.tif"), *tmp_path.glob("?_labels.tif")]:
        file.rename(folder / file.name)
    (theirs.labels / "2_mask.tif").unlink()
    out = tmp_path / "out"
    done = run("--data", folder, "-s", "classical", "-s", f"<Theirs>=labels:{theirs.labels}", "-o", out)
    assert done.exit_code == 1, "one image failed, and the others are done"
    assert "s MB failed" in " ".join(done.output.split())
    assert "<Theirs>" in done.output and "no label image has the name of 2.tif" in " ".join(
        done.output.split()
    )
    with (out / "comparison.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert (first["segmenter"], second["segmenter"]) == ("classical", "<Theirs>")
    assert float(first["memory_mb"]) > 50 and second["memory_mb"] == ""
    assert float(second["pq_ahead"]) == pytest.approx(float(second["pq"]) - float(first["pq"]), abs=1e-4)
    assert (second["failed"], second["p"], first["pq_ahead"]) == ("1", "", "")
    with (out / "images.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["image"], r["segmenter"]) for r in rows] == [
        (image, name) for name in ("classical", "<Theirs>") for image in "012"
    ]
    assert np.mean([float(r["pq"]) for r in rows[:3]]) == pytest.approx(float(first["pq"]), abs=1e-4)
    told = json.loads((out / "comparison.json").read_text())
    assert told["segmenters"]["classical"]["recipe"]["segmenter"] == "classical"
    assert told["standings"][0]["means"]["pq"][0] == pytest.approx(float(first["pq"]), abs=1e-4)
    page = (out / "report.html").read_text()
    assert "&lt;Theirs&gt;" in page and "<Theirs>" not in page, "names cannot break the page"
    assert "H&amp;E and IHC from black to the upper" in page
    assert "maps between the processes" in page and "not with Cellpose's SizeModel" in page
    assert page.count("data:image/png;base64,") >= 3 and page.count("<svg") == 3
    assert 'src="http' not in page and 'href="http' not in page.replace('xlink:href="#', "")


def test_the_command_without_labels(cases, tmp_path):
    every = cases(2, labelled=False)
    files = [case.row.image for case in every]
    out = tmp_path / "out"
    threads = torch.get_num_threads()
    named = ("-s", "classical", "-s", "wide=classical@40")
    done = run(*files, *named, "--no-memory", "--threads", threads + 1, "-o", out)
    assert done.exit_code == 0, done.output
    told = json.loads((out / "comparison.json").read_text())["computer"]
    assert told["threads"] == threads + 1 and told["cores"] >= 1 and told["processor"]
    assert f"{threads + 1} threads of PyTorch" in (out / "report.html").read_text()
    assert "Agreement" in done.output and "nuclei" in done.output
    assert "Who agrees with whom" in (out / "report.html").read_text()
    assert json.loads((out / "comparison.json").read_text())["agreement_f1"][0]["pair"] == [
        "classical",
        "wide",
    ]
    refused = run(files[0], "-s", "student", "--no-memory", "-o", out)
    assert refused.exit_code == 1 and "add --overwrite" in " ".join(refused.output.split())
    done = run(files[0], "-s", "wide=classical", "-s", "b=classical", "--no-memory", "-o", out, "--overwrite")
    assert done.exit_code == 0 and not (out / "labels/classical").exists()
    for arguments in ([], [*files, "--data", tmp_path]):
        refused = run(*arguments, "-o", tmp_path / "no")
        assert refused.exit_code == 2 and "give either --data" in refused.output
        assert not Path(tmp_path / "no").exists()


def test_images_that_cannot_be_read_fail_alone_and_all_are_counted(cases, tmp_path):
    every = cases(8, labelled=False)
    for case in every[1:]:
        case.row.image.write_bytes(b"no picture")
    out = tmp_path / "out"
    files, others = [case.row.image for case in every], [f"{n}=classical@{n}" for n in (11, 12, 13)]
    done = run(*files, *(text for other in others for text in ("-s", other)), "--no-memory", "-o", out)
    assert done.exit_code == 1 and "looking at the images" in done.output
    assert "… and 16 more, see images.csv" in done.output and "Agreement" in done.output
    assert "… and 1 more, see images.csv" in (out / "report.html").read_text()
    none = run(files[0], tmp_path / "*.none", "-o", tmp_path / "no")
    assert none.exit_code == 2 and "no image found in" in none.output


def test_threads_are_limited_here_and_in_tools_that_are_started(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    before, state = torch.get_num_threads(), environments.environment_state("stardist")
    cores = serve._tensorflow_threads()
    with limited_threads(before + 1):
        told = environments.clean_environment()
        assert {told[name] for name in environments.THREADS} == {str(before + 1)}
        assert torch.get_num_threads() == serve._tensorflow_threads() == before + 1
        assert environments.environment_state("stardist") != state, "a tool that is open is started anew"
    assert torch.get_num_threads() == before and os.environ["OMP_NUM_THREADS"] == "7"
    assert environments.environment_state("stardist") == state and serve._tensorflow_threads() == cores


def test_a_tool_that_is_not_there_is_told_before_the_work(cases, tmp_path, monkeypatch):
    def nothing(name):
        raise BaselineError(f"{name} is not installed; nucleus-kd baselines install {name}")

    monkeypatch.setattr("napari_nucleus_kd.baselines.worker.find", nothing)
    weights = tmp_path / "w"
    weights.write_text("x")
    each = Contestant("cp", Recipe(segmenter="cellpose", weights=str(weights)))
    with pytest.raises(BaselineError, match="baselines install cellpose"):
        finish(compare_steps(cases(1), [CLASSICAL, each], tmp_path / "out"))
    assert not (tmp_path / "out").exists()
