"""Generated text: the prompt, what the model wrote after it coloured by surprisal, and the token under the cursor marked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby

import numpy as np
from numpy.typing import NDArray
from rich.segment import Segment
from rich.style import Style

from openmav.paint import Line, ink, level, one_line, percent, surprise
from openmav.paint.wrap import Glyph, Row, row_of, wrap
from openmav.panels.base import Box
from openmav.panels.widgets import attended
from openmav.panels.widgets.candidate_bars import CandidateBars, candidate_bars
from openmav.panels.widgets.popover import Place, pick_popover, place_of, with_popover
from openmav.panels.widgets.search import hit_tokens
from openmav.panels.widgets.sequence import prompt_length
from openmav.panels.widgets.skyline import Spread, bar_lines, spread
from openmav.panels.widgets.text_window import NOWHERE, first_allowed, newest, piece, without_before
from openmav.panels.widgets.waiting import waiting, waiting_lines
from openmav.record import Step
from openmav.view import Selection, View

TITLE = "Text"
NEEDS = ()
ATTENTION = {"layer attention": attended.of_layer, "attention": attended.of_head}  # modes, and what gives the attention to each token
MODES = ("surprisal", *ATTENTION, "entropy")
ROWS = 7
MODE_NEEDS = dict.fromkeys(ATTENTION, (attended.MEASURE,))
HELP = """\
What it shows: the prompt in grey, then the generated text. The token under the cursor (the newest one,
unless you selected another) is reversed; tokens that you forced are underlined. A newline is shown as ⏎.

How to read it: the background says how surprised the model was by each token, in the steps that the legend on the frame
names (each cell holds the nats at which it begins): none for what it expected, stronger for what it considered unlikely.
The timeline has the same colours. Where there is room, the rows stand apart, and each token has a bar above it; the lower
edge says what a full bar stands for. Without colour, 3 nats and more are underlined and 5 and more bold. Click on a token
to see what the model did when it generated it. The key v colours by attention instead: where the model attended when the
token under the cursor was generated, first the mean over the heads of the selected layer, then the selected head; [ ] and {
} select layer and head. Once more colours by entropy: how unsure the model was before it chose, in the same steps. Beside
the panel of the attention row, the selected head is what it begins with. Where no panel shows the candidates, the up and
down keys open them over the text. What is searched for (/) is underlined in amber.

Formula: surprisal = -ln p of the chosen token under the model's raw distribution, in nats: 0.7 nats is a coin toss, 7
nats is about one in a thousand. Entropy = -sum p ln p. Attention: a_j as a share of the most that goes to any token but
the first, in eighths; on the lower edge, what goes to the first and the tokens that take most of the rest.

Source: the model's own logits, before any change by sampling. The text is decoded from all tokens together, so that a
character that is split over several tokens appears once and whole.

What is normal: most tokens quiet, a bright one where something new begins. --limit-chars says how much of the newest
text is shown; maximised (m), the panel shows all of it, and the arrow keys or the wheel go through it.
"""

EIGHTHS = ("0", "⅛", "¼", "⅜", "½", "⅝", "¾", "⅞")  # of the most attention: where each step begins
SHOW_CANDIDATES = frozenset({"top_predictions", "token_card"})
FULL = 8.0  # nats of the highest bar above a token
BLOCK = 256  # steps; the wrap of a long text starts at a multiple of it, so that it seldom moves


@dataclass(frozen=True)
class TextData:
    """The prompt's last tokens and the generated ones around the cursor; texts are safe to show."""

    mode: str
    prompt: tuple[str, ...]  # the last of its pieces is token -1, the one before -2
    texts: tuple[str, ...]  # of the generated tokens, from token `first` on
    first: int
    cut: bool  # something before them is left out
    allowed: int  # the first token that may be shown
    values: NDArray[np.float64]  # [generated tokens]: nats, or the attention to each token; NaN where it is not known
    prompt_values: NDArray[np.float64]  # [pieces of the prompt]: the attention to each; [0] where another mode is chosen
    most: float  # of the attention to any token but the first; 0 where there is none
    full: float  # the value of the highest bar above a token; 0: there are no bars
    forced: tuple[bool, ...]  # [generated tokens]
    hits: tuple[bool, ...]  # [generated tokens]: it has a part of what is searched for
    search: str  # that, safe to show; "" for nothing
    candidates: CandidateBars | None  # while one of them is selected and no other panel shows them: they open over the text
    cursor: int
    following: bool
    has_token: bool
    mode_note: tuple[str, ...]  # what the colours stand for, after "coloured by"; where there is no attention, why
    has_values: bool
    waiting: str | None  # what is going on before the first token, or amid a run; None: nothing
    fraction: float | None  # of that


