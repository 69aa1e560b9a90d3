"""What is saved is there again, and only what changed is written."""

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import threading

import filelock
import numpy as np
import pytest
import tifffile
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from napari_nucleus_kd.config import Recipe
from napari_nucleus_kd.errors import LabelsError, ProjectError, SettingsError, WriteError
from napari_nucleus_kd.io import label_groups, read
from napari_nucleus_kd.project import Project, is_project, project_folder
from napari_nucleus_kd.types import Modality, Region, finish

BLOCK = 256 * 256


def load(project):
    return finish(project.images[0].load_steps())


def check(project, labels, verified):
    found = load(project)
    assert found[0].dtype == np.int32 and found[1].dtype == bool
    np.testing.assert_array_equal(found[0], labels)
    np.testing.assert_array_equal(found[1], verified)


def paint(project, arrays, region, number, checked=True):
    arrays[0][region.slices], arrays[1][region.slices] = number, checked
    project.images[0].touch(region)


def journal(project):
    return sorted(path.name for path in (project.images[0].folder / "journal").iterdir())


def test_a_project_opens_as_it_was_saved(project, arrays):
    recipe = Recipe(modality=Modality.FLUORESCENCE, channels=(0,), diameter_px=20.0)
    paint(project, arrays, Region(250, 100, 260, 300), 999)
    image = project.images[0]
    assert image.save(*arrays) == 4
    image.remember({"accepted": [1, 2], "place": {"y": 3.5}})
    image.remember({"accepted": [1, 2, 3]})
    image.note_origin(Modality.IHC, recipe)
    project.close()
    with Project(project.folder) as again:
        check(again, *arrays)
        record = again.images[0].record
        assert record.state == {"accepted": [1, 2, 3], "place": {"y": 3.5}}
        assert (record.modality, record.recipe) == (Modality.IHC, recipe)
        assert again.notices == () and again.writable


class Saving(RuleBasedStateMachine):
    """Any order of painting, saving, compacting and opening anew gives what was saved last."""

    folder = None  # set by the test

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
        assert finish(image.compact_steps()) == (image.saves > 0) or not image.saves

    @rule()
    def open_anew(self):
        self.project.close()
        self.project = Project(self.project.folder)
        self.labels, self.verified = load(self.project)
        np.testing.assert_array_equal(self.labels, self.saved[0])
        np.testing.assert_array_equal(self.verified, self.saved[1])

    @invariant()
    def a_second_window_sees_what_was_saved(self):
        with Project(self.project.folder, write=False) as other:
            check(other, *self.saved)

    def teardown(self):
        self.project.close()


def test_any_order_of_saves_compactions_and_openings(tmp_path):
    tifffile.imwrite(tmp_path / "i.tif", np.zeros((300, 520), np.uint8))
    Saving.folder, Saving.counter = tmp_path, iter(range(10**6))
    case = Saving.TestCase
    case.settings = settings(max_examples=15, stateful_step_count=10, deadline=None)
    case("runTest").runTest()


def test_a_save_reads_only_what_was_touched(project, arrays):
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


def test_what_is_as_it_was_is_not_written_again(project, arrays):
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


def test_an_image_that_was_not_loaded_is_saved_as_well(project, arrays):
    project.close()
    with Project(project.folder) as again:
        paint(again, arrays, Region(0, 0, 9, 9), 77)
        assert again.images[0].save(*arrays) == 1
        check(again, *arrays)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.uint64])
def test_labels_of_other_whole_numbers_are_taken(project, arrays, dtype):
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
def test_labels_that_do_not_fit_change_nothing(project, arrays, spoil, said):
    paint(project, arrays, Region(0, 0, 9, 9), 77)
    with pytest.raises(LabelsError, match=said):
        project.images[0].save(spoil(arrays[0]), arrays[1])
    assert journal(project) == []
    assert project.images[0].save(*arrays) == 1  # still touched


