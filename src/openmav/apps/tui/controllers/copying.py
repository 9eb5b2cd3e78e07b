"""Copying text, a token or numbers to the clipboard, through the terminal's own escape (OSC 52): it works over ssh too."""

from __future__ import annotations

import math
from collections.abc import Callable

from openmav.apps.tui.controllers.context import NO_TOKEN, Context
from openmav.paint import PALETTES, fit, visible
from openmav.record import Step
from openmav.view import View

PREVIEW = 44  # cells of a text that is offered
LARGE = 74_000  # bytes: several terminals take no more at once


class CopyController:
    """`copy` gives a text to the clipboard."""

    def __init__(self, context: Context, copy: Callable[[str], None]) -> None:
        self._context, self._copy = context, copy

    def open(self) -> None:
        """The list of what can be copied."""
        from openmav.apps.tui.screens.forms import ListScreen

        context = self._context
        if context.view.prompt is None:
            context.notify(f"there is nothing to copy; {NO_TOKEN}")
            return
        texts = offered(context.view)
        rows = [(name, f"{name:<22}{fit(visible(text), PREVIEW).rstrip()}") for name, text in texts.items()]

        def chosen(answer: tuple[str, str] | None) -> None:
            if answer is not None:
                self._take(answer[1], texts[answer[1]])

        context.open(ListScreen("Copy", rows, {}, PALETTES[context.view.theme], enter="copies"), chosen)

    def _take(self, name: str, text: str) -> None:
        text = text.encode("utf-8", "replace").decode()  # half of a surrogate pair can't go to a terminal
        self._copy(text)
        large = "; some terminals take no more than 74 kB" if len(text.encode()) > LARGE else ""
        self._context.notify(f"copied {name}: {len(text)} character{'s' * (len(text) != 1)}{large}")


def offered(view: View) -> dict[str, str]:
    """{name: text} of all that can be copied now."""
    step, prompt = view.step, view.prompt
    generated = "".join(one.text for one in view.steps)
    result = {"the generated text": generated} if generated else {}
    if prompt is not None:
        result["prompt and text"] = prompt.text + generated
        result["the prompt"] = prompt.text
    if step is not None:
        result["the token"] = step.token
        result["the token's numbers"] = numbers(step)
        result["its candidates"] = candidates(step)
    return result


def numbers(step: Step) -> str:
    """A token's numbers as a line that other programs read."""
    p = math.exp(step.logprob)
    return f"index {step.index}  id {step.token_id}  p {p:.6g}  surprisal {step.surprisal:.6g} nats  entropy {step.entropy:.6g} nats"


def candidates(step: Step) -> str:
    """The candidates as a table with tabs: rank, id, token, probability, logit."""
    made = step.candidates
    rows = zip(made.token_ids.tolist(), made.tokens, made.probs.tolist(), made.logits.tolist())
    lines = [f"{rank}\t{token_id}\t{token!r}\t{p:.6g}\t{logit:.6g}" for rank, (token_id, token, p, logit) in enumerate(rows, 1)]
    return "\n".join(["rank\tid\ttoken\tp\tlogit", *lines])
