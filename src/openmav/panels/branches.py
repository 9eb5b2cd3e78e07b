"""Branches: the ways that the text went, as a tree, and two of them side by side with what differs between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby, zip_longest
from operator import attrgetter

import numpy as np
from rich.segment import Segment
from rich.style import Style

from openmav.paint import Line, cells, fit, fit_line, ink, number_text, one_line, percent, printable, visible
from openmav.panels._view import View
from openmav.panels._wrap import Row, wrap
from openmav.record import Branch, Step

TITLE = "Branches"
NEEDS = ("mlp_norm", "attention_norm", "residual_norm", "attention_entropy")
WEIGHT = 1.5
HELP = """\
What it shows: every way that the text went. Above, the tree: each branch with the token where it left another one, its
length and its first words; ● is the branch in force, ◇ the one beside it. In the middle, both texts, with the first
token that differs marked. Below, both at the same token: what was chosen, how surprised and how unsure the model was, and
the layers whose numbers differ most.

How to read it: take tokens back (b), choose another candidate (down, enter) or type a word (w), and the old text stays
on its branch. The key f goes forward again over tokens that were taken back, g opens the list of branches: enter goes to
one, n gives it a name, c puts it beside. The key e begins again with another prompt, beside the old text. A click on a
row of the tree puts that branch beside the one in force.

Formula: a layer's difference is |a - b| / max(|a|, |b|), largest first; attention entropy is the mean over heads.

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
CONTEXT = 12  # tokens that both texts show from before their first difference


def tree(branches: dict[str, Branch]) -> Iterator[tuple[Branch, int]]:
    """(branch, depth) in the order of a tree: roots in the order of their making, each followed by what left it, earliest first."""

    def below(parent: str | None, depth: int) -> Iterator[tuple[Branch, int]]:
        for branch in sorted((b for b in branches.values() if b.parent == parent), key=_order if parent is None else _place):
            yield branch, depth
            yield from below(branch.name, depth + 1)

    return below(None, 0)


def _order(branch: Branch) -> tuple[bool, int, str]:
    return branch.name != "main", len(branch.name), branch.name


def _place(branch: Branch) -> tuple[int, int, str]:
    return branch.at, len(branch.name), branch.name


def label(branch: Branch, depth: int, width: int) -> str:
    """A row of the tree: the name, where it left, its length, and what it says from there on."""
    name = f"{'  ' * (depth - 1)}└ {one_line(branch.name)}" if depth else one_line(branch.name)
    where = f"@{branch.at}" if branch.parent is not None else ""
    new = printable("".join(step.text for step in branch.steps[branch.at :])).replace("\n", "⏎")
    words = new if branch.parent is not None else f"{printable(branch.prompt.text)} ▸{new}".replace("\n", "⏎")
    left = f"{fit(name, max(8, min(22, width // 3)))} {where:>5} {len(branch.steps):>5}  "
    return left + fit(words, max(0, width - cells(left)))


def parting(a: Sequence[Step], b: Sequence[Step]) -> int:
    """The index of the first token that differs; where one ends first, its length."""
    return next((i for i, (x, y) in enumerate(zip(a, b)) if x.token_id != y.token_id), min(len(a), len(b)))


def place(view: View, other: Branch) -> int:
    """The token at which both are compared: the one under the cursor, as far as the other reaches."""
    return min(max(view.cursor, 0), len(other.steps) - 1, len(view.steps) - 1)


def differences(a: Step, b: Step) -> list[tuple[float, str, int, float, float]]:
    """(share, measure, layer, value of a, value of b) of every layer that both have, the largest share first."""
    found = []
    for name, said in MEASURES:
        x, y = a.values.get(name), b.values.get(name)
        if x is None or y is None or x.shape != y.shape:
            continue
        x, y = (np.nanmean(v, axis=1) if v.ndim == 2 else v for v in (x, y))
        share = np.abs(x - y) / np.maximum(np.maximum(np.abs(x), np.abs(y)), 1e-12)
        found += [(float(share[i]), said, i, float(x[i]), float(y[i])) for i in range(len(x)) if np.isfinite(share[i])]
    return sorted(found, key=lambda row: (-row[0], row[1], row[2]))


def note(view: View, width: int, height: int) -> str:
    other = view.compared
    if other is None:
        return f"{view.ahead} ahead (f)" if view.ahead else ""
    parts = [f"{one_line(view.branch)} beside {one_line(other.name)}", f"{len(view.branches) + 1} branches"]
    return " · ".join(parts + ([f"{view.ahead} ahead (f)"] if view.ahead else []))


def _tree_rows(view: View, width: int, most: int) -> tuple[list[tuple[str | None, Line]], int]:
    """(branch, its row), the one in force always among them; how many are left out."""
    rows: list[tuple[str | None, Line]] = []
    other = view.compared
    for branch, depth in tree(view.all_branches()):
        now = branch.name == view.branch
        mark = "●" if now else "◇" if other is not None and branch.name == other.name else " "
        style = ink(view.palette, "accent" if now else "text" if mark == "◇" else "secondary", bold=now)
        rows.append((branch.name, [Segment(f"{mark} {label(branch, depth, width - 2)}", style)]))
    at = next((i for i, (name, _) in enumerate(rows) if name == view.branch), 0)
    first = max(0, min(at - most + 1, len(rows) - most)) if len(rows) > most else 0
    return rows[first : first + most], max(0, len(rows) - most)


