"""The whole sequence that the model has read: the prompt's tokens, then the generated ones, by position."""

from __future__ import annotations

from openmav.paint import visible
from openmav.view import View


def prompt_length(view: View) -> int:
    """Tokens of the prompt; taken from the steps where the prompt is not known."""
    if view.prompt is not None:
        return len(view.prompt.token_ids)
    return view.steps[0].position if view.steps else 0


def step_at(view: View, position: int) -> int | None:
    """The index of the step that made the token at a position; None for the prompt, and where there is none."""
    index = position - prompt_length(view)
    return index if 0 <= index < len(view.steps) else None


def token_at(view: View, position: int) -> str:
    """The token at a position, every character visible; "?" where it is not known."""
    index = step_at(view, position)
    if index is not None:
        return visible(view.steps[index].token)
    if view.prompt is None or not 0 <= position < len(view.prompt.tokens):
        return "?"
    return visible(view.prompt.parts.get(position) or view.prompt.tokens[position])


def tokens_in_sight(view: View, cells_each: int = 1) -> range:
    """The generated tokens that a panel of `view.size` can show at once, each at least `cells_each` wide; all where it has no size.

    A panel shows the newest tokens or those around the cursor, so these are as many on either side of the cursor as fit.
    """
    count = len(view.steps)
    if view.size is None:
        return range(count)
    reach = max(1, view.size[0] // cells_each)
    return range(max(0, view.cursor - reach), min(count, max(view.cursor, 0) + reach))


def index_axis(tokens: range, wide: int, least: int = 8) -> str:
    """What stands below columns of `wide` cells, one each: the index of every one, every 5th, 10th, 20th ... under its column.

    An index without a space before it, or that would stick out, is left out.
    """
    each = tokens.step
    step = each * next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 10**9) if step * wide >= least)
    text = ""
    for column, token in enumerate(tokens):
        at = column * wide
        if token % step == 0 and (at > len(text) or not text) and at + len(str(token)) <= len(tokens) * wide:
            text = text.ljust(at) + str(token)
    return text
