"""Files that somebody else made: each opens with what is sound in it, or is one line."""

import io
import random
import sqlite3
import time
import tracemalloc
import warnings

import pytest
from runs import content, made, snapshot, toy

from openmav.errors import UsageError
from openmav.recording.check import Check, checks, wrong_steps
from openmav.recording.diff import compare
from openmav.recording.export.run import write_format
from openmav.recording.reader import Recording
from openmav.recording.recorder import Recorder
from openmav.recording.recover import recover
from openmav.recording.replay import ReplaySource

STATEMENTS = {
    "a trigger": "CREATE TRIGGER t AFTER INSERT ON steps BEGIN SELECT 1; END",
    "a view": "CREATE VIEW v AS SELECT * FROM steps",
    "a view in a table's place": "DROP TABLE contexts; CREATE VIEW contexts AS SELECT 1 AS id, hex(zeroblob(100000000)) AS content",
    "a virtual table": "CREATE VIRTUAL TABLE f USING fts5(x)",
    "an index on an expression": "CREATE INDEX i ON steps (abs(step))",
    "another table": "CREATE TABLE other (x)",
    "no steps": "DROP TABLE steps",
    "a generated column": "DROP TABLE events; CREATE TABLE events (id INTEGER PRIMARY KEY, x GENERATED ALWAYS AS (abs(id)))",
    "a future version": "PRAGMA user_version=99",
    "no version": "PRAGMA user_version=0",
    "another program's": "PRAGMA application_id=1",
    "no model": "DELETE FROM meta WHERE name = 'model'",
    "no meta": "DELETE FROM meta",
    "no branches": "DELETE FROM branches",
    "no contexts": "DELETE FROM contexts",
    "model is a list": "UPDATE meta SET value = '[1, 2]' WHERE name = 'model'",
    "model is a number": "UPDATE meta SET value = '3' WHERE name = 'model'",
    "a million layers": """UPDATE meta SET value = replace(value, '"layers":2', '"layers":100000000') WHERE name = 'model'""",
    "layers in words": """UPDATE meta SET value = replace(value, '"layers":', '"layers":"x","other":') WHERE name = 'model'""",
    "state is text": "UPDATE meta SET value = '\"x\"' WHERE name = 'state'",
    "sampling is wrong": """UPDATE meta SET value = '{"sampling": {"temperature": "hot"}, "branch": 3}' WHERE name = 'state'""",
    "undone is negative": """UPDATE meta SET value = '{"undone": -5, "branch": "main"}' WHERE name = 'state'""",
    "an attribution of nothing": "INSERT INTO meta VALUES ('attribution', '{\"scores\": [[1]], \"tokens\": 5}')",
    "JSON that takes twenty times its text": "UPDATE meta SET value = "
    "'[' || replace(hex(zeroblob(4000000)), '0', '[],') || '0]' WHERE name = 'state'",
    "deep JSON": "UPDATE meta SET value = replace(hex(zeroblob(50000)), '0', '[') WHERE name = 'state'",
    "a prompt of numbers": """UPDATE branches SET prompt = '{"text": 1, "token_ids": ["a"], "tokens": [], "special": []}'""",
    "a prompt that is no JSON": "UPDATE branches SET prompt = '{'",
    "a branch of itself": "UPDATE branches SET parent = 1, at = 5",
    "a branch of none": "UPDATE branches SET parent = 77, at = 99999999999",
    "a branch at text": "UPDATE branches SET at = 'x'",
    "a name with escapes": "UPDATE branches SET name = char(27) || ']0;x' || char(7) || '<script>' || char(8238)",
    "tokens with escapes": "UPDATE steps SET token = char(27) || '[2J', text = char(27) || ']52;c;x' || char(7) || char(8238)",
    "tokens that are blobs": "UPDATE steps SET token = x'FF00FE'",
    "no tokens": "UPDATE steps SET token = NULL, text = NULL",
    "logprobs in words": "UPDATE steps SET logprob = 'x'",
    "ids in words": "UPDATE steps SET token_id = 'x'",
    "huge steps": "UPDATE steps SET step = step + 9000000000000000000",
    "negative steps": "UPDATE steps SET step = -1 - step",
    "steps in words": "UPDATE steps SET step = 'x' || step",
    "a gap": "DELETE FROM steps WHERE step = 3",
    "details that are no JSON": "UPDATE steps SET detail = '}'",
    "details that are a list": "UPDATE steps SET detail = '[]'",
    "deep details": "UPDATE steps SET detail = replace(hex(zeroblob(20000)), '0', '[')",
    "no candidates": """UPDATE steps SET detail = '{"arrays": []}'""",
    "no data": "UPDATE steps SET data = x''",
    "data in words": "UPDATE steps SET data = 'x'",
    "another dtype": "UPDATE steps SET detail = replace(detail, '<f4', '|O8')",
    "a pickled object": "UPDATE arrays SET dtype = 'O', data = x'80049526'",
    "huge shapes": "UPDATE arrays SET shape = '[4611686018427387904, 16]'",
    "negative shapes": "UPDATE arrays SET shape = '[-1, 2]'",
    "shapes in words": "UPDATE arrays SET shape = 'x'",
    "shapes of fractions": "UPDATE arrays SET shape = '[1.5]'",
    "shapes of many axes": "UPDATE arrays SET shape = '[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]'",
    "arrays in words": "UPDATE arrays SET data = 'x'",
    "arrays elsewhere": "UPDATE arrays SET name = 'detail/' || name",
    "a large array": "UPDATE arrays SET data = zeroblob(100000000) WHERE step = 1 AND name = (SELECT min(name) FROM arrays)",
    "large details": "UPDATE steps SET data = zeroblob(250000000) WHERE id = 1",
    "contexts that are no JSON": "UPDATE contexts SET content = 'x'",
    "names of arrays that are bytes": "UPDATE arrays SET name = CAST(name AS BLOB)",
    "names of branches that are bytes": "UPDATE branches SET name = CAST(name AS BLOB)",
    "texts of tokens that are bytes": "UPDATE steps SET token = CAST(token AS BLOB), text = CAST(text AS BLOB)",
    "contexts with other sampling": """UPDATE contexts SET content = '{"sampling": {"seed": "x"}, "interventions": [3]}'""",
    "another context": "UPDATE steps SET context = 9",
    "no texts": "DELETE FROM texts",
    "no table of texts": "DROP TABLE texts",
    "texts that are bytes": "UPDATE texts SET text = CAST(text AS BLOB)",
    "texts with another sum": "UPDATE texts SET sum = 'x'",
    "texts with escapes": "UPDATE texts SET text = char(27) || '[2J' || char(8238) || '<script>'",
}
BITS = 60
CUTS = 24
PAIRS = 60  # two of the statements at a time
EXPORTED = ("jsonl", "csv", "npz", "svg", "cast")
LEAST = 200  # hostile files in all


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    path = tmp_path_factory.mktemp("sound") / "run.mav"
    session = toy()
    made(session, 6)
    recorder = Recorder(path, session.settings)
    recorder.update(snapshot(session))
    session.back(2)
    session.force(9)
    recorder.update(snapshot(session))
    recorder.close()
    return path.read_bytes()


