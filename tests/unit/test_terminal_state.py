"""The line discipline of a terminal, put back after an app."""

from __future__ import annotations

import os

import pytest

from openmav.system.terminal_state import TerminalState


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo terminal")
def test_the_line_discipline_is_put_back_where_an_app_has_left_another() -> None:
    import pty
    import termios
    import tty

    ours, theirs = pty.openpty()
    try:
        before = termios.tcgetattr(theirs)
        state = TerminalState(os.ttyname(theirs), before)
        tty.setraw(theirs)
        assert termios.tcgetattr(theirs) != before
        state.put_back()
        assert termios.tcgetattr(theirs) == before
        state.put_back()
        assert termios.tcgetattr(theirs) == before
    finally:
        os.close(ours)
        os.close(theirs)
