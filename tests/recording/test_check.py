"""A recording that was killed, damaged or changed: what the checks say of it, and what is saved of it."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time

import pytest
from runs import content, made, snapshot, toy

from openmav.cli.main import main
from openmav.errors import UsageError
from openmav.recording.check import checks
from openmav.recording.reader import Recording
from openmav.recording.recorder import Recorder
from openmav.recording.recover import recover
from openmav.recording.replay import snapshot_of

RUN = """
import sys
sys.path.insert(0, {folder!r})
from runs import snapshot, toy
from openmav.recording.recorder import Recorder
session = toy(max_new_tokens=2000, stop=("never",))
recorder = Recorder({path!r})
recorder.update(snapshot(session))
while True:
    if session.reason is not None:
        session.back(5)
        recorder.update(snapshot(session))
    made = [session.step()]
    recorder.add(session.branch, made)
    print(len(session.steps), flush=True)
"""


@pytest.fixture
def recorded(tmp_path):
    """A file of a run with 20 tokens or fewer, and their content."""
    session, path = toy(), tmp_path / "run.mav"
    made(session, 12)
    recorder = Recorder(path, session.settings)
    recorder.update(snapshot(session))
    recorder.close()
    return path, content(session.steps)


@pytest.mark.skipif(os.name == "nt", reason="there is no kill -9 there")
def test_a_kill_at_a_random_moment_leaves_a_sound_file(tmp_path):
    random.seed(5)
    for attempt in range(8):
        path = tmp_path / f"{attempt}.mav"
        code = RUN.format(folder=os.path.dirname(__file__), path=str(path))
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(random.uniform(0, 0.15))
        process.send_signal(signal.SIGKILL)
        *_, last = [0, *map(int, process.stdout.read().split())]
        process.wait()
        with Recording(path) as recording:
            assert all(check.good for check in checks(recording))
            assert len(snapshot_of(recording).steps) >= last - 5  # undone between the last line and the kill, at most


def test_verify_says_ok_and_which_step_was_changed(recorded, capsys):
    path, _ = recorded
    assert main(["verify", str(path)]) == 0
    database = sqlite3.connect(path)
    database.execute("UPDATE steps SET entropy = entropy + 1 WHERE step = 7")
    database.commit()
    database.close()
    assert main(["verify", str(path)]) == 1
    assert "11 of 12 steps are as they were written; the first is step 7 of branch 1" in capsys.readouterr().out


def test_verify_runs_the_model_again(recorded, capsys):
    path, _ = recorded
    assert main(["verify", "--rerun", str(path)]) == 0
    assert "the same 12 tokens; the largest difference of a number is 0" in capsys.readouterr().out


def test_info_names_the_model_and_the_branches(recorded, capsys):
    path, _ = recorded
    assert main(["info", str(path)]) == 0
    out = capsys.readouterr().out
    assert "toy" in out
    assert "main · " in out


def test_recover_saves_a_branch_up_to_the_first_unsound_step(recorded, tmp_path):
    path, steps = recorded
    database = sqlite3.connect(path)
    database.execute("UPDATE arrays SET data = zeroblob(length(data)) WHERE step = (SELECT id FROM steps WHERE step = 7)")
    database.commit()
    database.close()
    saved = recover(path, tmp_path / "whole.mav")
    assert saved.tokens == 7
    assert "before token 7" in saved.problems[0]
    with Recording(tmp_path / "whole.mav") as recording:
        assert all(check.good for check in checks(recording))
        assert content(snapshot_of(recording).steps) == steps[:7]


def test_recover_reads_past_a_damaged_page(tmp_path):
    session, path = toy(), tmp_path / "run.mav"
    while session.reason is None:
        session.step()
    recorder = Recorder(path)
    recorder.update(snapshot(session))
    recorder.close()
    data = bytearray(path.read_bytes())
    data[-8192 * 2 :] = os.urandom(8192 * 2)
    path.write_bytes(data)
    try:
        saved = recover(path, tmp_path / "whole.mav")
    except UsageError:
        pytest.fail("most of the file is sound")
    assert saved.tokens > len(session.steps) // 2
