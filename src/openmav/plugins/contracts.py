"""What a panel or a measure must define, and how errors in plug-ins are reported: one line that names the plug-in."""

from __future__ import annotations

import inspect
import signal
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from openmav.errors import Interruption, MeasureError, UsageError, words_of

MEASURE_LIMIT = 10.0  # seconds that a command waits for somebody's own measure of one token; an app names it after 2
LARGEST = 2**30  # bytes of an array that somebody's own measure may give for one token
ENTRY = {"panels": ("render", ("view", "width", "height")), "measures": ("compute", ("frame", "context"))}


def is_failure(error: BaseException) -> bool:
    """Whether a plug-in's code failed, as opposed to a request to end the process.

    A KeyboardInterrupt is the user's Ctrl-C where Python's own handler is installed, as in a program that uses mav as a library.
    """
    if isinstance(error, KeyboardInterrupt):
        return signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    return not isinstance(error, Interruption)


def line_of(error: BaseException, path: Path) -> str:
    """ " line 7": the last line of the file on the way to the error; "" where there is none."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f" line {lines[-1]}" if lines else ""


def guard(module: ModuleType, name: str, what: str, path: Path | None = None) -> None:
    """Wrap the measure's `compute`: any exception or invalid result becomes a MeasureError, one line that names `what` failed."""
    compute = module.compute

    def guarded(frame: object, context: Any) -> object:
        try:
            arrays = compute(frame, context)
        except BaseException as error:
            if not is_failure(error):
                raise
            line = line_of(error, path) if path is not None else ""
            raise MeasureError(f"{what}{line} failed: {words_of(error, kind=True)}") from error
        for part, array in arrays.items() if isinstance(arrays, Mapping) else [(name, arrays)]:
            if str(part).partition(".")[0] != name:
                raise MeasureError(f"{what} gave an array '{part}'; its name must begin with '{name}'")
            if getattr(getattr(array, "dtype", None), "kind", "") not in ("f", "i", "u", "b") or not hasattr(array, "setflags"):
                raise MeasureError(f"{what} gave {type(array).__name__} for '{part}', not a numpy array of numbers")
            if array.nbytes > LARGEST:
                raise MeasureError(f"{what} gave {array.nbytes:,} bytes for '{part}'; {LARGEST:,} are the most for one token")
            if part.endswith(".token_ids") and (array.dtype.kind not in "iu" or (array >= len(context.logits)).any()):
                raise MeasureError(f"{what} gave '{part}', which are no ids of tokens: whole numbers below {len(context.logits):,}")
        return arrays

    module.compute = guarded  # type: ignore[attr-defined]


def check(kind: str, module: ModuleType, what: str) -> None:
    """Raises UsageError for the first definition that a panel or a measure lacks."""

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
    if kind == "panels" and has_data(module):
        need(_can_take(module.data, 1), "has a function data that does not take data(view)")
        return
    function, parameters = ENTRY[kind]
    takes = f"{function}({', '.join(parameters)})"
    entry = getattr(module, function, None)
    need(callable(entry), f"needs a function {takes}")
    instead = ", or data(view) and render(data, box)" if kind == "panels" else ""
    need(_can_take(entry, len(parameters)), f"has a function {function} that does not take {takes}{instead}")


def has_data(panel: ModuleType) -> bool:
    """Whether the panel is in two parts, data(view) and render(data, box); else it has render(view, width, height) alone.

    A name `data` that is something else is up to the panel: the signature of `render` decides.
    """
    render = getattr(panel, "render", None)
    if not callable(getattr(panel, "data", None)) or not callable(render):
        return False
    any_number = _can_take(render, 4)  # such as render(*arguments)
    return _can_take(render, 2) and (any_number or not _can_take(render, 3))


def _can_take(function: Callable[..., object] | None, count: int) -> bool:
    assert function is not None
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError:
        return False
    except ValueError:  # a builtin without a signature
        return True
    return True
