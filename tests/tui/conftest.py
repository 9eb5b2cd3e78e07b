"""Textual's pilot waits until the app is idle; here it looks every 10 ms whether it is, in place of every 20."""

from __future__ import annotations

import pytest
from textual import _wait

EVERY = 0.01  # seconds; a frame that is due comes within 8 ms


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_wait, "SLEEP_IDLE", _wait.SLEEP_IDLE * EVERY / _wait.SLEEP_GRANULARITY)
    monkeypatch.setattr(_wait, "SLEEP_GRANULARITY", EVERY)
