"""A long recording: what opening it reads, what stays in memory, and the texts of tokens that stand once in the file."""

import json
import sqlite3
import time
import tracemalloc
from dataclasses import replace

import pytest
from runs import content, made, snapshot, toy

from openmav.cli.main import main
from openmav.errors import UsageError
from openmav.recording import guard, reader, stored
from openmav.recording.check import checks
from openmav.recording.export.run import export
from openmav.recording.from_jsonl import import_lines
from openmav.recording.reader import Recording
from openmav.recording.recorder import Recorder
from openmav.recording.recover import recover
from openmav.recording.replay import ReplaySource, snapshot_of
from openmav.recording.sqlite_writer import Writer

MEASURES = ("mlp_norm", "residual_norm", "logit_lens", "neurons", "neuron_tokens", "attention_rows")


def recorded(path, steps=None, count=6):
    """A file with every measure that names tokens; its steps."""
    session = toy(measures=MEASURES)
    made(session, count)
    recorder = Recorder(path, session.settings)
    recorder.update(replace(snapshot(session), steps=steps or tuple(session.steps)))
    recorder.close()
    return steps or tuple(session.steps)


def lengthened(path, length, arrays=True):
    """The file with its steps again and again; `arrays`: theirs too."""
    database = sqlite3.connect(path)
    columns = ", ".join(row[1] for row in database.execute("PRAGMA table_info(steps)") if row[1] not in ("id", "step"))
    count = database.execute("SELECT count(*) FROM steps").fetchone()[0]
    numbers = f"WITH RECURSIVE n(i) AS (SELECT {count} UNION ALL SELECT i + 1 FROM n WHERE i < {length - 1})"
    database.execute(f"INSERT INTO steps (step, {columns}) {numbers} SELECT i, {columns} FROM n, steps WHERE step = i % {count}")
    copied = "SELECT s.id, a.name, a.dtype, a.shape, a.data FROM steps s, steps o, arrays a"
    if arrays:
        database.execute(f"INSERT INTO arrays {copied} WHERE s.step >= {count} AND o.step = s.step % {count} AND a.step = o.id")
    database.commit()
    database.close()


def changed(path, statement):
    database = sqlite3.connect(path)
    database.execute(statement)
    database.commit()
    database.close()


def seconds_to_open(path):
    """Of processor."""
    started = time.process_time()
    with Recording(path) as recording:
        snapshot_of(recording)
        return time.process_time() - started


def test_ten_thousand_tokens_with_every_measure_open_within_a_second(tmp_path):
    recorded(tmp_path / "long.mav")
    lengthened(tmp_path / "long.mav", 10_000, arrays=False)  # opening reads none, says the test below
    assert any(seconds_to_open(tmp_path / "long.mav") < 1.0 for _ in range(10)), "others use the machine too, but not all the time"
    with Recording(tmp_path / "long.mav") as recording:
        now = snapshot_of(recording)
        assert len(now.steps) == 10_000


def test_opening_reads_no_array_and_no_text_of_a_measure(tmp_path, monkeypatch):
    steps = recorded(tmp_path / "run.mav")
    read, authorize = set(), guard.authorize

    def noted(action, first, second, *rest):
        if action == sqlite3.SQLITE_READ:
            read.add(first)
        return authorize(action, first, second, *rest)

    monkeypatch.setattr(guard, "authorize", noted)
    source = ReplaySource(tmp_path / "run.mav")
    steps_of_file = source.snapshot().steps
    assert "steps" in read
    assert not read & {"arrays", "texts"}
    assert dict(steps_of_file[3].pieces) == steps[3].pieces
    assert read >= {"arrays", "texts"}
    source.close()


def test_what_was_looked_at_does_not_stay_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(stored, "MOST_KEPT", 2**18)
    steps = recorded(tmp_path / "run.mav")
    lengthened(tmp_path / "run.mav", 300)
    with Recording(tmp_path / "run.mav") as recording:
        now = snapshot_of(recording)
        tracemalloc.start()
        looked_at = 0
        for step in now.steps:
            looked_at += sum(array.nbytes for array in step.values.values()) + 100 * len(step.pieces)
        size, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert looked_at > 2 * 2**20
    assert max(size, most) < 2**20
    assert len(steps[0].pieces) > 10


