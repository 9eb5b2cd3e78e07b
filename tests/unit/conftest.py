"""An engine in a process of its own, for the tests of what it obeys and of how it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from engines import SETTINGS

from openmav.engine import EngineSource


@pytest.fixture
def start(warm_engines: None) -> Iterator[Callable[..., EngineSource]]:
    """Begins an engine with changed settings; each is closed after the test."""
    sources: list[EngineSource] = []

    def begin(**changes) -> EngineSource:
        sources.append(EngineSource(replace(changes.pop("settings", SETTINGS), **changes)))
        return sources[-1]

    yield begin
    for source in sources:
        source.close()
