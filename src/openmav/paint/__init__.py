"""Drawing primitives: colours, safe text, bars, heat cells and frames. They know cells and styles, but no models and no Steps."""

from openmav.paint import surprise
from openmav.paint.frame import CLOSED, Edges, note_that_fits, tile
from openmav.paint.lines import Line, fit_line, line_text, line_width, pad_line
from openmav.paint.marks import (
    bar,
    columns,
    heat_runs,
    level,
    number,
    number_text,
    overlaid,
    percent,
    probability_axis,
    probability_shares,
    shares,
    widened,
)
from openmav.paint.text import cells, fit, one_line, pieces, printable, visible
from openmav.paint.theme import PALETTES, Palette, ink, readable
from openmav.paint.wrap import wrap_words

__all__ = [
    "CLOSED",
    "PALETTES",
    "Edges",
    "Line",
    "Palette",
    "bar",
    "cells",
    "columns",
    "fit",
    "fit_line",
    "heat_runs",
    "ink",
    "level",
    "line_text",
    "line_width",
    "note_that_fits",
    "number",
    "number_text",
    "one_line",
    "overlaid",
    "pad_line",
    "percent",
    "pieces",
    "printable",
    "probability_axis",
    "probability_shares",
    "readable",
    "shares",
    "surprise",
    "tile",
    "visible",
    "widened",
    "wrap_words",
]
