"""The examples of docs/recording.md run as they stand there, and give the recording's own numbers."""

import re
from pathlib import Path

import numpy as np
import pytest
from runs import made, snapshot, toy

from openmav.cli.main import main
from openmav.recording.recorder import Recorder

PAGE = Path(__file__).parents[2] / "docs" / "recording.md"


@pytest.fixture
def steps(tmp_path, monkeypatch):
    session = toy()
    made(session, 12)
    recorder = Recorder(tmp_path / "run.mav", session.settings)
    recorder.update(snapshot(session))
    recorder.close()
    monkeypatch.chdir(tmp_path)
    return session.steps


def test_the_queries_of_the_page(steps, capsys):
    pytest.importorskip("pandas")
    pytest.importorskip("polars")
    duckdb = pytest.importorskip("duckdb")
    assert main(["export", "run.mav", "--to", "parquet"]) == 0
    capsys.readouterr()
    sql, pandas, polars, duck = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names = {}
    most = sorted(steps, key=lambda step: -step.entropy)[:5]
    exec(sql, names)
    out = capsys.readouterr().out
    assert out.splitlines() == [f"{step.index} {step.token!r} {step.entropy}" for step in most]
    exec(pandas, names)
    assert names["steps"]["entropy"].tolist() == [step.entropy for step in steps]
    np.testing.assert_array_equal(names["norms"], [step.values["residual_norm"] for step in steps])
    exec(polars, names)
    assert names["table"]["entropy"].to_list() == [step.entropy for step in steps]
    exec(duck, names)
    assert "candidate" in capsys.readouterr().out
    found = duckdb.sql(f"SELECT * FROM ({names['query']})").fetchall()
    own = [(s.index, token, float(p)) for s in steps for token, p in zip(s.candidates.tokens, s.candidates.probs)]
    assert sorted(found) == sorted(own)
