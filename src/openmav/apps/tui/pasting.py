"""What is pasted is text. Textual's parser types escape sequences inside of a paste as keys, so pastes are taken out before it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable

from textual._xterm_parser import BRACKETED_PASTE_END, BRACKETED_PASTE_START, XTermParser
from textual.driver import Driver
from textual.events import Paste
from textual.message import Message

# Seconds without anything more after which a paste has ended: one whose end never comes would take all keys from then on. A network may
# stall for a second or two in the middle of one, and the rest of it would act as keys then; to wait longer for the keys costs less.
WAIT = 5.0


class PasteParser(XTermParser):
    """Textual's parser of what a terminal sends, but a paste is one Paste event with its text as it is, and never a key."""

    early = ""  # what was typed before there was an app; the first parser takes it

    def __init__(self, debug: bool = False) -> None:
        super().__init__(debug)
        self._early, PasteParser.early = PasteParser.early, ""
        self._pasted: list[str] | None = None  # what has arrived of a paste that has not ended
        self._newest = 0.0  # when the last of it did
        self._before = ""  # the end of what was read, which may be the first half of a paste's start

    def feed(self, data: str) -> Iterable[Message]:
        if not data:
            yield from super().feed(data)
        else:
            data, self._early = self._early + data, ""
        while data:
            if self._pasted is None:
                before = self._before
                at = (before + data).find(BRACKETED_PASTE_START)
                end = len(data) if at < 0 else at + len(BRACKETED_PASTE_START) - len(before)
                self._before = (before + data[:end])[1 - len(BRACKETED_PASTE_START) :] if at < 0 else ""
                yield from super().feed(data[:end])
                data = data[end:]
                if at >= 0:
                    self._pasted, self._newest = [""], time.monotonic()
            else:
                text, mark, data = (self._pasted.pop() + data).partition(BRACKETED_PASTE_END)
                self._pasted.append(text[:-8192])
                self._pasted.append(text[-8192:])
                self._newest = time.monotonic()
                if mark:
                    yield from self._end_paste()

    def _end_paste(self) -> Iterable[Message]:
        pasted, self._pasted = "".join(self._pasted or ()).replace("\x00", ""), None
        for message in super().feed(BRACKETED_PASTE_END):  # an empty Paste, since the parser was not given the text
            yield Paste(pasted) if isinstance(message, Paste) else message

    def tick(self) -> Iterable[Message]:
        if self._early:
            early, self._early = self._early, ""
            yield from self.feed(early)
        if self._pasted is not None and time.monotonic() - self._newest > WAIT:
            yield from self._end_paste()
        for message in super().tick():
            self._before = ""
            yield message


def take_out_pastes(driver: type[Driver]) -> None:
    """Lets drivers of this class read with PasteParser: the name of the parser in their module is the only place where it can be chosen."""
    for module in (sys.modules[driver.__module__], sys.modules.get("textual.drivers.win32")):
        if hasattr(module, "XTermParser"):
            module.XTermParser = PasteParser  # type: ignore[union-attr]
