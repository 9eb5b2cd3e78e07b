"""A process of its own for app.py: run a model with the app shown, or the session alone, and write down when tokens came.

child.py app FILE FLAGS...           the real command with these flags, in the terminal it is started in
child.py session FILE MODEL TOKENS THREADS MEASURES     the same session with nothing around it; THREADS 0 is torch's own choice,
                                                        MEASURES have commas between them, and none are the default ones
Each line of FILE: seconds on the system's monotonic clock, and how many tokens came then.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO


def stamp(file: TextIO, tokens: int) -> None:
    file.write(f"{time.monotonic()} {tokens}\n")
    file.flush()  # whoever reads it does not wait for the end


def app(file: TextIO, flags: Sequence[str]) -> None:
    """As the tokens reach the app's process."""
    from openmav.cli.main import main
    from openmav.engine import EngineSource
    from openmav.engine.events import Made

    take = EngineSource._take

    def stamped(source: EngineSource, event: Any) -> None:
        if isinstance(event, Made):
            stamp(file, len(event.steps))
        take(source, event)

    EngineSource._take = stamped
    if main(flags):
        raise SystemExit("the app failed; see above")


def session(file: TextIO, model: str, tokens: int, threads: int, measures: str) -> None:
    """As the tokens are frozen."""
    from openmav.generation.opening import open_session
    from openmav.settings import Settings

    opened = open_session(Settings(model=model, max_new_tokens=tokens, threads=threads or None))
    if measures:
        opened.want(measures.split(","), opened.info.layers - 1)  # as the app asks while the last layer is selected
    while opened.reason is None:
        stamp(file, len(opened.burst()))


if __name__ == "__main__":
    mode, path, *rest = sys.argv[1:]
    with Path(path).open("a", encoding="utf-8") as file:
        if mode == "app":
            app(file, rest)
        else:
            session(file, rest[0], int(rest[1]), int(rest[2]), rest[3])
