"""Interventions: what is done to the model, and what it says with that beside what it would have said."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from rich.segment import Segment

from openmav.paint import Line, cells, fit, ink, number_text, one_line, percent, visible
from openmav.paint.wrap import wrap
from openmav.panels.base import Box
from openmav.panels.widgets.diverging import diverging_bar, signed, signed_shares
from openmav.panels.widgets.heat_grid import fitting
from openmav.panels.widgets.layer_rows import too_narrow, why_no_step
from openmav.record import Baseline, Ids, Step
from openmav.record.ranges import ranges
from openmav.view import Selection, View

TITLE = "Interventions"
NEEDS = ()
WEIGHT = 1.3
HELP = """\
What it shows: the active interventions (▾), and for the token under the cursor the candidates without and with them.
Columns: the token (● is the chosen one), its probability in the baseline model and in the modified one, and the
difference in percentage points (pp), also as a bar: orange for tokens that became more likely, blue for less likely. Above
them, the entropy of both. Below, where a logit lens panel is shown too, the layers whose top-1 token differs.

How to read it: long bars at the top mean that the intervention matters here; where hardly anything moves, the model does not
depend on that site. A lens that differs from some layer on shows where the change takes effect. The key a adds, lists and
removes interventions; where there are none, a click on an example opens the form with it. "<" marks an upper bound: the
token is no longer among the likely ones.

Formula: difference = p_after - p_before, both softmax over the whole vocabulary of the raw logits, before sampling. Both
models are given the same tokens: those of the text. Entropy is -sum p ln p, in nats.

Source: a second forward pass through the baseline model for each modified one. Meng et al., "Locating and Editing
Factual Associations in GPT" (2022), for patching; Turner et al., "Activation Addition" (2023), for steering.

What is normal: most single heads move a probability by less than a few percent; a whole MLP of the first layer, or a
steering vector as long as the residual stream itself, changes everything.
"""
PERCENT, CHANGE = 8, 11  # cells of a probability, and of a difference in percentage points that may be a bound
LEAST_TOKEN, MOST_TOKEN = 5, 22
LEAST_BAR = 7
LEAST = 2 + LEAST_TOKEN + 1 + PERCENT


AT_REST, LOOKED_AT = 8, 512  # rows while no token was modified; the newest tokens that are asked


def rows(view: View) -> int | None:
    """Few while no token was modified; None: any number."""
    modified = view.interventions or any(step.interventions for step in view.steps[-LOOKED_AT:])
    return None if modified else AT_REST


@dataclass(frozen=True)
class Row:
    """A candidate of either model. `after` is an upper bound where `bound`: the token is not among the modified model's own."""

    token_id: int
    token: str
    before: float
    after: float
    bound: bool = False

    @property
    def change(self) -> float:
        """After minus before; where `bound`, it is below this number. NaN where nothing is known."""
        least = self.after - self.before
        return least if not self.bound or least < 0 else math.nan


def rows_of(step: Step, before: Baseline) -> list[Row]:
    """All candidates of both, those that are likely in either first."""
    was, now = before.candidates, step.candidates
    earlier = dict(zip(was.token_ids.tolist(), was.probs.tolist()))
    later = dict(zip(now.token_ids.tolist(), now.probs.tolist()))
    ranked = [p for at, p in enumerate(now.probs.tolist()) if at == 0 or p <= now.probs[at - 1]]
    own = ranked[:-1] if len(ranked) > 1 and step.token_id == int(now.token_ids[-1]) else ranked  # what was chosen may be no likely one
    names = dict(zip(was.token_ids.tolist(), map(visible, was.tokens))) | dict(zip(now.token_ids.tolist(), map(visible, now.tokens)))
    least = min(own, default=0.0)
    result = [Row(i, names[i], earlier.get(i, math.nan), later.get(i, least), i not in later) for i in names]
    return sorted(result, key=lambda row: -max(_number(row.before), 0.0 if row.bound else _number(row.after)))


def _number(value: float) -> float:
    return value if math.isfinite(value) else 0.0


def other_layers(step: Step, before: Baseline) -> list[tuple[int, str, str]] | None:
    """(layer, top token before, after) of each layer whose lens says another one; None where not both have a lens."""
    name = "logit_lens.token_ids"
    ids: tuple[Ids | None, Ids | None] = before.values.get(name), step.values.get(name)
    if ids[0] is None or ids[1] is None or ids[0].shape[:1] != ids[1].shape[:1] or not ids[0].size or not ids[1].size:
        return None
    layers = np.nonzero(ids[0][:, 0] != ids[1][:, 0])[0].tolist()
    return [(layer, _piece(before.pieces, int(ids[0][layer, 0])), _piece(step.pieces, int(ids[1][layer, 0]))) for layer in layers]


def _piece(pieces: Mapping[int, str], token_id: int) -> str:
    return "none" if token_id < 0 else visible(pieces[token_id]) if token_id in pieces else f"#{token_id}"


