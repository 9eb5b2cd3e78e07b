"""A recording as a picture and as a film of the terminal: what they show is the recording's, and foreign text has no power in them."""

import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from runs import made, snapshot, toy

from openmav.cli.main import main
from openmav.paint import printable, surprise
from openmav.paint.theme import LIGHT
from openmav.recording.export.cast import COLUMNS, LEAST, ROWS
from openmav.recording.recorder import Recorder

HOSTILE = "<script>alert(1)</script>&\x1b]0;x\x07\x9b2J\u202e\ufffe"
SVG = "{http://www.w3.org/2000/svg}"
MOVES = re.compile(r"\x1b\[(\d+;1H|[\d;]*m|K|2J|\?25[hl])")


@pytest.fixture
def hostile(tmp_path):
    """A recording of a text that wants to be markup and control sequences, with a forced token."""
    session = toy(prompt=f"a {HOSTILE}", measures=("residual_norm", "logit_lens"))
    made(session, 6)
    session.steps[2] = replace(session.steps[2], token=HOSTILE, text=HOSTILE, logprob=-6.0, forced=True)
    session.steps[3] = replace(session.steps[3], logprob=float("nan"))
    recorder = Recorder(tmp_path / "run.mav", session.settings)
    recorder.update(snapshot(session))
    recorder.close()
    return tmp_path / "run.mav", session.steps


def texts(tree):
    return ["".join(one.itertext()) for one in tree.iter(f"{SVG}text")]


def test_the_picture_has_the_text_its_surprise_and_the_lens(hostile, tmp_path):
    path, steps = hostile
    assert main(["export", str(path), "--to", "svg"]) == 0
    tree = ET.parse(tmp_path / "run.svg").getroot()
    assert {one.tag for one in tree.iter()} <= {SVG + name for name in ("svg", "title", "rect", "text")}
    assert not any(name.startswith("on") or "href" in name for one in tree.iter() for name in one.attrib)
    shown = "".join(texts(tree))
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert "<script>alert(1)</script>" in shown
    for step in steps:
        assert printable(step.text).strip().split("\n")[0][:8] in shown
    grounds = [one.get("fill") for one in tree.iter(f"{SVG}rect")]
    for step in steps:
        if surprise.step_of(step.surprisal) > 0:
            assert LIGHT.surprise[surprise.step_of(step.surprisal)] in grounds
    assert {str(step.index) for step in steps} <= set(texts(tree))
    assert "Logit lens" in texts(tree)


def test_a_picture_without_a_lens_has_the_candidates_of_the_most_surprising_token(tmp_path):
    session = toy(measures=())
    made(session, 6)
    step = session.steps[4] = replace(session.steps[4], logprob=-9.25)
    recorder = Recorder(tmp_path / "run.mav", session.settings)
    recorder.update(snapshot(session))
    recorder.close()
    assert main(["export", str(tmp_path / "run.mav"), "--to", "svg"]) == 0
    shown = texts(ET.parse(tmp_path / "run.svg").getroot())
    assert any("9.25 nats" in text for text in shown)
    for probability in step.candidates.probs[:3]:
        assert f"{probability * 100:.1f} %" in shown


def test_a_picture_of_a_long_text_is_no_longer_than_a_page(tmp_path):
    session = toy(prompt="a line\n" * 100, measures=())
    made(session, 3)
    recorder = Recorder(tmp_path / "run.mav", session.settings)
    recorder.update(snapshot(session))
    recorder.close()
    assert main(["export", str(tmp_path / "run.mav"), "--to", "svg"]) == 0
    tree = ET.parse(tmp_path / "run.svg").getroot()
    assert float(tree.get("height")) < 1200
    assert any("rows before" in text for text in texts(tree))


def test_the_film_writes_the_text_token_by_token(hostile, tmp_path):
    path, steps = hostile
    assert main(["export", str(path), "--to", "cast"]) == 0
    head, *rest = [line for line in (tmp_path / "run.cast").read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    assert json.loads(head) == {"version": 3, "term": {"cols": COLUMNS, "rows": ROWS, "type": "xterm-256color"}, "title": "toy"}
    events = [json.loads(line) for line in rest]
    assert len(events) == len(steps) + 3  # the screen is cleared, the prompt, the tokens, the cursor comes back
    screen = [""] * ROWS
    for (seconds, kind, data), step in zip(events[2:-1], steps, strict=True):
        assert kind == "o"
        assert seconds == pytest.approx(max(step.timing.total, LEAST), abs=1e-4)
        assert not re.search(r"[\x00-\x1f\x7f-\x9f\u202e]", MOVES.sub("", data))
        for row, line in re.findall(r"\x1b\[(\d+);1H(.*?)\x1b\[K", data):
            screen[int(row) - 1] = MOVES.sub("", line)
        assert f"token {step.index} of {len(steps)}" in screen[0]
    assert printable(HOSTILE)[:25] in "".join(line.strip() for line in screen)
