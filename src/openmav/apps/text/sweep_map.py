"""A sweep as a heat map: a row a layer, a column a head, the strongest in numbers below. Pure: from effects to lines."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.segment import Segment

from openmav.paint import Line, Palette, fit, ink, one_line, percent, tile, visible
from openmav.panels.widgets.diverging import diverging_bar, signed
from openmav.panels.widgets.heat_grid import legend, text_cell
from openmav.record.sweep import Effect, Plan

STRONGEST = 6  # sites that are named below the map
GUTTER = 4  # cells of a layer's number
WITH_NUMBERS = 7  # cells of a column that shows its number
WIDEST = 9
ROOM_OF_BAR = 40
NAMES = {"heads": "each head", "attn": "each attention block", "mlp": "each MLP", "layers": "each layer"}


def draw(plan: Plan, effects: Sequence[Effect], width: int, palette: Palette, rows: int | None = None, ended: bool = False) -> list[Line]:
    """The frame with the map and the strongest effects. `rows`: layers that are shown at most, those at work; None: all."""
    shown = _shown(plan, effects, rows)
    body = [*_about(plan, palette), [], *_map(plan, effects, shown, width - 4, palette), []]
    body += _strongest(plan, effects, width - 4, palette)
    top = _scale(effects)
    title = f"Sweep · {NAMES[plan.what]} taken away alone" + (" (its mean in its place)" if plan.how == "mean" else "")
    note = _note(plan, effects, shown, width, ended)
    return tile(body, width, len(body) + 2, palette, title, note=note, legend=legend(palette, -top, top, "logits", diverging=True))


def height_around(plan: Plan) -> int:
    """Lines of the drawing besides those of the layers."""
    frame, gaps, names = 2, 2, 1
    return frame + len(_about_texts(plan)) + gaps + names + STRONGEST


def _note(plan: Plan, effects: Sequence[Effect], shown: Sequence[int], width: int, ended: bool) -> str:
    done, total = len(effects), len(plan.sites)
    parts = [f"{done} of {total}" + (", interrupted" if ended and done < total else "")]
    count = _columns(plan, width - 4)[1]
    parts.append(f"heads 0–{count - 1} of {plan.columns}: widen the terminal" if count < plan.columns else "")
    parts.append(f"{len(plan.missing)} not available" if plan.missing else "")
    parts.append(f"layers {shown[-1]}–{shown[0]} of {plan.info.layers}" if len(shown) < plan.info.layers else "")
    return " · ".join(part for part in parts if part)


def _about_texts(plan: Plan) -> list[tuple[str, str]]:
    before, target = plan.before, visible(plan.target.text)
    reading = f"logit {before.logit:.2f}, p {percent(before.prob).strip()}"
    texts = [("prompt", one_line(plan.prompt.text)), ("target", f"{target}  {reading}")]
    if plan.minus is not None and before.minus_logit is not None:
        texts.append(("minus", f"{visible(plan.minus.text)}  logit {before.minus_logit:.2f}, difference {signed(before.score, 2)}"))
    return texts


def _about(plan: Plan, palette: Palette) -> list[Line]:
    return [
        [Segment(f"{name:<8}", ink(palette, "secondary")), Segment(text, ink(palette, "accent" if name == "target" else "text"))]
        for name, text in _about_texts(plan)
    ]


def _scale(effects: Sequence[Effect]) -> float:
    """The largest change, logits; what is not finite does not count."""
    return max((abs(one.change) for one in effects if math.isfinite(one.change)), default=0.0)


def _shown(plan: Plan, effects: Sequence[Effect], rows: int | None) -> list[int]:
    """Layers from the highest down; where not all fit, those around the one at work."""
    layers = plan.info.layers
    if rows is None or rows >= layers:
        return list(reversed(range(layers)))
    at = effects[-1].layer if effects else 0
    first = min(max(0, at - rows + 2), layers - rows)
    return list(reversed(range(first, first + rows)))


def _map(plan: Plan, effects: Sequence[Effect], shown: Sequence[int], width: int, palette: Palette) -> list[Line]:
    """A line that names the columns, then one a layer."""
    result = {(one.layer, one.column): one for one in effects}
    top = _scale(effects) or 1.0
    quiet = ink(palette, "secondary")
    if plan.columns == 1:
        bars = min(ROOM_OF_BAR, width - GUTTER - 18)
        head = [Segment(" " * GUTTER + fit("logit", 8, ">") + fit("p", 9, ">"), quiet)]
        return [head, *(_bar_row(layer, result.get((layer, 0)), top, bars, palette) for layer in shown)]
    wide, count = _columns(plan, width)
    names = "".join(fit(_name(head, wide, palette), wide, ">") for head in range(count))
    lines: list[Line] = [[Segment(" " * GUTTER + names, quiet)]]
    for layer in shown:
        cells = [_cell(result.get((layer, column)), top, wide, palette) for column in range(count)]
        lines.append([Segment(f"{layer:>{GUTTER - 1}} ", quiet), *cells])
    return lines


def _columns(plan: Plan, width: int) -> tuple[int, int]:
    """(cells of a column, columns that fit)."""
    wide = max(1, min(WIDEST, (width - GUTTER) // plan.columns))
    return wide, min(plan.columns, (width - GUTTER) // wide)


def _name(head: int, wide: int, palette: Palette) -> str:
    """A column's name, where it fits; without colour, above the last digit of its numbers."""
    name = f"H{head}" if palette.color else f"H{head} "
    return "" if wide < len(name) + 1 else name