def peak():
    """Bytes of memory that this process has had at most; 0 where the system does not say."""
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def refused(action):
    """The line of an action that was refused; None where it was not."""
    try:
        action()
    except UsageError as error:
        return str(error)
    return None


def opened(path):
    """Reads the file as the app and the commands do; the line that refuses it, None where it opens."""
    started = time.process_time()
    line = refused(lambda: looked_at(path))
    assert line is None or "\n" not in line
    assert time.process_time() - started < 10
    return line


def looked_at(path):
    source = ReplaySource(path)
    now = source.snapshot()
    content(now.steps)
    for branch in now.branches.values():
        content(branch.steps)
    checks(source.recording)
    for name in EXPORTED:
        line = refused(lambda name=name: write_format(source.recording, name, io.BytesIO()))
        assert line is None or "\n" not in line
    source.close()


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_file_that_was_made_to_harm(name, sound, tmp_path):
    path = tmp_path / "hostile.mav"
    path.write_bytes(sound)
    database = sqlite3.connect(path)
    database.executescript(STATEMENTS[name])
    database.close()
    before = peak()
    opened(path)
    line = refused(lambda: recover(path, tmp_path / "whole.mav"))
    assert line is None or "\n" not in line
    if line is None:
        opened(tmp_path / "whole.mav")
    assert peak() - before < 300 * 2**20


