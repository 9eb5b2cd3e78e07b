"""`mav panels` and `mav measures`: a line for every name of the registry, or one of them whole, as its module describes it."""

from __future__ import annotations

import inspect
import shutil
import sys
from types import ModuleType

from openmav.cli.output import echo
from openmav.errors import UsageError
from openmav.plugins import registry
from openmav.plugins.summary import summary_of
from openmav.system.terminal import is_terminal


def list_entries(kind: registry.Kind, name: str | None) -> int:
    """A line for every panel or measure; with a name, all that its module says of it. Raises UsageError for an unknown name."""
    if name is None:
        _list(kind)
        return 0
    (name,) = registry.need_known(kind, [name])
    module = registry.load(kind, name)
    echo(f"{name}  {getattr(module, 'TITLE', '')}".rstrip())
    echo("\n".join(f"    {line}".rstrip() for line in _description(kind, module).splitlines()))
    return 0


def _list(kind: registry.Kind) -> None:
    names = registry.names(kind)
    column = max(map(len, names)) + 2
    room = shutil.get_terminal_size().columns - column if is_terminal(sys.stdout) else None
    for name in names:
        try:
            line = summary_of(kind, name)
        except UsageError as error:  # somebody else's part that does not import must not hide the others
            line = str(error)
        if room is not None and len(line) > room:
            line = line[: max(0, room - 1)].rstrip() + "…"
        echo(f"{name:<{column}}{line}".rstrip())
    echo(f"\nmav {kind} NAME describes one: what it shows and how to read it." if kind == "panels" else f"\nmav {kind} NAME defines one.")


def _description(kind: registry.Kind, module: ModuleType) -> str:
    return inspect.cleandoc(str(module.HELP) if kind == "panels" else module.__doc__ or "")
