"""What a panel or measure is, in one line: the list of a command and the command palette show it."""

from __future__ import annotations

import re
from types import ModuleType

from openmav.plugins import registry

HEAD = re.compile(r'"""(?P<text>[^\\]+?)""".*?\nTITLE = "(?P<title>[^"\\]+)"\n', re.DOTALL)  # of a module: its docstring, its title


def summary_of(kind: registry.Kind, name: str) -> str:
    """The same by name. What comes with mav is read, not run: to run all panels takes two thirds of the time of `mav panels`.

    Raises UsageError as `registry.load` does.
    """
    head = HEAD.match(registry.source_of(kind, name) or "")
    return summary(registry.load(kind, name)) if head is None else _sentence(head["text"], head["title"])


def summary(module: ModuleType) -> str:
    """The first sentence of the module's docstring, else of its HELP, without its own title; the TITLE where there is neither."""
    return _sentence(str(module.__doc__ or getattr(module, "HELP", "")), str(getattr(module, "TITLE", "")))


def _sentence(text: str, title: str) -> str:
    paragraph = " ".join(text.strip().split("\n\n")[0].split())
    name, _, rest = paragraph.partition(": ")
    sentence = rest if rest and name.lower() in (title.lower(), "what it shows") else paragraph
    return sentence.partition(". ")[0].rstrip(".") or title
