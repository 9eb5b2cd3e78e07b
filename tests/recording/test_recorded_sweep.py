"""The recording of a sweep: written as it goes, shown, checked, saved, exported and compared; and files that somebody else made."""

import csv
import io
import json
import sqlite3

import numpy as np
import pytest
from test_hostile import refused

import warm
from openmav.cli.main import main
from openmav.recording.check import checks
from openmav.recording.diff import compare
from openmav.recording.export import FORMATS, SWEEP_FORMATS
from openmav.recording.export.run import write_format
from openmav.recording.reader import Recording
from openmav.recording.recover import recover
from openmav.recording.rows import sum_of
from openmav.recording.sweep import read_sweep

TOY = ["sweep", "--backend", "toy", "--model", "toy?bare=2", "--prompt", "Hi", "--minus", "a"]
HOSTILE = {
    "another table": "CREATE TABLE other (x)",
    "an index of its own": "CREATE INDEX i ON effects (layer)",
    "a view in its place": "DROP TABLE effects; CREATE VIEW effects AS SELECT 1 AS id",
    "another column": "ALTER TABLE effects ADD COLUMN more",
    "no effects table": "DROP TABLE effects",
    "no settings": "DELETE FROM meta WHERE name = 'sweep'",
    "settings in a list": "UPDATE meta SET value = '[]' WHERE name = 'sweep'",
    "another kind of site": """UPDATE meta SET value = replace(value, '"heads"', '"tails"') WHERE name = 'sweep'""",
    "a site that is missing nowhere": """UPDATE meta SET value = replace(value, '"L2.H0"', '"L99.H0"') WHERE name = 'sweep'""",
    "a target of another kind": """UPDATE meta SET value = replace(value, '"target":{', '"target":{"x":1,') WHERE name = 'sweep'""",
    "a target that is no text": """UPDATE meta SET value = replace(value, '"text":"a"', '"text":7') WHERE name = 'sweep'""",
    "numbers in words": """UPDATE meta SET value = replace(value, '"prob":', '"prob":"x","p":') WHERE name = 'sweep'""",
    "a billion sites": """UPDATE meta SET value = replace(value, '"heads":4', '"heads":99999') WHERE name = 'model'""",
    "many sites": """UPDATE meta SET value = replace(value, '"heads":4', '"heads":12000') WHERE name = 'model'""",
    "sites of another model": "UPDATE effects SET site = 'L77.H1'",
    "sites with escapes": "UPDATE effects SET site = char(27) || '[2J'",
    "long sites": "UPDATE effects SET site = hex(zeroblob(1000000))",
    "logits in words": "UPDATE effects SET logit = 'x'",
    "logits that are blobs": "UPDATE effects SET logit = zeroblob(100)",
    "no numbers": "UPDATE effects SET logit = NULL, prob = NULL, logprob = NULL",
    "another layer": "UPDATE effects SET layer = layer + 1",
    "a site twice": "UPDATE effects SET site = 'L0.H0'",
    "sums in words": "UPDATE effects SET sum = 'x'",
    "no prompt": "DELETE FROM branches",
    "no model": "DELETE FROM meta WHERE name = 'model'",
}


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A recording, and what the sweep itself wrote as JSON lines."""
    path = tmp_path_factory.mktemp("sweep") / "sweep.mav"
    done = warm.run(*TOY, "--json", "--record", str(path))
    assert (done.returncode, done.stderr) == (0, "")
    return path, done.stdout


def exported(path, name):
    out = io.BytesIO()
    with Recording(path) as recording:
        write_format(recording, name, out)
    return out.getvalue()


def test_the_file_has_what_the_sweep_wrote(swept):
    path, lines = swept
    head, *effects, end = [json.loads(line) for line in lines.splitlines()]
    assert exported(path, "jsonl").decode() == lines
    with Recording(path) as recording:
        sweep = read_sweep(recording)
        assert (sweep.end, sweep.seconds, sweep.wrong) == ("done", end["seconds"], 0)
        assert all(check.good for check in checks(recording))
        assert recording.branches()[0].prompt.token_ids == tuple(head["prompt"]["token_ids"])
    database = sqlite3.connect(path)
    rows = database.execute("SELECT site, layer, head, logit, minus_logit, change FROM effects ORDER BY id").fetchall()
    database.close()
    assert len(rows) == 12
    before = head["sweep"]["before"]
    for (site, layer, number, logit, minus_logit, change), effect in zip(rows, effects, strict=True):
        assert (site, layer, number, logit) == (effect["site"], effect["layer"], effect["head"], effect["logit"])
        assert change == pytest.approx((logit - minus_logit) - (before["logit"] - before["minus_logit"]), abs=1e-12)


def test_tables_and_arrays_have_the_same_numbers(swept):
    path, lines = swept
    effects = [json.loads(line) for line in lines.splitlines()][1:-1]
    table = list(csv.DictReader(exported(path, "csv").decode().splitlines()))
    assert [float(row["difference_change"]) for row in table] == [effect["difference_change"] for effect in effects]
    arrays = np.load(io.BytesIO(exported(path, "npz")))
    assert arrays["site"].tolist() == [effect["site"] for effect in effects]
    assert arrays["logit_change"].tolist() == [effect["logit_change"] for effect in effects]
    for effect in effects:
        assert arrays["change"][effect["layer"], effect["head"]] == effect["difference_change"]
    assert np.isnan(arrays["change"][2]).all()
    pytest.importorskip("pyarrow")
    from pyarrow import parquet

    assert parquet.read_table(io.BytesIO(exported(path, "parquet"))).column("prob").to_pylist() == [effect["prob"] for effect in effects]
    for name in set(FORMATS) - set(SWEEP_FORMATS):
        assert "is of a sweep" in refused(lambda name=name: exported(path, name))


def test_the_commands_show_and_check_it(swept, tmp_path, capsys):
    path, lines = swept
    assert main(["info", str(path)]) == 0
    assert "heads ablated alone (zero), logit of" in (said := capsys.readouterr().out)
    assert "12 of 12 sites" in said
    assert main(["verify", str(path), "--rerun"]) == 0
    assert "the same 12 sites; the largest difference of a number is 0" in (said := capsys.readouterr().out)
    assert "12 of 12 effects are as they were written" in said
    assert main(["replay", str(path)]) == 0
    assert "12 of 12 · 4 not available" in capsys.readouterr().out
    assert main(["replay", str(path), "--follow"]) == 2
    assert "mav verify --rerun" in capsys.readouterr().err
    (tmp_path / "sweep.jsonl").write_text(lines)
    assert main(["import", str(tmp_path / "sweep.jsonl"), "-o", str(tmp_path / "x.mav")]) == 2
    assert "lines of a sweep" in capsys.readouterr().err
    assert main(["query", str(path), "select count(*), min(change) < 0 from effects"]) == 0
    assert capsys.readouterr().out.split()[-2:] == ["12", "1"]


def test_a_sweep_that_was_killed_or_damaged_is_saved_as_far_as_it_is_sound(swept, tmp_path, capsys):
    path = tmp_path / "broken.mav"
    path.write_bytes(swept[0].read_bytes())
    database = sqlite3.connect(path)
    database.execute("DELETE FROM effects WHERE id > 9")
    database.execute("UPDATE effects SET prob = 0.5 WHERE id = 4")
    database.execute("UPDATE meta SET value = replace(value, '\"end\":\"done\",', '') WHERE name = 'sweep'")
    database.commit()
    database.close()
    assert main(["verify", str(path)]) == 1
    assert "8 of 9 effects are as they were written" in capsys.readouterr().out
    assert recover(path, tmp_path / "whole.mav").effects == 8
    with Recording(tmp_path / "whole.mav") as recording, Recording(swept[0]) as sound:
        sweep = read_sweep(recording)
        assert all(check.good for check in checks(recording))
        assert (sweep.end, len(sweep.effects)) == (None, 8)
        difference = compare(sound, recording)
        assert not difference.same
        assert [(one.name, one.missing) for one in difference.numbers] == [("sweep", "b")]
        assert compare(sound, sound).same


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_was_made_to_harm(name, swept, tmp_path):
    path = tmp_path / "hostile.mav"
    path.write_bytes(swept[0].read_bytes())
    database = sqlite3.connect(path)
    database.executescript(HOSTILE[name])
    database.close()
    for action in (lambda: looked_at(path), lambda: recover(path, tmp_path / "whole.mav")):
        line = refused(action)
        assert line is None or ("\n" not in line and "\x1b" not in line)


def looked_at(path):
    with Recording(path) as recording:
        sweep = read_sweep(recording)
        results = checks(recording)
        assert (sweep.wrong == 0 and not recording.problems) or not all(check.good for check in results)
        for name in SWEEP_FORMATS:
            write_format(recording, name, io.BytesIO())


def test_a_number_that_was_changed_with_its_sum_is_still_only_a_number(swept, tmp_path):
    path = tmp_path / "changed.mav"
    path.write_bytes(swept[0].read_bytes())
    database = sqlite3.connect(path)
    values = list(
        database.execute("SELECT site, layer, head, logit, prob, logprob, minus_logit, change FROM effects WHERE id = 1").fetchone()
    )
    values[3] = float("inf")
    database.execute("UPDATE effects SET logit = ?, sum = ? WHERE id = 1", (values[3], sum_of(tuple(values))))
    database.commit()
    database.close()
    looked_at(path)
    assert json.loads(exported(path, "jsonl").splitlines()[1])["logit"] is None


def test_a_file_that_exists_is_never_written_to(swept):
    before = swept[0].read_bytes()
    done = warm.run(*TOY, "--record", str(swept[0]))
    assert (done.returncode, done.stdout) == (2, "")
    assert "exists already" in done.stderr
    assert swept[0].read_bytes() == before


def test_a_sweep_that_never_began_leaves_no_file(tmp_path):
    done = warm.run(*TOY, "--target", "ab", "--record", str(tmp_path / "x.mav"))
    assert (done.returncode, list(tmp_path.iterdir())) == (2, [])