def test_the_base_is_ome_zarr_labels(project, drawn):
    base = project.images[0].folder / "base-000001.ome.zarr"
    assert label_groups(base) == ("nuclei", "verified")
    np.testing.assert_array_equal(read(base / "labels/nuclei").pixels[0], drawn[1])


def test_compaction_drops_the_journal_and_goes_on(project, arrays):
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


def test_a_compaction_that_is_stopped_leaves_everything(project, arrays):
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


# ---- Two windows


def test_a_second_window_only_looks(project, arrays):
    with pytest.raises(ProjectError, match=rf"process {os.getpid()} on .* since 20.*close it there"):
        Project(project.folder, write=True)
    with Project(project.folder) as other:
        reference = project.images[0].record.reference
        assert not other.writable and f"process {os.getpid()}" in other.notices[0]
        for change in (
            lambda: other.images[0].save(*arrays),
            lambda: next(other.images[0].compact_steps()),
            lambda: other.images[0].remember({}),
            lambda: other.images[0].relocate("x"),
            lambda: other.images[0].set_damaged_aside(),
            lambda: next(other.add_steps(reference, *arrays, modality=Modality.HE)),
        ):
            with pytest.raises(ProjectError, match=r"cannot be changed: .* is being changed by process"):
                change()
        paint(project, arrays, Region(0, 0, 300, 9), 5)
        project.images[0].save(*arrays)
        check(other, *arrays)
        steps = other.images[0].load_steps()
        next(steps)
        finish(project.images[0].compact_steps())  # takes away what the other reads
        found = finish(steps)
        np.testing.assert_array_equal(found[0], arrays[0])
    project.close()
    assert not (project.folder / "holder.json").exists()
    Project(project.folder, write=True).close()


def test_a_base_that_is_replaced_while_a_window_opens_is_no_damage(project, arrays, monkeypatch):
    from napari_nucleus_kd.project import _project

    old = _project.read_file(project.folder)
    paint(project, arrays, Region(0, 0, 300, 9), 5)
    project.images[0].save(*arrays)
    finish(project.images[0].compact_steps())
    told = iter([old, old])
    true = _project.read_file
    monkeypatch.setattr(_project, "read_file", lambda folder: next(told, None) or true(folder))
    with Project(project.folder, write=False) as other:
        assert other.notices == ("it was opened for looking only",)
        check(other, *arrays)


def test_a_closed_project_is_not_written(project, arrays):
    project.close()
    paint(project, arrays, Region(0, 0, 9, 9), 5)
    with pytest.raises(ProjectError, match="was closed; open it again"):
        project.images[0].save(*arrays)


def test_closing_waits_for_a_save_in_another_thread(project, arrays):
    reached, go_on = threading.Event(), threading.Event()

    class Slow:
        shape = arrays[0].shape

        def __getitem__(self, part):
            reached.set()
            assert go_on.wait(20)
            return arrays[0][part]

    paint(project, arrays, Region(0, 0, 9, 9), 5)
    saving = threading.Thread(target=project.images[0].save, args=(Slow(), arrays[1]))
    closing = threading.Thread(target=project.close)
    saving.start()
    assert reached.wait(20)
    closing.start()
    closing.join(0.1)
    assert closing.is_alive()
    with pytest.raises(ProjectError, match="is being changed by process"):
        Project(project.folder, write=True)
    go_on.set()
    saving.join(20)
    closing.join(20)
    with Project(project.folder, write=True) as again:
        check(again, *arrays)


def test_the_lock_of_a_dead_process_is_taken_over(project):
    project.close()
    code = (
        "import sys, time; from napari_nucleus_kd.project import Project;"
        "p = Project(sys.argv[1], write=True); print('open', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(project.folder)], stdout=subprocess.PIPE, text=True
    ) as other:
        try:
            assert other.stdout.readline() == "open\n"
            with Project(project.folder) as second:
                assert f"process {other.pid} on" in second.refusal
        finally:
            other.kill()
    with Project(project.folder, write=True) as mine:
        assert mine.writable
        assert json.loads((project.folder / "holder.json").read_text())["process"] == os.getpid()


