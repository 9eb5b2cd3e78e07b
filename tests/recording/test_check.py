"""A recording that was killed, damaged or changed: what the checks say of it, and what is saved of it."""

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from runs import changed, content, made, snapshot, toy

from openmav.cli.main import main
from openmav.cli.rerun import run_again
from openmav.errors import UsageError
from openmav.recording.check import checks
from openmav.recording.guard import OF_SEVERAL
from openmav.recording.reader import Recording
from openmav.recording.recorder import Recorder
from openmav.recording.recover import recover
from openmav.recording.replay import snapshot_of

KILLS = 50
RUNS = """
import os, random, signal, sys, time
sys.path.insert(0, {folder!r})
import torch
from runs import snapshot, toy
from openmav.recording.recorder import Recorder
torch.set_num_threads(1)
toy().step()  # what it imports is there for all
random.seed(5)
for attempt in range({kills}):
    end, start = os.pipe()
    child = os.fork()
    if child == 0:
        session = toy(max_new_tokens=2000, stop=("never",))
        recorder = Recorder({folder_of_files!r} + "/" + str(attempt) + ".mav")
        recorder.update(snapshot(session))
        while True:
            if session.reason is not None:
                session.back(5)
                recorder.update(snapshot(session))
            recorder.add(session.branch, [session.step()])
            os.write(start, bytes([min(len(session.steps), 255)]))
    os.close(start)
    begun, wanted, seen = time.monotonic(), random.randint(1, 20), b""
    while len(seen) < wanted:  # tokens: a busy machine has as many, only later
        seen += os.read(end, wanted - len(seen))
    time.sleep(random.uniform(0, 2) * (time.monotonic() - begun) / wanted)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while more := os.read(end, 65536):
        seen = more
    os.close(end)
    print(seen[-1], flush=True)
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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no kill -9 there")
def test_a_kill_at_a_random_moment_loses_at_most_the_token_in_the_making(tmp_path):
    code = RUNS.format(folder=os.path.dirname(__file__), folder_of_files=str(tmp_path), kills=KILLS)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=200)
    written = list(map(int, done.stdout.split()))
    assert len(written) == KILLS
    assert max(written) > 3
    for attempt, tokens in enumerate(written):
        with Recording(tmp_path / f"{attempt}.mav") as recording:
            assert all(check.good for check in checks(recording))
            assert len(snapshot_of(recording).steps) >= tokens - 5  # undone between the last token and the kill, at most


UNFINISHED = """
import os, signal, sys
sys.path.insert(0, {folder!r})
from runs import made, snapshot, toy
from openmav.recording import sqlite_writer
from openmav.recording.recorder import Recorder
sqlite_writer.is_network = lambda path: True
session = toy()
made(session, 6)
recorder = Recorder({path!r})
recorder.update(snapshot(session))
recorder.writer._database.execute("PRAGMA cache_size=2")  # pages go to the file amid the transaction
with recorder.writer.transaction():
    for step in session.steps:
        recorder.writer.put_step(1, step)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no kill -9 there")
def test_what_was_half_written_with_a_rollback_journal_is_undone(tmp_path):
    path, victim = tmp_path / "run.mav", tmp_path / "victim"
    code = UNFINISHED.format(folder=os.path.dirname(__file__), path=str(path))
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=100).returncode == -9
    journal, half = Path(f"{path}-journal"), path.read_bytes()
    undo = journal.read_bytes()
    assert undo
    victim.write_text("still here")
    name = str(victim).encode()
    of_several = undo + b"\0" * 4 + name + len(name).to_bytes(4, "big") + sum(name).to_bytes(4, "big") + OF_SEVERAL
    for bad in (of_several, undo[:16] + b"\x7f" + undo[17:]):  # a file that SQLite would delete, and one of terabytes
        journal.write_bytes(bad)
        with pytest.raises(UsageError, match="the journal beside it is none of a recording"):
            Recording(path)
    assert victim.read_text() == "still here"
    assert path.read_bytes() == half
    journal.write_bytes(undo)
    with Recording(path) as recording:
        assert all(check.good for check in checks(recording))
        assert len(snapshot_of(recording).steps) == 6
    assert not journal.exists()


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


def test_a_changed_run_is_run_again_as_it_was(tmp_path, capsys):
    path = tmp_path / "run.mav"
    session = changed(path)
    assert len(session.branches) > 3
    assert main(["verify", "--rerun", str(path)]) == 0
    with Recording(path) as recording:
        own = sum(len(branch.steps) - branch.at for branch in recording.branches())
    assert f"the same {own} tokens; the largest difference of a number is 0" in capsys.readouterr().out


def test_a_rerun_names_what_is_another_and_what_cannot_be_known(tmp_path, capsys):
    path = tmp_path / "run.mav"
    changed(path)
    changes = {
        "UPDATE steps SET token_id = 9, token = 'x' WHERE branch = 2 AND step = 6": (1, "token 6 of branch "),
        "UPDATE steps SET entropy = entropy + 0.5 WHERE branch = 1 AND step = 2": (1, "the largest difference of a number is 0.5"),
        "UPDATE meta SET value = 'null' WHERE name = 'settings'": (0, "none: the recording does not have the settings"),
        "UPDATE meta SET value = json_set(value, '$.sampling.stages', json('[[1, 2, 3]]')) WHERE name = 'settings'": (
            0,
            "none: the settings",
        ),
        """UPDATE meta SET value = replace(value, '"backend":"toy"', '"backend":"no"') WHERE name = 'settings'""": (0, "none: "),
        "UPDATE branches SET prompt = replace(prompt, 'another', 'the') WHERE id > 2": (1, "has other tokens now"),
    }
    for statement, (code, says) in changes.items():
        copy = shutil.copy(path, tmp_path / "changed.mav")
        database = sqlite3.connect(copy)
        database.execute(statement)
        database.commit()
        database.close()
        with Recording(copy) as recording:
            check = run_again(recording)
        assert says in check.says
        assert check.good == (code == 0)
    path = tmp_path / "none.mav"
    session = toy()
    made(session, 2)
    recorder = Recorder(path)  # a run without settings, such as of a model in memory
    recorder.update(snapshot(session))
    recorder.close()
    assert main(["verify", "--rerun", str(path)]) == 0
    assert "rerun         none: the recording does not have the settings" in capsys.readouterr().out
