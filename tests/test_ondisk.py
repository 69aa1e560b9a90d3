import json
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import zarr

from napari_nucleus_kd import ondisk, pipeline
from napari_nucleus_kd.config import Recipe
from napari_nucleus_kd.errors import WriteError
from napari_nucleus_kd.io import save_labels
from napari_nucleus_kd.ondisk import partial_path, read_notes, read_table, segment_to_zarr_steps
from napari_nucleus_kd.pipeline import measure_result, segment, to_image
from napari_nucleus_kd.types import Region


@pytest.fixture
def image(draw):
    return replace(to_image(draw(300, 340)[0]), pixel_size_um=0.25)


@pytest.fixture
def recipe(spots):
    return Recipe(model=str(spots), device="cpu", tile_px=128)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "labels.ome.zarr"


def levels(path):
    group = zarr.open_group(str(path), mode="r")
    return [group[d["path"]] for d in group.attrs["ome"]["multiscales"][0]["datasets"]], group.attrs


def test_labels_on_disk_are_those_in_memory(image, recipe, path, finish, monkeypatch):
    written, seen = finish(segment_to_zarr_steps(image, path, recipe))
    monkeypatch.setattr(pipeline, "ONE_TILE_PX", 128)
    result = segment(image, recipe)
    found, attributes = levels(path)
    np.testing.assert_array_equal(found[0][:], result.nuclei.labels)
    assert written == path and [f.name for f in path.parent.iterdir()] == [path.name]
    extra = attributes["napari-nucleus-kd"]
    assert Recipe.model_validate_json(extra["recipe"]) == result.recipe
    assert extra["nuclei"] == result.nuclei.count
    assert max(p.done for p in seen) == 9
    table, expected = read_table(path), measure_result(result, image)
    assert list(table) == list(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(table[name], values, rtol=1e-6, err_msg=name)


def test_a_part_of_an_image_says_where_it_lies(image, recipe, path, finish, monkeypatch):
    recipe = recipe.model_copy(update={"region": Region(20, 30, 290, 300)})
    finish(segment_to_zarr_steps(image, path, recipe))
    monkeypatch.setattr(pipeline, "ONE_TILE_PX", 128)
    result = segment(image, recipe)
    found, attributes = levels(path)
    np.testing.assert_array_equal(found[0][:], result.nuclei.labels)
    np.testing.assert_allclose(read_table(path)["area_um2"], measure_result(result, image)["area_um2"])
    at = attributes["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"][1]
    assert at == {"type": "translation", "translation": [5.0, 7.5]}


def test_an_image_without_nuclei_has_an_empty_table(recipe, path, finish):
    finish(segment_to_zarr_steps(pipeline.to_image(np.zeros((300, 340), np.uint8)), path, recipe))
    assert len(read_table(path)["label"]) == 0
    assert read_table(save_labels(np.eye(9, dtype=int), path.with_name("other.ome.zarr"))) == {}


def test_the_pyramid_halves_and_keeps_labels(image, recipe, path, finish, monkeypatch):
    monkeypatch.setattr(ondisk, "_COARSEST_PX", 64)
    monkeypatch.setattr(ondisk, "_CHUNK_PX", 96)
    finish(segment_to_zarr_steps(image, path, recipe))
    found, attributes = levels(path)
    assert [a.shape for a in found] == [(300, 340), (150, 170), (75, 85), (38, 43)]
    for fine, coarse in pairwise(found):
        np.testing.assert_array_equal(coarse[:], fine[:][::2, ::2])
    scale = attributes["ome"]["multiscales"][0]["datasets"][2]["coordinateTransformations"][0]["scale"]
    assert scale == [1.0, 1.0] and attributes["ome"]["version"] == "0.5"


@pytest.mark.parametrize("tiles", [1, 5, 8])
def test_a_cancelled_run_goes_on_and_ends_the_same(image, recipe, path, finish, monkeypatch, tiles):
    whole = path.with_name("whole.ome.zarr")
    finish(segment_to_zarr_steps(image, whole, recipe))
    steps = segment_to_zarr_steps(image, path, recipe)
    while next(steps).done < tiles:
        assert not path.exists()
    steps.close()
    assert not path.exists() and partial_path(path).exists()
    _, seen = finish(segment_to_zarr_steps(image, path, recipe))
    assert next(p.done for p in seen if p.total) == tiles + 1
    np.testing.assert_array_equal(levels(path)[0][0][:], levels(whole)[0][0][:])
    np.testing.assert_array_equal(read_table(path)["score"], read_table(whole)["score"])
    assert not partial_path(path).exists()


class FullGpu:
    """A runner with no memory left."""

    description, batch_size = "a GPU", 1

    def __call__(self, batch):
        raise RuntimeError("CUDA out of memory")


def test_the_notes_of_all_sittings_are_kept_with_the_labels(image, recipe, path, finish, monkeypatch):
    from napari_nucleus_kd import engine
    from napari_nucleus_kd.segmenters import student

    def full(model, device):
        cpu = engine.open_engine(model, device)
        return engine.Engine(FullGpu(), lambda: cpu._runner, model.spec.multiple_px)

    with monkeypatch.context() as patch:
        patch.setattr(student, "open_engine", full)
        steps = segment_to_zarr_steps(image, path, recipe)
        while next(steps).done < 3:
            pass
        steps.close()
    finish(segment_to_zarr_steps(image, path, recipe))
    notes = read_notes(path)
    for part in ("out of memory", "fluorescence:", "estimated", "spots 1 on a GPU", "spots 1 on CPU"):
        assert sum(part in note for note in notes) == 1, (part, notes)


def test_a_run_that_stops_before_its_last_step_loses_nothing(image, recipe, path, finish, monkeypatch):
    def refuse(self, target):
        raise PermissionError("the folder is open elsewhere")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", refuse)
        with pytest.raises(WriteError, match="open elsewhere"):
            finish(segment_to_zarr_steps(image, path, recipe))
    assert not path.exists()
    _, seen = finish(segment_to_zarr_steps(image, path, recipe))
    assert not any(p.total for p in seen), "no tile is computed twice"
    monkeypatch.setattr(pipeline, "ONE_TILE_PX", 128)
    np.testing.assert_array_equal(levels(path)[0][0][:], segment(image, recipe).nuclei.labels)
    assert not list(path.rglob("journal*")) and not partial_path(path).exists()


def test_a_run_goes_on_on_another_device(image, recipe, path, finish):
    steps = segment_to_zarr_steps(image, path, recipe)
    while next(steps).done < 3:
        pass
    steps.close()
    _, seen = finish(segment_to_zarr_steps(image, path, recipe.model_copy(update={"device": "auto"})))
    assert next(p.done for p in seen if p.total) == 4
    assert json.loads(levels(path)[1]["napari-nucleus-kd"]["recipe"])["device"] == "auto"


@pytest.mark.parametrize("change", ["recipe", "image", "journal", "version"])
def test_the_leftovers_of_another_run_are_not_used(image, recipe, path, finish, monkeypatch, change):
    steps = segment_to_zarr_steps(image, path, recipe)
    while next(steps).done < 3:
        pass
    steps.close()
    if change == "recipe":
        recipe = recipe.model_copy(update={"diameter_px": 20.0})
    elif change == "image":
        image = replace(image, levels=(image.pixels[:, ::-1],))
    elif change == "version":
        monkeypatch.setattr("napari_nucleus_kd.__version__", "0.0.0")
    else:
        (partial_path(path) / "journal.json").write_text('{"request"')
    _, seen = finish(segment_to_zarr_steps(image, path, recipe))
    assert next(p.done for p in seen if p.total) == 1


def test_an_existing_result_is_replaced_only_on_purpose_and_only_by_a_whole_one(image, recipe, path, finish):
    finish(segment_to_zarr_steps(image, path, recipe))
    before = levels(path)[0][0][:]
    with pytest.raises(WriteError, match="exists"):
        next(segment_to_zarr_steps(image, path, recipe))
    other = recipe.model_copy(update={"segmenter": "classical"})
    steps = segment_to_zarr_steps(image, path, other, overwrite=True)
    while next(steps).done < 3:
        pass
    steps.close()
    np.testing.assert_array_equal(levels(path)[0][0][:], before)
    finish(segment_to_zarr_steps(image, path, other, overwrite=True))
    assert json.loads(levels(path)[1]["napari-nucleus-kd"]["recipe"])["segmenter"] == "classical"
    assert [f.name for f in path.parent.iterdir()] == [path.name]


def test_a_second_run_on_the_same_output_is_refused(image, recipe, path, finish):
    steps = segment_to_zarr_steps(image, path, recipe)
    next(steps)
    with pytest.raises(WriteError, match="another run is writing"):
        next(segment_to_zarr_steps(image, path, recipe))
    steps.close()
    finish(segment_to_zarr_steps(image, path, recipe))


STOP_HARD = """
import os, sys
import numpy as np
from napari_nucleus_kd.config import Recipe
from napari_nucleus_kd.pipeline import segment_to_zarr_steps, to_image

pixels, path = sys.argv[1:]
recipe = Recipe(segmenter="classical", tile_px=128)
for progress in segment_to_zarr_steps(to_image(np.load(pixels)), path, recipe):
    if progress.done >= 5:
        os._exit(9)  # as if killed: no cleaning up
"""


def test_a_killed_run_frees_its_lock_and_goes_on(image, path, finish, tmp_path):
    recipe = Recipe(segmenter="classical", tile_px=128)
    np.save(tmp_path / "pixels.npy", image.pixels)
    command = [sys.executable, "-c", STOP_HARD, str(tmp_path / "pixels.npy"), str(path)]
    killed = subprocess.run(command, timeout=120, check=False)
    assert killed.returncode == 9 and not path.exists()
    (partial_path(path) / "0" / "c").mkdir(exist_ok=True)
    (partial_path(path) / "0" / "c" / "x.123.partial").write_bytes(b"half a chunk")
    _, seen = finish(segment_to_zarr_steps(image, path, recipe))
    assert next(p.done for p in seen if p.total) >= 5
    assert not list(path.rglob("*.partial")) and not list(path.rglob("journal*"))


@pytest.mark.parametrize(
    ("name", "message"), [("x.tif", "must end in .zarr"), ("no/x.zarr", "there is no folder")]
)
def test_unfit_names_are_refused_before_any_work(image, tmp_path, name, message):
    with pytest.raises(WriteError, match=message):
        next(segment_to_zarr_steps(image, tmp_path / name))


def test_a_folder_that_is_no_zarr_is_never_replaced(image, recipe, path):
    path.mkdir()
    (path / "thesis.txt").write_text("years")
    with pytest.raises(WriteError, match="something else"):
        next(segment_to_zarr_steps(image, path, recipe, overwrite=True))
    assert (path / "thesis.txt").exists()


def test_what_another_version_left_unfinished_is_begun_anew(image, recipe, path, finish, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(ondisk, "_FORMAT", 1)
        steps = segment_to_zarr_steps(image, path, recipe)
        while next(steps).done < 3:
            pass
        steps.close()
    _, seen = finish(segment_to_zarr_steps(image, path, recipe))
    assert next(p.done for p in seen if p.total) == 1