def test_texts_stand_once_and_come_back_exactly(tmp_path):
    session = toy(measures=MEASURES)
    made(session, 5)
    session.intervene(("ablate L0.mlp",))
    made(session, 2)
    first, second, third, *others = session.steps
    some = next(iter(second.pieces))
    second = replace(second, pieces={**second.pieces, some: "another text", 99_999: "of no measure"})
    third = replace(third, pieces={**third.pieces, some: "\ud800 and \x00"})
    steps = (first, second, third, replace(others[0], pieces={}), *others[1:])
    path = tmp_path / "run.mav"
    recorder = Recorder(path, session.settings)
    recorder.update(replace(snapshot(session), steps=steps))
    recorder.close()
    with Recording(path) as recording:
        now = snapshot_of(recording)
        assert content(now.steps) == content(steps)
        assert isinstance(now.steps[-1].before.pieces, stored.StoredPieces)
        assert all(check.good for check in checks(recording))
    count = sqlite3.connect(path).execute("SELECT count(*), count(DISTINCT id) FROM texts").fetchone()
    named = [one.pieces for step in steps for one in (step, step.before) if one is not None]
    assert count == (len({token_id for pieces in named for token_id in pieces}),) * 2
    export(path, "jsonl", tmp_path / "run.jsonl")
    import_lines(tmp_path / "run.jsonl", tmp_path / "again.mav")
    with Recording(tmp_path / "again.mav") as again:
        assert content(snapshot_of(again).steps) == content(steps)


def test_a_file_without_a_table_of_texts_has_them_in_its_steps(tmp_path):
    steps = recorded(tmp_path / "run.mav")
    database = sqlite3.connect(tmp_path / "run.mav")
    for step in steps:
        detail = json.loads(database.execute("SELECT detail FROM steps WHERE step = ?", (step.index,)).fetchone()[0])
        detail["pieces"] = step.pieces
        database.execute("UPDATE steps SET detail = ? WHERE step = ?", (json.dumps(detail), step.index))
    database.execute("DROP TABLE texts")
    database.commit()
    database.close()
    with Recording(tmp_path / "run.mav") as recording:
        assert content(snapshot_of(recording).steps) == content(steps)
        assert recording.problems == []


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("UPDATE texts SET text = text || 'x' WHERE id = (SELECT min(id) FROM texts)", "1 of"),
        ("DELETE FROM texts WHERE id = (SELECT min(id) FROM texts)", "there is no text of token"),
        ("UPDATE texts SET text = CAST(text AS BLOB)", "are not as they were written"),
        ("UPDATE arrays SET shape = '[99]' WHERE name = 'values/mlp_norm' AND step = 2", "not what its shape says"),
    ],
)
def test_what_is_damaged_is_named_when_it_is_looked_at(tmp_path, capsys, statement, says):
    path = tmp_path / "run.mav"
    steps = recorded(path)
    changed(path, statement)
    source = ReplaySource(path)
    assert source.snapshot().notice == ""
    for step in source.snapshot().steps:
        assert len(step.pieces) <= len(steps[step.index].pieces)
        assert set(step.values) <= set(steps[step.index].values)
    assert says in source.snapshot().notice
    source.close()
    assert main(["verify", str(path)]) == 1
    assert says in capsys.readouterr().out
    assert recover(path, tmp_path / "whole.mav").problems


def test_a_transaction_that_was_not_finished_leaves_out_no_text_of_the_next(tmp_path):
    session = toy(measures=MEASURES)
    first, second = made(session, 2)
    writer = Writer(tmp_path / "run.mav")
    with writer.transaction():
        recorder_branch = writer.put_branch("main", None, 0, session.prompt)

    def interrupted():
        with writer.transaction():
            writer.put_step(recorder_branch, first)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with writer.transaction():
        writer.put_step(recorder_branch, first)
        writer.put_step(recorder_branch, second)
    writer.close()
    with Recording(tmp_path / "run.mav") as recording:
        assert content(recording.branches()[0].steps) == content((first, second))


@pytest.mark.parametrize("table", ["contexts", "branches", "steps"])
def test_a_nul_hides_no_large_text(tmp_path, monkeypatch, table):
    monkeypatch.setattr(reader, "MOST_BYTES", 2**20)
    monkeypatch.setattr(reader, "MOST_OPEN", 2**20)
    column = {"contexts": "content", "branches": "prompt", "steps": "token"}[table]
    path = tmp_path / "run.mav"
    recorded(path)
    changed(path, f"UPDATE {table} SET {column} = char(0) || replace(hex(zeroblob(1000000)), '0', 'x')")
    with pytest.raises(UsageError, match="too large"):
        ReplaySource(path)
