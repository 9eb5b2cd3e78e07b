"""Registers panels and measures of the user's own files before anything is shown."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from openmav.errors import UsageError
from openmav.plugins import registry


def add_measures(wanted: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(names, absolute paths of the files among them) of measures that were given by name or by file. No file is run here: measures
    run in the model's process.

    Raises UsageError for an unknown name, and for a file that is not a valid measure.
    """
    names, files = [], []
    for one in wanted:
        if _is_file(one):
            names.append(registry.add_file("measures", one))
            files.append(str(Path(one).expanduser().absolute()))
        else:
            registry.need_known("measures", [one])
            names.append(one)
    return tuple(dict.fromkeys(names)), tuple(dict.fromkeys(files))


def add_panels(files: Iterable[str]) -> tuple[str, ...]:
    """Register the panels in these files, and return their names; the files are run and checked.

    Raises UsageError with one line for the first mistake.
    """
    names = []
    for file in files:
        name = registry.add_file("panels", file)
        for measure in registry.load("panels", name).NEEDS:
            if measure not in registry.names("measures"):
                raise UsageError(f"the panel file '{file}' NEEDS an {registry.unknown('measure', measure, registry.names('measures'))}")
        names.append(name)
    return tuple(dict.fromkeys(names))


def _is_file(text: str) -> bool:
    return text.endswith(".py") or Path(text).name != text
