"""What an app looks at: a Source yields what has happened so far and takes commands where it can.

An app polls `snapshot()` from its own clock; nothing here blocks it. Sources: an engine (the model in a process of its own),
a recording, a list of steps in a test.
"""

from __future__ import annotations

from typing import Protocol

from openmav.protocol.commands import Command
from openmav.protocol.snapshot import Snapshot


class Source(Protocol):
    """What every source offers. `can` names the commands that it takes, such as {"Resume", "Pause"}."""

    @property
    def can(self) -> frozenset[str]: ...

    def snapshot(self) -> Snapshot: ...

    def send(self, command: Command) -> None: ...

    def close(self) -> None: ...