# ---- Disks that refuse


@pytest.fixture
def full_disk():
    """Return a context in which no file can grow beyond some bytes."""
    resource = pytest.importorskip("resource")

    @contextlib.contextmanager
    def limit(size):
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, handler)

    return limit


def everything(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_full_disk_leaves_what_was_saved(project, arrays, full_disk):
    image = project.images[0]
    paint(project, arrays, Region(0, 0, 9, 9), 5)
    image.save(*arrays)
    saved, before = (arrays[0].copy(), arrays[1].copy()), everything(project.folder)
    arrays[0][:] = np.random.default_rng(0).integers(1, 2**31, arrays[0].shape)  # cannot be compressed
    image.touch()
    with full_disk(5000):
        with pytest.raises(WriteError, match=r"entry 2 of .*journal cannot be written: File too large.*safe"):
            image.save(*arrays)
        assert everything(project.folder) == before
        with pytest.raises(WriteError, match=r"project\.json cannot be written"):
            image.remember({"much": "x" * 9000})
        with pytest.raises(WriteError, match=r"base-000002.* cannot be written.*safe"):
            finish(image.compact_steps())
        assert everything(project.folder) == before
        assert image.record.state == {}
    check(project, *saved)
    assert image.save(*arrays) == 9  # what was touched is not forgotten
    check(project, *arrays)


def test_an_image_that_finds_no_room_leaves_nothing(project, tmp_path, full_disk, arrays):
    noise = np.random.default_rng(0).integers(1, 2**31, arrays[0].shape)
    tifffile.imwrite(tmp_path / "other.tif", np.zeros(noise.shape, np.uint8))
    steps = project.add_steps(project.refer_to(tmp_path / "other.tif"), noise, modality=Modality.HE)
    before = everything(project.folder)
    with full_disk(5000), pytest.raises(WriteError, match="cannot be written"):
        finish(steps)
    assert everything(project.folder) == before and len(project.images) == 1


def test_a_folder_without_permission_is_open_for_looking(project, arrays, monkeypatch):
    project.close()
    if os.name == "posix" and os.geteuid() != 0:
        project.folder.chmod(0o500)
    else:  # an administrator may write anywhere
        monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    before = everything(project.folder)
    try:
        with pytest.raises(ProjectError, match=r"cannot be written .*no permission.*copy it to a disk"):
            Project(project.folder, write=True)
        with Project(project.folder) as looking:
            check(looking, *arrays)
            assert "no permission" in looking.notices[0]
    finally:
        project.folder.chmod(0o700)
    assert everything(project.folder) == before


def test_a_disk_that_cannot_be_written_is_open_for_looking(project, arrays, monkeypatch):
    project.close()

    def refuse(self, *args, **kwargs):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    with Project(project.folder) as looking:
        assert "Read-only file system" in looking.refusal
        check(looking, *arrays)


# ---- Damage


def three_saves(project, arrays):
    states = []
    for number in (5, 6, 7):
        paint(project, arrays, Region(0, 0, 300, 300), number)
        project.images[0].save(*arrays)
        states.append((arrays[0].copy(), arrays[1].copy()))
    project.close()
    return states, sorted((project.images[0].folder / "journal").iterdir())


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (flip, "00000002-.*is damaged .its content is not what was written"),
        (lambda path: path.write_bytes(path.read_bytes()[:100]), "00000002-.*is damaged"),
        (lambda path: path.write_bytes(b""), "00000002-.*is damaged"),
        (lambda path: path.unlink(), "entry 2 of .*is missing"),
        (
            lambda path: path.with_name("00000002-0123456789abcdef.zip").write_bytes(b"x"),
            "entry 2 of .*is there 2 times",
        ),
    ],
)
def test_a_damaged_entry_is_named_and_what_came_before_is_kept(project, arrays, harm, said):
    states, files = three_saves(project, arrays)
    harm(files[1])
    before = everything(project.folder / "image-0001")
    with Project(project.folder) as damaged:
        (notice,) = damaged.notices
        assert "set it aside" in notice and "backup" in notice
        check(damaged, *states[0])
        for change in (
            lambda: damaged.images[0].save(*arrays),
            lambda: next(damaged.images[0].compact_steps()),
        ):
            with pytest.raises(ProjectError, match=said):
                change()
        assert everything(project.folder / "image-0001") == before  # nothing is deleted
        aside = damaged.images[0].set_damaged_aside()
        kept = everything(project.folder / "image-0001")
        assert sorted(kept.values()) == sorted(before.values())
        assert {path.name for path in aside.iterdir()} >= {files[2].name}
        assert damaged.notices == ()
        labels, verified = load(damaged)
        paint(damaged, (labels, verified), Region(0, 0, 2, 2), 9)
        assert damaged.images[0].save(labels, verified) == 1
        with pytest.raises(ProjectError, match="is not damaged"):
            damaged.images[0].set_damaged_aside()
    with Project(project.folder) as again:
        check(again, labels, verified)


