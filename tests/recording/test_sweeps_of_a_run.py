"""Sweeps inside of a recorded run: kept as they are computed, shown again with the token that they are of, checked, saved and compared."""

import csv
import io
import json
import sqlite3
from dataclasses import replace

import numpy as np
import pytest
from runs import made, snapshot, toy

from openmav.panels.sweep import data
from openmav.recording.check import checks
from openmav.recording.diff import compare
from openmav.recording.export.run import write_format
from openmav.recording.from_jsonl import import_lines
from openmav.recording.reader import Recording
from openmav.recording.recorder import Recorder
from openmav.recording.recover import recover
from openmav.recording.replay import ReplaySource
from openmav.recording.run_sweeps import read_sweeps, sweeps_of
from openmav.view import View

HOSTILE = {
    "another number": """replace(value, '"logit":', '"logit":1')""",
    "no sum": """replace(value, '"sum"', '"total_sum"')""",
    "a list": "'[]'",
    "no JSON": "'{'",
    "another shape": """replace(value, '"shape":[', '"shape":[9')""",
    "sites of another model": """replace(value, '"effects":[[0', '"effects":[[77')""",
    "a token that is no text": """replace(value, '"token":"', '"token":7,"x":"')""",
}


def numbered(session, index, number, **how):
    """The maps of a sweep as an engine reports them."""
    return [replace(one, branch=session.branch, number=number) for one in session.sweep_sites(index, **how)]


@pytest.fixture
def run(tmp_path):
    """(the recording's path, its three sweeps: a whole one, one that was stopped, one of which the file has the half)."""
    session, path = toy(), tmp_path / "run.mav"
    made(session, 4)
    recorder = Recorder(path, session.settings)
    now = snapshot(session)
    whole, mlps, half = numbered(session, 1, 1), numbered(session, 3, 2, what="mlp", how="mean"), numbered(session, 1, 3, what="attn")
    stopped = replace(mlps[1], stopped=True)
    for one in whole:
        recorder.update(replace(now, sweep=one))
    recorder.update(replace(now, sweep=stopped, sweeps=(whole[-1],)))
    recorder.update(replace(now, sweep=half[1], sweeps=(whole[-1], stopped)))
    recorder.close()
    session.close()
    return path, (whole[-1], stopped, half[1])


def same(one, other):
    facts = ("branch", "index", "token_id", "token", "logit", "total", "what", "how", "of_baseline", "number")
    assert [getattr(one, name) for name in facts] == [getattr(other, name) for name in facts]
    np.testing.assert_array_equal(one.known, other.known)
    np.testing.assert_array_equal(one.changes, other.changes)


def test_a_replay_has_every_sweep_and_shows_the_one_of_the_token(run):
    path, sweeps = run
    source = ReplaySource(path)
    now = source.snapshot()
    for one, other in zip(sweeps_of(now), sweeps, strict=True):
        same(one, other)
    assert [one.stopped for one in sweeps_of(now)] == [False, True, True]  # nobody goes on with the last one
    view = View().updated(now)
    assert [data(view.at_step(at)).what for at in (0, 1, 3)] == ["attn", "attn", "mlp"]
    assert now.notice == ""
    source.close()


def test_who_follows_a_file_sees_the_sweep_under_way(run):
    source = ReplaySource(run[0], follow=True)
    assert source.snapshot().sweep.under_way
    source.close()


def test_a_recording_that_begins_late_has_the_sweeps_before_it(run, tmp_path):
    _, sweeps = run
    session = toy()
    made(session, 4)
    recorder = Recorder(tmp_path / "late.mav", session.settings)
    recorder.update(replace(snapshot(session), sweep=sweeps[2], sweeps=sweeps[:2]))
    recorder.close()
    with Recording(tmp_path / "late.mav") as late, Recording(run[0]) as first:
        assert compare(late, first).same
    session.close()


def test_a_branch_with_another_name_keeps_its_sweeps(tmp_path):
    session = toy()
    made(session, 4)
    recorder = Recorder(tmp_path / "run.mav", session.settings)
    whole, other = numbered(session, 1, 1)[-1], numbered(session, 2, 2, what="mlp")[-1]
    recorder.update(replace(snapshot(session), sweep=other, sweeps=(whole,)))
    session.rename("main", "first words")
    recorder.update(replace(snapshot(session), sweep=other))  # the engine has let go of the first
    recorder.close()
    session.close()
    with Recording(tmp_path / "run.mav") as recording:
        assert [one.branch for one in read_sweeps(recording, recording.info)] == ["first words", "first words"]
        assert all(check.good for check in checks(recording))


