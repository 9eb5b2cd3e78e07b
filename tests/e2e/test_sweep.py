"""`mav sweep` in a process of its own: text, JSON lines, CSV, Ctrl-C, wrong use; and its live map in a real terminal."""

from __future__ import annotations

import csv
import json
import re
import signal
import subprocess

import pytest

from e2e.test_command import MAV, WAIT, mav, own_log, posix
from e2e.tmux import TMUX, Terminal

__all__ = ["own_log"]
TOY = ["sweep", "--backend", "toy", "--prompt", "Hi"]


def test_json_lines() -> None:
    done = mav(*TOY, "--model", "toy?bare=2", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    head, *effects, end = [json.loads(line) for line in done.stdout.splitlines()]
    assert (head["type"], end["type"], end["reason"], end["effects"]) == ("header", "end", "done", 12)
    assert head["sweep"]["target"] == {"token_id": 257, "text": " it"}
    assert list(head["sweep"]["missing"]) == [f"L2.H{head}" for head in range(4)]
    assert [(e["layer"], e["head"]) for e in effects] == [(layer, head) for layer in (0, 1, 3) for head in range(4)]
    before = head["sweep"]["before"]
    for effect in effects:
        for name in ("logit", "prob", "logprob"):
            assert effect[f"{name}_change"] == pytest.approx(effect[name] - before[name], abs=1e-12)


def test_csv() -> None:
    done = mav(*TOY, "--model", "toy", "--csv", "--ablate", "attn", "--target", "a", "--minus", "b")
    assert (done.returncode, done.stderr) == (0, "")
    rows = list(csv.DictReader(done.stdout.splitlines()))
    assert [row["site"] for row in rows] == [f"L{layer}.attn" for layer in range(4)]
    assert all(row["head"] == "" for row in rows)
    untouched = [float(row["logit"]) - float(row["minus_logit"]) - float(row["difference_change"]) for row in rows]
    assert untouched == pytest.approx([untouched[0]] * 4, abs=1e-9)
    assert any(abs(float(row["difference_change"])) > 1e-3 for row in rows)


def test_text() -> None:
    done = mav(*TOY, "--model", "toy")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert {len(line) for line in lines} == {100}
    assert "Sweep · each head taken away alone" in lines[0]
    assert "16 of 16" in lines[-1]
    assert "\x1b" not in done.stdout


@posix
@pytest.mark.parametrize("face", ["--json", "--csv"])
def test_ctrl_c_keeps_what_is_done(face: str) -> None:
    run = subprocess.Popen([*MAV, *TOY, "--model", "toy?slow=0.3", face], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert run.stdout is not None
    first, second = run.stdout.readline(), run.stdout.readline()
    run.send_signal(signal.SIGINT)
    rest, said = run.communicate(timeout=WAIT)
    assert (run.returncode, said) == (130, "")
    if face == "--json":
        assert json.loads(second)["type"] == "effect"
        end = json.loads(rest.splitlines()[-1])
        assert (end["reason"], end["effects"]) == ("interrupt", len(rest.splitlines()))
    else:
        assert first.startswith("site,layer,head")
        assert second.startswith("L0.H0,0,0,")
        assert len(rest.splitlines()) < 15


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (["--json", "--csv"], "--json and --csv exclude each other"),
        (["--target", "ab"], "'ab' is 2 tokens for this model ('a', 'b'); give text that is one"),
        (["--ablate", "tails"], "Invalid value for '--ablate': 'tails' is not one of 'heads', 'attn', 'mlp', 'layers'"),
        (["--prompt-file", "x"], "--prompt and --prompt-file exclude each other"),
    ],
)
def test_wrong_use_is_one_line(args: list[str], why: str) -> None:
    done = mav(*TOY, "--model", "toy", *args)
    assert (done.returncode, done.stdout) == (2, "")
    assert why in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(TMUX is None, reason="needs tmux")
def test_the_live_map_grows_and_stays(tmp_path) -> None:
    with Terminal(90, 24, tmp_path) as terminal:
        terminal.type(f"{' '.join([*MAV, *TOY])} --model 'toy?slow=0.2'; echo EXIT $?")
        terminal.wait_for(r"[1-9] of 16 ")
        terminal.wait_for(r"EXIT 0")
        text = terminal.text()
    assert text.count("Sweep · each head") == 1  # nothing is left of the drawings before
    assert "16 of 16" in text
    assert "L3.H" in text or "L0.H" in text


@pytest.mark.skipif(TMUX is None, reason="needs tmux")
def test_ctrl_c_leaves_the_map_as_far_as_it_is(tmp_path) -> None:
    with Terminal(90, 24, tmp_path) as terminal:
        terminal.type(f"{' '.join([*MAV, *TOY])} --model 'toy?slow=0.3'; echo EXIT $?")
        terminal.wait_for(r"[2-9] of 16 ")
        terminal.keys("C-c")
        terminal.wait_for(r"EXIT 130")
        assert re.search(r"\d of 16, interrupted", terminal.text())
