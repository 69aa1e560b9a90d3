"""Run as a program: saves and compacts a project in processes that are killed, and looks what is left.

`killed.py FOLDER steps 1` ends the process just before its 1st, 2nd, 3rd, ... change of the disk, `steps 8`
before each eighth one, from a random one on; `times 25` kills it after 25 random times. Prints what was
wrong, and "done" with the number of the last change, or of times, at the end.
"""

import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import numpy as np
import tifffile
import zarr  # noqa: F401  (here, not in every process)

from napari_nucleus_kd.project import Project
from napari_nucleus_kd.types import Modality, Region, finish

SHAPE = (300, 600)
CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir"}


def state(number):
    """Labels and verified pixels after so many saves, and what the last of them changed."""
    labels, verified = np.zeros(SHAPE, np.int32), np.zeros(SHAPE, bool)
    part = Region(0, 0, 1, 1)
    for i in range(1, number + 1):
        y, x = 37 * i % 250, 91 * i % 500
        part = Region(y, x, y + 50, x + 100)
        labels[part.slices], verified[part.slices] = i, i % 3 > 0
    return labels, verified, part


def saved_in(folder):
    """Return after how many saves the project was left as it is; raises if it is no such state."""
    with Project(folder) as project:
        assert project.writable and not project.notices, project.notices
        labels, verified = finish(project.images[0].load_steps())
        strays = list(project.folder.rglob(".*.partial"))
        assert not strays, strays
    number = int(labels.max())
    wanted = state(number)
    assert (labels == wanted[0]).all() and (verified == wanted[1]).all(), f"not the state of save {number}"
    return number


def work(folder, report, first, count):
    """Save `count` times, telling when each save was complete, with compactions in between."""
    with Project(folder, write=True) as project:
        image = project.images[0]
        finish(image.load_steps())
        for number in range(first, first + count):
            labels, verified, part = state(number)
            image.touch(part)
            image.save(labels, verified)
            os.write(report, b".")
            if number % 3 == 2:
                finish(image.compact_steps())


def apart(task):
    """Run a task in a process of its own; return its id."""
    child = os.fork()
    if child:
        return child
    try:
        task()
        os._exit(0)
    except BaseException:
        traceback.print_exc(file=sys.stdout)
        sys.stdout.flush()
        os._exit(1)


def look(folder, told, before):
    """Check in a process of its own; returns the number of saves that are there."""
    reader, writer = os.pipe()
    child = apart(lambda: os.write(writer, b"%d" % saved_in(folder)))
    os.close(writer)
    _, status = os.waitpid(child, 0)
    text = os.read(reader, 100)
    os.close(reader)
    assert status == 0, "cannot be opened"
    assert int(text) in (before + told, before + told + 1), f"{text}: {before + told} were complete"
    return int(text)


def end_at(step):
    """End this process just before its change of the disk of this number."""
    left = [step]

    def watch(event, details):
        writes = event == "open" and isinstance(details[2], int) and details[2] & (os.O_WRONLY | os.O_RDWR)
        if event in CHANGES or writes:
            left[0] -= 1
            if not left[0]:
                os._exit(9)

    sys.addaudithook(watch)


def attempt(folder, before, prepare, wait):
    """Work in a process that is ended; return how many saves it completed, and whether it ran to its end."""
    reader, writer = os.pipe()
    child = apart(lambda: (prepare(), work(folder, writer, before + 1, 3)))
    os.close(writer)
    wait(child)
    _, status = os.waitpid(child, 0)
    told = b""
    while part := os.read(reader, 100):
        told += part
    os.close(reader)
    assert not os.WIFEXITED(status) or os.WEXITSTATUS(status) in (0, 9), "failed"
    return len(told), status == 0


def begin(folder):
    """Make the project, in a process of its own."""
    tifffile.imwrite(folder / "i.tif", np.zeros(SHAPE, np.uint8))

    def make():
        with Project.create(folder / "p.nucleus-kd") as project:
            reference = project.refer_to(folder / "i.tif")
            finish(project.add_steps(reference, np.zeros(SHAPE, np.int32), modality=Modality.HE))

    assert os.waitpid(apart(make), 0)[1] == 0
    return folder / "p.nucleus-kd"


def by_steps(folder, stride):
    """End at changes of the disk in turn, until the work is done without ending."""
    before, step, ended = 0, random.randint(1, stride), False
    while not ended:
        print("change", step, flush=True)
        told, ended = attempt(folder, before, lambda at=step: end_at(at), lambda child: None)
        before = look(folder, told, before)
        step += stride
    return step - stride


def by_times(folder, count):
    """Kill after random times."""
    before = 0
    for _ in range(count):
        seconds = random.uniform(0.01, 0.3)

        def kill(child, seconds=seconds):
            time.sleep(seconds)
            os.kill(child, signal.SIGKILL)

        told, _ = attempt(folder, before, lambda: None, kill)
        before = look(folder, told, before)
    return count


if __name__ == "__main__":
    place = begin(Path(sys.argv[1]))
    run = {"steps": by_steps, "times": by_times}[sys.argv[2]]
    print("done", run(place, int(sys.argv[3])))