def _cell(effect: Effect | None, top: float, wide: int, palette: Palette) -> Segment:
    if effect is None:
        return text_cell(palette, "·".rjust(wide) if wide > 1 else "·", None, wide)
    text = signed(effect.change, 2) if wide >= WITH_NUMBERS else ""
    if not palette.color:  # behind the cell's glyph, and apart from the next one's where it fits
        text = fit(f"{text} " if len(text) <= wide - 2 else text, wide - 1, ">")
    return text_cell(palette, fit(text, wide, ">") if palette.color else text, effect.change / top, wide, diverging=True)


def _bar_row(layer: int, effect: Effect | None, top: float, room: int, palette: Palette) -> Line:
    line: Line = [Segment(f"{layer:>{GUTTER - 1}} ", ink(palette, "secondary"))]
    if effect is None:
        return [*line, Segment("·".rjust(8), ink(palette, "secondary"))]
    change = signed(effect.change, 2)
    line.append(Segment(fit(change, 8, ">"), ink(palette, "text" if math.isfinite(effect.change) else "warning")))
    line.append(Segment(f"  {percent(effect.after.prob)} ", ink(palette, "secondary")))
    share = effect.change / top if math.isfinite(effect.change) else 0.0
    return [*line, *diverging_bar(palette, share, max(room, 0))]


def _strongest(plan: Plan, effects: Sequence[Effect], width: int, palette: Palette) -> list[Line]:
    """The largest changes in numbers, as many lines each time so that nothing jumps."""
    ranked = sorted(effects, key=lambda one: abs(one.change) if math.isfinite(one.change) else math.inf, reverse=True)[:STRONGEST]
    quiet, main = ink(palette, "secondary"), ink(palette, "text")
    lines: list[Line] = []
    for one in ranked:
        numbers = f"{signed(one.change, 2):>8} logits  "
        chance = f"p {percent(one.before.prob)} → {percent(one.after.prob)}  ln p {signed(one.after.logprob - one.before.logprob, 2):>7}"
        lines.append(
            [Segment(fit(one.intervention.place, 9), ink(palette, "text", bold=True)), Segment(numbers, main), Segment(chance, quiet)]
        )
    return lines + [[]] * (min(STRONGEST, len(plan.sites)) - len(lines))