def _parts(view: View, height: int) -> tuple[int, int, int]:
    """Rows of the tree, of the texts and of the numbers; a part that has no room is 0."""
    count = len(view.branches) + 1
    numbers = max(4, height // 3) if height >= 12 else 3 if height >= 9 else 0
    tree_rows = min(count, max(1, (height - numbers) // 3))
    more = int(count > tree_rows)
    texts = height - tree_rows - more - (numbers + 1 if numbers else 0) - 1
    return tree_rows, max(0, texts), numbers


def render(view: View, width: int, height: int) -> list[Line]:
    other = view.compared
    quiet = ink(view.palette, "secondary")
    if other is None or view.prompt is None:
        words = "One way so far. Take tokens back (b) and put another there (↓ ⏎, or w to type), or e for another prompt: both stay."
        return [[Segment("".join(glyph.text for glyph in row), quiet)] for row in wrap([(words, 0)], width)][:height]
    count, texts, numbers = _parts(view, height)
    rows, hidden = _tree_rows(view, width, count)
    lines = [fit_line(line, width) for _, line in rows]
    if hidden:
        lines.append([Segment(fit(f"  {hidden} more branches: g lists all", width), quiet)])
    if texts:
        shown = _texts(view, other, width, texts)
        lines += [_names(view, other, width), *shown]
        numbers += (texts - len(shown)) * bool(numbers)
    if numbers:
        lines += [[Segment("─" * width, ink(view.palette, "frame"))], *_numbers(view, other, width, numbers)]
    return lines[:height]


def _names(view: View, other: Branch, width: int) -> Line:
    half = (width - 3) // 2
    accent, text = ink(view.palette, "accent", bold=True), ink(view.palette, "text", bold=True)
    return [
        Segment(fit(f"● {one_line(view.branch)}", half), accent),
        Segment(" │ ", ink(view.palette, "frame")),
        *_other(other, half, text),
    ]


def _other(other: Branch, width: int, style: object) -> Line:
    return [Segment(fit(f"◇ {one_line(other.name)}", width), style)]  # type: ignore[arg-type]


def _texts(view: View, other: Branch, width: int, height: int) -> list[Line]:
    """Both texts in two columns, from a little before their first difference."""
    split = parting(view.steps, other.steps)
    half = (width - 3) // 2
    columns = [_column(view, steps, split, half, height) for steps in (view.steps, other.steps)]
    bar = Segment(" │ ", ink(view.palette, "frame"))
    return [[*fit_line(a, half), bar, *fit_line(b, half)] for a, b in zip_longest(*columns, fillvalue=[])]


def _column(view: View, steps: Sequence[Step], split: int, width: int, height: int) -> list[Line]:
    first = max(0, split - CONTEXT)
    chunks = [("…", -1)] * (first > 0) + [(printable(step.text), i) for i, step in enumerate(steps[first : first + width * height], first)]
    rows = wrap(chunks, width)
    at = next((y for y, row in enumerate(rows) if any(glyph.token >= max(split, view.cursor) for glyph in row)), len(rows) - 1)
    start = max(0, min(at - height + 2, len(rows) - height))
    return [_styled(view, row, split) for row in rows[start : start + height]]


def _styled(view: View, row: Row, split: int) -> Line:
    """A row of text: quiet before the difference, the first token that differs and the one under the cursor marked."""
    palette = view.palette

    def style(token: int) -> Style:
        if token == split:
            return ink(palette, palette.ground or "text", "accent", bold=True, underline=True)
        if token == view.cursor:
            return ink(palette, "accent", bold=True)
        return ink(palette, "text" if token > split else "secondary")

    runs = groupby(row, key=attrgetter("token"))
    return [Segment("".join(glyph.text for glyph in run), style(token)) for token, run in runs]


def _numbers(view: View, other: Branch, width: int, rows: int) -> list[Line]:
    """Both at one token: the choice, and the layers that differ most."""
    at = place(view, other)
    if at < 0:
        return [[Segment(fit("no token of both to compare yet", width), ink(view.palette, "secondary"))]]
    a, b = view.steps[at], other.steps[at]
    found = differences(a, b)
    table = [
        (f"at token {at}", f"{visible(a.token)} {_p(a)}", f"{visible(b.token)} {_p(b)}", ""),
        ("entropy, nats", number_text(a.entropy, 2), number_text(b.entropy, 2), _delta(a.entropy, b.entropy)),
        *((f"{said} {layer}", number_text(x, 2), number_text(y, 2), _delta(x, y)) for share, said, layer, x, y in found if share > 0),
    ]
    if not found:
        table.append(("no layers to compare", "", "", ""))
    elif found[0][0] == 0:
        table.append(("all layers the same here", "", "", ""))
    return [_number_row(view, row, width, i == 0) for i, row in enumerate(table[:rows])]


def _p(step: Step) -> str:
    return percent(float(np.exp(step.logprob))).strip()


def _delta(x: float, y: float) -> str:
    return f"{x - y:+.2f}"


def _number_row(view: View, row: tuple[str, str, str, str], width: int, first: bool) -> Line:
    label_room = min(24, width // 3)
    room = max(0, (width - label_room) // 3)
    name, a, b, delta = row
    palette = view.palette
    return fit_line(
        [
            Segment(fit(name, label_room), ink(palette, "secondary")),
            Segment(fit(a, room, ">"), ink(palette, "accent", bold=first)),
            Segment(fit(b, room, ">"), ink(palette, "text", bold=first)),
            Segment(fit(delta, room, ">"), ink(palette, "text" if delta else "secondary")),
        ],
        width,
    )


def pick(view: View, width: int, height: int, x: int, y: int) -> View:
    """The branch whose row was clicked stands beside the one in force."""
    if view.compared is None:
        return view
    rows, _ = _tree_rows(view, width, _parts(view, height)[0])
    name = rows[y][0] if 0 <= y < len(rows) else None
    return replace(view, other=name) if name is not None and name != view.branch else view
