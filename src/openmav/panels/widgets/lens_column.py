"""One token's lens as a column: what each layer predicts, neighbours that predict the same in one row where room is scarce."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from rich.segment import Segment

from openmav.paint import Line, bar, fit, ink, number_text, percent, probability_shares, wrap_words
from openmav.panels.base import Box
from openmav.panels.widgets.layer_rows import missing_of
from openmav.panels.widgets.lens import ABOVE, FIRST, MEASURE, STABLE, lens_of, mark, piece
from openmav.panels.widgets.parts import LEAST, LEAST_TOKEN, Row, heading_row, token_and_bar
from openmav.record import Step
from openmav.view import Selection, View


@dataclass(frozen=True)
class LensLayer:
    """What one layer predicts; `none` says why it predicts nothing, None where it does."""

    token: str
    p: float
    sign: str  # ◇ the first layer that predicts the final answer, ◆ the one from which on all do, │ ◦ or a space
    none: str | None


def lens_layers(view: View, step: Step) -> tuple[LensLayer, ...]:
    """The lens of a step, layer by layer; empty where it was not computed."""
    lens, missing = lens_of(step), missing_of(view, MEASURE)
    if lens is None:
        return ()
    tops, ps = lens.ids[: len(missing), 0].tolist(), lens.probs[:, 0].tolist()
    return tuple(
        LensLayer(piece(step, top), ps[at], mark(lens, at), (missing[at] or "no prediction") if top < 0 else None)
        for at, top in enumerate(tops)
    )


def lens_rows(layers: Sequence[LensLayer], why: str, layer: int, box: Box, width: int, height: int) -> list[Row]:
    """A heading, then layers, mark, token, p and a bar on an axis that ends at 100 %; the highest layer on top.

    `why` there are no layers; `layer` is the selected one. None at all where there are too few rows.
    """
    if not layers:
        texts = wrap_words(f"none: {why}", width)
        rows = [heading_row(box, width, "lens"), *(Row([Segment(text, ink(box.palette, "secondary"))]) for text in texts)]
        return rows if len(rows) <= height else []
    if height < LEAST:
        return []
    runs = _runs(layers, height - 1)
    hidden = len(runs) > height - 1
    runs = runs[: height - 1]  # the lowest layers are left out first: the answer is above
    digits = len(str(len(layers) - 1))
    label = digits if all(high == low for high, low in runs) else 2 * digits + 1
    legend = f"▼ {runs[-1][1]} lower" if hidden else f"{FIRST} first {STABLE} stays"
    token, longest = token_and_bar(box, width - 2 - 8)  # as the candidates have, so that both columns of bars stand below each other
    aligned = token - label - 1 >= LEAST_TOKEN
    sizes = (label, token - label - 1, longest) if aligned else (label, *token_and_bar(box, width - label - 3 - 8))
    rows = [heading_row(box, width, "lens", legend)]
    for high, low in runs:
        line = _line(layers[low : high + 1], (high, low), low <= layer <= high, box, width, sizes)
        rows.append(Row(line, Selection(layer=high)))
    return rows


def _runs(layers: Sequence[LensLayer], rows: int) -> list[tuple[int, int]]:
    """(highest, lowest) layer of each row, from the top: single layers where all fit, else those that predict the same together."""
    order = range(len(layers) - 1, -1, -1)
    if len(layers) <= rows:
        return [(layer, layer) for layer in order]

    def what(layer: int) -> tuple[str, str | None, bool]:
        return layers[layer].token, layers[layer].none, math.isfinite(layers[layer].p)

    return [(run[0], run[-1]) for run in (list(group) for _, group in groupby(order, what))]


def _line(run: Sequence[LensLayer], ends: tuple[int, int], selected: bool, box: Box, width: int, sizes: tuple[int, int, int]) -> Line:
    """A run of layers from the lowest up, with the probability at the highest."""
    (high, low), (label, token, longest), top, palette = ends, sizes, run[-1], box.palette
    text = str(high) if high == low else f"{low}–{high}"
    line = [Segment(fit(text, label, ">"), ink(palette, "accent" if selected else "secondary", bold=selected))]
    if top.none is not None:
        return [*line, Segment(fit(f" none: {top.none}", max(width - label, 1)), ink(palette, "secondary"))]
    if not math.isfinite(top.p):
        return [*line, Segment(f" ! {number_text(top.p, 0)}", ink(palette, "warning", bold=True))]
    signs = [layer.sign for layer in run]
    sign = next((one for one in (STABLE, FIRST) if one in signs), signs[-1])
    stays = sign in (STABLE, ABOVE)
    line.append(Segment(f" {sign} {fit(top.token, token)} {percent(top.p)}", ink(palette, "accent" if stays else "text", bold=stays)))
    share = float(probability_shares(top.p, box.scale))
    return [*line, Segment(f" {bar(share, longest)}", ink(palette, "probability"))] if longest else line
