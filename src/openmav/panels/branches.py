"""Branches: the ways that the text went, as a tree, and two of them side by side with what differs between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, zip_longest
from operator import attrgetter

import numpy as np
from rich.segment import Segment
from rich.style import Style

from openmav.paint import Line, cells, fit, fit_line, ink, number_text, one_line, percent, printable, visible
from openmav.paint.wrap import Row, wrap, wrap_words
from openmav.panels.base import Box
from openmav.panels.widgets.branch_tree import BranchRow, branch_rows, label
from openmav.record import Step
from openmav.view import Selection, View

TITLE = "Branches"
NEEDS = ("mlp_norm", "attention_norm", "residual_norm", "attention_entropy")
WEIGHT = 1.5
HELP = """\
What it shows: every branch of the text. Above, the tree: each branch with the token where it starts, its
length and its first words; ● is the current branch, ◇ the one it is compared with. In the middle, both texts, with the first
token that differs marked. Below, both at the same token: what was chosen, how surprised and how unsure the model was, and
the layers whose numbers differ most.

How to read it: undo tokens (b), choose another candidate (down, enter) or insert text (w), and the old text stays
on its branch. The key f redoes tokens that were undone, g opens the list of branches: enter switches to
one, n renames it, c compares it. The key e starts over with another prompt on a branch of its own. A click on a
row of the tree compares that branch with the current one.

Formula: a layer's difference is |a - b| / max(|a|, |b|); those with the largest ones that fit are listed by measure, the
highest layer first. Attention entropy is the mean over heads. Behind the first token that differs, the numbers of both are
those after different texts, and the table says so.

Source: the steps of both branches as they were recorded. Going to a branch computes nothing; its next token is computed
from a cache that is brought to its text token by token, so that all numbers are those of a fresh run, bit for bit.

