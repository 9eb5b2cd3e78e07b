"""Why a compiled library ends this process, where it says so first: one line, to the user or to the process that waits for this one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import NoReturn

from openmav.errors import EngineError
from openmav.system.logs import say, screen, stdout
from openmav.system.terminal import is_terminal


class _Heard:
    by: Callable[[str], None] | None = None


def tell(by: Callable[[str], None]) -> None:
    """From now on the line is given to `by`, which must not block."""
    _Heard.by = by


def leave(line: str) -> NoReturn:
    """End the process with this line and exit code 1, from whichever thread; nothing else of it runs any more."""
    try:
        if _Heard.by is not None:
            _Heard.by(line)
        else:
            with contextlib.suppress(OSError, ValueError):
                if (out := stdout()) is not None:
                    out.flush()
            say(f"mav: {line}", start="\n" if is_terminal(screen()) else "")
    finally:
        os._exit(EngineError.exit_code)
