"""`mav doctor`: what is installed on this machine, what was found in a model, and whether its numbers hold."""

from __future__ import annotations

from dataclasses import dataclass

from openmav.backends._base import Check


@dataclass(frozen=True)
class Section:
    """A title, lines of (what, value), and checks."""

    title: str
    lines: tuple[tuple[str, str], ...] = ()
    checks: tuple[Check, ...] = ()

    @property
    def good(self) -> bool:
        return all(check.good for check in self.checks)