def test_files_with_two_things_wrong(sound, tmp_path):
    assert len(STATEMENTS) + BITS + CUTS + PAIRS >= LEAST
    random.seed(7)
    before = peak()
    for attempt in range(PAIRS):
        path = tmp_path / f"{attempt}.mav"
        path.write_bytes(sound)
        database = sqlite3.connect(path)
        names = random.sample([name for name in STATEMENTS if not name.startswith("large details")], 2)
        for name in names:
            try:
                database.executescript(STATEMENTS[name])
            except sqlite3.Error:  # the first has removed what the second changes
                continue
        database.close()
        opened(path)
        path.unlink()
    assert peak() - before < 300 * 2**20


def test_files_with_flipped_bits_and_files_cut_short(sound, tmp_path):
    random.seed(11)
    for attempt in range(BITS + CUTS):
        data = bytearray(sound)
        if attempt < BITS:
            for _ in range(20):
                data[random.randrange(100, len(data))] ^= 1 << random.randrange(8)
        else:
            del data[random.randrange(len(data)) :]
        path = tmp_path / f"{attempt}.mav"
        path.write_bytes(data)
        opened(path)
        line = refused(lambda path=path, attempt=attempt: recover(path, tmp_path / f"whole-{attempt}.mav"))
        assert line is None or "\n" not in line


def changed_file(sound, path, statement):
    path.write_bytes(sound)
    database = sqlite3.connect(path)
    database.executescript(statement)
    database.close()
    return path


@pytest.mark.parametrize("value", ["hex(zeroblob(40000000))", "char(0) || hex(zeroblob(40000000))"])
def test_one_entry_that_is_too_large_takes_no_other_with_it(value, sound, tmp_path):
    path = changed_file(sound, tmp_path / "run.mav", f"INSERT INTO meta VALUES ('a', {value})")
    with Recording(path) as recording:
        assert recording.info is not None
        assert recording.state("branch") == "branch 1"
        assert recording.problems == ["its entry 1 of `meta` cannot be read"]


BOMB = "'[' || replace(hex(zeroblob(1500000)), '0', '[],') || '0]'"  # 9 MB of text, 190 MB of lists


@pytest.mark.parametrize(
    "rows",
    [
        f"meta SET value = {BOMB} WHERE name = 'state'",
        f"steps SET detail = {BOMB} WHERE id = 1",
        f"contexts SET content = {BOMB} WHERE id = 1",
        f"branches SET prompt = {BOMB} WHERE id = 1",
    ],
)
def test_json_does_not_take_more_memory_than_a_recording_needs(rows, sound, tmp_path):
    path = changed_file(sound, tmp_path / "run.mav", f"UPDATE {rows}")
    tracemalloc.start()
    try:
        refused(lambda: looked_at_text(path))
        assert tracemalloc.get_traced_memory()[1] < 100 * 2**20
    finally:
        tracemalloc.stop()


def looked_at_text(path):
    with Recording(path) as recording:
        recording.branches()


def test_the_arrays_of_a_step_are_not_all_read_where_no_step_has_so_many_bytes(sound, tmp_path):
    rows = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 5)"
    arrays = f"{rows} INSERT INTO arrays SELECT 1, 'values/n' || x, '<f4', '[7500000]', zeroblob(30000000) FROM c"
    path = changed_file(sound, tmp_path / "run.mav", arrays)
    with Recording(path) as recording:
        tracemalloc.start()
        try:
            assert [one.step for one in wrong_steps(recording)] == [0]
            assert tracemalloc.get_traced_memory()[1] < 60 * 2**20
        finally:
            tracemalloc.stop()


