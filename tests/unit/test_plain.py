"""Plain text: the tokens as they come, no power over a terminal, one line of summary."""

from __future__ import annotations

import io
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openmav.apps.text.plain import Plain
from openmav.apps.text.summary import summary, tokens_per_second
from openmav.backends.toy import Toy
from openmav.generation.session import Session
from openmav.record import Timing
from openmav.settings import Settings
from openmav.system.terminal import is_terminal, neutral


def run(*, terminal: bool) -> tuple[str, list[str], Session]:
    session = Session(Toy("toy", {}), Settings(model="toy", prompt="Hi", backend="toy"))
    written: list[str] = []
    said: list[str] = []
    face = Plain(written.append, said.append, terminal=terminal)
    face.begin(session.info, session.prompt, session.settings)
    for step in session:
        face.step(step)
    assert session.reason is not None
    face.end(session.reason, session.steps, 1.0)
    return "".join(written), said, session


def test_a_pipe_gets_the_text_as_it_is_without_special_tokens() -> None:
    text, said, session = run(terminal=False)
    assert text == session.text.removesuffix("<end>") + "\n"
    assert "\x1b[2J" in text
    assert "😀" in text
    assert len(said) == 1
    assert said[0].startswith(f"{len(session.steps)} tokens · ")
    assert said[0].endswith("the model ended the text")


def test_a_terminal_gets_no_control_character() -> None:
    text, _, _ = run(terminal=True)
    assert "␛[2J" in text
    assert not any(c in text for c in "\x1b\r\x07\x08\x00\x9b\u202e")
    assert "שלום" in text
    assert "👩\u200d👩\u200d👧" in text
    assert "[/]" in text


def test_an_error_ends_the_line_that_is_open() -> None:
    session = Session(Toy("toy", {}), Settings(model="toy", prompt="Hi", backend="toy"))
    written: list[str] = []
    face = Plain(written.append, written.append, terminal=True)
    face.step(session.step())
    face.fail()
    assert written == [" it", "\n"]


@given(st.text())
def test_neutral_text_cannot_steer_a_terminal_and_loses_nothing_printable(text: str) -> None:
    shown = neutral(text)
    assert not any((ord(c) < 0x20 and c not in "\n\t") or 0x7F <= ord(c) < 0xA0 or 0xD800 <= ord(c) < 0xE000 for c in shown)
    assert "\u202e" not in shown
    if text.isprintable():
        assert shown == text


def test_the_summary_counts_the_models_time_only() -> None:
    session = Session(Toy("toy", {}), Settings(model="toy", prompt="Hi", backend="toy", max_new_tokens=4))
    steps = [replace(step, timing=Timing(0.2, 0.04, 0.01), logprob=-math.log(2)) for step in session]
    assert tokens_per_second(steps) == pytest.approx(4.0)
    assert summary(steps) == "4 tokens · 4.0 tokens/s · mean surprisal 0.69 nats · perplexity 2.0"
    assert summary(steps[:1]).startswith("1 token · ")
    assert summary([]) == "0 tokens"
    assert "perplexity inf" in summary([replace(steps[0], logprob=-1e4)])


def test_a_closed_stream_is_no_terminal() -> None:

    assert not is_terminal(None)
    closed = io.StringIO()
    closed.close()
    assert not is_terminal(closed)
