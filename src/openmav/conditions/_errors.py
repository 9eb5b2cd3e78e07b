"""The one error of the language: a line that names the spot."""

from __future__ import annotations

from openmav.errors import UsageError
from openmav.system.terminal import escaped

SHOWN = 60  # characters of a condition that an error repeats


class ConditionError(UsageError):
    """A condition that cannot be read, or that does not fit the model. `column` counts from 0, `why` is the line without the spot."""

    def __init__(self, text: str, column: int, why: str) -> None:
        rest = text[column : column + 16]
        here = f"'{escaped(rest)}'" if rest else "the end"
        super().__init__(f"cannot read the condition '{_around(text, column)}' at column {column + 1}, {here}: {escaped(why)}")
        self.text, self.column, self.why = text, column, escaped(why)

    def __reduce__(self) -> tuple[type[ConditionError], tuple[str, int, str]]:
        return ConditionError, (self.text, self.column, self.why)


def _around(text: str, column: int) -> str:
    """The text, or the part of a long one around the column."""
    if len(text) <= SHOWN:
        return escaped(text)
    first = max(0, min(column - SHOWN // 2, len(text) - SHOWN))
    return f"{'…' * (first > 0)}{escaped(text[first : first + SHOWN])}{'…' * (first + SHOWN < len(text))}"
