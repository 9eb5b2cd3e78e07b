"""What was recorded is what is read: every field of every step, branches, undone tokens, changed settings."""

import errno
import os
import shlex
import sqlite3
import subprocess
import sys

import numpy as np
import pytest
from runs import content, made, snapshot, toy

from openmav.apps.text.jsonl import JsonLines
from openmav.apps.text.plain import Plain
from openmav.cli.main import main
from openmav.errors import UsageError
from openmav.record import without_large
from openmav.recording.format import ATTENTION, LARGEST, SCHEMA
from openmav.recording.reader import Recording
from openmav.recording.recorder import Recorder
from openmav.recording.replay import ReplaySource, at_branch, snapshot_of
from openmav.settings.sampling import SamplingOptions


def replayed(path):
    with Recording(path) as recording:
        now = snapshot_of(recording)
        assert not recording.problems
        for branch in (*now.branches.values(), now):
            content(branch.steps)  # the arrays, read while it is open
        return now, content(now.steps), {name: content(branch.steps) for name, branch in now.branches.items()}


def test_a_run_comes_back_exactly(tmp_path):
    session, path = toy(sampling=SamplingOptions(temperature=1.0, seed=3)), tmp_path / "run.mav"
    recorder = Recorder(path, session.settings)
    recorder.update(snapshot(session))
    while session.reason is None:
        recorder.add(session.branch, session.burst())
    recorder.update(snapshot(session))
    recorder.close()
    now, steps, _ = replayed(path)
    assert steps == content(session.steps)
    assert len(steps) > 10
    assert now.prompt == session.prompt
    assert now.info == session.info
    assert now.sampling == session.sampling
    assert now.status == "ended"
    assert now.reason == session.reason
    assert os.listdir(tmp_path) == ["run.mav"]  # no journal is left


@pytest.mark.parametrize(("flag", "writer"), [("--json", JsonLines), ("--plain", Plain)])
def test_a_token_is_in_the_file_before_it_is_printed(flag, writer, tmp_path, monkeypatch, capsys):
    path, counts, write = tmp_path / "run.mav", [], writer.step

    def step(self, one):
        with Recording(path) as recording:
            counts.append((one.index + 1, recording.rows("SELECT count(*) FROM steps")[0][0]))
        write(self, one)

    monkeypatch.setattr(writer, "step", step)
    monkeypatch.setattr("openmav.cli.stream.redirect", lambda *, descriptors: None)  # the streams here are the tests'
    arguments = ["--backend", "toy", "--model", "toy", "--prompt", "Hi", "--max-new-tokens", "9", "--record", str(path)]
    assert main([flag, *arguments]) == 0
    assert [printed for printed, _ in counts] == list(range(1, 10))
    assert all(recorded >= printed for printed, recorded in counts)


def test_undone_tokens_branches_and_interventions(tmp_path):
    session, path = toy(), tmp_path / "run.mav"
    made(session, 8)
    recorder = Recorder(path)
    recorder.update(snapshot(session))  # started late
    session.back(3)
    recorder.update(snapshot(session))
    now, steps, _ = replayed(path)
    assert steps == content(session.steps)
    assert len(steps) == 5
    assert len(now.steps) == 5
    session.forward(1)
    recorder.update(snapshot(session))
    session.force(7)
    made(session, 2)
    recorder.update(snapshot(session))
    session.rename("main", "first")
    session.intervene(("ablate L0.mlp",))
    made(session, 1)
    recorder.update(snapshot(session))
    session.edit_prompt("another text")
    made(session, 2)
    recorder.update(snapshot(session))
    recorder.close()
    now, steps, others = replayed(path)
    expected = snapshot(session)
    assert steps == content(expected.steps)
    assert now.prompt == expected.prompt
    assert now.interventions == ("ablate L0.mlp",)
    assert others == {name: content(branch.steps) for name, branch in expected.branches.items()}
    assert "first" in others
    assert len(others) == 2
    there = at_branch(now, "first")
    assert there.branch == "first"
    assert len(there.steps) == 8
    assert now.branch in there.branches


def test_what_memory_lets_go_stays_in_the_file(tmp_path):
    session, path = toy(prompt="a long text " * 60), tmp_path / "run.mav"
    steps = made(session, 3)
    recorder = Recorder(path)
    recorder.update(snapshot(session))
    session.steps[0] = without_large(steps[0])
    assert session.steps[0].dropped
    recorder.update(snapshot(session))
    recorder.close()
    assert replayed(path)[1] == content(steps)


