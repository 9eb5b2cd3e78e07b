"""Two recordings compared: the same run is the same, and what differs is named."""

import json
import sqlite3
from dataclasses import replace

import numpy as np
from runs import made, snapshot, toy

import warm
from openmav.cli.main import main
from openmav.record import freeze_values
from openmav.recording.diff import compare
from openmav.recording.reader import Recording
from openmav.recording.recorder import Recorder


def record(session, path):
    recorder = Recorder(path, session.settings)
    recorder.update(snapshot(session))
    recorder.close()
    return str(path)


def run(path, tokens=8, **options):
    session = toy(**options)
    made(session, tokens)
    return record(session, path)


def difference(a, b, tolerance=0.0):
    with Recording(a) as one, Recording(b) as two:
        return compare(one, two, tolerance)


def test_the_same_seed_twice_is_the_same(tmp_path, capsys):
    a, b = (tmp_path / f"{name}.mav" for name in "ab")
    for path in (a, b):
        args = [
            "--backend",
            "toy",
            "--model",
            "toy",
            "--prompt",
            "Hi",
            "--max-new-tokens",
            "30",
            "--temp",
            "1",
            "--seed",
            "5",
            "--record",
            str(path),
        ]
        assert warm.run("--plain", *args).returncode == 0
    assert main(["diff", str(a), str(b)]) == 0
    assert capsys.readouterr().out == "the same: 30 tokens compared\n"


def test_the_first_token_and_layer_where_numbers_part_and_the_largest_difference(tmp_path, capsys):
    a, session = run(tmp_path / "a.mav"), toy()
    made(session, 8)
    for index, size in ((3, 0.25), (5, 2.0)):
        step = session.steps[index]
        norms = np.array(step.values["residual_norm"])
        norms[1:] += size
        session.steps[index] = replace(step, values=freeze_values({**step.values, "residual_norm": norms}))
    b = record(session, tmp_path / "b.mav")
    found = difference(a, b)
    assert (found.first.index, found.first.layer, found.first.name) == (3, 1, "residual_norm")
    (number,) = found.numbers
    assert (number.name, number.index, number.layer, number.steps) == ("residual_norm", 5, 1, 2)
    np.testing.assert_allclose(number.largest, 2.0, rtol=1e-6)
    assert difference(a, b, 0.3).first.index == 5
    assert difference(a, b, 2.001).same
    assert main(["diff", a, b]) == 1
    out = capsys.readouterr().out
    assert "none: a recording has the most likely tokens, not the whole distribution" in out
    assert "token 3 of main, layer 1: residual_norm by 0.25" in out
    assert "residual_norm: at most 2, at token 5 of main, layer 1; differs in 2 steps" in out
    assert main(["diff", "--tolerance", "2.1", a, b]) == 0


def test_tokens_settings_and_what_one_lacks(tmp_path, capsys):
    a = run(tmp_path / "a.mav", measures=("mlp_norm", "residual_norm"))
    session = toy(measures=("mlp_norm",))
    made(session, 4)
    session.force(7)
    made(session, 1)
    b = record(session, tmp_path / "b.mav")
    assert main(["diff", "--json", a, b]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["same"] is False
    assert {fact["name"] for fact in found["facts"]} == {"settings.measures"}
    (text,) = found["texts"]
    assert (text["tokens_a"], text["tokens_b"], text["index"]) == (8, 6, 4)
    assert {(number["name"], number["missing"]) for number in found["numbers"]} == {("residual_norm", "b")}
    assert found["compared"] == 5  # what follows another token is not the same run


def test_a_branch_that_one_lacks(tmp_path):
    a, session = run(tmp_path / "a.mav"), toy()
    made(session, 8)
    session.back(2)
    session.force(7)
    found = difference(a, record(session, tmp_path / "b.mav"))
    assert any(text.tokens_a == -1 for text in found.texts)
    assert not found.same


def test_timings_and_dates_are_no_difference(tmp_path):
    a, b = run(tmp_path / "a.mav"), run(tmp_path / "b.mav")
    database = sqlite3.connect(b)
    database.execute("UPDATE steps SET seconds_model = 9")
    database.execute("UPDATE meta SET value = '1' WHERE name = 'started'")
    database.commit()
    database.close()
    assert difference(a, b).same


def test_a_nan_on_one_side_is_infinitely_far(tmp_path):
    a, session = run(tmp_path / "a.mav"), toy()
    made(session, 8)
    session.steps[2] = replace(session.steps[2], entropy=float("nan"))
    found = difference(a, record(session, tmp_path / "b.mav"), 1e9)
    assert found.numbers[0].name == "entropy"
    assert found.numbers[0].largest == float("inf")
    assert found.first.layer is None


def test_what_is_no_recording_is_a_line(tmp_path, capsys):
    a = run(tmp_path / "a.mav", 1)
    assert main(["diff", a, str(tmp_path / "no.mav")]) == 2
    assert main(["diff", a, __file__]) == 2
    assert capsys.readouterr().err.count("\n") == 2