def test_a_window_that_looks_leaves_what_is_half_written(project, arrays):
    project.close()
    stray = project.images[0].folder / "journal" / ".00000001-abcdef01.partial"
    stray.write_bytes(b"half")
    with Project(project.folder, write=False) as looking:
        check(looking, *arrays)
        assert stray.exists()
    with Project(project.folder) as writing:
        check(writing, *arrays)
        assert not stray.exists()


@pytest.mark.parametrize("what", ["labels/nuclei/0/c/0/0", "labels/verified/0/zarr.json", ""])
def test_a_damaged_base_is_named_and_nothing_deleted(project, arrays, what):
    _, files = three_saves(project, arrays)
    base = project.images[0].folder / "base-000001.ome.zarr"
    if what:
        (base / what).unlink()
    else:
        base.rename(base.with_name("elsewhere"))
    with Project(project.folder) as damaged:
        assert "base-000001.ome.zarr is damaged" in damaged.notices[0]
        with pytest.raises(ProjectError, match="restore this folder from a backup"):
            load(damaged)
        with pytest.raises(ProjectError, match="restore this folder"):
            damaged.images[0].save(*arrays)
        with pytest.raises(ProjectError, match="restore this folder"):
            damaged.images[0].set_damaged_aside()
    assert all(file.exists() for file in files)


def test_a_damaged_piece_of_the_base_is_named(project):
    project.close()
    flip(project.images[0].folder / "base-000001.ome.zarr/labels/nuclei/0/c/0/0")
    with Project(project.folder) as damaged, pytest.raises(ProjectError, match=r"base-000001.* is damaged"):
        load(damaged)


def test_blocks_of_another_size_are_refused_before_memory_is_given(project, arrays):
    import hashlib
    import zipfile

    _, files = three_saves(project, arrays)
    with zipfile.ZipFile(files[2], "w") as archive:
        archive.writestr("labels/0/0", b"\0" * 10)
        archive.writestr("labels/9999999/0", b"\0" * 4)
    digest = hashlib.sha256(files[2].read_bytes()).hexdigest()[:16]
    files[2].rename(files[2].with_name(f"00000003-{digest}.zip"))
    with (
        Project(project.folder) as damaged,
        pytest.raises(ProjectError, match="labels/0/0 has not the 262144"),
    ):
        load(damaged)


# ---- project.json


def change(project, **values):
    project.close()
    path = project.folder / "project.json"
    content = json.loads(path.read_text())
    for name, value in values.items():
        (content if name in ("format", "extra") else content["images"][0])[name] = value
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"format": 2}, "is of format 2, this version of the program knows 1; update"),
        ({"format": "1"}, "damaged: format = '1'"),
        ({"extra": 1}, "damaged: extra = 1: Extra inputs are not permitted"),
        ({"id": "../../x"}, "damaged: images.0.id = '../../x'"),
        ({"id": "image-0001/../../x"}, "damaged: images.0.id"),
        ({"id": "/tmp/image-0001"}, "damaged: images.0.id"),
        ({"base": "../1"}, "damaged: images.0.base"),
        ({"base": 0}, "damaged: images.0.base"),
        ({"shape_yx": [0, 5]}, "damaged: images.0.shape_yx"),
    ],
)
def test_a_project_that_says_something_strange_is_not_opened(project, values, said):
    change(project, **values)
    before = everything(project.folder)
    with pytest.raises(ProjectError, match=said):
        Project(project.folder)
    assert everything(project.folder).keys() == before.keys()


