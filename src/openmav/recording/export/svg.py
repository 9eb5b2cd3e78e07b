"""A picture for a paper: the text tinted by surprise, and below it the lens map of its last tokens, or the most likely candidates.

Made without a browser. Each run of text has its width (`textLength`), so that it fills its cells in whatever monospaced font there is.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from itertools import groupby
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from openmav.paint import fit, one_line, percent, printable, surprise, visible
from openmav.paint.marks import level
from openmav.paint.text import cells
from openmav.paint.theme import LIGHT, readable
from openmav.paint.wrap import Glyph, Row, wrap
from openmav.panels.widgets.lens import FIRST, STABLE, Lens, lens_of, mark, piece
from openmav.record import Step, mean_surprisal

if TYPE_CHECKING:
    from openmav.recording.export.run import Run

FONT = "'DejaVu Sans Mono', Menlo, Consolas, 'Liberation Mono', monospace"
COLUMNS, ROWS = 92, 36  # cells of a row of text; rows of text at most, the newest
CELL, LINE = 7.8, 21.0  # width of a cell, height of a row of text, in pixels
EDGE = 28.0
WIDTH = 2 * EDGE + COLUMNS * CELL
SMALL, NOTE = 9.5, 11.0  # font sizes of the map and of what explains
LENS_TOKENS, GUTTER = 10, 34.0  # columns of the map at most; what its layers' numbers take
CANDIDATES, BAR = 10, 300.0  # rows of candidates, and the width of a probability of 1
WHITE = "#ffffff"


def write(run: Run, out: BinaryIO) -> None:
    picture = Picture()
    _head(picture, run)
    _text(picture, run)
    lenses = [(step, lens) for step in run.now.steps[-LENS_TOKENS:] if (lens := lens_of(step)) is not None]
    if lenses:
        _lens_map(picture, lenses)
    elif run.now.steps:
        _candidates(picture, max(run.now.steps, key=lambda step: step.surprisal if step.surprisal == step.surprisal else -1.0))
    out.write(picture.svg(one_line(run.info.name)).encode())


class Picture:
    """Marks from top to bottom; `y` is where the next one begins."""

    def __init__(self) -> None:
        self.y = EDGE
        self._marks: list[str] = []

    def rectangle(self, x: float, y: float, width: float, height: float, colour: str) -> None:
        self._marks.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="2" fill="{colour}"/>')

    def text(self, x: float, y: float, text: str, size: float = 13.0, colour: str = LIGHT.text, more: str = "", cell: float = 0.0) -> None:
        """`y` is its baseline; `cell`: what each of its cells takes."""
        fixed = f' textLength="{cells(text) * cell:.1f}" lengthAdjust="spacingAndGlyphs"' if cell and text.strip() else ""
        self._marks.append(f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}"{fixed}{more}>{escape(text)}</text>')

    def line(self, x: float, y: float, length: float, colour: str) -> None:
        self._marks.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{length:.1f}" height="1" fill="{colour}"/>')

    def title(self, text: str, note: str) -> None:
        """What a part of the picture shows."""
        self.y += 22
        self.text(EDGE, self.y, text, 12.5, more=' font-weight="bold"')
        self.text(EDGE + (cells(text) + 2) * 7.5, self.y, note, NOTE, LIGHT.secondary)
        self.y += 12

    def svg(self, title: str) -> str:
        height = self.y + EDGE
        size = f'width="{WIDTH:.0f}" height="{height:.0f}" viewBox="0 0 {WIDTH:.0f} {height:.0f}"'
        start = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="{FONT}" xml:space="preserve" role="img">'
        ground = f'<rect width="100%" height="100%" fill="{WHITE}"/>'
        return "\n".join([start, f"<title>{escape(title)}</title>", ground, *self._marks, "</svg>\n"])


def _head(picture: Picture, run: Run) -> None:
    info, sampling = run.info, run.now.sampling
    picture.y += 4
    picture.text(EDGE, picture.y, fit(one_line(info.name), 44).rstrip(), 15, more=' font-weight="bold"')
    chosen = "greedy" if sampling.temperature == 0 else f"temperature {sampling.temperature:g}, seed {sampling.seed}"
    mean = mean_surprisal(list(run.now.steps))
    facts = [f"{info.layers} layers", info.dtype, chosen, f"{len(run.now.steps)} tokens"]
    facts += [f"mean surprisal {mean:.2f} nats"] if mean == mean else []
    facts += [f"modified by {len(run.now.interventions)} interventions"] if run.now.interventions else []
    picture.y += 18
    picture.text(EDGE, picture.y, one_line(" · ".join(facts)), NOTE, LIGHT.secondary)


# ---- the text ----------------------------------------------------------------------------------------------------------------


def _text(picture: Picture, run: Run) -> None:
    picture.y += 10
    picture.title("Text", "the prompt in grey, then tokens on the colour of their surprisal −ln p")
    _legend(picture, picture.y - 12)
    picture.y += 10
    steps, prompt = run.now.steps, run.now.prompt
    chunks = [(printable(prompt.text if prompt is not None else ""), -1)]
    chunks += [(printable(step.text) if not step.special else visible(step.token), index) for index, step in enumerate(steps)]
    rows = wrap(chunks, COLUMNS)
    if len(rows) > ROWS:
        picture.text(EDGE, picture.y + 12, f"… {len(rows) - ROWS} rows before", NOTE, LIGHT.secondary)
        picture.y += LINE
    for row in rows[-ROWS:]:
        _row(picture, row, steps)
        picture.y += LINE


def _row(picture: Picture, row: Row, steps: object) -> None:
    x = EDGE
    for token, run in groupby(row, _token):
        text = "".join(glyph.text for glyph in run)
        width = cells(text) * CELL
        step: Step | None = steps[token] if token >= 0 else None  # type: ignore[index]
        _run(picture, x, text, width, step)
        x += width


def _run(picture: Picture, x: float, text: str, width: float, step: Step | None) -> None:
    colour = LIGHT.secondary
    if step is not None:
        nats = surprise.step_of(step.surprisal)
        colour = LIGHT.warning if nats == surprise.NOT_FINITE else LIGHT.text
        if nats > 0:
            ground = LIGHT.surprise[nats]
            picture.rectangle(x, picture.y, width, LINE - 3, ground)
            colour = readable(LIGHT, ground)
        if step.forced:
            picture.line(x, picture.y + LINE - 4, width, LIGHT.accent)
    for blank, part in groupby(text, str.isspace):
        shown = "".join(part)
        if not blank:
            picture.text(x, picture.y + 13.5, shown, colour=colour, cell=CELL)
        x += cells(shown) * CELL


def _token(glyph: Glyph) -> int:
    return glyph.token


def _legend(picture: Picture, baseline: float) -> None:
    """The steps of surprise, at the right edge: each with the nats at which it begins."""
    wide = 22.0
    x = WIDTH - EDGE - wide * surprise.STEPS - 30
    for step, label in enumerate(surprise.LABELS):
        ground = LIGHT.surprise[step] if step else WHITE
        picture.rectangle(x, baseline - 11, wide, 15, ground)
        picture.text(x + wide / 2, baseline, label, NOTE, readable(LIGHT, ground), ' text-anchor="middle"')
        x += wide
    picture.text(x + 5, baseline, "nats", SMALL, LIGHT.secondary)


# ---- below it ----------------------------------------------------------------------------------------------------------------


def _lens_map(picture: Picture, lenses: list[tuple[Step, Lens]]) -> None:
    """One column a token, one row a layer: what the layer predicts, on the colour of its probability."""
    picture.y += 8
    note = f"each layer's most likely token, the last layer on top; {FIRST} first, {STABLE} from here on the final answer"
    picture.title("Logit lens", note)
    layers = len(lenses[0][1].probs)
    high = 17.0 if layers <= 40 else 11.0
    wide = min((WIDTH - 2 * EDGE - GUTTER) / len(lenses), 120.0)
    for row, layer in enumerate(reversed(range(layers))):
        y = picture.y + row * high
        picture.text(EDGE + GUTTER - 8, y + high - 5, str(layer), SMALL, LIGHT.secondary, ' text-anchor="end"')
        for column, (step, lens) in enumerate(lenses):
            _lens_cell(picture, EDGE + GUTTER + column * wide, y, (wide, high), step, lens, layer)
    picture.y += layers * high + 14
    for column, (step, _) in enumerate(lenses):
        x = EDGE + GUTTER + column * wide
        picture.text(x + 3, picture.y, fit(visible(step.token), int(wide / 7.0)).rstrip(), NOTE, more=' font-weight="bold"')
        picture.text(x + 3, picture.y + 13, str(step.index), SMALL, LIGHT.secondary)
    picture.y += 13
    _ramp(picture)


def _lens_cell(picture: Picture, x: float, y: float, size: tuple[float, float], step: Step, lens: Lens, layer: int) -> None:
    probability, token_id = float(lens.probs[layer, 0]), int(lens.ids[layer, 0])
    wide, high = size
    if token_id < 0 or not np.isfinite(probability):
        picture.text(x + 3, y + high - 5, "none", SMALL, LIGHT.secondary)
        return
    ground = LIGHT.heat[level(probability, len(LIGHT.heat))]
    picture.rectangle(x, y, wide - 1, high - 1, ground)
    text = f"{mark(lens, layer)} {piece(step, token_id)}"
    picture.text(x + 3, y + high - 5, fit(text, int((wide - 6) / 5.8)).rstrip(), SMALL, readable(LIGHT, ground), cell=5.8)


def _ramp(picture: Picture) -> None:
    """The colours of probability from 0 to 1."""
    wide = 11.0
    picture.y += 20
    x = WIDTH - EDGE - wide * len(LIGHT.heat) - 24
    picture.text(x - 10, picture.y, "probability 0", SMALL, LIGHT.secondary, ' text-anchor="end"')
    for colour in LIGHT.heat:
        picture.rectangle(x, picture.y - 9, wide, 11, colour)
        x += wide
    picture.text(x + 6, picture.y, "1", SMALL, LIGHT.secondary)


def _candidates(picture: Picture, step: Step) -> None:
    """The most likely tokens where the model was most surprised; the chosen one is marked."""
    picture.y += 8
    where = f"token {step.index} of the text, where the model was most surprised: {step.surprisal:.2f} nats"
    picture.title("Candidates", where)
    picture.y += 6
    for probability, (token_id, text) in _shown(step):
        chosen = token_id == step.token_id
        picture.text(EDGE, picture.y + 12, fit(visible(text), 20).rstrip(), colour=LIGHT.accent if chosen else LIGHT.text)
        picture.text(EDGE + 250, picture.y + 12, percent(probability).strip(), 12, LIGHT.secondary, ' text-anchor="end"')
        picture.rectangle(EDGE + 262, picture.y + 2, BAR, 12, "#f0f1f3")
        share = min(max(probability, 0.0), 1.0) if np.isfinite(probability) else 0.0
        picture.rectangle(EDGE + 262, picture.y + 2, max(BAR * share, 1.0), 12, LIGHT.accent if chosen else LIGHT.probability)
        if chosen:
            picture.text(EDGE + 272 + BAR, picture.y + 12, "chosen", NOTE, LIGHT.accent)
        picture.y += LINE


def _shown(step: Step) -> Iterator[tuple[float, tuple[int, str]]]:
    """The first candidates, and the chosen one where it is not among them."""
    ranked = [(float(p), (int(i), text)) for p, i, text in zip(step.candidates.probs, step.candidates.token_ids, step.candidates.tokens)]
    yield from ranked[:CANDIDATES]
    yield from (one for one in ranked[CANDIDATES:] if one[1][0] == step.token_id)
