"""How an error of somebody else's code is told in one line."""

from __future__ import annotations

import pytest

from openmav.errors import LONGEST, words_of


@pytest.mark.parametrize(
    ("error", "alone", "with_its_kind"),
    [
        (ValueError("no such shape\n  [1, 2]"), "no such shape [1, 2]", "ValueError: no such shape [1, 2]"),
        (ValueError(""), "ValueError", "ValueError"),
        (KeyError("\x1b]52;c;aGk=\x07x"), r"'\x1b]52;c;aGk=\x07x'", r"KeyError: '\x1b]52;c;aGk=\x07x'"),
        (OSError("red \x1b[31m\u202e"), "red [31m", "OSError: red [31m"),
        (ValueError("y" * 1000), "y" * LONGEST + "...", "ValueError: " + "y" * LONGEST + "..."),
    ],
)
def test_it_is_one_line_that_a_terminal_may_show(error: Exception, alone: str, with_its_kind: str) -> None:
    assert words_of(error) == alone
    assert words_of(error, kind=True) == with_its_kind