def test_a_shape_from_elsewhere_is_not_believed(project):
    change(project, shape_yx=[10**9, 10**9])
    with (
        Project(project.folder) as damaged,
        pytest.raises(ProjectError, match=r"nuclei is \(540, 600\) int32"),
    ):
        load(damaged)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes there")
def test_an_image_that_is_no_file_is_missing(project, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reference = dict(json.loads((project.folder / "project.json").read_text())["images"][0]["reference"])
    change(project, reference=reference | {"relative": "../../pipe", "absolute": "/dev/zero"})
    with Project(project.folder) as other:
        assert "is not there any more" in other.notices[0]


@pytest.mark.parametrize("text", ["", "{", "[]", '"\\ud800"', "null"])
def test_a_damaged_file_is_named(project, text):
    project.close()
    (project.folder / "project.json").write_text(text)
    with pytest.raises(ProjectError, match=r"project\.json is damaged.*backup"):
        Project(project.folder)


def test_what_a_killed_program_was_adding_is_removed_if_it_is_not_complete(project, arrays):
    project.close()
    begun = project.folder / "image-0002" / ".base-000001.ome.zarr.0123abcd.partial"
    begun.mkdir(parents=True)
    (begun / "zarr.json").write_text("{}")
    complete = project.folder / "image-0003" / "base-000001.ome.zarr"
    complete.mkdir(parents=True)
    with Project(project.folder) as again:
        assert not begun.exists() and complete.exists()
        assert len(again.images) == 1 and again.notices == ()
        check(again, *arrays)


@pytest.mark.skipif(not hasattr(os, "symlink") or os.name == "nt", reason="links need permission there")
def test_links_out_of_the_project_are_not_followed(project, tmp_path):
    project.close()
    folder, outside = project.images[0].folder, tmp_path / "outside"
    folder.rename(outside)
    folder.symlink_to(outside)
    (outside / ".x.partial").write_text("not ours to remove")
    before = everything(outside)
    with Project(project.folder) as damaged:
        assert "leads out of the project" in damaged.notices[0]
        with pytest.raises(ProjectError, match="leads out of the project"):
            load(damaged)
    assert everything(outside) == before


def test_values_that_are_no_json_are_refused(project):
    for value in (float("nan"), {1, 2}, np.int64(3)):
        with pytest.raises(SettingsError, match="x cannot be kept"):
            project.images[0].remember({"x": value})
    assert project.images[0].record.state == {}


def test_folders_that_are_no_projects(project, tmp_path):
    assert is_project(project.folder) and not is_project(tmp_path)
    with pytest.raises(ProjectError, match="is no project"):
        Project(tmp_path)
    assert not (tmp_path / "project.lock").exists()
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "mine.txt").write_text("mine")
    with pytest.raises(WriteError, match="not empty"):
        Project.create(tmp_path / "x")


# ---- Images


def test_a_project_moves_with_its_image(project, image, arrays, tmp_path):
    project.close()
    image.parent.rename(tmp_path / "moved")
    with Project(project_folder(tmp_path / "moved" / image.name)) as moved:
        assert moved.notices == ()
        assert moved.images[0].read_image().source == tmp_path / "moved" / image.name
        check(moved, *arrays)


def test_a_project_without_its_image_finds_it_where_it_was(project, image, tmp_path):
    project.close()
    project.folder.rename(tmp_path / "far.nucleus-kd")
    with Project(tmp_path / "far.nucleus-kd") as moved:
        assert moved.images[0].read_image().source == image


