"""A process of its own for app.py: run a model with the app shown, or the session alone, and write down when each token came.

child.py app FILE FLAGS...           the real command with these flags, in the terminal it is started in
child.py session FILE MODEL TOKENS THREADS MEASURES     the same session with nothing around it; THREADS 0 is torch's own choice,
                                                        MEASURES have commas between them, and none are the default ones
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def app(flags: Sequence[str]) -> list[float]:
    """When each token reached the app's process."""
    from openmav import cli
    from openmav.engine import EngineSource
    from openmav.engine.events import Made

    times: list[float] = []
    take = EngineSource._take

    def stamped(source: EngineSource, event: Any) -> None:
        if isinstance(event, Made):
            times.extend([time.perf_counter()] * len(event.steps))
        take(source, event)

    EngineSource._take = stamped
    if cli.main(flags):
        raise SystemExit("the app failed; see above")
    return times


def session(model: str, tokens: int, threads: int, measures: str) -> list[float]:
    """When each token was frozen."""
    from openmav.session import open_session
    from openmav.settings import Settings

    opened = open_session(Settings(model=model, max_new_tokens=tokens, threads=threads or None))
    if measures:
        opened.want(measures.split(","), opened.info.layers - 1)  # as the app asks while the last layer is selected
    times: list[float] = []
    while opened.reason is None:
        made = opened.burst()
        times.extend([time.perf_counter()] * len(made))
    return times


if __name__ == "__main__":
    mode, file, *rest = sys.argv[1:]
    times = app(rest) if mode == "app" else session(rest[0], int(rest[1]), int(rest[2]), rest[3])
    Path(file).write_text(json.dumps(times), encoding="utf-8")
