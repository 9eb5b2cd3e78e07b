"""`mav doctor`: what is installed on this machine, where the sites of a model are, and whether its numbers are right."""

from __future__ import annotations

from dataclasses import dataclass

from openmav.backends.base import ModelCheck


@dataclass(frozen=True)
class Section:
    """A title, lines of (what, value), and checks."""

    title: str
    lines: tuple[tuple[str, str], ...] = ()
    checks: tuple[ModelCheck, ...] = ()

    @property
    def good(self) -> bool:
        return all(check.good for check in self.checks)