def test_json_lines_and_recover_keep_them(run, tmp_path):
    path, _ = run
    with Recording(path) as recording, open(tmp_path / "run.jsonl", "wb") as out:
        write_format(recording, "jsonl", out)
    import_lines(tmp_path / "run.jsonl", tmp_path / "again.mav")
    recover(path, tmp_path / "whole.mav")
    for name in ("again.mav", "whole.mav"):
        with Recording(path) as one, Recording(tmp_path / name) as other:
            assert compare(one, other).same
            assert all(check.good for check in checks(other))


def test_arrays_have_a_map_of_each_sweep(run, tmp_path):
    path, sweeps = run
    with Recording(path) as recording, open(tmp_path / "run.npz", "wb") as out:
        write_format(recording, "npz", out)
    with np.load(tmp_path / "run.npz", allow_pickle=False) as arrays:
        about = json.loads(str(arrays["meta"]))
        for sweep in sweeps:
            found = arrays[f"sweep.{sweep.number}"]
            np.testing.assert_array_equal(found[sweep.known], sweep.changes[sweep.known])
            assert np.isnan(found[~sweep.known]).all()
            assert about[f"sweep.{sweep.number}"]["ablate"] == sweep.what
    assert not sweeps[1].known.all()


def test_a_table_has_a_line_for_each_site_that_was_computed(run):
    path, sweeps = run
    out = io.BytesIO()
    with Recording(path) as recording:
        write_format(recording, "sweeps", out)
    lines = list(csv.DictReader(io.StringIO(out.getvalue().decode(), newline="")))
    assert len(lines) == sum(sweep.done for sweep in sweeps)
    for line in lines:
        sweep = sweeps[int(line["sweep"]) - 1]
        assert (line["branch"], int(line["step"]), int(line["token_id"])) == (sweep.branch, sweep.index, sweep.token_id)
        assert (line["token"], line["how"], line["of_baseline"]) == (sweep.token, sweep.how, str(int(sweep.of_baseline)))
        assert np.float32(line["logit_change"]) == sweep.changes[int(line["layer"]), int(line["head"] or 0)]
    assert [line["site"] for line in lines if line["sweep"] == "1"][:2] == ["L0.H0", "L0.H1"]
    assert {line["site"] for line in lines if line["sweep"] == "2"} <= {"L0.mlp", "L1.mlp"}


def test_a_change_of_a_number_is_a_difference(run, tmp_path):
    path, sweeps = run
    changes = sweeps[0].changes.copy()
    changes[1, 0] += 0.25
    session = toy()
    made(session, 4)
    recorder = Recorder(tmp_path / "other.mav", session.settings)
    other = replace(sweeps[0], changes=changes)
    recorder.update(replace(snapshot(session), sweep=sweeps[2], sweeps=(other, sweeps[1])))
    recorder.close()
    session.close()
    with Recording(path) as one, Recording(tmp_path / "other.mav") as two:
        (entry,) = compare(one, two).numbers
        assert (entry.name, entry.layer, entry.steps) == ("sweep 1 of the run", 1, 1)
        assert entry.largest == pytest.approx(0.25)
        assert compare(one, two, tolerance=0.3).same


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_one_that_is_not_as_it_was_written_is_left_out_and_said(run, change):
    path, _sweeps = run
    with sqlite3.connect(path) as database:
        database.execute(f"UPDATE meta SET value = {change} WHERE name = 'sweep.1'")
    database.close()
    source = ReplaySource(path)
    assert [one.number for one in sweeps_of(source.snapshot())] == [2, 3]
    if change != "'{'":  # which no entry of meta has a name for
        assert "sweep 1 is not as it was written" in source.snapshot().notice
        assert next(check.name for check in checks(source.recording) if not check.good) == "sweeps"
    source.close()


def test_the_sites_of_all_sweeps_together_are_bounded(run, monkeypatch):
    path, sweeps = run
    monkeypatch.setattr("openmav.recording.run_sweeps.MOST_SITES", sweeps[0].changes.size + sweeps[1].changes.size)
    with Recording(path) as recording:
        assert [one.number for one in read_sweeps(recording, recording.info)] == [1, 2]
        assert recording.problems == ["sweep 3 is not as it was written, and is left out"]
