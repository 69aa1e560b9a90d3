"""What is saved is there again, and only what changed is written."""

import os
import threading
import time

import numpy as np
import pytest
import tifffile
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from napari_nucleus_kd.config import Recipe
from napari_nucleus_kd.errors import LabelsError
from napari_nucleus_kd.io import label_groups, read
from napari_nucleus_kd.project import Project
from napari_nucleus_kd.types import Modality, Region, finish

BLOCK = 256 * 256


def test_a_project_opens_as_it_was_saved(project, arrays, check, paint):
    recipe = Recipe(modality=Modality.FLUORESCENCE, channels=(0,), diameter_px=20.0)
    paint(project, arrays, Region(250, 100, 260, 300), 999)
    image = project.images[0]
    assert image.save(*arrays) == 4
    image.note_origin(Modality.IHC, recipe)
    project.close()
    with Project(project.folder) as again:
        check(again, *arrays)
        record = again.images[0].record
        assert (record.modality, record.recipe) == (Modality.IHC, recipe)
        assert again.notices == () and again.writable


class Saving(RuleBasedStateMachine):
    """Any order of painting, saving, compacting and opening anew gives what was saved last."""

    folder = check = None  # set by the test

    @initialize()
    def begin(self):
        self.count = next(self.counter)
        self.labels, self.verified = np.zeros((300, 520), np.int32), np.zeros((300, 520), bool)
        self.project = Project.create(self.folder / f"{self.count}.nucleus-kd")
        steps = self.project.add_steps(
            self.project.refer_to(self.folder / "i.tif"), self.labels, modality=Modality.HE
        )
        finish(steps)
        self.saved = self.labels.copy(), self.verified.copy()

    @rule(
        y=st.integers(-20, 310),
        x=st.integers(-20, 530),
        size=st.integers(0, 300),
        n=st.integers(0, 2**31 - 1),
    )
    def paint(self, y, x, size, n):
        region = Region(y, x, y + size, x + size)
        inside = slice(max(0, y), max(0, y + size)), slice(max(0, x), max(0, x + size))
        self.labels[inside], self.verified[inside] = n, bool(n % 2)
        self.project.images[0].touch(region)

    @rule()
    def save(self):
        image = self.project.images[0]
        image.save(self.labels, self.verified)
        self.saved = self.labels.copy(), self.verified.copy()
        image.touch()
        saves = image.saves
        assert image.save(self.labels, self.verified) == 0 and image.saves == saves

    @rule()
    def compact(self):
        image = self.project.images[0]
        journal = image.saves > 0
        assert finish(image.compact_steps()) == journal and image.saves == 0

    @rule()
    def open_anew(self):
        self.project.close()
        self.project = Project(self.project.folder)
        self.labels, self.verified = finish(self.project.images[0].load_steps())
        np.testing.assert_array_equal(self.labels, self.saved[0])
        np.testing.assert_array_equal(self.verified, self.saved[1])

    @invariant()
    def a_second_window_sees_what_was_saved(self):
        with Project(self.project.folder, write=False) as other:
            self.check(other, *self.saved)

    def teardown(self):
        self.project.close()


def test_any_order_of_saves_compactions_and_openings(tmp_path, check):
    tifffile.imwrite(tmp_path / "i.tif", np.zeros((300, 520), np.uint8))
    Saving.folder, Saving.counter, Saving.check = tmp_path, iter(range(10**6)), staticmethod(check)
    case = Saving.TestCase
    case.settings = settings(max_examples=15, stateful_step_count=10, deadline=None)
    case("runTest").runTest()


def test_a_save_reads_only_what_was_touched(project, arrays, paint):
    class Watched:
        def __init__(self, array):
            self.array, self.shape, self.read = array, array.shape, 0

        def __getitem__(self, part):
            self.read += self.array[part].size
            return self.array[part]

    watched = [Watched(array) for array in arrays]
    paint(project, arrays, Region(10, 10, 20, 20), 5)
    assert project.images[0].save(*watched) == 1
    assert [w.read for w in watched] == [BLOCK, BLOCK]
    assert project.images[0].save(*watched) == 0
    assert [w.read for w in watched] == [BLOCK, BLOCK]


def test_what_is_as_it_was_is_not_written_again(project, arrays, journal, load, paint):
    project.images[0].touch()
    assert project.images[0].save(*arrays) == 0 and journal(project) == []
    before = arrays[0][:9, :9].copy()
    paint(project, arrays, Region(0, 0, 9, 9), 77, checked=False)
    arrays[0][:9, :9] = before  # undone
    assert project.images[0].save(*arrays) == 0 and journal(project) == []
    paint(project, arrays, Region(0, 0, 9, 9), 77)
    assert project.images[0].save(*arrays) == 1
    project.close()
    with Project(project.folder) as again:
        load(again)
        again.images[0].touch()
        assert again.images[0].save(*arrays) == 0 and len(journal(again)) == 1