def test_a_missing_image_can_be_pointed_to_anew(project, image, arrays, tmp_path):
    image.rename(tmp_path / "elsewhere.tif")
    assert "tonsil.ome.tif is not there any more; point to where it is now" in project.notices[0]
    with pytest.raises(ProjectError, match="not there any more"):
        project.images[0].read_image()
    check(project, *arrays)  # the labels do not need it
    project.images[0].relocate(tmp_path / "elsewhere.tif")
    assert project.notices == ()
    project.close()
    with Project(project.folder) as again:
        assert again.images[0].read_image().source == tmp_path / "elsewhere.tif"


def test_another_image_under_the_name_is_noticed(project, image, drawn):
    stat = image.stat()
    changed = drawn[0].copy()
    changed[500:, 100:] += 1
    tifffile.imwrite(image, changed, photometric="minisblack")
    os.utime(image, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert image.stat().st_size == stat.st_size
    assert "is not the file that was labelled" in project.notices[0]
    with pytest.raises(ProjectError, match="not the file that was labelled"):
        project.images[0].read_image()
    project.images[0].relocate(image)  # a person says that it is right
    assert project.notices == ()
    tifffile.imwrite(image, drawn[0][:, :-1], photometric="minisblack")
    with pytest.raises(ProjectError, match=r"is \(540, 599\) pixels, its labels are \(540, 600\)"):
        project.images[0].relocate(image)


def test_a_copy_is_the_same_image(project, image):
    os.utime(image, (1, 1))
    assert project.notices == ()


def test_zarr_images_are_told_apart_too(tmp_path, drawn):
    from napari_nucleus_kd.io import save_labels

    path = tmp_path / "i.ome.zarr"
    save_labels(drawn[1], path)
    with Project.create(tmp_path / "p.nucleus-kd") as project:
        finish(project.add_steps(project.refer_to(path), drawn[1], modality=Modality.HE))
        (path / "labels").mkdir()
        (path / "labels" / "zarr.json").write_text("{}")  # labels that were added are not the image
        (path / ".DS_Store").write_text("x")
        assert project.notices == ()
        flip(path / "0" / "c" / "0" / "0")
        assert "is not the file that was labelled" in project.notices[0]


def test_several_images_have_labels_of_their_own(project, image, arrays, tmp_path):
    stack = np.zeros((3, 40, 50), np.uint8)
    tifffile.imwrite(tmp_path / "stack.tif", stack, metadata={"axes": "ZYX"}, photometric="minisblack")
    ones = np.ones((40, 50), np.uint8)
    for z in (0, 2):
        steps = project.add_steps(
            project.refer_to(tmp_path / "stack.tif", z=z),
            ones * (z + 1),
            ones,
            modality=Modality.FLUORESCENCE,
        )
        finish(steps)
    with pytest.raises(ProjectError, match="is in the project already"):
        finish(project.add_steps(project.refer_to(tmp_path / "stack.tif", z=2), ones, modality=Modality.HE))
    with pytest.raises(LabelsError, match=r"\(40, 50\) pixels, the image is \(540, 600\)"):
        again = project.refer_to(image, t=0, z=0)
        finish(project.add_steps(again, ones, modality=Modality.HE))
    project.close()
    with Project(project.folder) as again:
        assert [entry.record.id for entry in again.images] == ["image-0001", "image-0002", "image-0003"]
        assert again.images[2].record.reference.z == 2
        labels, verified = finish(again.images[2].load_steps())
        assert (labels == 3).all() and verified.all()
        check(again, *arrays)


def test_adding_that_is_stopped_leaves_nothing(project, tmp_path):
    tifffile.imwrite(tmp_path / "b.tif", np.zeros((40, 50), np.uint8))
    steps = project.add_steps(
        project.refer_to(tmp_path / "b.tif"), np.zeros((40, 50), np.uint8), modality=Modality.HE
    )
    next(steps)
    steps.close()
    assert [path.name for path in project.folder.glob("image-*")] == ["image-0001"]