def test_an_array_that_is_larger_than_any_is_a_line_before_one_is_looked_for(sound, tmp_path):
    path = changed_file(sound, tmp_path / "run.mav", "UPDATE arrays SET data = zeroblob(70000000) WHERE step = 1 AND name LIKE '%mlp_norm'")
    for read in (Recording, lambda path: recover(path, tmp_path / "whole.mav")):
        with pytest.raises(UsageError, match="too large to open: one of its arrays has 67 MB"):
            read(path)
    assert not (tmp_path / "whole.mav").exists()


def test_a_file_without_a_model_and_tokens_can_not_be_saved(sound, tmp_path):
    path = changed_file(sound, tmp_path / "run.mav", "DELETE FROM meta WHERE name = 'model'; DELETE FROM steps")
    with pytest.raises(UsageError, match="neither the model nor a token can be read"):
        recover(path, tmp_path / "whole.mav")
    assert not (tmp_path / "whole.mav").exists()


def test_more_steps_than_mav_reads_are_a_line(sound, tmp_path, monkeypatch):
    path = changed_file(sound, tmp_path / "run.mav", "")
    monkeypatch.setattr("openmav.recording.reader.MOST_ROWS", 3)
    monkeypatch.setattr("openmav.recording.check.MOST_ROWS", 3)
    assert "too large to open: 7 steps" in opened_by_the_app(path)
    with Recording(path) as recording:
        assert checks(recording)[-1] == Check("sums", False, "7 steps are more than mav reads")
    recover(path, tmp_path / "some.mav")
    with Recording(tmp_path / "some.mav") as some:
        assert next(len(branch.steps) for branch in some.branches()) == 3


def opened_by_the_app(path):
    return refused(lambda: ReplaySource(path)) or ""


def test_bits_that_are_no_number_are_no_warning(sound, tmp_path):
    path = tmp_path / "run.mav"
    path.write_bytes(sound)
    database = sqlite3.connect(path)
    for number, name, data in database.execute("SELECT step, name, data FROM arrays WHERE dtype = '<f4'").fetchall():
        bits = bytes.fromhex("0100a07f") * (len(data) // 4)  # signalling NaNs
        database.execute("UPDATE arrays SET data = ? WHERE step = ? AND name = ?", (bits, number, name))
    database.commit()
    database.close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in (*EXPORTED, "html"):
            with Recording(path) as recording:
                write_format(recording, name, io.BytesIO())
        with Recording(path) as one, Recording(path) as other:
            assert compare(one, other).same


def test_a_step_with_too_many_numbers_for_a_line_is_named(sound, tmp_path, monkeypatch):
    path = changed_file(sound, tmp_path / "run.mav", "")
    monkeypatch.setattr("openmav.recording.export.jsonl.MOST_NUMBERS", 10)
    with Recording(path) as recording, pytest.raises(UsageError, match=r"token 0 has .* too many for a line"):
        write_format(recording, "jsonl", io.BytesIO())


def test_a_page_has_no_room_for_many_steps_with_large_arrays(sound, tmp_path):
    arrays = "INSERT INTO arrays SELECT id, 'values/n', '<f4', '[15000000]', zeroblob(60000000) FROM steps LIMIT 3"
    with Recording(changed_file(sound, tmp_path / "run.mav", arrays)) as recording:
        assert recording.bytes_of_large_steps(60_000_000) == pytest.approx(3 * 60_000_000, rel=0.01)
        assert recording.bytes_of_large_steps(100_000_000) == 0
        with pytest.raises(UsageError, match=r"have 172 MB of numbers, too many for a page"):
            write_format(recording, "html", io.BytesIO())


def test_what_is_no_recording(tmp_path):
    for name, data in {"empty": b"", "text": b"hello" * 100, "database": b"SQLite format 3\0" + bytes(4000)}.items():
        path = tmp_path / name
        path.write_bytes(data)
        assert opened(path) == f"{path} is not a recording of mav"
    assert "folder" in opened(tmp_path)
    assert "there is no file" in opened(tmp_path / "missing")
