"""A program that is killed at any moment leaves all that was saved before."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("killed.py")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
@pytest.mark.parametrize(("how", "least"), [(["steps", "10"], 60), (["times", "8"], 8)])
def test_a_killed_program_leaves_all_that_was_saved(how, least, tmp_path):
    run = subprocess.run(
        [sys.executable, str(PROGRAM), str(tmp_path), *how], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    word, count = run.stdout.split()[-2:]
    assert word == "done" and int(count) >= least
