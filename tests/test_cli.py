"""Real runs of the command line on small drawn images."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

import napari_nucleus_kd as nk
from napari_nucleus_kd import _cli_segment, errors, package, pipeline
from napari_nucleus_kd.cli import app
from napari_nucleus_kd.types import Progress

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from click.testing import Result

CENTRES = [(30, 30), (30, 90), (90, 40), (95, 100)]


def draw(path: Path, *, channels: int = 1, nuclei: int = len(CENTRES)) -> Path:
    """Write discs of radius 9 px on a dark, slightly noisy ground, in every channel."""
    y, x = np.mgrid[:128, :128]
    plane = np.random.default_rng(0).normal(200, 5, (128, 128))
    for cy, cx in CENTRES[:nuclei]:
        plane[(y - cy) ** 2 + (x - cx) ** 2 <= 81] += 3000
    pixels = np.stack([plane.astype(np.uint16)] * channels)
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, pixels if channels > 1 else pixels[0], photometric="minisblack")
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def segment(*arguments: object) -> Result:
    """Run `segment` without a network and without Python's traceback hiding an exit status."""
    result = run("segment", "--segmenter", "classical", *arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def labels_in(path: Path) -> np.ndarray:
    return np.asarray(nk.read(path).pixels[0])


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return draw(tmp_path / "cells.tif")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.mark.parametrize(("file_format", "ending"), [("tiff", ".tif"), ("ome-zarr", ".ome.zarr")])
def test_writes_labels_recipe_and_record(image: Path, out: Path, file_format: str, ending: str) -> None:
    result = segment(image, "--output", out, "--format", file_format)
    assert result.exit_code == 0, result.output
    made = [f"cells_labels{ending}", "cells_nuclei.csv", "cells_recipe.json", "cells_run.json"]
    assert names_in(out) == made
    labels = labels_in(out / f"cells_labels{ending}")
    assert sorted(labels[cy, cx] for cy, cx in CENTRES) == [1, 2, 3, 4]
    assert labels.max() == 4
    recipe = nk.Recipe.model_validate_json((out / "cells_recipe.json").read_text())
    assert recipe.segmenter == "classical"
    assert recipe.scaling_high is not None
    assert json.loads((out / "cells_run.json").read_text())["nuclei"] == 4
    with (out / "cells_nuclei.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == ["1", "2", "3", "4"]
    assert [float(row["area_px2"]) for row in rows] == np.bincount(labels.ravel())[1:].tolist()
    assert all(float(row["mean channel 1"]) > 2000 for row in rows)


def test_a_table_of_unknown_origin_is_never_replaced_unasked(image: Path, out: Path) -> None:
    out.mkdir()
    (out / "cells_nuclei.csv").write_text("mine")
    result = segment(image, "-o", out)
    assert result.exit_code == 1 and "--overwrite" in result.output
    assert names_in(out) == ["cells_nuclei.csv"]
    assert segment(image, "-o", out, "--overwrite").exit_code == 0


@pytest.mark.parametrize("file_format", ["tiff", "ome-zarr"])
def test_a_part_of_the_image_by_option_and_by_recipe(
    image: Path, out: Path, tmp_path: Path, file_format: str
) -> None:
    written = ["--format", file_format]
    assert segment(image, "-o", out, "--region", 0, 8, 100, 72, *written).exit_code == 0
    labels = labels_in(next(out.glob("cells_labels.*")))
    assert labels.shape == (100, 64)
    recipe = out / "cells_recipe.json"
    expected = nk.segment(nk.read(image), nk.Recipe.model_validate_json(recipe.read_text()))
    np.testing.assert_array_equal(labels, expected.nuclei.labels)
    for more, shape in (([], (100, 64)), (["--refit"], (128, 128))):
        again = tmp_path / f"again{len(more)}"
        assert run("segment", image, "-o", again, "--recipe", recipe, *written, *more).exit_code == 0
        assert labels_in(next(again.glob("cells_labels.*"))).shape == shape
    outside = segment(image, "-o", tmp_path / "outside", "--region", 0, 0, 999, 10)
    assert outside.exit_code == 1 and "128 x 128" in outside.output


def test_labels_are_those_of_python(image: Path, out: Path) -> None:
    assert segment(image, "-o", out, "--min-area", 50).exit_code == 0
    recipe = nk.Recipe.model_validate_json((out / "cells_recipe.json").read_text())
    assert recipe.decode.min_area_px == 50
    expected = nk.segment(nk.read(image), recipe).nuclei.labels
    np.testing.assert_array_equal(labels_in(out / "cells_labels.tif"), expected)


@pytest.mark.parametrize("file_format", ["tiff", "ome-zarr"])
def test_recipe_repeats_a_run(image: Path, out: Path, tmp_path: Path, file_format: str) -> None:
    assert segment(image, "-o", out, "--split", 0.3).exit_code == 0
    again = tmp_path / "again"
    repeated = run(
        "segment", image, "-o", again, "--recipe", out / "cells_recipe.json", "--format", file_format
    )
    assert repeated.exit_code == 0, repeated.output
    np.testing.assert_array_equal(
        labels_in(next(again.glob("cells_labels.*"))), labels_in(out / "cells_labels.tif")
    )
    first, second = (json.loads((f / "cells_recipe.json").read_text()) for f in (out, again))
    assert first == second


def test_weights_and_stains_are_those_of_their_mapping(tmp_path: Path, out: Path) -> None:
    image = draw(tmp_path / "two.tif", channels=2)
    mixed = ("--channel", 0, "--channel-weight", 1, "--channel", 1, "--channel-weight", 0.5)
    assert segment(image, "-o", out, "--mapping", "blend", *mixed).exit_code == 0
    recipe = json.loads((out / "two_recipe.json").read_text())
    assert recipe["channel_weights"] == pytest.approx([2 / 3, 1 / 3], abs=1e-5)
    refused = segment(image, "-o", out, *mixed)
    assert refused.exit_code == 2 and "--channel-weight is for --mapping blend" in " ".join(
        refused.output.split()
    )
    refused = segment(image, "-o", out, "--panel", image, "--channel-weight", 1)
    assert refused.exit_code == 2 and "leave --channel, --channel-weight" in " ".join(refused.output.split())
    refused = segment(image, "-o", out, "--mapping", "mean", "--stains", *"0.6 0.7 0.3 0.1 0.9 0.1".split())
    assert refused.exit_code == 2 and "--stains is for --mapping haematoxylin" in refused.output
    refused = segment(image, "-o", out, "--mapping", "nucleus-adaptr")
    assert refused.exit_code == 2 and "did you mean nucleus-adapter" in " ".join(refused.output.split())


def test_a_recipe_finds_its_channels_by_name_in_another_image(tmp_path: Path, out: Path) -> None:
    nuclei = tifffile.imread(draw(tmp_path / "drawn.tif"))
    for name, order in (("first", ["DAPI", "CD3"]), ("second", ["CD3", "DAPI"])):
        planes = [nuclei if channel == "DAPI" else np.full_like(nuclei, 90) for channel in order]
        axes = {"axes": "CYX", "Channel": {"Name": order}}
        tifffile.imwrite(tmp_path / f"{name}.ome.tif", np.stack(planes), metadata=axes)
    assert segment(tmp_path / "first.ome.tif", "-o", out).exit_code == 0
    recipe = out / "first_recipe.json"
    assert json.loads(recipe.read_text())["channels"] == ["DAPI"]
    again = run("segment", tmp_path / "second.ome.tif", "-o", out, "--recipe", recipe, "--refit")
    assert again.exit_code == 0 and "seen: DAPI" in again.output
    assert labels_in(out / "second_labels.tif").max() == labels_in(out / "first_labels.tif").max() > 2


def test_a_panel_as_recipe_and_a_recipe_as_panel_are_told(image: Path, out: Path, tmp_path: Path) -> None:
    panel = tmp_path / "panel.json"
    assert run("panel", draw(tmp_path / "two.tif", channels=2), "--output", panel).exit_code == 0
    refused = segment(image, "-o", out, "--recipe", panel)
    assert refused.exit_code == 2 and "is a panel and no recipe; give it with" in " ".join(
        refused.output.split()
    )
    assert segment(image, "-o", out).exit_code == 0
    refused = segment(image, "-o", out, "--panel", out / "cells_recipe.json")
    assert refused.exit_code == 2 and "is a recipe and no panel; give it with" in " ".join(
        refused.output.split()
    )


def test_recipe_of_another_image_uses_its_limits_unless_refit(image: Path, out: Path, tmp_path: Path) -> None:
    dim = tmp_path / "dim.tif"
    tifffile.imwrite(dim, tifffile.imread(image) // 10)
    assert segment(image, "-o", out).exit_code == 0
    recipe = out / "cells_recipe.json"
    assert run("segment", dim, "-o", out / "kept", "--recipe", recipe).exit_code == 0
    assert run("segment", dim, "-o", out / "refit", "--recipe", recipe, "--refit").exit_code == 0
    original, kept, refit = (
        json.loads(path.read_text())["scaling_high"][0]
        for path in (recipe, out / "kept" / "dim_recipe.json", out / "refit" / "dim_recipe.json")
    )
    assert kept == original
    assert refit == pytest.approx(original / 10, rel=0.02)


def test_folder_pattern_and_file_name_each_image_once(tmp_path: Path, out: Path) -> None:
    a = draw(tmp_path / "set" / "a.tif")
    draw(tmp_path / "set" / "b.tif")
    draw(tmp_path / "set" / "deeper" / "c.tif")
    (tmp_path / "set" / "notes.txt").write_text("not an image")
    pattern = str(tmp_path / "**" / "c.tif")
    assert segment(tmp_path / "set", a, pattern, "-o", out).exit_code == 0
    assert [name for name in names_in(out) if name.endswith(".tif")] == [
        "a_labels.tif", "b_labels.tif", "c_labels.tif",
    ]  # fmt: skip


def test_results_in_the_input_folder_are_not_images(tmp_path: Path) -> None:
    folder = draw(tmp_path / "set" / "a.tif").parent
    for _ in range(2):
        assert segment(folder, "-o", folder).exit_code == 0
    assert [name for name in names_in(folder) if name.endswith(".tif")] == ["a.tif", "a_labels.tif"]


def test_equal_names_do_not_overwrite_each_other(tmp_path: Path, out: Path) -> None:
    paths = [
        draw(tmp_path / "s" / "one" / "x.tif", nuclei=1),
        draw(tmp_path / "s" / "two" / "X.tif", nuclei=2),
        draw(tmp_path / "s" / "two" / "x.tiff", nuclei=3),
        draw(tmp_path / "s" / "y.tif", nuclei=4),
    ]
    assert segment(*paths, "-o", out).exit_code == 0
    found = {path.name: int(labels_in(path).max()) for path in out.glob("*_labels.tif")}
    assert found == {
        "one-x-tif_labels.tif": 1, "two-X-tif_labels.tif": 2, "two-x-tiff_labels.tif": 3, "y_labels.tif": 4,
    }  # fmt: skip


def test_one_bad_file_does_not_stop_the_others(image: Path, out: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.tif"
    bad.write_bytes(image.read_bytes()[:100])
    absent = tmp_path / "absent.tif"
    result = segment(bad, absent, image, "-o", out)
    assert result.exit_code == 1
    assert "bad.tif" in result.output
    assert "absent.tif" in result.output
    assert "Traceback" not in result.output
    assert names_in(out) == ["cells_labels.tif", "cells_nuclei.csv", "cells_recipe.json", "cells_run.json"]


@pytest.mark.parametrize("empty", ["nothing/*.tif", "empty"])
def test_a_folder_or_pattern_without_an_image_is_a_failure_beside_the_others(
    image: Path, out: Path, tmp_path: Path, empty: str
) -> None:
    (tmp_path / "empty").mkdir()
    result = segment(tmp_path / empty, image, "-o", out)
    assert result.exit_code == 1
    assert f"no image found in {tmp_path / empty}" in result.output
    assert (out / "cells_labels.tif").is_file()
    alone = segment(tmp_path / empty, "-o", tmp_path / "other")
    assert alone.exit_code == 2
    assert not (tmp_path / "other").exists()


def test_a_folder_that_may_not_be_read_is_no_traceback(
    image: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    real = type(closed).iterdir

    def iterdir(self: Path) -> Iterator[Path]:
        if self == closed:  # tests may run as root, whom no permission stops
            raise PermissionError(13, "Permission denied", str(self))
        return real(self)

    monkeypatch.setattr(type(closed), "iterdir", iterdir)
    result = segment(closed, image, "-o", out)
    assert result.exit_code == 1
    assert f"{closed} cannot be looked into: Permission denied" in result.output
    assert (out / "cells_labels.tif").is_file()
    assert segment(closed, "-o", out).exit_code == 2


def test_a_fault_of_a_library_stays_with_its_image(
    image: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = pipeline.segment_steps

    def fails_on_first(picture: nk.Image, *rest: object) -> object:
        if picture.name.startswith("a_first"):
            raise IndexError("inside a library")
        return real(picture, *rest)

    monkeypatch.setattr(pipeline, "segment_steps", fails_on_first)
    result = segment(draw(tmp_path / "a_first.tif"), image, "-o", out)
    assert result.exit_code == 1
    assert "IndexError: inside a library" in result.output
    assert (out / "cells_labels.tif").is_file()


@pytest.mark.parametrize(
    "arguments",
    [
        ["nowhere/*.tif"],
        ["{image}", "--no-such-option"],
        ["{image}", "--segmenter", "nobody"],
        ["{image}", "--segmenter", "student", "--model", "no-such-model"],
        ["{image}", "--foreground", "7"],
        ["{image}", "--diameter", "-3"],
        ["{image}", "--modality", "x-ray"],
        ["{image}", "--recipe", "{image}"],
        ["{image}", "--recipe", "absent.json"],
    ],
)
def test_impossible_commands_exit_2_and_write_nothing(image: Path, out: Path, arguments: list[str]) -> None:
    result = run("segment", *(text.format(image=image) for text in arguments), "-o", out)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    assert not out.exists()


def test_wrong_channel_fails_that_image_and_lists_the_channels(tmp_path: Path, out: Path) -> None:
    image = draw(tmp_path / "two.tif", channels=2)
    result = segment(image, "-o", out, "--channel", "Sox9")
    assert result.exit_code == 1
    assert "Sox9" in result.output
    assert "0:" in result.output
    assert segment(image, "-o", out, "--channel", 0, "-c", 1).exit_code == 0


def stamps(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


@pytest.mark.parametrize("file_format", ["tiff", "ome-zarr"])
def test_the_same_question_is_not_answered_twice(image: Path, out: Path, file_format: str) -> None:
    command = (image, "-o", out, "--format", file_format)
    assert segment(*command).exit_code == 0
    before = stamps(out)
    again = segment(*command)
    assert again.exit_code == 0
    assert "done before" in again.output
    assert stamps(out) == before


def test_a_run_goes_on_where_it_stopped(tmp_path: Path, out: Path) -> None:
    folder = draw(tmp_path / "set" / "a.tif").parent
    assert segment(folder, "-o", out).exit_code == 0
    before = stamps(out)
    draw(folder / "b.tif")
    assert segment(folder, "-o", out).exit_code == 0
    after = stamps(out)
    assert {name: after[name] for name in before} == before
    assert "b_labels.tif" in after


def test_other_settings_fail_with_the_difference_unless_overwritten(image: Path, out: Path) -> None:
    assert segment(image, "-o", out).exit_code == 0
    before = stamps(out)
    refused = segment(image, "-o", out, "--min-area", 300)
    assert refused.exit_code == 1
    assert "min_area_px" in refused.output
    assert "--overwrite" in refused.output
    assert stamps(out) == before
    assert segment(image, "-o", out, "--min-area", 300, "--overwrite").exit_code == 0
    assert labels_in(out / "cells_labels.tif").max() == 0


@pytest.mark.parametrize(("first", "second"), [("tiff", "ome-zarr"), ("ome-zarr", "tiff")])
def test_overwrite_in_another_format_leaves_one_result(
    image: Path, out: Path, first: str, second: str
) -> None:
    endings = {"tiff": "cells_labels.tif", "ome-zarr": "cells_labels.ome.zarr"}
    assert segment(image, "-o", out, "--format", first).exit_code == 0
    assert segment(image, "-o", out, "--format", second, "--min-area", 300, "--overwrite").exit_code == 0
    assert names_in(out) == [endings[second], "cells_nuclei.csv", "cells_recipe.json", "cells_run.json"]
    assert labels_in(out / endings[second]).max() == 0


def test_overwrite_that_fails_keeps_the_result_of_the_other_format(
    image: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert segment(image, "-o", out, "--format", "ome-zarr").exit_code == 0
    before = stamps(out)
    monkeypatch.setattr(_cli_segment, "MAX_TIFF_PX", 1)
    assert segment(image, "-o", out, "--overwrite").exit_code == 1
    assert stamps(out) == before


def test_a_changed_image_is_not_called_done(image: Path, out: Path) -> None:
    assert segment(image, "-o", out).exit_code == 0
    draw(image, nuclei=2)
    refused = segment(image, "-o", out)
    assert refused.exit_code == 1
    assert "changed" in refused.output


def test_another_image_of_the_same_name_is_not_called_done(image: Path, out: Path, tmp_path: Path) -> None:
    assert segment(image, "-o", out).exit_code == 0
    other = draw(tmp_path / "elsewhere" / "cells.tif", nuclei=2)
    refused = segment(other, "-o", out)
    assert refused.exit_code == 1
    assert str(image) in refused.output
    assert labels_in(out / "cells_labels.tif").max() == 4


def test_labels_of_unknown_origin_are_never_replaced_unasked(image: Path, out: Path) -> None:
    out.mkdir()
    mine = out / "cells_labels.tif"
    mine.write_bytes(b"drawn by hand")
    for file_format in ("tiff", "ome-zarr"):
        assert segment(image, "-o", out, "--format", file_format).exit_code == 1
    assert mine.read_bytes() == b"drawn by hand"


@pytest.mark.parametrize("file_format", ["tiff", "ome-zarr"])
def test_ctrl_c_exits_130_and_leaves_nothing_half_written(
    image: Path, out: Path, monkeypatch: pytest.MonkeyPatch, file_format: str
) -> None:
    def interrupted(*_: object, **__: object) -> Iterator[Progress]:
        yield Progress(1, 2)
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "segment_steps", interrupted)
    monkeypatch.setattr(pipeline, "segment_to_zarr_steps", interrupted)
    result = segment(image, "-o", out, "--format", file_format)
    assert result.exit_code == 130
    assert names_in(out) == []


def test_tiff_refuses_what_does_not_fit_and_names_the_way_out(
    image: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_cli_segment, "MAX_TIFF_PX", 128 * 128 - 1)
    refused = segment(image, "-o", out)
    assert refused.exit_code == 1
    assert "ome-zarr" in refused.output
    assert segment(image, "-o", out, "--format", "ome-zarr").exit_code == 0


def test_a_part_of_what_does_not_fit_is_written_as_tiff(
    image: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_cli_segment, "MAX_TIFF_PX", 64 * 64)
    assert segment(image, "-o", out, "--region", 0, 0, 64, 64).exit_code == 0


def test_a_result_without_its_table_is_not_called_done(image: Path, out: Path) -> None:
    assert segment(image, "-o", out).exit_code == 0
    (out / "cells_nuclei.csv").unlink()
    again = segment(image, "-o", out)
    assert again.exit_code == 1 and "table" in again.output


def test_info_describes_the_computer() -> None:
    result = run("info")
    assert result.exit_code == 0, result.output
    for word in ("torch", "napari", "openvino", "devices", "networks run on"):
        assert word in result.output


def test_info_describes_an_image(tmp_path: Path) -> None:
    result = run("info", draw(tmp_path / "two.tif", channels=2))
    assert result.exit_code == 0, result.output
    assert "128 x 128 pixels (width x height), uint16" in result.output
    assert "fluorescence" in result.output


def test_info_of_a_bad_file_is_one_message() -> None:
    result = run("info", "absent.tif")
    assert result.exit_code == 1
    assert "absent.tif" in result.output
    assert len(result.output.strip().splitlines()) == 1


def test_models_lists_checks_and_names_the_damaged(
    spots: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(package, "model_roots", lambda: (tmp_path / "shipped", tmp_path / "own"))
    shutil.copytree(spots, tmp_path / "own" / "good")
    result = run("models", "--check")
    assert result.exit_code == 0, result.output
    assert "spots gives its test output" in result.output
    bad = shutil.copytree(spots, tmp_path / "own" / "bad")
    (bad / "weights.safetensors").unlink()
    assert run("models").exit_code == 0
    assert "bad cannot be used" in run("models").output
    assert "missing" in run("models").output
    assert run("models", "--check").exit_code == 1
    shutil.copy(spots / "weights.safetensors", bad)
    (bad / "test.safetensors").write_bytes(b"")
    assert "cannot be used" not in run("models").output
    failed = run("models", "--check")
    assert failed.exit_code == 1
    assert "FAILED" in failed.output


def test_version_is_that_of_the_package() -> None:
    assert run("--version").output.strip() == f"nucleus-kd {nk.__version__}"


def test_help_needs_no_heavy_package() -> None:
    code = (
        "import sys; from napari_nucleus_kd import cli; "
        "sys.exit(bool({'torch', 'dask', 'skimage', 'napari', 'qtpy'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, env={**os.environ}).returncode == 0


REFUSED = {errors.SettingsError, errors.ModelError, errors.UnknownSegmenterError, errors.DeviceError}


@pytest.mark.parametrize(
    "error",
    [kind for kind in vars(errors).values() if isinstance(kind, type)],
    ids=lambda kind: kind.__name__,
)
@pytest.mark.parametrize(
    ("command", "inside"), [(["info"], "_cli_info.computer_facts"), (["models"], "_cli_models.show_models")]
)
def test_an_error_has_one_status_in_every_command(
    error: type[Exception], command: list[str], inside: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error("the [thing] and the rule")

    monkeypatch.setattr(f"napari_nucleus_kd.{inside}", fail)
    result = run(*command)
    assert result.exit_code == (2 if error in REFUSED else 1)
    assert result.output == "Error: the [thing] and the rule\n"


@pytest.mark.parametrize(
    ("command", "inside"), [(["info"], "_cli_info.computer_facts"), (["models"], "_cli_models.show_models")]
)
def test_ctrl_c_is_130_in_every_command(
    command: list[str], inside: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"napari_nucleus_kd.{inside}", stop)
    result = run(*command)
    assert result.exit_code == 130 and "Stopped." in result.output and "Traceback" not in result.output


@pytest.mark.parametrize(
    "arguments", [["nothing"], ["models", "nothing"], ["info", "--nothing"], ["evaluate"]]
)
def test_what_typer_refuses_is_2(arguments: list[str]) -> None:
    assert run(*arguments).exit_code == 2