def _mode(view: View) -> str:
    """What the user chose; where nothing was chosen, attention beside the panel of the attention row, so that both show the same head."""
    chosen = view.modes.get("generated_text")
    if chosen is None and "attention_row" in view.shown and attended.of_head(view).row is not None:
        return "attention"
    return view.mode("generated_text", MODES)


def data(view: View) -> TextData:
    mode, row = _mode(view), None
    is_attention = mode in ATTENTION
    capacity = len(view.steps) + BLOCK if view.size is None else max(view.size[0] * view.size[1], BLOCK)
    last = min(len(view.steps), max(view.cursor, 0) + 1 + capacity)
    first = max(0, (last - 2 * capacity) // BLOCK * BLOCK)
    steps = [view.steps[at] for at in range(first, last)]
    allowed = first_allowed(view, first, last)
    prompt: tuple[str, ...] = ()
    cut = first > 0
    if not first and view.prompt is not None:
        pieces = view.prompt.tokens or (view.prompt.text,)
        whole = pieces if is_attention else ("".join(pieces),)
        prompt, cut = newest(whole, None if view.size is None else 2 * capacity)
        allowed = allowed if allowed > first else -len(pieces)
    mode_note: tuple[str, ...] = (mode,)
    if is_attention:
        row, mode_note = ATTENTION[mode](view)
    before = prompt_length(view)
    most = float(max(row[1:], default=0.0)) if row is not None else 0.0
    return TextData(
        mode=mode,
        prompt=prompt,
        texts=tuple(piece(step, at == view.cursor) for at, step in enumerate(steps, first)),
        first=first,
        cut=cut,
        allowed=allowed,
        values=_nats(mode, steps) if not is_attention else _part(row, before + first, len(steps)),
        prompt_values=_part(row, before - len(prompt), len(prompt)) if is_attention else np.empty(0),
        most=most,
        full=most if is_attention else FULL,
        forced=tuple(step.forced for step in steps),
        hits=_hits(steps, view.search),
        search=one_line(view.search),
        candidates=candidate_bars(view) if view.candidate is not None and not SHOW_CANDIDATES & view.shown else None,
        cursor=view.cursor,
        following=view.following,
        has_token=view.step is not None,
        mode_note=mode_note,
        has_values=not is_attention or row is not None,
        waiting=waiting(view),
        fraction=view.fraction,
    )


def _hits(steps: Sequence[Step], search: str) -> tuple[bool, ...]:
    hits = hit_tokens(steps, search)
    return tuple(at in hits for at in range(len(steps)))


def _nats(mode: str, steps: Sequence[Step]) -> NDArray[np.float64]:
    return np.array([step.surprisal if mode == "surprisal" else step.entropy for step in steps], dtype=np.float64)


def _part(row: NDArray[np.float64] | None, start: int, count: int) -> NDArray[np.float64]:
    """`count` entries of the row from `start` on; NaN where it has none."""
    part = np.full(count, np.nan)
    if row is not None:
        low, high = max(start, 0), max(min(start + count, len(row)), max(start, 0))
        part[low - start : high - start] = row[low:high]
    return part


def _layout(data: TextData, width: int, height: int) -> tuple[Spread, int]:
    """The lines in sight, and how many rows are hidden above them (-1: some, uncounted)."""
    chunks = [*((text, at - len(data.prompt)) for at, text in enumerate(data.prompt)), *zip(data.texts, range(data.first, 1 << 62))]
    is_whole = data.has_values and data.has_token and not data.cut and data.allowed <= 0
    roomy = spread(chunks, width, height, partial(_share, data)) if is_whole else None
    if roomy is not None:
        return roomy, 0
    rows, cut = wrap(chunks, width), data.cut
    if data.allowed > 0:
        rows, cut = without_before(rows, data.allowed), True
    first = max(0, len(rows) - height)
    if not data.following:
        first = min(first, max(0, row_of(rows, data.cursor) - height // 2))
    return Spread(rows[first : first + height], {}), -1 if cut else first


def _value(data: TextData, token: int) -> float:
    """The token's nats, or the attention to it; NaN where it has none."""
    kept, at = (data.values, token - data.first) if token >= 0 else (data.prompt_values, token + len(data.prompt_values))
    return float(kept[at]) if 0 <= at < len(kept) else math.nan


def _step(data: TextData, token: int) -> int:
    """The step of a token's background; -1 for a number that is not finite."""
    value = _value(data, token)
    if data.mode in ATTENTION:
        return level(value / data.most, surprise.STEPS) if value == value and data.most > 0 else 0
    return 0 if token < 0 else surprise.step_of(value)


def _share(data: TextData, token: int) -> float:
    """The height of the bar above a token, 0..1; NaN for none."""
    value = _value(data, token)
    if not data.full > 0:
        return math.nan
    if not math.isfinite(value):
        return 1.0 if token >= 0 and data.mode not in ATTENTION else math.nan
    return min(value / data.full, 1.0)


def _token_style(data: TextData, box: Box, token: int) -> Style:
    palette, step = box.palette, _step(data, token) if token != NOWHERE else 0
    forced = token >= 0 and data.forced[token - data.first]
    if token >= 0 and token == data.cursor:
        return surprise.cursor(palette, underline=forced)
    if token >= 0 and data.hits[token - data.first]:
        return ink(palette, "accent", "select", bold=True, underline=True)
    if step == surprise.NOT_FINITE:
        return ink(palette, "warning", bold=True)
    return surprise.tinted(palette, step, "secondary" if token < 0 and not step else "text", underline=forced)


def legend(data: TextData, box: Box) -> Line | None:
    """The steps of nats; of attention, the share of the most that each step begins with."""
    if not data.has_token or not data.has_values:
        return None
    if data.mode not in ATTENTION:
        return surprise.legend(box.palette)
    return surprise.legend(box.palette, f"of {percent(data.most).strip()}", EIGHTHS)


def note(data: TextData, box: Box) -> str:
    if not data.has_token:
        return ""
    text, hidden = _layout(data, box.width, box.height)
    by = f"{'coloured' if box.palette.color else 'marked'} by " if data.has_values else ""
    parts = [
        f"▲ {hidden} row{'s' * (hidden > 1)}" if hidden > 0 else "▲ more" if hidden else "",
        f"'{data.search}' marked" if any(data.hits) else "",
        by + data.mode_note[0],
        *data.mode_note[1:],
        f"a full bar: {_full(data)}" if text.bars else "",
    ]
    return " · ".join(part for part in parts if part)


def _full(data: TextData) -> str:
    """What the highest bar stands for."""
    return percent(data.full).strip() if data.mode in ATTENTION else f"{data.full:g} nats"


def render(data: TextData, box: Box) -> list[Line]:
    status = waiting_lines(data.waiting, data.fraction, box)
    text, _ = _layout(data, box.width, max(1, box.height - len(status)))
    lines = [[_run(data, box, token, run) for token, run in groupby(row, _token)] for row in text.lines]
    for at, above in text.bars.items():
        lines[at - above : at] = _bars(data, box, text.lines[at], above)
    place = _popover(data, box, text.lines)
    if place is not None and data.candidates is not None:
        lines = with_popover(lines, place, data.candidates, box)
    return [*(line for line in lines if line or not status), *status]


def _bars(data: TextData, box: Box, row: Row, rows: int) -> list[Line]:
    """The lines above a row of text."""
    palette = box.palette
    return bar_lines(row, rows, partial(_share, data), lambda token: surprise.column(palette, _step(data, token)))


def _popover(data: TextData, box: Box, rows: Sequence[Row]) -> Place | None:
    return None if data.candidates is None or data.waiting is not None else place_of(rows, data.cursor, data.candidates, box)


def _run(data: TextData, box: Box, token: int, run: Iterable[Glyph]) -> Segment:
    return Segment("".join(glyph.text for glyph in run), _token_style(data, box, token))


def _token(glyph: Glyph) -> int:
    return glyph.token


def pick(data: TextData, box: Box, x: int, y: int) -> Selection | None:
    """The candidate that was clicked, where they are open over the text, else the token."""
    text, _ = _layout(data, box.width, box.height)
    place = _popover(data, box, text.lines)
    over = None if place is None or data.candidates is None else pick_popover(place, data.candidates, box, x, y)
    if over is not None:
        return over
    used, y = 0, text.text_line(y)
    for glyph in text.lines[y] if 0 <= y < len(text.lines) else ():
        used += glyph.width
        if x < used:
            return Selection(step=glyph.token) if glyph.token >= 0 else None
    return None
