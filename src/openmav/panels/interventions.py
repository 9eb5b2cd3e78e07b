"""Interventions: what is done to the model, and what it says with that beside what it would have said."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from rich.segment import Segment

from openmav.backends._ranges import ranges
from openmav.paint import Line, cells, fit, ink, number_text, one_line, percent, visible
from openmav.panels._diverging import diverging_bar, signed, signed_shares
from openmav.panels._grid import fitting
from openmav.panels._layers import too_narrow, waiting
from openmav.panels._view import View
from openmav.panels._wrap import wrap
from openmav.record import Before, Ids, Step

TITLE = "Interventions"
NEEDS = ()
WEIGHT = 1.3
HELP = """\
What it shows: what is done to the model (▾), and for the token under the cursor its candidates before and after: without
that, and with it. Columns: the token (● is the one that was taken), its probability by the untouched model, by the
touched one, and the difference, also as a bar: orange for what became likelier, blue for what became less likely. Above
them, the entropy of both. Below, where a panel of the logit lens is shown too, the layers whose top token is another one.

How to read it: long bars at the top mean that what was touched matters here; where hardly anything moves, the model does
without it. A lens that differs from some layer on shows where the change comes through. The key a does something to the
model, shows what is done and takes it off. "<" stands before a number that is only known to be below that: the token is
none of the likely ones any more.

Formula: difference = p_after - p_before, both softmax over the whole vocabulary of the raw logits, before sampling. Both
models are given the same tokens: those of the text. Entropy is -sum p ln p, in nats.

Source: a second forward pass through the untouched model, beside each touched one. Meng et al., "Locating and Editing
Factual Associations in GPT" (2022), for patching; Turner et al., "Activation Addition" (2023), for steering.

What is normal: most single heads move a probability by less than a few percent; a whole MLP of the first layer, or a
steering vector as long as the residual stream itself, changes everything.
"""
PERCENT = 8  # cells of a probability
LEAST_TOKEN, MOST_TOKEN = 5, 22
LEAST_BAR = 7
LEAST = 2 + LEAST_TOKEN + 1 + PERCENT


@dataclass(frozen=True)
class Row:
    """A candidate of either model. `after` is an upper bound where `bound`: the token is not among the touched model's own."""

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


def rows_of(step: Step, before: Before) -> list[Row]:
    """All candidates of both, those that either holds likely first."""
    was, now = before.candidates, step.candidates
    earlier = dict(zip(was.token_ids.tolist(), was.probs.tolist()))
    later = dict(zip(now.token_ids.tolist(), now.probs.tolist()))
    ranked = [p for at, p in enumerate(now.probs.tolist()) if at == 0 or p <= now.probs[at - 1]]
    own = ranked[:-1] if len(ranked) > 1 and step.token_id == int(now.token_ids[-1]) else ranked  # what was chosen may be no likely one
    names = dict(zip(was.token_ids.tolist(), was.tokens)) | dict(zip(now.token_ids.tolist(), now.tokens))
    least = min(own, default=0.0)
    found = [Row(i, names[i], earlier.get(i, math.nan), later.get(i, least), i not in later) for i in names]
    return sorted(found, key=lambda row: -max(_number(row.before), 0.0 if row.bound else _number(row.after)))


def _number(value: float) -> float:
    return value if math.isfinite(value) else 0.0


def other_layers(step: Step, before: Before) -> list[tuple[int, str, str]] | None:
    """(layer, top token before, after) of each layer whose lens says another one; None where not both have a lens."""
    name = "logit_lens.token_ids"
    ids: tuple[Ids | None, Ids | None] = before.values.get(name), step.values.get(name)
    if ids[0] is None or ids[1] is None or ids[0].shape[:1] != ids[1].shape[:1] or not ids[0].size or not ids[1].size:
        return None
    layers = np.nonzero(ids[0][:, 0] != ids[1][:, 0])[0].tolist()
    return [(layer, _piece(before.pieces, int(ids[0][layer, 0])), _piece(step.pieces, int(ids[1][layer, 0]))) for layer in layers]


def _piece(pieces: Mapping[int, str], token_id: int) -> str:
    return "none" if token_id < 0 else visible(pieces[token_id]) if token_id in pieces else f"#{token_id}"


def note(view: View, width: int, height: int) -> str:
    if view.step is None:
        return ""
    done = len(view.interventions)
    parts = [f"{done} in force" if done else "nothing in force", "a: touch"]
    before = view.step.before
    if before is not None and width >= LEAST:
        hidden = len(rows_of(view.step, before)) - _parts(view, view.step, before, width, height)[1]
        parts.append(f"{hidden} more ▼" if hidden > 0 else "")
    return " · ".join(part for part in parts if part)


def render(view: View, width: int, height: int) -> list[Line]:
    step = view.step
    if step is None:
        return [*_done(view, view.interventions, width, max(height - 1, 0)), *waiting(view, width)][: max(height, 0)]
    if width < LEAST:
        return too_narrow(view, width)[: max(height, 0)]
    if step.before is None:
        return _untouched(view, width)[: max(height, 0)]
    head, shown, layers = _parts(view, step, step.before, width, height)
    rows = rows_of(step, step.before)[:shown]
    lines = head + [_row(view, step, row, share, width) for row, share in zip(rows, signed_shares([row.change for row in rows]))]
    return [*lines, *_lens(view, step, step.before, width, layers)][: max(height, 0)]


