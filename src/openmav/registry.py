"""The folder is the registry: a panel, measure or backend is a module in its folder, an entry point of another package, or a file
of the reader's own.

Names are listed without importing anything; `load` imports one. An unknown name is an error that lists the known ones.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
from collections.abc import Iterable
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Literal, TypeAlias

from openmav.errors import UsageError
from openmav.parts import check, import_file, name_of

Kind: TypeAlias = Literal["panels", "measures", "backends"]
_files: dict[tuple[Kind, str], Path] = {}  # somebody's own, by name
_loaded: dict[Path, ModuleType] = {}


@cache
def _own(kind: Kind) -> frozenset[str]:
    folder = Path(__file__).parent / kind
    modules = {p.stem for p in folder.glob("*.py")} | {p.parent.name for p in folder.glob("*/__init__.py")}
    return frozenset(name for name in modules if not name.startswith("_"))


def names(kind: Kind) -> list[str]:
    """All known names of a kind, sorted."""
    return sorted(_shipped(kind) | {name for of, name in _files if of == kind})


@cache
def _shipped(kind: Kind) -> frozenset[str]:
    return _own(kind) | {point.name for point in entry_points(group=f"openmav.{kind}")}


def add_file(kind: Kind, file: str) -> str:
    """Makes a panel or measure in a Python file known under the file's name, and returns that name. The file is not run.

    Raises UsageError where it cannot be one, or where its name is taken.
    """
    path = Path(file).expanduser().absolute()
    name = name_of(kind, path)
    if name in _shipped(kind):
        raise UsageError(f"there is a {kind[:-1]} '{name}' already; give the file '{file}' another name")
    if _files.setdefault((kind, name), path) != path:
        raise UsageError(f"two {kind[:-1]} files are called '{name}': '{_files[kind, name]}' and '{path}'; rename one")
    return name


def need_known(kind: Kind, wanted: Iterable[str]) -> None:
    """Raise UsageError for the first name that nobody offers; imports nothing."""
    known = names(kind)
    for name in wanted:
        if name not in known:
            raise UsageError(unknown(kind[:-1], name, known))


def load(kind: Kind, name: str) -> ModuleType:
    """The module behind a name.

    Raises UsageError for a name that nobody offers, whose package or file does not import, or which lacks what such a module must have.
    """
    if (kind, name) in _files:
        path = _files[kind, name]
        if path not in _loaded:
            _loaded[path] = import_file(kind, path)
        return _loaded[path]
    if name in _own(kind):
        return importlib.import_module(f"openmav.{kind}.{name}")
    for point in entry_points(group=f"openmav.{kind}", name=name):
        try:
            module = point.load()
        except ImportError as error:
            raise UsageError(f"{kind[:-1]} '{name}' of {point.value} does not import: {error}") from error
        if isinstance(module, ModuleType):
            check(kind, module, f"{kind[:-1]} '{name}' of {point.value}")
            return module
        raise UsageError(f"{kind[:-1]} '{name}': the entry point {point.value} is not a module")
    raise UsageError(unknown(kind[:-1], name, names(kind)))


def unknown(what: str, name: str, known: list[str]) -> str:
    """One line that names the nearest known name, and all of them."""
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return f"unknown {what} '{name}'.{hint} Known: {', '.join(known)}"