@dataclass(frozen=True)
class Comparison:
    """The shown token in the baseline model (before) and in the modified one (after)."""

    specs: tuple[str, ...]  # what was done to the model when it made this token
    rows: tuple[Row, ...]  # the candidates of both, most likely first
    entropies: tuple[float, float]  # nats
    probs: tuple[float, float]  # of the chosen token
    token: str
    token_id: int
    lens: tuple[tuple[int, str, str], ...] | None  # (layer, top token before, after) where they differ; None where not both have a lens
    layers: int  # of the lens


@dataclass(frozen=True)
class InterventionsData:
    empty: str | None  # why there is no token; None where there is
    specs: tuple[str, ...]  # what is done to the model now
    examples: tuple[tuple[str, str], ...]  # (an intervention that this model can take, what it does)
    comparison: Comparison | None  # None: nothing was done to the model when it made the shown token


def data(view: View) -> InterventionsData:
    step, comparison = view.step, None
    if step is not None and step.before is not None:
        before, lens = step.before, other_layers(step, step.before)
        comparison = Comparison(
            specs=tuple(map(one_line, step.interventions)),
            rows=tuple(rows_of(step, before)),
            entropies=(before.entropy, step.entropy),
            probs=(math.exp(before.logprob), math.exp(step.logprob)),
            token=visible(step.token),
            token_id=step.token_id,
            lens=None if lens is None else tuple(lens),
            layers=0 if lens is None else len(step.values["logit_lens.token_ids"]),
        )
    return InterventionsData(why_no_step(view), tuple(map(one_line, view.interventions)), examples_for(view), comparison)


def examples_for(view: View) -> tuple[tuple[str, str], ...]:
    """Interventions to begin with, at the selected layer and head of this model."""
    if view.info is None or view.layer < 0:
        return ()
    has_heads = view.heads > 0 and view.why_missing("attention_entropy", view.layer) is None
    has_mlp = view.why_missing("mlp_norm", view.layer) is None
    head = [(f"ablate L{view.layer}.H{view.head}", "the selected head adds nothing")] if has_heads else []
    name = f"L{view.layer}.mlp"
    mlp = [(f"ablate {name}=mean", "the layer's MLP adds its mean over the prompt"), (f"amplify {name}=2", "the layer's MLP counts twice")]
    steer = (f'steer L{view.layers // 2}="love"-"hate"*4', "towards one word, away from another")
    return (*head, *(mlp if has_mlp else ()), steer)


def note(data: InterventionsData, box: Box) -> str:
    if data.empty is not None:
        return ""
    parts = [f"{len(data.specs)} active" if data.specs else "none active", "a: intervene"]
    if data.comparison is not None and box.width >= LEAST:
        hidden = len(data.comparison.rows) - _parts(data.comparison, box)[1]
        parts.append(f"{hidden} more ▼" if hidden > 0 else "")
    return " · ".join(part for part in parts if part)


def render(data: InterventionsData, box: Box) -> list[Line]:
    height = max(box.height, 0)
    if data.empty is None and box.width < LEAST:
        return too_narrow(box)
    result = data.comparison
    if result is None:
        return [line for line, _ in _at_rest(data, box)][:height]
    head, count, layers = _parts(result, box)
    rows = result.rows[:count]
    lines = head + [_row(box, result.token_id, row, share) for row, share in zip(rows, signed_shares([row.change for row in rows]))]
    return [*lines, *_lens(box, result, layers)][:height]


