"""`nucleus-kd evaluate`: what is shown and written of how many images, and nothing that they cannot tell."""

import csv
import json
from io import StringIO

import numpy as np
import pytest
from rich.console import Console
from skimage.io import imread, imsave
from typer.testing import CliRunner

from napari_nucleus_kd._cli_show import metrics_table
from napari_nucleus_kd.cli import app
from napari_nucleus_kd.evaluate import OVERALL, SHOWN, Score, summary, tellable
from napari_nucleus_kd.metrics import scores

BLUE, ORANGE, WHITE = (86, 180, 233), (230, 159, 0), (255, 255, 255)


@pytest.fixture
def data(draw, tmp_path):
    """Return a function that writes a folder of so many pairs, each with another number of nuclei."""

    def make(count):
        folder = tmp_path / "data"
        folder.mkdir()
        for i in range(count):
            pixels, labels = draw(80 + 24 * i, 96, i)
            imsave(folder / f"{'abcde'[i]}.1.png", pixels, check_contrast=False)
            imsave(folder / f"{'abcde'[i]}.1_labels.png", labels.astype(np.uint16), check_contrast=False)
        return folder

    return make


def evaluate(folder, *more):
    arguments = ["evaluate", "--data", folder, "--segmenter", "classical", *more]
    return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "90"})


def no_constant(name):
    raise ValueError(f"{name} is no JSON")


def summary_of(report):
    return json.loads((report / "summary.json").read_text(), parse_constant=no_constant)["data"]


def test_a_report_holds_all_numbers_and_pictures_with_a_legend(data, tmp_path):
    folder, report = data(2), tmp_path / "report"
    done = evaluate(folder, "--output", report)
    assert done.exit_code == 0, done.output
    with (report / "images.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == ["a.1.png", "b.1.png"]
    assert {"pq", "f1", "ap", "pixel_accuracy", "true_count"} <= set(rows[0])
    found = summary_of(report)
    assert found["images"] == [2]
    assert found["pq"][0] == pytest.approx(np.mean([float(row["pq"]) for row in rows]), abs=1e-4)
    pictures = sorted(path.name for path in (report / "pictures").iterdir())
    assert [name.split("_")[1] for name in pictures] == ["best1", "worst1"]
    assert {name.split("_", 3)[3] for name in pictures} == {"a.1.png", "b.1.png"}
    height = {"a.1.png": 80, "b.1.png": 104}
    for name in pictures:
        picture = imread(report / "pictures" / name)
        above = height[name.split("_", 3)[3]]
        assert picture.shape == (above + 16, 192, 3)
        legend = picture[above:].reshape(-1, 3)
        for colour in (BLUE, ORANGE, WHITE):
            assert (legend == colour).all(1).sum() > 30, "a patch of each colour, and words in white"


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_what_few_images_cannot_tell_is_not_given(count, data, tmp_path):
    done = evaluate(data(count), "--output", tmp_path / "report")
    assert done.exit_code == 0, done.output
    found = summary_of(tmp_path / "report")
    pq, r2, notes = found["pq"], found["count_r2"], " ".join(found["notes"])
    assert (None in pq) == ("No 95% intervals" in notes) == (count < 3)
    assert (None in r2) == ("No R2 of the counts" in notes) == (count < 5)
    assert pq[0] is not None and set(pq[1:]) in ({None}, {pq[1], pq[2]})
    said = " ".join(done.output.split())
    assert notes in said
    (interval,) = (line for line in done.output.splitlines() if "95% from" in line)
    assert interval.split()[2:] == ["-"] * 9 if count < 3 else interval.count("-") == (count < 5)
    assert f"{count} image{'s' if count > 1 else ''}" in said


def test_all_images_together_come_last_if_there_are_several_sources():
    labels = np.zeros((40, 40), np.int32)
    labels[5:15, 5:15] = 1
    whole, none = scores(labels, labels), scores(labels, 0 * labels)
    found = [
        Score("1", "b", whole, 10, 10, 1),
        Score("2", "a", whole, 10, 10, 1),
        Score("3", "a", none, 10, 10, 1),
    ]
    told = summary(found)
    assert list(told) == ["a", "b", OVERALL]
    assert [told[name]["images"][0] for name in told] == [2, 1, 3]
    assert told[OVERALL]["pq"][0] == pytest.approx(2 / 3, abs=1e-4) and told["a"]["pq"][0] == 0.5
    assert list(summary(found[:1])) == ["b"]


def test_images_with_one_number_of_nuclei_tell_no_r2():
    values = {name: [0.5, 0.4, 0.6] for name in SHOWN} | {"images": [67.0]}
    told, notes = tellable(values)
    assert told["count_r2"] == [None] * 3 and told["pq"] == [0.5, 0.4, 0.6]
    assert len(notes) == 1 and "differ in their number of nuclei" in notes[0]


@pytest.mark.parametrize("columns", [80, 200])
def test_every_number_of_the_table_is_seen(columns):
    values = {name: [0.123, 0.111, 0.134] for name in (*SHOWN, "count_r2")} | {"images": [67.0]}
    console = Console(width=columns, file=StringIO())
    console.print(metrics_table({"dsb2018-fluorescence": values}))
    text = console.file.getvalue()
    assert "dsb2018-fluorescence: 67 images" in text and "…" not in text
    assert [text.count(number) for number in ("0.123", "0.111", "0.134")] == [9, 9, 9]


def test_a_report_is_replaced_only_on_purpose(data, tmp_path):
    folder, report = data(2), tmp_path / "report"
    assert evaluate(folder, "--output", report).exit_code == 0
    before = {path: path.read_bytes() for path in report.rglob("*") if path.is_file()}
    again = evaluate(folder, "--output", report)
    said = " ".join(again.output.split())
    assert again.exit_code == 1 and "images.csv exists; add --overwrite or choose another" in said
    assert "PQ" not in said, "it is told before the work"
    assert {path: path.read_bytes() for path in report.rglob("*") if path.is_file()} == before
    mine = report / "pictures/mine.png"
    mine.touch()
    for name in ("b.1.png", "b.1_labels.png"):
        (folder / name).unlink()
    replaced = evaluate(folder, "--output", report, "--overwrite")
    assert replaced.exit_code == 0, replaced.output
    left = {path.name for path in (report / "pictures").iterdir()}
    assert len(left) == 2 and mine.name in left, "pictures of the earlier report are gone, others are not"
    assert summary_of(report)["images"] == [1]


def test_a_disk_that_refuses_a_picture_leaves_no_part_of_it(data, tmp_path, monkeypatch):
    from PIL import Image

    folder = data(1)

    def refuse(self, file, **_):
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", refuse)
    done = evaluate(folder, "--output", tmp_path / "report")
    said = " ".join(done.output.split())
    assert done.exit_code == 1 and "cannot be written: No space left on device" in said
    assert list((tmp_path / "report/pictures").iterdir()) == []