def test_attention_rows_beyond_the_budget_keep_their_largest_entries(tmp_path):
    session, path = toy(prompt="a long text of words " * 3), tmp_path / "run.mav"
    steps = made(session, 4)
    rows = steps[0].values[ATTENTION]
    recorder = Recorder(path)
    recorder.writer._budget = rows.nbytes
    recorder.update(snapshot(session))
    recorder.close()
    with Recording(path) as recording:
        now = snapshot_of(recording)
        np.testing.assert_array_equal(now.steps[0].values[ATTENTION], rows)
        bounded, whole = now.steps[2], steps[2].values[ATTENTION]
        assert ATTENTION not in bounded.values
        assert ATTENTION in bounded.dropped
        np.testing.assert_array_equal(bounded.values[LARGEST], -np.sort(-whole, axis=-1)[..., :16])
        places = bounded.values[f"{LARGEST}.ids"]
        np.testing.assert_array_equal(np.take_along_axis(whole, places, -1), bounded.values[LARGEST])


def test_it_is_readable_while_it_is_written(tmp_path):
    session, path = toy(), tmp_path / "run.mav"
    recorder = Recorder(path)
    recorder.update(snapshot(session))
    source = ReplaySource(path, follow=True)
    assert len(source.snapshot().steps) == 0
    recorder.add(session.branch, made(session, 4))
    source._looked = 0.0
    assert content(source.snapshot().steps) == content(session.steps)
    source.close()
    recorder.close()


def test_a_second_writer_is_refused(tmp_path):
    recorder = Recorder(tmp_path / "run.mav")
    with pytest.raises(UsageError, match="exists already"):
        Recorder(tmp_path / "run.mav")
    recorder.close()
    with pytest.raises(UsageError, match="cannot write"):
        Recorder(tmp_path / "no" / "run.mav")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_a_folder_that_takes_no_file_is_a_line_and_leaves_nothing(tmp_path, monkeypatch, number):
    def refuse(*_arguments):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        with pytest.raises(UsageError, match=f"cannot write .*{os.strerror(number)}"):
            Recorder(tmp_path / "run.mav")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("statement", ["nonsense", "INSERT INTO nothing VALUES (1)"])
def test_a_file_that_can_be_made_and_not_filled_leaves_neither_itself_nor_its_journal(tmp_path, monkeypatch, statement):
    monkeypatch.setitem(SCHEMA, "more", statement)  # after the tables are in the journal, as where the disk is full then
    with pytest.raises(UsageError, match="cannot write"):
        Recorder(tmp_path / "run.mav")
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.name == "nt", reason="needs a limit on the size of files")
def test_a_run_goes_on_where_the_disk_of_its_recording_and_of_the_log_is_full(tmp_path):
    log = tmp_path / "mav" / "log" / "mav.log"
    log.parent.mkdir(parents=True)
    log.write_text("full\n" * 50_000)
    mav = f"exec {shlex.quote(sys.executable)} -m openmav --plain --backend toy --model toy --prompt Hi --temp 1 --seed 5"
    line = f"ulimit -f 200; {mav} --record run.mav"
    home = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=tmp_path, env=home, timeout=100, check=False)
    assert done.returncode == 0
    assert done.stderr.count("the recording stopped") == 1
    assert "the run goes on" in done.stderr
    assert "200 tokens" in done.stderr
    assert len(replayed(tmp_path / "run.mav")[1]) < 200


def test_scalars_are_columns_to_query(tmp_path):
    session, path = toy(), tmp_path / "run.mav"
    made(session, 5)
    recorder = Recorder(path)
    recorder.update(snapshot(session))
    recorder.close()
    rows = sqlite3.connect(path).execute("SELECT step, token_id, logprob, entropy, rank FROM steps ORDER BY step").fetchall()
    assert rows == [(s.index, s.token_id, s.logprob, s.entropy, s.rank) for s in session.steps]


def test_without_a_write_ahead_log(tmp_path, monkeypatch):
    monkeypatch.setattr("openmav.recording.sqlite_writer.is_network", lambda path: True)
    session, path = toy(), tmp_path / "run.mav"
    recorder = Recorder(path)
    assert recorder.writer.journal == "rollback"
    assert recorder.writer._database.execute("PRAGMA synchronous").fetchone() == (2,)
    recorder.update(snapshot(session))
    recorder.add(session.branch, made(session, 3))
    assert not (tmp_path / "run.mav-wal").exists()
    recorder.close()
    assert replayed(path)[1] == content(session.steps)


