"""Starting the live app and what it leaves behind, for the command line and the library alike."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from openmav.apps.switching import SwitchingSource
from openmav.apps.text.summary import summary
from openmav.engine import EngineSource
from openmav.protocol.snapshot import Snapshot
from openmav.protocol.source import Source
from openmav.settings import Settings
from openmav.system.signals import ignored_by_children
from openmav.system.terminal import neutral, write
from openmav.system.terminal_state import TerminalState
from openmav.view.options import AppOptions


def start_engine(settings: Settings, log: str | None = None, terminal: TerminalState | None = None) -> EngineSource:
    """An engine process that has begun to load; Ctrl-C does not reach it. `terminal`: as it was before the app; None: as it is now."""
    with ignored_by_children(), _no_main_module():
        return EngineSource(settings, log, terminal or TerminalState.now())


def start_switching(settings: Settings, log: str | None = None) -> SwitchingSource:
    """A source that has begun to load a model, and can load another one later."""
    terminal = TerminalState.now()
    return SwitchingSource(settings, lambda wanted: start_engine(wanted, log, terminal))


@contextmanager
def _no_main_module() -> Iterator[None]:
    """A process spawned inside the block does not import the caller's script, which may call mav without a guard."""
    script = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


def show(source: Source, options: AppOptions, tour: int = 0) -> Snapshot:
    """Run the app until the user quits, close the source, and leave the text and a line about it on the normal screen."""
    out = sys.stdout  # which a panel of somebody's own may replace or close
    try:
        from openmav.apps import tui

        last = tui.run(source, options, tour)
    finally:
        source.close()
    if last.prompt is not None and last.steps and out is not None and not out.closed:
        text = last.prompt.text + "".join(step.text for step in last.steps if not step.special)
        write(out, f"{neutral(text)}\n\n{summary(last.steps)}\n")
    return last
