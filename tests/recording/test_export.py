"""A recording in other formats: the numbers are the recording's, and JSON lines give it back."""

import csv
import json
import math
import os
import sys
from dataclasses import replace
from pathlib import Path

import fastjsonschema
import numpy as np
import pytest
from runs import content, made, snapshot, toy

import warm
from openmav.cli.main import main
from openmav.record import freeze_values
from openmav.recording.diff import compare
from openmav.recording.export import FORMATS
from openmav.recording.export.run import run_of
from openmav.recording.export.sweeps import COLUMNS
from openmav.recording.export.table import arrays
from openmav.recording.reader import Recording
from openmav.recording.recorder import Recorder
from openmav.recording.replay import snapshot_of

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "json.schema.json").read_text(encoding="utf-8"))


def changed_run(path):
    """A recording with everything: branches, undone and forced tokens, interventions, a prompt edited, NaN and infinities."""
    session = toy()
    made(session, 5)
    recorder = Recorder(path, session.settings)
    recorder.update(snapshot(session))
    session.back(3)
    session.force(7)
    made(session, 2)
    recorder.update(snapshot(session))
    session.intervene(("ablate L0.mlp",))
    made(session, 2)
    step = session.steps[-2]
    odd = np.array([np.nan, math.inf], np.float32)
    values = {**step.values, "odd": odd, "empty": np.empty((0, 3), np.int64), "whole.ids": np.array([[1, -1]])}
    candidates = replace(step.candidates, logits=np.where(np.arange(len(step.candidates)) == 1, -np.inf, step.candidates.logits))
    session.steps[-2] = replace(step, values=freeze_values(values), dropped=("attention_rows",), candidates=candidates, logprob=-math.inf)
    recorder.update(snapshot(session))
    session.intervene(())
    session.edit_prompt("another text \x1b[2J")
    made(session, 4)
    session.back(1)
    recorder.update(snapshot(session))
    recorder.close()
    return path


@pytest.fixture
def recorded(tmp_path):
    return changed_run(tmp_path / "run.mav")


def test_json_lines_are_what_the_schema_says_and_give_the_recording_back(recorded, tmp_path, capsys):
    lines, again = tmp_path / "run.jsonl", tmp_path / "again.mav"
    assert main(["export", str(recorded), "--to", "jsonl"]) == 0
    assert capsys.readouterr().out == f"wrote {lines}\n"
    check = fastjsonschema.compile(SCHEMA)
    for line in lines.read_text(encoding="utf-8").splitlines():
        check(json.loads(line))
    assert main(["import", str(lines), "-o", str(again)]) == 0
    assert main(["diff", str(recorded), str(again)]) == 0
    assert "the same: 13 tokens compared" in capsys.readouterr().out
    with Recording(recorded) as one, Recording(again) as two:
        assert compare(one, two).same
        first, second = snapshot_of(one), snapshot_of(two)
        assert content(first.steps) == content(second.steps)
        assert first.info == second.info
        assert first.prompt == second.prompt
        for name, branch in first.branches.items():
            assert branch == replace(second.branches[name], steps=branch.steps)
            assert content(branch.steps) == content(second.branches[name].steps)
        odd = [step for branch in one.branches() for step in branch.steps if "odd" in step.values]
        same = [step for branch in two.branches() for step in branch.steps if "odd" in step.values]
        assert len(odd) > 0
        for a, b in zip(odd, same, strict=True):
            assert a.logprob == b.logprob == -math.inf
            assert b.candidates.logits[1] == -math.inf
            assert b.values["empty"].shape == (0, 3)
            for name in a.values:
                np.testing.assert_array_equal(a.values[name], b.values[name])
                assert a.values[name].dtype == b.values[name].dtype
        assert one.rows("SELECT branch, tokens, changes FROM events") == two.rows("SELECT branch, tokens, changes FROM events")


def test_lines_of_a_run_become_a_recording(tmp_path):
    run = ["--backend", "toy", "--model", "toy", "--prompt", "Hi", "--max-new-tokens", "6", "--record", str(tmp_path / "run.mav")]
    (tmp_path / "run.jsonl").write_text(warm.run("--json", *run).stdout, encoding="utf-8")
    assert main(["import", str(tmp_path / "run.jsonl"), "-o", str(tmp_path / "again.mav")]) == 0
    with Recording(tmp_path / "run.mav") as one, Recording(tmp_path / "again.mav") as two:
        found = compare(one, two)
        assert found.compared == 6
        assert not found.numbers
        assert not found.texts
    assert main(["export", str(tmp_path / "again.mav"), "--to", "jsonl"]) == 0
    assert main(["import", str(tmp_path / "again.jsonl"), "-o", str(tmp_path / "third.mav")]) == 0
    with Recording(tmp_path / "again.mav") as two, Recording(tmp_path / "third.mav") as three:
        assert three.meta == two.meta  # the time of its start, too
    assert main(["verify", "--rerun", str(tmp_path / "again.mav")]) == 0


