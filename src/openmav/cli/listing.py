"""`mav panels` and `mav measures`: every name of the registry with the text that its module carries."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import ModuleType

from openmav.cli.output import echo
from openmav.errors import UsageError
from openmav.plugins import registry


def list_panels() -> int:
    """Name, title and how to read it, of every panel."""
    for name in registry.names("panels"):
        _entry("panels", name, lambda module: str(module.HELP))
    return 0


def list_measures() -> int:
    """Name, title and definition of every measure."""
    for name in registry.names("measures"):
        _entry("measures", name, lambda module: module.__doc__ or "")
    return 0


def _entry(kind: registry.Kind, name: str, describe: Callable[[ModuleType], str]) -> None:
    try:
        module = registry.load(kind, name)
    except UsageError as error:  # somebody else's part that does not import must not hide the others
        echo(f"{name}\n    {error}\n")
        return
    title = getattr(module, "TITLE", "")
    lines = inspect.cleandoc(describe(module)).splitlines()
    echo(f"{name}  {title}".rstrip())
    echo("".join(f"    {line}".rstrip() + "\n" for line in lines))
