"""The keys on the lowest line of the screen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Hint:
    """A key on the lowest line: how it is written, what it does, the action that a click runs."""

    key: str
    what: str
    action: str
    needs: str = ""  # the command that the source must take; "Kinds": the focused panel must have several
    ids: tuple[str, ...] = ()  # of the bindings whose keys these are


HINTS = (
    Hint("space", "run", "toggle_run", "Run", ids=("run",)),
    Hint(".", "next", "next_token", "Advance", ids=("next",)),
    Hint("b", "back", "take_back", "Back", ids=("back",)),
    Hint("← →", "scrub", "scrub(-1)", ids=("scrub_left", "scrub_right")),
    Hint("↑ ↓", "candidate", "candidate(1)", ids=("candidate_up", "candidate_down")),
    Hint("⏎", "force", "enter", "Force", ids=("enter",)),
    Hint("[ ]", "layer", "layer(-1)", ids=("layer_down", "layer_up")),
    Hint("tab", "panel", "panel(1)", ids=("panel_next",)),
    Hint("v", "kind", "mode", "Kinds", ids=("mode",)),
    Hint("m", "maximise", "maximise", ids=("maximise",)),
    Hint("?", "help", "help", ids=("help",)),
    Hint("^p", "palette", "command_palette"),
    Hint("q", "quit", "quit", ids=("quit",)),
)
LAST_TO_GO = (
    "quit",
    "help",
    "toggle_run",
    "next_token",
    "panel(1)",
    "scrub(-1)",
    "maximise",
    "mode",
    "candidate(1)",
    "take_back",
    "enter",
    "layer(-1)",
    "command_palette",
)
WRITTEN = {
    "left": "←",
    "right": "→",
    "up": "↑",
    "down": "↓",
    "full_stop": ".",
    "comma": ",",
    "plus": "+",
    "minus": "-",
    "equals_sign": "=",
    "slash": "/",
    "question_mark": "?",
    "less_than_sign": "<",
    "greater_than_sign": ">",
    "left_square_bracket": "[",
    "right_square_bracket": "]",
    "left_curly_bracket": "{",
    "right_curly_bracket": "}",
}


def written(keys: str) -> str:
    """Keys of a binding as a reader knows them: "." for full_stop."""
    return " or ".join(WRITTEN.get(key, key) for key in keys.split(","))


def with_keys(own: Mapping[str, str]) -> tuple[Hint, ...]:
    """All hints, with the reader's own keys where there are any."""
    return tuple(_with_key(hint, own) if any(name in own for name in hint.ids) else hint for hint in HINTS)


def _with_key(hint: Hint, own: Mapping[str, str]) -> Hint:
    mavs = dict(zip(hint.ids, hint.key.split(" ")))
    return replace(hint, key=" ".join(written(own[name].split(",")[0]) if name in own else mavs[name] for name in hint.ids))
