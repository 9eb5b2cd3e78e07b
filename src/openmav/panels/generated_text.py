"""Generated text: the prompt, what the model wrote after it coloured by surprisal, and the token under the cursor marked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from rich.segment import Segment
from rich.style import Style

from openmav.paint import Line, fit, ink, one_line, printable, visible
from openmav.panels._tints import BAD, KINDS, Tints, mode_of, said
from openmav.panels._view import View
from openmav.panels._wrap import Glyph, Row, row_of, wrap
from openmav.record import Step

TITLE = "Text"
NEEDS = ()
MODES = KINDS
ROWS = 7
MODE_NEEDS = {"attention": ("attention_rows",)}
HELP = """\
What it shows: the prompt in grey, then the text that the model wrote. The token under the cursor (the newest one,
unless you went back) stands in amber; tokens that you forced are underlined. A newline is shown as ⏎.

How to read it: the background says how surprised the model was by each token: none for what it expected, from blue
over grey to yellow for what it held unlikely, a step for each nat, the brightest for 7 nats and more. Without colour,
3 nats and more are underlined and 5 and more bold. Click on a token to see what the model did when it wrote it. The key v
colours by entropy instead (how unsure the model was before it chose, a step for each nat), or by attention: where the
selected head looked when it made the token under the cursor; [ ] and { } select layer and head.

Formula: surprisal = -ln p of the chosen token under the model's raw distribution, in nats: 0.7 nats is a coin toss, 7
nats is about one in a thousand. Entropy = -sum p ln p. Attention: a_j as a share of the most that goes to any token but
the first, in eighths; what goes to the first stands on the lower edge.

Source: the model's own logits, before any change by sampling. The text is decoded from all tokens together, so that a
character that is split over several tokens appears once and whole.

What is normal: most tokens quiet, a bright one where something new begins. --limit-chars says how much of the newest
text is shown.
"""

NOWHERE = -(10**9)  # the token of what stands for hidden text
BLOCK = 256  # steps; the wrap of a long text starts at a multiple of it, so that it seldom moves


def _piece(step: Step, cursor: bool) -> str:
    """What a step shows: its text; a mark where it has none yet but stands under the cursor; a special token by its name."""
    if step.text:
        return printable(step.text)
    return visible(step.token) if step.special else "…" if cursor else ""


def _chunks(view: View, capacity: int) -> tuple[list[tuple[str, int]], bool, int]:
    """(text, token) chunks around the cursor; was something before them left out; the first token that may be shown."""
    last = min(len(view.steps), max(view.cursor, 0) + 1 + capacity)
    first = max(0, (last - 2 * capacity) // BLOCK * BLOCK)
    allowed = _first_allowed(view, first, last)
    chunks = [(_piece(view.steps[i], i == view.cursor), i) for i in range(first, last)]
    if first or view.prompt is None:
        return chunks, first > 0, allowed
    pieces = view.prompt.tokens or (view.prompt.text,)
    read, cut = _newest(pieces if mode_of(view) == "attention" else ("".join(pieces),), 2 * capacity)
    return [*read, *chunks], cut, allowed if allowed > first else -len(pieces)


def _newest(pieces: Sequence[str], characters: int) -> tuple[list[tuple[str, int]], bool]:
    """The prompt's last characters as chunks, its last piece numbered -1, the one before -2; was something left out."""
    kept: list[tuple[str, int]] = []
    for at, piece in enumerate(reversed(pieces), 1):
        if characters <= 0:
            return kept[::-1], True
        shown = printable(piece)
        kept.append((shown[-characters:], -at))
        characters -= len(shown)
    return kept[::-1], characters < 0


def _first_allowed(view: View, first: int, last: int) -> int:
    """The first of the steps `first` to `last` that lies whole within the limit of the newest text; `first` if all do.

    A cursor that went back further than that keeps its token and all after it.
    """
    left = view.options.limit_chars
    if left <= 0:
        return first
    for token in range(last - 1, first - 1, -1):
        left -= len(_piece(view.steps[token], token == view.cursor))
        if left < 0:
            return min(token + 1, max(view.cursor, first))
    return first


