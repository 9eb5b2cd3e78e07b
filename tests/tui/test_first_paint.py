"""The first paint comes before Textual, looks like the app's own, and costs little."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from driving import COMPACT, HOME, SMALL, make_app, screen_text

from openmav.apps.tui.first_paint import empty_screen
from openmav.errors import UsageError
from openmav.paint import line_text, line_width
from openmav.protocol.commands import COMMANDS
from openmav.view.options import AppOptions


@pytest.mark.parametrize("size", [SMALL, COMPACT, HOME])
async def test_it_is_what_the_app_draws_then(size: tuple[int, int]) -> None:
    lines = empty_screen(COMMANDS, AppOptions(), *size)
    assert {line_width(line) for line in lines} == {size[0]}
    app = make_app(0, status="loading", prompt=None)
    app.source.history.update(info=None)  # type: ignore[attr-defined]
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        assert [line_text(line).rstrip() for line in lines] == [row.rstrip() for row in screen_text(app).splitlines()]


def test_unknown_names_stop_it() -> None:
    with pytest.raises(UsageError):
        empty_screen(COMMANDS, AppOptions(panels=("nothing",)), *HOME)
    with pytest.raises(UsageError):
        empty_screen(COMMANDS, AppOptions(theme="nothing"), *HOME)


@pytest.mark.parametrize("module", ["openmav.apps.tui", "openmav.paint", "openmav.panels.timeline"])
def test_it_imports_nothing_heavy(module: str) -> None:
    code = f"import {module}, sys; print([m for m in ('torch', 'transformers', 'textual') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_live_app_never_imports_torch() -> None:
    code = "import openmav.apps.tui.app, sys; print('torch' in sys.modules, 'transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False False"


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")
def test_a_failure_leaves_the_terminal_as_it_was() -> None:
    import pty

    code = """
from openmav.view.options import AppOptions
from openmav.apps.tui.first_paint import first_paint
with first_paint(frozenset(), AppOptions()):
    raise SystemExit(3)
"""
    child, terminal = pty.fork()
    if child == 0:
        os.environ["TERM"] = "xterm-256color"
        os.execv(sys.executable, [sys.executable, "-c", code])
    seen = b""
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # how Linux says that the other side is closed
            break
        if not part:
            break
        seen += part
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
    assert seen.index(b"\x1b[?1049h") < seen.index(b" mav ") < seen.index(b"\x1b[?1049l")
    assert seen.endswith(b"\x1b[?25h")
