"""Lens map: the logit lens of many tokens side by side: a cell is a layer's top token, coloured by its probability."""

from __future__ import annotations

from rich.segment import Segment

from openmav.paint import Line, Palette, fit, ink, line_width, one_line, percent, visible
from openmav.panels import _grid
from openmav.panels._grid import Columns, fitting, heat_line, text_cell, windowed
from openmav.panels._layers import gutter_width, hidden_note, layer_lines, not_captured, shown_layers, waiting
from openmav.panels._lens import MEASURE, Lens, lens_of, mark, piece, said
from openmav.panels._view import View
from openmav.record import Step

TITLE = "Lens map"
NEEDS = ("logit_lens",)
MODES = ("tokens", "compact")
LAYERS = True
WEIGHT = 3.0
FOOT = 1  # the text itself
HELP = """\
What it shows: one row a layer, the highest on top, and one column for each generated token, the newest on the right. A
cell holds the token that this layer would say next; its colour says how likely the layer held it, from dark (0) to bright
(1), as the ramp on the upper edge shows. Where there is room, the lowest row is the text that was really written.

How to read it: go up a column to see the answer to one token form. ◇ marks where the final answer is on top for the first
time, ◆ from where on it stays, │ the layers above. Columns that turn bright far down were easy; those that turn bright
only at the top were hard. The column under the cursor begins with an amber stripe; click a cell to go there. The key v
shows narrow cells without text, and so more tokens.

Formula: the largest entry of softmax(unembed(final norm(x_l))), with x_l the residual stream after layer l.

Source: nostalgebraist, "interpreting GPT: the logit lens" (2020). The lens is computed for a token while a panel of it is
shown; columns of tokens that were made before stay empty (·), and the lower edge says how many they are.

What is normal: a bright band on top whose lower edge goes up and down with how hard each token was; dark nonsense below.
"""
WIDE = 10  # cells of a column with text
LEAST_WIDE = 7
COMPACT = 2


def _compact(view: View) -> bool:
    return view.mode("lens_map", MODES) == "compact"


def _columns(view: View, width: int) -> Columns:
    room = width - gutter_width(view)
    if _compact(view):
        return windowed(len(view.steps), room, COMPACT, view.cursor)
    least = WIDE if room >= 4 * WIDE else LEAST_WIDE
    return windowed(len(view.steps), room, room // max(1, room // least) if room >= least else max(room, 1), view.cursor)


def _has_foot(view: View, height: int) -> bool:
    return not _compact(view) and height >= view.layers + FOOT


def heading(view: View, width: int) -> str:
    """Leaves room for the legend."""
    options = ["Lens map · each layer's top token, coloured by its p", "Lens map · top tokens", "Lens map"]
    return fitting(options, width - line_width(legend(view, width)) - 4)


def legend(view: View, width: int) -> Line:
    return _grid.legend(view.palette, 0, 1, "p", decimals=0)


def note(view: View, width: int, height: int) -> str:
    if view.step is None or not view.layers:
        return ""
    columns, short = _columns(view, width), width < 48
    lens = lens_of(view.step)
    parts = [columns.note("tokens", short), hidden_note(view, 0 if short else width, height) if view.gutter else ""]
    answer = f"token {view.cursor}: {said(view.step, lens)}" if lens is not None and lens.answer >= 0 else ""
    parts = [*parts, answer, _under_cursor(view, lens)] if width < 80 else [answer, *parts, _under_cursor(view, lens)]
    empty = sum(MEASURE not in view.steps[at].values for at in columns.shown)
    parts.append(f"{empty} without a lens (made while none was shown)" if empty else "")
    return " · ".join(part for part in [*parts, "v: compact" if not _compact(view) else "v: tokens"] if part)


def _under_cursor(view: View, lens: Lens | None) -> str:
    """The selected layer's top token and how likely it is."""
    if lens is None or view.step is None or not 0 <= view.layer < len(lens.ids):
        return ""
    why = view.why_missing(MEASURE, view.layer)
    if why is not None and int(lens.ids[view.layer, 0]) < 0:
        return f"layer {view.layer}: none: {one_line(why)}"
    return f"layer {view.layer}: {piece(view.step, int(lens.ids[view.layer, 0]))} {percent(float(lens.probs[view.layer, 0])).strip()}"


def render(view: View, width: int, height: int) -> list[Line]:
    if view.step is None or view.layers == 0:
        return waiting(view, width)
    columns = _columns(view, width)
    lenses = [lens_of(view.steps[at]) for at in columns.shown]
    if not any(lens is not None for lens in lenses):
        return not_captured(view, width)

    def cell(layer: int, room: int) -> Line:
        return _compact_row(view, lenses, columns, layer) if _compact(view) else _token_row(view, lenses, columns, layer)

    lines = layer_lines(view, width, height, cell)
    return [*lines, _foot(view, columns)] if _has_foot(view, height) else lines


def _share(lens: Lens | None, layer: int) -> float | None:
    """The probability of the layer's top token; None where it has no lens."""
    return None if lens is None or int(lens.ids[layer, 0]) < 0 else float(lens.probs[layer, 0])


def _compact_row(view: View, lenses: list[Lens | None], columns: Columns, layer: int) -> Line:
    return heat_line(view.palette, [_share(lens, layer) for lens in lenses], columns.wide, columns.cell(view.cursor))


def _token_row(view: View, lenses: list[Lens | None], columns: Columns, layer: int) -> Line:
    line: Line = []
    for at, lens in zip(columns.shown, lenses):
        share, cursor, wide = _share(lens, layer), at == view.cursor, columns.wide
        shown = mark(lens, layer) if lens is not None else " "
        text = "·" if lens is None or share is None else _cell_text(view.palette, view.steps[at], lens, layer, wide - 1)
        if cursor and wide > 1:
            stripe = ink(view.palette, view.palette.ground or "text", "accent", bold=True)
            line += [Segment(shown, stripe), text_cell(view.palette, text, share, wide - 1, True)]
        else:
            line.append(text_cell(view.palette, shown + text, share, wide))
    return line


def _cell_text(palette: Palette, step: Step, lens: Lens, layer: int, room: int) -> str:
    """The token, with a space at the end, so that columns stand apart; without colour, a glyph goes before it."""
    return f"{fit(piece(step, int(lens.ids[layer, 0])), max(0, room - 1 - (not palette.color)))} "


def _foot(view: View, columns: Columns) -> Line:
    """The tokens that were written."""
    line: Line = [Segment(fit("", gutter_width(view)))]
    for at in columns.shown:
        role = "accent" if at == view.cursor else "text"
        line.append(Segment(" " + fit(visible(view.steps[at].token), columns.wide - 1), ink(view.palette, role, bold=True)))
    return line


def pick(view: View, width: int, height: int, x: int, y: int) -> View:
    """The layer of the row, and the token of the column."""
    rows = shown_layers(view, height)
    index = _columns(view, width).column(x - gutter_width(view))
    view = view.at_layer(rows[y]) if 0 <= y < len(rows) else view
    return view if index is None else view.at_step(index)
