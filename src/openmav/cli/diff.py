"""`mav diff A B`: where two recordings differ, as text or JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from openmav.cli.output import Output, echo
from openmav.cli.recordings import line
from openmav.record.lines import write_line
from openmav.recording.diff import Difference, NumberDifference, compare
from openmav.recording.reader import Recording
from openmav.system.logs import stdout

MOST = 60  # characters of a value
NO_DIVERGENCE = "none: a recording has the most likely tokens, not the whole distribution; mav compare runs both models and has it"


def diff_command(a: str, b: str, json: bool, tolerance: float) -> int:
    """Print it; 0 where they are the same, 1 where not. Raises UsageError for what is no recording."""
    with Recording(a) as one, Recording(b) as two:
        difference = compare(one, two, tolerance)
        problems = [f"{file}: {problem}" for file, recording in ((a, one), (b, two)) for problem in recording.problems]
    if json:
        Output(stdout()).write(write_line({**difference.content(), "problems": problems}))
    else:
        for what, says in (*_lines(difference), *(("problem", problem) for problem in problems)):
            line(what, says)
        tokens = f"{difference.compared} tokens" + f" and {difference.sites} sites" * (difference.sites > 0) + " compared"
        echo(f"the same: {tokens}" if difference.same else f"different: {tokens}")
    return 0 if difference.same else 1


def _lines(difference: Difference) -> Iterator[tuple[str, str]]:
    for fact in difference.facts:
        yield "run", f"{fact.name}: {_short(fact.a)} and {_short(fact.b)}"
    for text in difference.texts:
        lengths = " and ".join("none" if count < 0 else f"{count} tokens" for count in (text.tokens_a, text.tokens_b))
        parts = f"; token {text.index} is {text.token_a!r} and {text.token_b!r}" if text.index is not None else ""
        yield "branch", f"{text.branch}: {lengths}{parts}"
    if (first := difference.first) is not None:
        layer = f"layer {first.layer}" if first.layer is not None else "the output"
        yield "first", f"token {first.index} of {first.branch}, {layer}: {first.name} by {first.difference:.3g}"
    for number in difference.numbers:
        yield "numbers", _number(number)
    if difference.first is not None:
        yield "KL", NO_DIVERGENCE


def _number(number: NumberDifference) -> str:
    of_sweep = not number.branch and number.name.startswith("sweep")
    layer = [] if number.layer is None else [f"layer {number.layer}"]
    where = ", ".join(([] if of_sweep else [f"token {number.index} of {number.branch}"]) + layer)
    if number.missing:
        says = f"not in the {'first' if number.missing == 'a' else 'second'} recording"
    elif number.largest:
        says = f"at most {number.largest:.3g}, at {where}"
    else:
        says = f"first at {where}"
    return f"{number.name}: {says}; differs in {number.steps} {'sites' if of_sweep else 'steps'}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= MOST else f"{text[:MOST]}…"
