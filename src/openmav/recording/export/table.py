"""The steps of a recording as a table: what the tables and arrays of the formats share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from openmav.record import Step
from openmav.record.codec import STEP, encode_step
from openmav.recording.rows import COLUMNS, scalars_of

if TYPE_CHECKING:
    from openmav.recording.export.run import Run

NAMES = ("branch", "step", *("_".join(("seconds", *path[1:])) if len(path) > 1 else path[0] for path in COLUMNS))
NESTED = tuple(entry for entry in STEP if entry.name in ("candidates", "values", "before"))


def rows(run: Run) -> Iterator[tuple[tuple[Any, ...], Step]]:
    """Every step once: its plain fields in the order of NAMES, None for NaN and for a rank that is not known; and the step."""
    for branch, step in run.own_steps():
        fields = (None if name == "rank" and value == -1 else value for name, value in zip(NAMES[2:], scalars_of(step)))
        yield (branch.name, step.index, *fields), step


def arrays(step: Step) -> dict[str, NDArray[Any]]:
    """The arrays of a step by name: measures as they are, "candidates.logits", "before.entropy"; texts of candidates too."""
    result: dict[str, NDArray[Any]] = {}
    _collect(encode_step(step, NESTED), "", result)
    return result


def _collect(content: Mapping[str, Any], path: str, into: dict[str, NDArray[Any]]) -> None:
    for name, value in content.items():
        if isinstance(value, Mapping):
            inner = "" if name == "values" else f"{name}."
            if name != "pieces":
                _collect(value, path + inner, into)
        elif isinstance(value, np.ndarray):
            into[path + name] = value
        elif name == "tokens":
            into[path + name] = texts_of(value)
        elif isinstance(value, float):
            into[path + name] = np.array(value)


def texts_of(values: Sequence[str]) -> NDArray[Any]:
    """As Python has them: NumPy's own texts lose a NUL at the end."""
    texts = np.empty(len(values), dtype=object)
    texts[:] = values
    return texts
