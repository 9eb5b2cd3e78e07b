"""What is pasted arrives as text, however the terminal cuts it in pieces, and nothing in it is a key."""

from __future__ import annotations

import pytest
from driving import COMPACT, make_app, screen_text
from textual import events
from textual._xterm_parser import XTermParser
from textual.message import Message

from openmav.apps.tui.app import MavApp
from openmav.apps.tui.pasting import PasteParser
from openmav.apps.tui.widgets.text_input import MOST, TextInput
from openmav.view.options import AppOptions

TEXTS = (
    "plain",
    "two\r\nlines",
    "red \x1b[31mtext\x1b[0m",
    "\x1b]52;c;aGk=\x07 \x7f \x03q",
    "\x1b[A\x1b[200~again",
    "\x1b",
    "\x1b[201",
    "",
    "ä🙂" * 9000,
)


def told(parser: XTermParser, parts: list[str]) -> list[tuple[str, str]]:
    messages: list[Message] = [message for part in parts for message in parser.feed(part)]
    return [("paste", message.text) if isinstance(message, events.Paste) else ("key", message.key) for message in messages]  # type: ignore[attr-defined]


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: ascii(text)[:30])
def test_a_paste_is_its_text_wherever_it_is_cut(text: str) -> None:
    data = f"a\x1b[200~{text}\x1b[201~b\x1b[Bc"
    expected = [("key", "a"), ("paste", text), ("key", "b"), ("key", "down"), ("key", "c")]
    cuts = range(1, len(data)) if len(data) < 100 else (*range(1, 20), *range(4080, 4100), *range(len(data) - 20, len(data)))
    for cut in cuts:
        assert told(PasteParser(), [data[:cut], data[cut:]]) == expected
    assert told(PasteParser(), [*data]) == expected
    assert told(PasteParser(), [data[at : at + 4096] for at in range(0, len(data), 4096)]) == expected
    assert told(PasteParser(), [data + data]) == expected * 2


def test_what_is_typed_is_what_textual_makes_of_it() -> None:
    typed = ["q", "\x1b[A", "\x1b[<0;5;5M", "\x1b[Z", "\x1bOP", "\x1b[1;5C", "ü", "\r", "\x03", "\x1b[20", "~"]
    assert [str(message) for part in typed for message in PasteParser().feed(part)] == [
        str(message) for part in typed for message in XTermParser().feed(part)
    ]


def test_an_escape_key_that_is_followed_by_a_start_in_two_halves_is_none() -> None:
    parser = PasteParser()
    assert list(parser.feed("\x1b[20")) == []
    parser._timeout_time = 0.0
    assert [message.key for message in parser.tick()] == ["left_square_bracket", "2", "0"]  # type: ignore[attr-defined]
    assert told(parser, ["0~q"])[-1] == ("key", "q")


def test_a_paste_without_an_end_takes_no_key_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    parser = PasteParser()
    assert told(parser, ["\x1b[200~text\x1b[20", "\x1b[200~\x03"]) == []
    assert [*parser.tick()] == [], "the rest may still come"
    monkeypatch.setattr("openmav.apps.tui.pasting.WAIT", -1.0)
    assert [message.text for message in parser.tick()] == ["text\x1b[20\x1b[200~\x03"]  # type: ignore[attr-defined]
    assert [*parser.tick()] == []
    assert told(parser, ["q", "\x1b[200~a\x1b[201~\x03"]) == [("key", "q"), ("paste", "a"), ("key", "ctrl+c")]


def test_the_app_reads_with_it() -> None:
    import sys

    from fakes import ListSource

    app = MavApp(ListSource([]), AppOptions())
    assert sys.modules[app.driver_class.__module__].XTermParser is PasteParser


async def test_a_paste_that_is_too_long_for_a_line_is_refused_in_words() -> None:
    app = make_app(6)
    async with app.run_test(size=COMPACT) as pilot:
        await pilot.press("w")
        field = app.screen.query_one(TextInput)
        await pilot.press("a")
        field.post_message(events.Paste("x" * MOST))
        await pilot.pause()
        assert field.value == "a"
        assert f"a line takes {MOST:,} characters, not {MOST + 1:,}" in screen_text(app)
        field.post_message(events.Paste("x" * (MOST - 1)))
        await pilot.pause()
        assert field.value == "a" + "x" * (MOST - 1)
        assert "characters, not" not in screen_text(app)


@pytest.mark.parametrize("keys", [("slash",), ("question_mark", "slash"), ("k",), ("a",)], ids=["search", "help", "watches", "intervene"])
async def test_every_line_says_that_it_refuses_a_paste(keys: tuple[str, ...]) -> None:
    app = make_app(6)
    async with app.run_test(size=COMPACT) as pilot:
        await pilot.press(*keys)
        await pilot.pause()
        field = next(one for one in app.screen.query(TextInput) if one.has_focus)
        before = field.value
        field.post_message(events.Paste("x" * (MOST + 1)))
        await pilot.pause()
        assert field.value == before
        assert f"a line takes {MOST:,} characters, not " in " ".join(screen_text(app).split())