What is normal: at the token where two branches part, both were chosen from the same distribution, so that all numbers are
the same there; they differ from the next token on, in the last layers most.
"""

MEASURES = (
    ("mlp_norm", "MLP ‖x‖"),
    ("attention_norm", "attention ‖x‖"),
    ("residual_norm", "residual ‖x‖"),
    ("attention_entropy", "attention entropy"),
)
AFTER = "after different texts: not the same question to both"
BEGINNINGS = (
    ("down, enter", "choose another candidate"),
    ("w", "insert text"),
    ("b", "undo tokens beforehand"),
    ("e", "start another prompt"),
)
AT_REST = 7  # rows while there is one branch
CONTEXT = 12  # tokens that both texts show from before their first difference


@dataclass(frozen=True)
class Side:
    """One of two branches that are compared."""

    label: str
    tokens: tuple[str, ...]  # the text from token `first` on, a string a token
    token: str  # at the compared place
    prob: float  # of that token, 0..1
    entropy: float  # nats


@dataclass(frozen=True)
class BranchesData:
    rows: tuple[BranchRow, ...]  # the tree, the current branch among them
    current: str  # the name of the current branch
    other: str | None  # the name of the branch that is compared with it; None: there is none
    sides: tuple[Side, Side] | None  # the current branch and the other one
    first: int  # the first token of both texts that is held
    split: int  # the first token that differs
    at: int  # the compared token; -1 where one has none
    differences: tuple[tuple[float, str, int, float, float], ...]  # (share, measure, layer, current, other), largest share first
    cursor: int
    undone: int  # tokens


def rows(view: View) -> int | None:
    """Few while there is one branch; None: any number."""
    return AT_REST if view.compared is None else None


def data(view: View) -> BranchesData:
    other = view.compared if view.prompt is not None else None
    size = None if view.size is None else max(1, view.size[0] * view.size[1])
    words = None if view.size is None else view.size[0]
    rows = branch_rows(view.all_branches(), words)
    if other is None:
        shown = view.compared
        return BranchesData(rows, view.branch, None if shown is None else shown.name, None, 0, 0, -1, (), view.cursor, view.undone)
    split = parting(view.steps, other.steps)
    first = max(0, split - CONTEXT)
    at = min(max(view.cursor, 0), len(other.steps) - 1, len(view.steps) - 1)
    sides = (_side(view.branch, view.steps, first, size, at), _side(other.name, other.steps, first, size, at))
    differing = tuple(differences(view.steps[at], other.steps[at])) if at >= 0 else ()
    return BranchesData(rows, view.branch, other.name, sides, first, split, at, differing, view.cursor, view.undone)


def _side(name: str, steps: Sequence[Step], first: int, size: int | None, at: int) -> Side:
    tokens = tuple(printable(step.text) for step in steps[first : None if size is None else first + size])
    if at < 0:
        return Side(one_line(name), tokens, "", 0.0, 0.0)
    return Side(one_line(name), tokens, visible(steps[at].token), float(np.exp(steps[at].logprob)), steps[at].entropy)


def parting(a: Sequence[Step], b: Sequence[Step]) -> int:
    """The index of the first token that differs; where one ends first, its length."""
    return next((i for i, (x, y) in enumerate(zip(a, b)) if x.token_id != y.token_id), min(len(a), len(b)))


def differences(a: Step, b: Step) -> list[tuple[float, str, int, float, float]]:
    """(share, measure, layer, value of a, value of b) of every layer that both have, the largest share first."""
    result = []
    for name, measure in MEASURES:
        x, y = a.values.get(name), b.values.get(name)
        if x is None or y is None or x.shape != y.shape:
            continue
        x, y = (np.nanmean(v, axis=1) if v.ndim == 2 else v for v in (x, y))
        share = np.abs(x - y) / np.maximum(np.maximum(np.abs(x), np.abs(y)), 1e-12)
        result += [(float(share[i]), measure, i, float(x[i]), float(y[i])) for i in range(len(x)) if np.isfinite(share[i])]
    return sorted(result, key=lambda row: (-row[0], row[1], row[2]))


def note(data: BranchesData, box: Box) -> str:
    ahead = [f"{data.undone} undone (f: redo)"] if data.undone else []
    if data.other is None:
        return "".join(ahead)
    return " · ".join([f"{one_line(data.current)} and {one_line(data.other)}", f"{len(data.rows)} branches", *ahead])


def _tree_rows(data: BranchesData, box: Box, most: int) -> tuple[list[tuple[str, Line]], int]:
    """(branch, its row), the current one always among them; how many are left out."""
    rows: list[tuple[str, Line]] = []
    for row in data.rows:
        now = row.name == data.current
        mark = "●" if now else "◇" if row.name == data.other else " "
        style = ink(box.palette, "accent" if now else "text" if mark == "◇" else "secondary", bold=now)
        rows.append((row.name, [Segment(f"{mark} {label(row, box.width - 2)}", style)]))
    at = next((i for i, (name, _) in enumerate(rows) if name == data.current), 0)
    first = max(0, min(at - most + 1, len(rows) - most)) if len(rows) > most else 0
    return rows[first : first + most], max(0, len(rows) - most)


def _parts(data: BranchesData, height: int) -> tuple[int, int, int]:
    """Rows of the tree, of the texts and of the numbers; a part that does not fit is 0."""
    count = len(data.rows)
    numbers = max(4, height // 3) if height >= 12 else 3 if height >= 9 else 0
    tree_rows = min(count, max(1, (height - numbers) // 3))
    more = int(count > tree_rows)
    texts = height - tree_rows - more - (numbers + 1 if numbers else 0) - 1
    return tree_rows, max(0, texts), numbers


def render(data: BranchesData, box: Box) -> list[Line]:
    width, quiet = box.width, ink(box.palette, "secondary")
    if data.sides is None:
        return _alone(box)
    count, texts, numbers = _parts(data, box.height)
    rows, hidden = _tree_rows(data, box, count)
    lines = [fit_line(line, width) for _, line in rows]
    if hidden:
        lines.append([Segment(fit(f"  {hidden} more branches: g lists all", width), quiet)])
    if texts:
        shown = _texts(data, data.sides, box, texts)
        lines += [_names(data.sides, box), *shown]
        numbers += (texts - len(shown)) * bool(numbers)
    if numbers:
        lines += [[Segment("─" * width, ink(box.palette, "frame"))], *_numbers(data, data.sides, box, numbers)]
    return lines[: box.height]


def _alone(box: Box) -> list[Line]:
    """What begins another branch: a key a line where there is room, else one after the other."""
    quiet, words = (
        ink(box.palette, "secondary"),
        "One branch so far. Others begin where you change the text; what was there stays on this one.",
    )
    said, (label, longest) = wrap_words(words, box.width), (max(map(cells, column)) for column in zip(*BEGINNINGS))
    if box.height > len(said) + len(BEGINNINGS) and (gap := min(2, box.width - label - longest)) > 0:
        listed = [[Segment(fit(keys, label + gap), ink(box.palette, "key")), Segment(what, quiet)] for keys, what in BEGINNINGS]
        return [*([Segment(row, quiet)] for row in said), [], *listed]
    whole = " · ".join([words, *(f"{keys}: {what}" for keys, what in BEGINNINGS)])
    return [[Segment(row, quiet)] for row in wrap_words(whole, box.width)][: box.height]


def _names(sides: tuple[Side, Side], box: Box) -> Line:
    half = (box.width - 3) // 2
    return [
        Segment(fit(f"● {sides[0].label}", half), ink(box.palette, "accent", bold=True)),
        Segment(" │ ", ink(box.palette, "frame")),
        Segment(fit(f"◇ {sides[1].label}", half), ink(box.palette, "text", bold=True)),
    ]


def _texts(data: BranchesData, sides: tuple[Side, Side], box: Box, height: int) -> list[Line]:
    """Both texts in two columns, from a little before their first difference."""
    half = (box.width - 3) // 2
    columns = [_column(data, box, side, half, height) for side in sides]
    bar = Segment(" │ ", ink(box.palette, "frame"))
    return [[*fit_line(a, half), bar, *fit_line(b, half)] for a, b in zip_longest(*columns, fillvalue=[])]


def _column(data: BranchesData, box: Box, side: Side, width: int, height: int) -> list[Line]:
    chunks = [("…", -1)] * (data.first > 0) + [(text, at) for at, text in enumerate(side.tokens[: width * height], data.first)]
    rows = wrap(chunks, width)
    at = next((y for y, row in enumerate(rows) if any(glyph.token >= max(data.split, data.cursor) for glyph in row)), len(rows) - 1)
    start = max(0, min(at - height + 2, len(rows) - height))
    return [_styled(data, box, row) for row in rows[start : start + height]]


def _styled(data: BranchesData, box: Box, row: Row) -> Line:
    """A row of text: quiet before the difference, the first token that differs and the one under the cursor marked."""
    palette = box.palette

    def style(token: int) -> Style:
        if token == data.split:
            return ink(palette, palette.ground or "text", "accent", bold=True, underline=True)
        if token == data.cursor:
            return ink(palette, "accent", bold=True)
        return ink(palette, "text" if token > data.split else "secondary")

    runs = groupby(row, key=attrgetter("token"))
    return [Segment("".join(glyph.text for glyph in run), style(token)) for token, run in runs]


def _numbers(data: BranchesData, sides: tuple[Side, Side], box: Box, rows: int) -> list[Line]:
    """Both at one token: the choice, and the layers that differ most."""
    if data.at < 0:
        return [[Segment(fit("no token of both to compare yet", box.width), ink(box.palette, "secondary"))]]
    a, b = sides
    room = _room(box)[1] - 1
    table = [
        (f"at token {data.at}", _choice(a, room), _choice(b, room), "change"),
        ("entropy, nats", number_text(a.entropy, 2), number_text(b.entropy, 2), f"{a.entropy - b.entropy:+.2f}"),
    ]
    if data.at > data.split:
        table.insert(1, (AFTER, "", "", ""))
    differing = [row for row in data.differences if row[0] > 0][: max(0, rows - len(table))]
    order = [measure for _, measure in MEASURES]
    for _, measure, layer, x, y in sorted(differing, key=lambda row: (order.index(row[1]), -row[2])):  # as in their panels
        table.append((f"{measure} {layer}", number_text(x, 2), number_text(y, 2), f"{x - y:+.2f}"))
    if not data.differences:
        table.append(("no layers to compare", "", "", ""))
    elif not differing and data.differences[0][0] == 0:
        table.append(("all layers the same here", "", "", ""))
    return [_number_row(box, row, i == 0) for i, row in enumerate(table[:rows])]


def _choice(side: Side, room: int) -> str:
    """The token and its probability; where both do not fit, the token is cut, or left out."""
    chance = percent(side.prob).strip()
    left = min(cells(side.token), room - cells(chance) - 1)
    return f"{fit(side.token, left)} {chance}" if left >= min(3, cells(side.token)) else chance


def _room(box: Box) -> tuple[int, int]:
    """(cells of the names, of each of the three columns beside them)."""
    names = min(24, box.width // 3)
    return names, max(0, box.width - names) // 3


def _number_row(box: Box, row: tuple[str, str, str, str], first: bool) -> Line:
    names, room = _room(box)
    name, *numbers = row
    palette = box.palette
    if not any(numbers):
        return [Segment(fit(name, box.width), ink(palette, "secondary"))]
    styles = (ink(palette, "accent", bold=first), ink(palette, "text", bold=first), ink(palette, "text"))
    columns = [Segment(" " + fit(text, room - 1, ">"), style) for text, style in zip(numbers, styles)]
    return fit_line([Segment(fit(name, names), ink(palette, "secondary")), *columns], box.width)


def pick(data: BranchesData, box: Box, x: int, y: int) -> Selection | None:
    """The branch whose row was clicked is compared with the current one."""
    if data.other is None:
        return None
    rows, _ = _tree_rows(data, box, _parts(data, box.height)[0])
    name = rows[y][0] if 0 <= y < len(rows) else None
    return Selection(branch=name) if name is not None and name != data.current else None