def test_an_image_that_was_not_loaded_is_saved_as_well(project, arrays, check, paint):
    project.close()
    with Project(project.folder) as again:
        paint(again, arrays, Region(0, 0, 9, 9), 77)
        assert again.images[0].save(*arrays) == 1
        check(again, *arrays)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.uint64])
def test_labels_of_other_whole_numbers_are_taken(project, arrays, dtype, check):
    labels = (arrays[0] % 200).astype(dtype)
    project.images[0].touch()
    project.images[0].save(labels, arrays[1].astype(np.uint8))
    check(project, labels, arrays[1])


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda a: a - 1, "from -1 to"),
        (lambda a: a.astype(np.int64) + 2**31, "must be 0 to 2147483647"),
        (lambda a: a.astype(np.float32), "float32; they must be whole numbers"),
        (lambda a: a[:-1], r"\(539, 600\) pixels, the image is \(540, 600\)"),
    ],
)
def test_labels_that_do_not_fit_change_nothing(project, arrays, spoil, said, journal, paint):
    paint(project, arrays, Region(0, 0, 9, 9), 77)
    with pytest.raises(LabelsError, match=said):
        project.images[0].save(spoil(arrays[0]), arrays[1])
    assert journal(project) == []
    assert project.images[0].save(*arrays) == 1  # still touched


def test_the_base_is_ome_zarr_labels(project, drawn):
    base = project.images[0].folder / "base-000001.ome.zarr"
    assert label_groups(base) == ("nuclei", "verified")
    np.testing.assert_array_equal(read(base / "labels/nuclei").pixels[0], drawn[1])


def test_compaction_drops_the_journal_and_goes_on(project, arrays, check, journal, paint):
    image = project.images[0]
    for number in (5, 6, 7):
        paint(project, arrays, Region(0, 0, 300, 9), number)
        image.save(*arrays)
    steps = image.compact_steps()
    next(steps)
    paint(project, arrays, Region(500, 500, 540, 600), 8)
    image.save(*arrays)  # meanwhile
    assert finish(steps) is True
    assert len(journal(project)) == image.saves == 1
    assert [path.name for path in image.folder.glob("base-*")] == ["base-000002.ome.zarr"]
    check(project, *arrays)
    finish(image.compact_steps())
    assert finish(image.compact_steps()) is False
    check(project, *arrays)


def test_a_compaction_that_is_stopped_leaves_everything(project, arrays, check, paint):
    paint(project, arrays, Region(0, 0, 300, 9), 5)
    project.images[0].save(*arrays)
    steps = project.images[0].compact_steps()
    next(steps)
    steps.close()
    assert sorted(path.name for path in project.images[0].folder.iterdir()) == [
        "base-000001.ome.zarr",
        "journal",
    ]
    check(project, *arrays)


def test_a_second_compaction_leaves_the_first_alone(project, arrays, check, paint):
    image = project.images[0]
    paint(project, arrays, Region(0, 0, 300, 9), 5)
    image.save(*arrays)
    stopped = image.compact_steps()
    next(stopped)
    stopped.close()  # frees the place
    first = image.compact_steps()
    next(first)
    assert finish(image.compact_steps()) is False
    assert finish(first) is True
    check(project, *arrays)
    project.close()
    with Project(project.folder) as again:
        assert again.notices == ()
        check(again, *arrays)


def test_a_save_while_labels_are_read_is_not_forgotten(project, arrays, paint, load):
    """Else what is undone afterwards would seem to be saved already."""
    image = project.images[0]
    before = arrays[0].copy()

    def save():
        paint(project, arrays, Region(0, 0, 9, 9), 77, checked=False)
        image.save(*arrays)

    class Newest(dict):
        """Lets another thread save at the moment when the reader looks what was saved."""

        saving = None

        def get(self, key, default=None):
            value = super().get(key, default)
            if key == (0, 0) and self.saving is None:
                self.saving = threading.Thread(target=save)
                self.saving.start()
                self.saving.join(0.5)
            return value

    newest = image._store.newest = Newest(image._store.newest)
    load(project)
    newest.saving.join(20)
    arrays[0][:] = before
    image.touch()
    assert image.save(*arrays) == 1
    np.testing.assert_array_equal(load(project)[0], before)


def test_what_is_touched_is_unsaved_until_it_is_saved(project, arrays, paint):
    image = project.images[0]
    assert not image.unsaved
    paint(project, arrays, Region(0, 0, 9, 9), 5)
    assert image.unsaved
    os.utime(image.folder / "base-000001.ome.zarr", (0, 0))
    assert image.saved_at.timestamp() == 0
    image.save(*arrays)
    assert not image.unsaved and 0 <= time.time() - image.saved_at.timestamp() < 60