def _blanked(row: Row, upto: int) -> Row:
    """The row with its first characters hidden: an ellipsis and blanks keep the others where they are."""
    if upto <= 0:
        return row
    blank = sum(glyph.width for glyph in row[:upto])
    return [Glyph(" " * (blank - 1) + "…", blank, NOWHERE), *row[upto:]]


def _without_before(rows: list[Row], allowed: int) -> list[Row]:
    """The rows from the first character of the token `allowed` on."""
    for at, row in enumerate(rows):
        for place, glyph in enumerate(row):
            if glyph.token >= allowed:
                return [_blanked(row, place), *rows[at + 1 :]]
    return rows[-1:]


def _layout(view: View, width: int, height: int) -> tuple[list[Row], int]:
    """The rows in sight, and how many are hidden above them (-1: some, uncounted)."""
    chunks, cut, allowed = _chunks(view, max(width * height, BLOCK))
    rows = wrap(chunks, width)
    if allowed > 0:
        rows, cut = _without_before(rows, allowed), True
    first = max(0, len(rows) - height)
    if not view.following:
        first = min(first, max(0, row_of(rows, view.cursor) - height // 2))
    return rows[first : first + height], -1 if cut else first


def _token_style(view: View, tints: Tints, token: int) -> Style:
    palette, tint = view.palette, tints[token]
    forced = token >= 0 and view.steps[token].forced
    if token >= 0 and token == view.cursor:
        return ink(palette, palette.ground or "text", "accent", bold=True, underline=forced)
    if tint == BAD:
        return ink(palette, "warning", bold=True)
    role = "secondary" if token < 0 and not tint else "text"
    if not palette.color:
        return ink(palette, role, bold=tint >= 5, underline=tint >= 3 or forced)
    return ink(palette, role, palette.tint[tint] if tint else "", underline=forced)


def note(view: View, width: int, height: int) -> str:
    if view.step is None:
        return ""
    hidden = _layout(view, width, height)[1]
    parts = [
        f"▲ {hidden} row{'s' * (hidden > 1)}" if hidden > 0 else "▲ more" if hidden else "",
        *said(view),
    ]
    return " · ".join(part for part in parts if part)


def _progress(view: View, width: int) -> list[Line]:
    """What is going on before the first token."""
    what = {"loading": "loading the model", "prefill": "reading the prompt"}.get(view.status, "")
    lines: list[Line] = [[Segment(fit(one_line(view.progress) or what, width).rstrip(), ink(view.palette, "text"))]]
    if view.fraction is not None:
        longest = max(1, min(width - 8, 48))
        done = round(min(max(view.fraction, 0.0), 1.0) * longest)
        lines.append(
            [
                Segment("━" * done, ink(view.palette, "accent")),
                Segment("─" * (longest - done), ink(view.palette, "frame")),
                Segment(f" {view.fraction * 100:4.0f} %", ink(view.palette, "secondary")),
            ]
        )
    return lines


def render(view: View, width: int, height: int) -> list[Line]:
    status = _progress(view, width) if view.status in ("loading", "prefill") else []
    rows, _ = _layout(view, width, max(1, height - len(status)))
    tints = Tints(view)
    lines = [[_run(view, tints, token, run) for token, run in groupby(row, _token)] for row in rows]
    return [*(line for line in lines if line or not status), *status]


def _run(view: View, tints: Tints, token: int, run: Iterable[Glyph]) -> Segment:
    return Segment("".join(glyph.text for glyph in run), _token_style(view, tints, token))


def _token(glyph: Glyph) -> int:
    return glyph.token


def pick(view: View, width: int, height: int, x: int, y: int) -> View:
    """The token that was clicked."""
    rows, _ = _layout(view, width, height)
    used = 0
    for glyph in rows[y] if 0 <= y < len(rows) else ():
        used += glyph.width
        if x < used:
            return view.at_step(glyph.token) if glyph.token >= 0 else view
    return view
