"""What a panel or measure is, in one line: the list of a command and the command palette show it."""

from __future__ import annotations

from types import ModuleType


def summary(module: ModuleType) -> str:
    """The first sentence of the module's docstring, else of its HELP, without its own title; the TITLE where there is neither."""
    title = str(getattr(module, "TITLE", ""))
    paragraph = " ".join(str(module.__doc__ or getattr(module, "HELP", "")).strip().split("\n\n")[0].split())
    name, _, rest = paragraph.partition(": ")
    sentence = rest if rest and name.lower() in (title.lower(), "what it shows") else paragraph
    return sentence.partition(". ")[0].rstrip(".") or title