def _parts(view: View, step: Step, before: Before, width: int, height: int) -> tuple[list[Line], int, int]:
    """(the lines above the candidates, how many candidates, how many lines for the lens)."""
    done = _done(view, step.interventions, width, max(1, height // 4))
    head = [*done, *([_entropies(view, step, before, width)] if height >= 4 else []), *([_heading(view, width)] if height >= 6 else [])]
    head = head[: max(0, height - 1)] if height > 1 else head[:height]
    other = other_layers(step, before)
    left = max(0, height - len(head))
    wanted = 0 if other is None or left < 5 else 1 + len(other)
    layers = min(wanted, max(1, left // 3)) if wanted else 0
    count = min(len(rows_of(step, before)), left - layers)
    return head, count, min(wanted, left - count)


def _done(view: View, specs: tuple[str, ...], width: int, most: int) -> list[Line]:
    """What is done, a line each, so that it can't be overlooked."""
    style = ink(view.palette, "warning", bold=True)
    shown = list(specs[:most]) if len(specs) <= most else [*specs[: most - 1], f"and {len(specs) - most + 1} more"]
    return [[Segment(fit(f"▾ {one_line(spec)}", width), style)] for spec in shown]


def _untouched(view: View, width: int) -> list[Line]:
    """Where nothing was done to the model when it made this token."""
    now = "from the next token on" if view.interventions else "the key a does something to it"
    words = f"The model was as it is when it made this token; {now}."
    quiet = ink(view.palette, "secondary")
    lines: list[Line] = [[Segment("".join(glyph.text for glyph in row), quiet)] for row in wrap([(words, 0)], width)]
    return [*_done(view, view.interventions, width, 3), *lines]


def _entropies(view: View, step: Step, before: Before, width: int) -> Line:
    was, now = (number_text(value, 2) for value in (before.entropy, step.entropy))
    quiet = ink(view.palette, "secondary")
    change = "" if not math.isfinite(step.entropy - before.entropy) else f" ({signed(step.entropy - before.entropy, 2)})"
    token = f" · {visible(step.token)} {percent(math.exp(before.logprob)).strip()} → {percent(math.exp(step.logprob)).strip()}"
    text = next(
        (t for t in (f"entropy {was} → {now} nats{change}{token}", f"entropy {was} → {now} nats{change}") if cells(t) <= width), None
    )
    return [Segment(fit(text or f"H {was} → {now}", width), quiet)]


def _columns(width: int) -> tuple[int, bool, bool, int]:
    """(cells of the token, a column before?, a column of differences?, cells of the bar)."""
    token = max(LEAST_TOKEN, min(MOST_TOKEN, width * 3 // 10))
    left = width - 2 - token - PERCENT
    before = left >= PERCENT + 1
    left -= PERCENT * before
    change = before and left >= PERCENT + 3
    left -= (PERCENT + 1) * change
    return token, before, change, left - 1 if change and left - 1 >= LEAST_BAR else 0


def _heading(view: View, width: int) -> Line:
    token, before, change, _ = _columns(width)
    text = f"  {'token':<{token}}" + (f"{'before':>{PERCENT}}" if before else "") + f"{'after':>{PERCENT}}"
    return [Segment(text + (f"{'change':>{PERCENT + 1}}" if change else ""), ink(view.palette, "secondary"))]


def _row(view: View, step: Step, row: Row, share: float, width: int) -> Line:
    room, before, change, bars = _columns(width)
    chosen = row.token_id == step.token_id
    main, quiet = ink(view.palette, "accent" if chosen else "text", bold=chosen), ink(view.palette, "secondary")
    line: Line = [Segment(f"{'●' if chosen else ' '} {fit(visible(row.token), room)}", main)]
    if before:
        line.append(Segment("·".rjust(PERCENT) if math.isnan(row.before) else percent(row.before).rjust(PERCENT), quiet))
    after = f"<{percent(max(row.after, 0.0005)).strip()}" if row.bound else percent(row.after)
    line.append(Segment(after.rjust(PERCENT), quiet if row.bound else main))
    if change:
        line.append(Segment(_change(row).rjust(PERCENT + 1), ink(view.palette, "text")))
    if bars:
        line += [Segment(" "), *diverging_bar(view.palette, float(share), bars, view.options.max_bar_length)]
    return line


def _change(row: Row) -> str:
    """In hundredths, with its sign; · where it is not known."""
    return "·" if math.isnan(row.change) else f"{'<' * row.bound}{signed(100 * row.change, 1)} %"


def _lens(view: View, step: Step, before: Before, width: int, room: int) -> list[Line]:
    """How many layers say something else, and what, the highest first."""
    other = other_layers(step, before)
    if other is None or room <= 0:
        return []
    quiet, main = ink(view.palette, "secondary"), ink(view.palette, "text")
    layers = len(step.values["logit_lens.token_ids"])
    where = f": {ranges([layer for layer, _, _ in other])}" if other else ""
    count = f"{len(other)} of {layers} layers"
    said = fitting([f"lens: another top token in {count}{where}", f"lens: another top token in {count}", f"lens: {count} differ"], width)
    lines: list[Line] = [[Segment(fit(said, width), quiet)]]
    for layer, was, now in list(reversed(other))[: room - 1]:
        number = f"{layer:>{len(str(layers))}} "
        half = max(1, (width - len(number) - 3) // 2)
        lines.append(
            [Segment(number, quiet), Segment(fit(was, min(half, 14)), quiet), Segment(" → ", quiet), Segment(fit(now, min(half, 14)), main)]
        )
    return lines
