"""`mav batch` and `mav query` as commands: sources, a kill and going on, the summary, wrong use, safe queries."""

from __future__ import annotations

import csv
import json
import os
import time
from pathlib import Path

import pytest

import warm
from e2e.test_command import linux, mav, own_log
from openmav.recording.reader import Recording

__all__ = ["own_log"]
TOY = ["--backend", "toy", "--model", "toy", "--max-new-tokens", "3"]


def batch(source, folder, *more: str):
    return mav("batch", str(source), "--record", str(folder), *TOY, *more)


def prompts_of(folder: Path) -> list[str]:
    prompts = []
    for file in sorted(folder.glob("*.mav")):
        with Recording(file) as recording:
            (branch,) = recording.branches()
            assert len(branch.steps) == 3
            prompts.append(branch.prompt.text)
    return prompts


def test_every_source_gives_the_same_prompts(tmp_path):
    prompts = ["Hi", "How, are you", "It"]
    (tmp_path / "a.txt").write_text("\n".join(prompts) + "\n")
    (tmp_path / "a.jsonl").write_text("\n".join([json.dumps("Hi"), *(json.dumps({"prompt": one, "x": 1}) for one in prompts[1:])]))
    (tmp_path / "a.csv").write_text('id,prompt\n1,Hi\n2,"How, are you"\n3,It\n')
    (tmp_path / "texts").mkdir()
    for number, one in enumerate(prompts):
        (tmp_path / "texts" / f"{number}.txt").write_text(one)
    for at, source in enumerate(("a.txt", "a.jsonl", "a.csv", "texts")):
        done = batch(tmp_path / source, tmp_path / f"out{at}")
        assert done.returncode == 0
        assert done.stderr == "mav: one prompt at a time: the backend toy runs one text at a time\n"
        assert "3 of 3 prompts · 9 tokens" in done.stdout
        assert prompts_of(tmp_path / f"out{at}") == prompts
    assert mav("--plain", "--prompt", prompts[1], "--record", str(tmp_path / "alone.mav"), *TOY).returncode == 0
    said = mav("diff", str(tmp_path / "alone.mav"), str(tmp_path / "out0" / "00002.mav"))
    assert (said.returncode, said.stdout) == (0, "the same: 3 tokens compared\n")
    rows = list(csv.DictReader((tmp_path / "out0" / "summary.csv").open()))
    answer = mav("query", str(tmp_path / "out0"), "select file, -sum(logprob) / count(*) as mean from steps group by file", "--json")
    for row, line in zip(rows, answer.stdout.splitlines(), strict=True):
        assert json.loads(line) == {"file": row["file"], "mean": pytest.approx(float(row["surprisal"]), rel=1e-12)}


@linux
def test_killed_and_gone_on_with_no_prompt_is_lost_or_doubled(tmp_path):
    prompts = [f"prompt {number}" for number in range(12)]
    (tmp_path / "a.txt").write_text("\n".join(prompts))
    out = tmp_path / "out"
    with open(os.devnull, "r+") as nothing:
        streams = (nothing.fileno(),) * 3
        slow = ["batch", str(tmp_path / "a.txt"), "--record", str(out), *TOY]
        slow[slow.index("toy", slow.index("--model"))] = "toy?slow=0.06"
        process = warm.start(slow, streams)
        for _ in range(12_000):
            if len(list(out.glob("*.mav"))) >= 4:
                break
            time.sleep(0.01)
        process.kill()
    first = {file.name: file.stat().st_mtime_ns for file in out.glob("*.mav")}
    assert 4 <= len(first) < 12
    (out / "00012.unfinished").write_bytes(b"half")
    done = mav(*slow)
    assert done.returncode == 0
    assert prompts_of(out) == prompts
    assert {name: (out / name).stat().st_mtime_ns for name in first} == first
    assert sorted(file.suffix for file in out.iterdir()) == [".csv", ".json", *[".mav"] * 12]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.jsonl", '"Hi"\n{"text": 1}', "line 2: there is no text under 'prompt'"),
        ("a.jsonl", '"Hi"\nHi', "line 2: this is no JSON"),
        ("a.csv", "a,b\n1,2", "has no column 'prompt'"),
        ("a.txt", "\n\n", "has no prompts"),
        ("a.jsonl", '""', "line 1: the prompt is empty"),
    ],
)
def test_wrong_prompts_are_one_line(tmp_path, name, content, says):
    (tmp_path / name).write_text(content)
    done = batch(tmp_path / name, tmp_path / "out")
    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "a.txt").write_text("Hi")
    for name in ("full", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "full" / "mine").write_text("x")
    assert "is not empty" in batch(tmp_path / "a.txt", tmp_path / "full").stderr
    assert batch(tmp_path / "a.txt", tmp_path / "other").returncode == 0
    assert "holds a batch of other prompts" in batch(tmp_path / "a.txt", tmp_path / "other", "--seed", "1").stderr


def test_queries_read_and_nothing_else(tmp_path):
    (tmp_path / "a.txt").write_text("Hi\nHo")
    out = tmp_path / "out"
    batch(tmp_path / "a.txt", out)
    before = {file: file.read_bytes() for file in out.glob("*.mav")}
    table = mav("query", str(out), "select file, step, token from steps where step < 2 order by file, step")
    assert table.stdout.splitlines()[0].split() == ["file", "step", "token"]
    assert [line.split()[:2] for line in table.stdout.splitlines()[1:]] == [[f"0000{n}.mav", str(at)] for n in (1, 2) for at in (0, 1)]
    joined = "select count(*) as n from arrays join steps on arrays.file = steps.file and arrays.step = steps.id"
    assert int(mav("query", str(out), joined, "--csv").stdout.split()[1]) > 6
    target = tmp_path / "made.db"
    for bad in (
        "delete from steps",
        f"attach '{target}' as x",
        "select load_extension('x')",
        "select 1; drop table steps",
        f"vacuum into '{target}'",
        "pragma writable_schema=1",
        "select * from nothing",
        "",
    ):
        done = mav("query", str(out), bad)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1), bad
        assert "give one SELECT" in done.stderr
    assert not target.exists()
    assert {file: file.read_bytes() for file in out.glob("*.mav")} == before
    assert mav("query", str(tmp_path), "select 1").returncode == 2