@pytest.mark.skipif(os.name == "nt", reason="an open file cannot be removed there")
def test_a_file_that_vanishes_ends_the_recording_and_not_the_run(tmp_path):
    session, path, lines = toy(), tmp_path / "run.mav", []
    recorder = Recorder(path, failed=lines.append)
    recorder.update(snapshot(session))
    path.unlink()
    recorder.add(session.branch, made(session, 1))
    recorder.add(session.branch, made(session, 1))
    assert lines == [f"the recording stopped: {path} is gone"]
    assert not recorder.recording


def test_a_full_disk_ends_the_recording_and_leaves_a_sound_file(tmp_path):
    session, path, lines = toy(), tmp_path / "run.mav", []
    recorder = Recorder(path, failed=lines.append)
    recorder.update(snapshot(session))
    recorder.add(session.branch, made(session, 2))
    pages = recorder.writer._database.execute("PRAGMA page_count").fetchone()[0]
    recorder.writer._database.execute(f"PRAGMA max_page_count={pages + 2}")  # SQLite then reports what it does for a full disk
    while session.reason is None and recorder.recording:
        recorder.add(session.branch, made(session, 1))
    assert len(lines) == 1
    assert "full" in lines[0]
    assert content(session.steps)[: len(replayed(path)[1])] == replayed(path)[1]
    assert len(replayed(path)[1]) >= 2


def test_a_journal_that_could_not_be_put_into_the_file_is_at_the_end(tmp_path):
    session, path = toy(), tmp_path / "run.mav"
    recorder = Recorder(path)
    recorder.update(snapshot(session))
    recorder.add(session.branch, made(session, 2))
    before = replayed(path)[1]
    reader = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM steps").fetchone()  # as long as it reads, the journal stays; so it does on a full disk
    recorder.writer._database.execute("PRAGMA max_page_count=1")
    recorder.add(session.branch, made(session, 1))
    assert not recorder.recording
    assert (tmp_path / "run.mav-wal").stat().st_size > 0
    reader.close()
    recorder.close()
    assert os.listdir(tmp_path) == ["run.mav"]
    assert replayed(path)[1] == before


def test_the_journal_of_another_file_at_the_same_path_stays(tmp_path):
    path = tmp_path / "run.mav"
    recorder = Recorder(path)
    path.unlink()
    session = toy()
    recorder.update(snapshot(session))
    assert not recorder.recording
    other = Recorder(path)
    other.update(snapshot(session))
    recorder.close()
    assert (tmp_path / "run.mav-wal").exists()
    other.add(session.branch, made(session, 2))
    assert other.recording
    assert len(replayed(path)[1]) == 2
    other.close()


def test_replay_needs_no_model_library(tmp_path):
    session, path = toy(), tmp_path / "run.mav"
    made(session, 3)
    recorder = Recorder(path)
    recorder.update(snapshot(session))
    recorder.close()
    code = (
        "import sys\nfrom openmav.recording.replay import ReplaySource\nfrom openmav.panels import *\n"
        f"assert len(ReplaySource({str(path)!r}).snapshot().steps) == 3\n"
        "print(sorted({'torch', 'transformers', 'textual'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("command", ["import", "recover"])
@pytest.mark.parametrize("kilobytes", [100, 180])
@pytest.mark.skipif(os.name == "nt", reason="needs a limit on the size of files")
def test_what_makes_a_recording_of_a_file_leaves_nothing_on_a_full_disk(tmp_path, command, kilobytes):
    session, source = toy(model="toy?endless=1", max_new_tokens=150), tmp_path / "run.mav"
    made(session, 150)
    recorder = Recorder(source)
    recorder.update(snapshot(session))
    recorder.close()
    if command == "import":
        assert main(["export", str(source), "--to", "jsonl"]) == 0
        source = source.with_suffix(".jsonl")
    before = sorted(os.listdir(tmp_path))
    line = f"ulimit -f {kilobytes}; exec {shlex.quote(sys.executable)} -m openmav {command} {shlex.quote(str(source))} -o copy.mav"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=tmp_path, timeout=100, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("mav: cannot write copy.mav: ")
    assert len(done.stderr.splitlines()) == 1
    assert sorted(os.listdir(tmp_path)) == before
