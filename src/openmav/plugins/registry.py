"""The folder is the registry: a panel, measure or backend is a module in its folder, an entry point of another package, or a file
of the user's own.

Names are listed without importing anything; `load` imports one. An unknown name is an error that lists the known ones.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Literal, TypeAlias

from openmav.errors import UsageError, words_of
from openmav.plugins.contracts import check, guard, is_failure
from openmav.plugins.files import import_file, name_of

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

Kind: TypeAlias = Literal["panels", "measures", "backends"]
BESIDE: dict[Kind, frozenset[str]] = {  # modules in those folders that are not plug-ins
    "panels": frozenset({"base", "widgets"}),
    "measures": frozenset({"base"}),
    "backends": frozenset({"base", "sites", "shared", "attribution", "loading"}),
}
RENAMED: dict[Kind, dict[str, str]] = {  # names of older versions, which still work, and those of today
    "panels": {"mlp_activations": "mlp_norm", "signals": "uncertainty"},
}
_files: dict[tuple[Kind, str], Path] = {}  # files of the user, by name
_loaded: dict[Path, ModuleType] = {}


@cache
def _own(kind: Kind) -> frozenset[str]:
    folder = Path(__file__).parents[1] / kind
    modules = {p.stem for p in folder.glob("*.py")} | {p.parent.name for p in folder.glob("*/__init__.py")}
    return frozenset(name for name in modules if not name.startswith("_")) - BESIDE[kind]


def names(kind: Kind) -> list[str]:
    """All known names of a kind, sorted."""
    return sorted(_shipped(kind) | {name for of, name in _files if of == kind})


@cache
def _shipped(kind: Kind) -> frozenset[str]:
    return _own(kind) | _points()[kind].keys()


@cache
def _points() -> dict[Kind, dict[str, EntryPoint]]:
    """The entry points of installed packages, of every kind; read once, since every package's metadata is searched."""
    from importlib.metadata import entry_points  # an eighth of the time of mav --help, which needs none

    points = entry_points()
    return {kind: {point.name: point for point in points.select(group=f"openmav.{kind}")} for kind in BESIDE}


def add_file(kind: Kind, file: str) -> str:
    """Register a panel or measure in a Python file under the file's name, and return that name. The file is not run.

    Raises UsageError where the file is not valid, or where its name is taken.
    """
    path = Path(file).expanduser().absolute()
    name = name_of(kind, path)
    if name in _shipped(kind):
        raise UsageError(f"there is a {kind[:-1]} '{name}' already; give the file '{file}' another name")
    if _files.setdefault((kind, name), path) != path:
        raise UsageError(f"two {kind[:-1]} files are called '{name}': '{_files[kind, name]}' and '{path}'; rename one")
    return name


def current(kind: Kind, name: str) -> str:
    """The name of today for one of an older version; any other name as it is, also that of a plug-in which took an older name."""
    return name if (kind, name) in _files or name in _shipped(kind) else RENAMED.get(kind, {}).get(name, name)


def need_known(kind: Kind, wanted: Iterable[str]) -> tuple[str, ...]:
    """The names of today, each once; imports nothing. Raises UsageError for the first unknown name."""
    known = names(kind)
    result = tuple(dict.fromkeys(current(kind, name) for name in wanted))
    for name in result:
        if name not in known:
            raise UsageError(unknown(kind[:-1], name, known))
    return result


def source_of(kind: Kind, name: str) -> str | None:
    """The Python text of what comes with mav in a file; None for anything else."""
    file = Path(__file__).parents[1] / kind / f"{name}.py"
    return file.read_text(encoding="utf-8") if (kind, name) not in _files and name in _own(kind) and file.is_file() else None


def load(kind: Kind, name: str) -> ModuleType:
    """The module behind a name.

    Raises UsageError for an unknown name, a package or file that does not import, or a module that lacks a required definition.
    """
    if (kind, name) in _files:
        path = _files[kind, name]
        if path not in _loaded:
            _loaded[path] = import_file(kind, path)
        return _loaded[path]
    name = current(kind, name)
    if name in _own(kind):
        return importlib.import_module(f"openmav.{kind}.{name}")
    point = _points()[kind].get(name)
    if point is None:
        raise UsageError(unknown(kind[:-1], name, names(kind)))
    return _of_package(kind, point)


@cache
def _of_package(kind: Kind, point: EntryPoint) -> ModuleType:
    """The module of an installed package, checked. Raises UsageError for any error in it."""
    what = f"{kind[:-1]} '{point.name}' of {point.value}"
    try:
        module = point.load()
    except BaseException as error:
        if not is_failure(error):
            raise
        raise UsageError(f"{what} does not import: {words_of(error, kind=True)}") from error
    if not isinstance(module, ModuleType):
        raise UsageError(f"{what}: the entry point is not a module")
    check(kind, module, what)
    if kind == "measures":
        guard(module, point.name, what)
    return module


def unknown(what: str, name: str, known: list[str]) -> str:
    """One line that names the nearest known name, and all of them."""
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return f"unknown {what} '{name}'.{hint} Known: {', '.join(known)}"
