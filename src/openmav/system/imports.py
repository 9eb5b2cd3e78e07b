"""A library that fails while it is imported: a variable of the environment that it can't read, or a broken installation."""

from __future__ import annotations

from openmav.errors import words_of


def failed_import(error: BaseException) -> str:
    """One line about the library that was being imported where the error was raised; "" where none was."""
    library, trace = "", error.__traceback__
    while trace is not None:
        frame = trace.tb_frame
        if frame.f_code.co_name == "<module>":
            package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
            library = "" if package in ("openmav", "__main__") else package
        trace = trace.tb_next
    if not library:
        return ""
    return f"{library} does not import: {words_of(error, kind=True)}; see the environment variables that it reads, or install it again"