def _parts(result: Comparison, box: Box) -> tuple[list[Line], int, int]:
    """(the lines above the candidates, how many candidates, how many lines for the lens)."""
    height = box.height
    specs = _specs(box, result.specs, max(1, height // 4))
    head = [*specs, *([_entropies(box, result)] if height >= 4 else []), *([_heading(box)] if height >= 6 else [])]
    head = head[: max(0, height - 1)] if height > 1 else head[:height]
    left = max(0, height - len(head))
    wanted = 0 if result.lens is None or left < 5 else 1 + len(result.lens)
    layers = min(wanted, max(1, left // 3)) if wanted else 0
    count = min(len(result.rows), left - layers)
    return head, count, min(wanted, left - count)


def _specs(box: Box, specs: tuple[str, ...], most: int) -> list[Line]:
    """What is done, a line each, so that it can't be overlooked."""
    style = ink(box.palette, "warning", bold=True)
    shown = list(specs[:most]) if len(specs) <= most else [*specs[: most - 1], f"and {len(specs) - most + 1} more"]
    return [[Segment(fit(f"▾ {spec}", box.width), style)] for spec in shown]


def _at_rest(data: InterventionsData, box: Box) -> list[tuple[Line, str | None]]:
    """Where nothing was done to the model when it made this token, or where there is none: lines, each with what a click on it begins."""
    if data.empty == "":
        return [(line, None) for line in _specs(box, data.specs, max(box.height, 0))]
    now = "What is listed applies from the next token on." if data.specs else "Click one to begin, or press a:"
    state = "This token is the baseline model's" if data.empty is None else data.empty
    words = f"{state}. {now}"
    quiet = ink(box.palette, "secondary")
    lines: list[Line] = [[Segment("".join(glyph.text for glyph in row), quiet)] for row in wrap([(words, 0)], box.width)]
    rows: list[tuple[Line, str | None]] = [(line, None) for line in [*_specs(box, data.specs, 3), *lines]]
    if not data.specs and data.examples:
        rows.append(([], None))
        rows += zip(_examples(box, data.examples), [spec for spec, _ in data.examples])
    return rows


def pick(data: InterventionsData, box: Box, x: int, y: int) -> Selection | None:
    """The example that was clicked."""
    if data.comparison is not None or (data.empty is None and box.width < LEAST):
        return None
    rows = _at_rest(data, box)
    return Selection(intervention=rows[y][1]) if 0 <= y < len(rows) else None


def _examples(box: Box, examples: tuple[tuple[str, str], ...]) -> list[Line]:
    """An example a line, and what it does where that fits beside all of them."""
    longest = max((cells(spec) for spec, _ in examples), default=0)
    beside = all(longest + 4 + cells(what) <= box.width for _, what in examples)
    main, quiet = ink(box.palette, "key"), ink(box.palette, "secondary")
    rows: list[Line] = []
    for spec, what in examples:
        rows.append([Segment("▸ ", quiet), Segment(fit(spec, min(longest, max(0, box.width - 2))), main)])
        if beside:
            rows[-1].append(Segment(f"  {what}", quiet))
    return rows


def _entropies(box: Box, result: Comparison) -> Line:
    before, after = result.entropies
    was, now = number_text(before, 2), number_text(after, 2)
    change = "" if not math.isfinite(after - before) else f" ({signed(after - before, 2)})"
    token = f" · {result.token} {percent(result.probs[0]).strip()} → {percent(result.probs[1]).strip()}"
    texts = (f"entropy {was} → {now} nats{change}{token}", f"entropy {was} → {now} nats{change}")
    text = next((text for text in texts if cells(text) <= box.width), None)
    return [Segment(fit(text or f"H {was} → {now}", box.width), ink(box.palette, "secondary"))]


def _columns(width: int) -> tuple[int, bool, bool, int]:
    """(cells of the token, a column before?, a column of differences?, cells of the bar)."""
    token = max(LEAST_TOKEN, min(MOST_TOKEN, width * 3 // 10))
    left = width - 2 - token - PERCENT
    before = left >= PERCENT + 1
    left -= PERCENT * before
    change = before and left >= CHANGE
    left -= CHANGE * change
    return token, before, change, left - 1 if change and left - 1 >= LEAST_BAR else 0


def _heading(box: Box) -> Line:
    token, before, change, _ = _columns(box.width)
    text = f"  {'token':<{token}}" + (f"{'before':>{PERCENT}}" if before else "") + f"{'after':>{PERCENT}}"
    return [Segment(text + (f"{'change':>{CHANGE}}" if change else ""), ink(box.palette, "secondary"))]


def _row(box: Box, token_id: int, row: Row, share: float) -> Line:
    width, before, change, bars = _columns(box.width)
    chosen = row.token_id == token_id
    main, quiet = ink(box.palette, "accent" if chosen else "text", bold=chosen), ink(box.palette, "secondary")
    line: Line = [Segment(f"{'●' if chosen else ' '} {fit(row.token, width)}", main)]
    if before:
        line.append(Segment("·".rjust(PERCENT) if math.isnan(row.before) else percent(row.before).rjust(PERCENT), quiet))
    after = f"<{percent(max(row.after, 0.0005)).strip()}" if row.bound else percent(row.after)
    line.append(Segment(after.rjust(PERCENT), quiet if row.bound else main))
    if change:
        line.append(Segment(_change(row).rjust(CHANGE), ink(box.palette, "text")))
    if bars:
        line += [Segment(" "), *diverging_bar(box.palette, float(share), bars, box.max_bar_length)]
    return line


def _change(row: Row) -> str:
    """In percentage points, with its sign; · where it is not known."""
    return "·" if math.isnan(row.change) else f"{'<' * row.bound}{signed(100 * row.change, 1)} pp"


def _lens(box: Box, result: Comparison, rows: int) -> list[Line]:
    """How many layers predict another token, and which, the highest first."""
    other = result.lens
    if other is None or rows <= 0:
        return []
    quiet, main = ink(box.palette, "secondary"), ink(box.palette, "text")
    where = f": {ranges([layer for layer, _, _ in other])}" if other else ""
    count = f"{len(other)} of {result.layers} layers"
    text = fitting(
        [f"lens: another top token in {count}{where}", f"lens: another top token in {count}", f"lens: {count} differ"], box.width
    )
    lines: list[Line] = [[Segment(fit(text, box.width), quiet)]]
    for layer, was, now in list(reversed(other))[: rows - 1]:
        number = f"{layer:>{len(str(result.layers))}} "
        half = min(max(1, (box.width - len(number) - 3) // 2), 14)
        lines.append([Segment(number, quiet), Segment(fit(was, half), quiet), Segment(" → ", quiet), Segment(fit(now, half), main)])
    return lines
