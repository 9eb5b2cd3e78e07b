"""What a panel or a measure must have, and how somebody's own file with one is read: every mistake is one line that names the file."""

from __future__ import annotations

import importlib.util
import inspect
import keyword
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

from openmav.errors import EngineError, UsageError

ENTRY = {"panels": ("render", ("view", "width", "height")), "measures": ("compute", ("frame", "context"))}


def name_of(kind: str, path: Path) -> str:
    """The name that a file gives its panel or measure: the file's own, without ".py". Nothing is run.

    Raises UsageError for a file that is not there, is not Python, or whose name cannot be one.
    """
    what, name = f"the {kind[:-1]} file '{path}'", path.stem
    if path.suffix != ".py":
        raise UsageError(f"{what} must end in .py")
    if not name.isidentifier() or keyword.iskeyword(name) or name.startswith("_"):
        raise UsageError(f"{what}: its name without .py must be letters, digits and _, and not begin with _ or a digit")
    try:
        compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
    except OSError as error:
        raise UsageError(f"cannot read {what}: {error.strerror or error}") from error
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        raise UsageError(f"{what}{f' line {line}' if line else ''} is not Python: {getattr(error, 'msg', error)}") from error
    return name


def import_file(kind: str, path: Path) -> ModuleType:
    """Runs the file as a module of its own and checks it.

    Raises UsageError with the line of the file that failed, or with what is missing in it.
    """
    spec = importlib.util.spec_from_file_location(f"mav_{kind}_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise UsageError(f"the {kind[:-1]} file '{path}'{_line(error, path)} does not import: {type(error).__name__}: {error}") from error
    check(kind, module, f"the {kind[:-1]} file '{path}'")
    if kind == "measures":
        module.compute = _guarded(module.compute, path)  # type: ignore[attr-defined]
    return module


def _line(error: BaseException, path: Path) -> str:
    """ " line 7": the last line of the file on the way to the error; "" where there is none."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f" line {lines[-1]}" if lines else ""


def _guarded(compute: Callable[..., object], path: Path) -> Callable[..., object]:
    """The same function; what fails in it, or is no array, is one line that names the file."""

    def guarded(frame: object, context: object) -> object:
        try:
            found = compute(frame, context)
        except Exception as error:
            raise EngineError(f"the measure file '{path}'{_line(error, path)} failed: {type(error).__name__}: {error}") from error
        for name, array in found.items() if isinstance(found, Mapping) else [(path.stem, found)]:
            if str(name).partition(".")[0] != path.stem:
                raise EngineError(f"the measure file '{path}' gave an array '{name}'; its name must begin with '{path.stem}'")
            if getattr(getattr(array, "dtype", None), "kind", "") not in "fiub" or not hasattr(array, "setflags"):
                raise EngineError(f"the measure file '{path}' gave {type(array).__name__} for '{name}', not a numpy array of numbers")
        return found

    return guarded


def check(kind: str, module: ModuleType, what: str) -> None:
    """Raises UsageError for the first thing that the module lacks of what a panel or a measure must have."""

    def need(good: object, missing: str) -> None:
        if not good:
            raise UsageError(f"{what} {missing}")

    if kind not in ENTRY:
        return
    texts = ("TITLE", "HELP") if kind == "panels" else ("TITLE",)
    for name in texts:
        need(isinstance(getattr(module, name, None), str), f'needs {name} = "...", a text')
    needs = getattr(module, "NEEDS", None)
    need(
        isinstance(needs, tuple | list | frozenset | set) and all(isinstance(one, str) for one in needs),
        f'needs NEEDS = ("...",), the names of {"measures" if kind == "panels" else "sites"}; () for none',
    )
    weight, modes = getattr(module, "WEIGHT", 1), getattr(module, "MODES", ())
    need(isinstance(weight, int | float) and weight > 0, "has a WEIGHT that is not a number above 0")
    need(isinstance(modes, tuple | list) and all(isinstance(one, str) for one in modes), 'has MODES that are not texts: ("a", "b")')
    function, parameters = ENTRY[kind]
    takes = f"{function}({', '.join(parameters)})"
    found = getattr(module, function, None)
    need(callable(found), f"needs a function {takes}")
    need(_can_take(found, len(parameters)), f"has a function {function} that does not take {takes}")


def _can_take(function: Callable[..., object] | None, count: int) -> bool:
    assert function is not None
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError:
        return False
    except ValueError:  # a builtin that does not say what it takes
        return True
    return True
