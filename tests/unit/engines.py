"""What the tests of the engine share: settings that load at once, and waiting for what its process says."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from openmav.engine import EngineSource
from openmav.protocol.snapshot import Snapshot
from openmav.settings import Settings

DEMO = Settings(max_new_tokens=12, threads=1)
SETTINGS = replace(DEMO, model="toy?endless=1", backend="toy", prompt="abc")


def wait(source: EngineSource, until: Callable[[Snapshot], bool], seconds: float = 60) -> Snapshot:
    """The first snapshot that fulfils the condition; a failure of the engine fails the test at once."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        now = source.snapshot()
        if until(now):
            return now
        assert now.status != "failed", now.error
        time.sleep(0.01)
    raise AssertionError(f"nothing came of it: {source.snapshot()}")


def raising(error: BaseException) -> Callable[..., object]:
    def fails(*_arguments: object, **_named: object) -> object:
        raise error

    return fails