def test_what_is_no_line_is_named_and_nothing_is_left(recorded, tmp_path, capsys):
    assert main(["export", str(recorded), "--to", "jsonl"]) == 0
    head, step, *_ = (tmp_path / "run.jsonl").read_text(encoding="utf-8").splitlines()
    wrong = {
        "": "line 1",
        "[]": "line 1",
        "{}": "line 1",
        head.replace('"schema":1', '"schema":99'): "schema 1",
        f"{head}\n{step[:-20]}": "line 2",
        f"{head}\n{head}": "line 2",
        f"{head}\n{step}\n{'[' * 100_000}": "line 3",
        f"{head}\n{step}".replace('["<f4",[', '["<f4",[4000000000,'): "too large",
        f"{head}\n{step}".replace('"branch":"main"', '"branch":"x"'): "line 2",
    }
    for text, says in wrong.items():
        (tmp_path / "bad.jsonl").write_text(text, encoding="utf-8")
        assert main(["import", str(tmp_path / "bad.jsonl"), "-o", str(tmp_path / "bad.mav")]) == 2
        error = capsys.readouterr().err
        assert says in error
        assert error.count("\n") == 1
        assert not (tmp_path / "bad.mav").exists()
    assert main(["import", str(tmp_path / "none.jsonl"), "-o", str(tmp_path / "bad.mav")]) == 2
    assert main(["import", str(tmp_path / "run.jsonl"), "-o", str(recorded)]) == 2
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_is_written_whole_and_none_is_written_over(name, recorded, tmp_path, capsys, monkeypatch):
    target = tmp_path / f"out{FORMATS[name].suffix}"
    target.write_text("mine")
    assert main(["export", str(recorded), "--to", name, "-o", str(target)]) == 2
    assert "--force" in capsys.readouterr().err
    assert target.read_text() == "mine"

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert main(["export", str(recorded), "--to", name, "-o", str(target), "--force"]) == 2
    assert "No space left" in capsys.readouterr().err
    assert target.read_text() == "mine"
    assert main(["export", str(recorded), "--to", name, "-o", str(target), "--force"]) == 0
    if name == "sweeps":  # of which this run has none
        assert target.read_text(encoding="utf-8").rstrip() == ",".join(COLUMNS)
    else:
        assert target.stat().st_size > 100
    assert sorted(os.listdir(tmp_path)) == sorted([target.name, "run.mav"])


def test_text_goes_to_a_pipe(recorded, capsys):
    assert main(["export", str(recorded), "--to", "jsonl", "-o", "-"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[0])["type"] == "header"


def test_bad_requests_are_one_line(recorded, tmp_path, capsys):
    run = str(recorded)
    for args in (["export", run, "--to", "gif"], ["export", run], ["export", str(tmp_path / "no.mav"), "--to", "jsonl"]):
        assert main(args) == 2
        assert capsys.readouterr().err.count("\n") == 1


def own_steps(path):
    with Recording(path) as recording:
        return [(branch.name, step, arrays(step)) for branch, step in run_of(recording).own_steps()]


def test_a_table_has_the_columns_of_each_token(recorded, tmp_path):
    assert main(["export", str(recorded), "--to", "csv"]) == 0
    with (tmp_path / "run.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    steps = own_steps(recorded)
    assert [(row["branch"], int(row["step"]), row["token"]) for row in table] == [(name, s.index, s.token) for name, s, _ in steps]
    assert [float(row["entropy"]) for row in table] == [step.entropy for _, step, _ in steps]
    assert [float(row["logprob"]) for row in table] == [step.logprob for _, step, _ in steps]  # one of them is -inf
    assert [row["forced"] for row in table] == [str(int(step.forced)) for _, step, _ in steps]
    assert {row["forced"] for row in table} == {"0", "1"}


def test_numpy_reads_every_array(recorded, tmp_path):
    assert main(["export", str(recorded), "--to", "npz"]) == 0
    steps = own_steps(recorded)
    names = {name for *_, found in steps for name in found}
    assert {"residual_norm", "attention_rows", "candidates.tokens", "before.entropy", "odd", "whole.ids"} <= names
    with np.load(tmp_path / "run.npz", allow_pickle=False) as file:
        assert file["token_id"].tolist() == [step.token_id for _, step, _ in steps]
        assert json.loads(str(file["meta"]))["model"]["name"] == "toy"
        for name in names:
            there = [row for row, (*_, found) in enumerate(steps) if name in found]
            assert len(there) == len(steps) or file[f"{name}.rows"].tolist() == there
            for row, array in zip(there, file[name]):
                own = steps[row][2][name]
                inside = tuple(map(slice, own.shape))
                texts = own.dtype == object  # NumPy's own texts have no NUL at the end
                np.testing.assert_array_equal(array[inside], own.astype(np.str_) if texts else own)
                assert array.dtype.kind == ("U" if texts else own.dtype.kind)
                padding = np.delete(array.ravel(), np.ravel_multi_index(np.indices(own.shape), array.shape).ravel())
                assert all(value in ("", -1) or value != value for value in padding.tolist())


def test_pandas_and_polars_read_every_column_of_a_parquet_file(recorded, tmp_path):
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    pytest.importorskip("pyarrow")
    assert main(["export", str(recorded), "--to", "parquet"]) == 0
    steps = own_steps(recorded)
    path = tmp_path / "run.parquet"
    for read in (lambda name: pandas.read_parquet(path, columns=[name])[name].tolist(), polars.read_parquet(path).get_column):
        assert list(read("token")) == [step.token for _, step, _ in steps]
        for name in {name for *_, found in steps for name in found}:
            for (*_, found), value in zip(steps, read(name)):
                if name in found:
                    read_array = np.array(nested_list(value), dtype=found[name].dtype).reshape(found[name].shape)
                    np.testing.assert_array_equal(read_array, found[name])
                else:
                    assert value is None or value != value


def nested_list(value):
    return [nested_list(one) for one in value] if hasattr(value, "__iter__") and not isinstance(value, str) else value


def test_parquet_without_pyarrow_says_how_to_get_it(recorded, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert main(["export", str(recorded), "--to", "parquet"]) == 2
    assert "pip install 'openmav[parquet]'" in capsys.readouterr().err


def test_a_file_whose_run_had_not_begun_says_so(tmp_path, capsys):
    Recorder(tmp_path / "run.mav").close()
    assert main(["export", str(tmp_path / "run.mav"), "--to", "html"]) == 2
    said = capsys.readouterr().err
    assert "holds no run yet" in said
    assert "damaged" not in said
