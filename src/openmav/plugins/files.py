"""A panel or measure in a Python file of the user's own: its name, and its import. Every mistake is one line that names the file."""

from __future__ import annotations

import importlib.util
import keyword
import sys
from pathlib import Path
from types import ModuleType

from openmav.errors import UsageError, words_of
from openmav.plugins.contracts import check, guard, is_failure, line_of


def name_of(kind: str, path: Path) -> str:
    """The name of the panel or measure in a file: the file's own, without ".py". The file is not run.

    Raises UsageError for a file that does not exist or is not Python, or whose name is not valid.
    """
    what, name = f"the {kind[:-1]} file '{path}'", path.stem
    if path.suffix != ".py":
        raise UsageError(f"{what} must end in .py")
    if not name.isidentifier() or keyword.iskeyword(name) or name.startswith("_"):
        raise UsageError(f"{what}: its name without .py must be letters, digits and _, and not begin with _ or a digit")
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise OSError("it is no regular file")
        compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
    except OSError as error:
        raise UsageError(f"cannot read {what}: {error.strerror or error}") from error
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        raise UsageError(f"{what}{f' line {line}' if line else ''} is not Python: {getattr(error, 'msg', error)}") from error
    return name


def import_file(kind: str, path: Path) -> ModuleType:
    """Import the file as a module and check it.

    Raises UsageError with the line of the file that failed, or with what is missing in it.
    """
    spec = importlib.util.spec_from_file_location(f"mav_{kind}_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    try:
        spec.loader.exec_module(module)
        check(kind, module, f"the {kind[:-1]} file '{path}'")
    except BaseException as error:
        del sys.modules[spec.name]
        if not is_failure(error) or isinstance(error, UsageError):
            raise
        where = f"the {kind[:-1]} file '{path}'{line_of(error, path)}"
        raise UsageError(f"{where} does not import: {words_of(error, kind=True)}") from error
    if kind == "measures":
        guard(module, path.stem, f"the measure file '{path}'", path)
    return module
