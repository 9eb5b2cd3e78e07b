"""Keys that come before Textual is imported: q ends mav in the middle of that, and no other is lost."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time

import pytest
from textual.events import Key

from openmav.apps.tui.early_keys import EarlyKeys
from openmav.apps.tui.pasting import PasteParser

if os.name == "nt":
    pytest.skip("needs a pseudo terminal", allow_module_level=True)

import fcntl
import pty
import termios

CODE = """
import sys, time
from openmav.apps.tui.early_keys import EarlyKeys
from openmav.system.signals import Interrupted, watch_signals
early = EarlyKeys("q,ctrl+q")
def imports():
    print("ready", flush=True)
    until = time.monotonic() + 600
    while time.monotonic() < until and "." not in early.typed:
        time.sleep(0.01)
def swallows():
    try:
        imports()
    except BaseException:
        early._bytes += b" swallowed"
with watch_signals():
    try:
        with early:
            {}()
    except (Interrupted, KeyboardInterrupt):
        pass
print(repr((early.quits, early.typed)), flush=True)
"""


class Terminal:
    """CODE, or another program, in a terminal of its own."""

    def __init__(self, *command: str) -> None:
        self.ours, self.theirs = pty.openpty()
        self.before = termios.tcgetattr(self.theirs)

        def own() -> None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        ends = {"stdin": self.theirs, "stdout": self.theirs, "stderr": self.theirs}
        self.process = subprocess.Popen([sys.executable, *command], **ends, start_new_session=True, preexec_fn=own)
        self.seen = b""

    def read_to(self, words: bytes) -> None:
        end = time.monotonic() + 60
        while words not in self.seen:
            assert time.monotonic() < end, self.seen
            if select.select([self.ours], [], [], 0.1)[0]:
                self.seen += os.read(self.ours, 4096)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.ours)
        os.close(self.theirs)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ([b"q"], b"(True, 'q')"),
        ([b"\x1b[200~q.\x1b[201~"], b"(False, '\\x1b[200~q.\\x1b[201~')"),  # a paste
        ([b"ab", b"\xe6\x96\x87."], "(False, 'ab文.')".encode()),
        ([b"\x03"], b"(False, '')"),
    ],
)
def test_q_leaves_the_block_and_other_keys_are_kept(keys: list[bytes], said: bytes) -> None:
    terminal = Terminal("-c", CODE.format("imports"))
    try:
        terminal.read_to(b"ready\r\n")
        for key in keys:
            os.write(terminal.ours, key)
        terminal.read_to(said + b"\r\n")
        assert terminal.process.wait(60) == 0
        assert termios.tcgetattr(terminal.theirs) == terminal.before
        assert terminal.seen == b"ready\r\n" + said + b"\r\n", "what is typed is not echoed"
    finally:
        terminal.close()


def test_a_q_that_something_swallows_leaves_the_block_all_the_same() -> None:
    terminal = Terminal("-c", CODE.format("swallows"))
    try:
        terminal.read_to(b"ready\r\n")
        os.write(terminal.ours, b"q")
        terminal.read_to(b"(True, 'q swallowed')\r\n")
        assert terminal.process.wait(60) == 0
    finally:
        terminal.close()


def test_what_came_early_is_what_the_app_reads_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PasteParser, "early", ".e")
    first, second = PasteParser(), PasteParser()
    assert [event.key for event in first.feed("x") if isinstance(event, Key)] == ["full_stop", "e", "x"]
    assert [*second.tick()] == [] == [*first.tick()]
    monkeypatch.setattr(PasteParser, "early", "ab")
    assert [event.key for event in PasteParser().tick() if isinstance(event, Key)] == ["a", "b"]


def test_the_terminal_is_put_back_where_the_end_of_the_block_is_cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    try:
        with open(theirs, closefd=False) as file:
            monkeypatch.setattr(sys, "__stdin__", file)
            monkeypatch.setattr(os, "tcgetpgrp", lambda _terminal: os.getpgrp())
            before, early = termios.tcgetattr(theirs), EarlyKeys("q")
            early.__enter__()
            assert termios.tcgetattr(theirs) != before
            early.put_back()  # what run() does where a signal has come within the end
            assert termios.tcgetattr(theirs) == before
            early.__exit__(None, None, None)
            assert termios.tcgetattr(theirs) == before
    finally:
        os.close(ours)
        os.close(theirs)
