import os
import time
from pathlib import Path

import pytest

from napari_nucleus_kd.errors import WriteError
from napari_nucleus_kd.io.atomic import put_in_place, scratch_folder, settle, write_text


@pytest.mark.parametrize("there", [None, "file", "folder"])
def test_what_is_there_is_replaced_and_nothing_is_left_over(tmp_path, there):
    partial, path = tmp_path / "partial", tmp_path / "result"
    if there == "folder":
        (path / "inner").mkdir(parents=True)
        partial.mkdir()
        (partial / "new").touch()
    else:
        partial.write_text("new")
        if there == "file":
            path.write_text("old")
    put_in_place(partial, path)
    assert [p.name for p in tmp_path.iterdir()] == ["result"]
    assert (path / "new").exists() if there == "folder" else path.read_text() == "new"


def test_a_folder_stays_if_its_successor_cannot_take_its_place(tmp_path, monkeypatch):
    partial, path = tmp_path / "partial", tmp_path / "result"
    partial.mkdir()
    path.mkdir()
    (path / "old").touch()
    rename = Path.rename

    def refuse(self, target):
        if self == partial:
            raise PermissionError("held open")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(PermissionError):
        put_in_place(partial, path)
    assert (path / "old").exists()


def test_text_that_cannot_be_written_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "notes.json"
    write_text(path, "first")

    def refuse(self, target):
        raise PermissionError(13, "held open")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(WriteError, match=r"notes\.json cannot be written: held open"):
        write_text(path, "second")
    assert path.read_text() == "first"
    assert [p.name for p in tmp_path.iterdir()] == ["notes.json"]


def test_a_disk_that_is_read_only_is_told_of(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    for name in ("write_text", "unlink"):  # there even what is not there cannot be removed
        monkeypatch.setattr(Path, name, refuse)
    with pytest.raises(WriteError, match=r"notes\.json cannot be written: Read-only file system"):
        write_text(tmp_path / "notes.json", "text")


def test_settling_waits_for_the_disk_and_says_if_it_fails(tmp_path, monkeypatch):
    waited = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: waited.append(os.fstat(descriptor).st_ino))
    (tmp_path / "file").write_text("content")
    settle(tmp_path / "file")
    settle(tmp_path)
    assert waited[0] == (tmp_path / "file").stat().st_ino
    assert os.name == "nt" or waited[1:] == [tmp_path.stat().st_ino]
    assert (tmp_path / "file").read_text() == "content"
    with pytest.raises(FileNotFoundError):
        settle(tmp_path / "none")


def test_what_a_killed_program_left_unfinished_goes_after_an_hour(tmp_path):
    with scratch_folder(tmp_path) as running, scratch_folder(tmp_path) as left:
        (left / "weights").write_bytes(b"12")
        hour_ago = time.time() - 3601
        os.utime(left, (hour_ago, hour_ago))
        (tmp_path / f"{left.name}-old").mkdir()  # what put_in_place set aside: it may be a person's only copy
        with scratch_folder(tmp_path) as folder:
            assert folder.is_dir() and running.is_dir() and not left.exists()
        assert not folder.exists() and (tmp_path / f"{left.name}-old").is_dir()
