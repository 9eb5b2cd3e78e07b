"""Panels that somebody else wrote: what they give is checked and made safe, and what fails in them stays in them."""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from itertools import islice
from types import ModuleType

from rich.segment import Segment

from openmav.paint import Line, printable
from openmav.panels._view import View

LAST_LINES = 14  # of a traceback: what a reader needs of it


def is_own(module: ModuleType) -> bool:
    """Whether the panel is not one of mav's."""
    return not module.__name__.startswith("openmav.panels.")


def checked_lines(found: Iterable[object], height: int) -> list[Line]:
    """At most `height` lines; a line is a text or a list of Rich segments.

    Raises TypeError for anything else.
    """
    return [checked_line(line) for line in islice(found, height)]


def checked_line(line: object) -> Line:
    """One line without a character that moves the cursor."""
    if isinstance(line, str):
        return [Segment(_flat(line))]
    if isinstance(line, list | tuple) and not isinstance(line, Segment) and all(isinstance(part, Segment) for part in line):
        return [Segment(_flat(part.text), part.style) for part in line]
    raise TypeError(f"a line must be a text or a list of Rich segments, not {type(line).__name__}")


def _flat(text: str) -> str:
    return printable(text).replace("\n", "⏎")


def failure(module: ModuleType, view: View, width: int, height: int) -> str:
    """The last lines of the traceback where the panel fails now; "" where it does not."""
    try:
        for name in ("heading", "note", "legend", "render"):
            size = (width, height) if name in ("note", "render") else (width,)
            found = getattr(module, name)(view, *size) if hasattr(module, name) else None
            if name == "render":
                checked_lines(found or (), height)
    except Exception as error:
        lines = "".join(traceback.format_exception(error)).rstrip().split("\n")
        return "\n".join(printable(line) for line in lines[-LAST_LINES:])
    return ""


def picked(module: ModuleType, view: View, width: int, height: int, x: int, y: int) -> tuple[View, str]:
    """The View after a click inside of the panel, and a line that says what failed; the same View where the panel takes no clicks."""
    pick = getattr(module, "pick", None)
    if pick is None:
        return view, ""
    try:
        found = pick(view, width, height, x, y)
    except Exception as error:
        return view, f"the panel '{module.TITLE}' failed at a click: {type(error).__name__}: {error}"
    return (found, "") if isinstance(found, View) else (view, f"the panel '{module.TITLE}' gave no View after a click")
