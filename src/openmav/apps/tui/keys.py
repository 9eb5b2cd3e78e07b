"""Keys: every binding has an id, so that a reader can put it on another key."""

from __future__ import annotations

from textual.binding import Binding, BindingType

from openmav.apps.layouts import LAYOUTS


def _bind(keys: str, action: str, what: str, name: str, priority: bool = False) -> Binding:
    return Binding(keys, action, what, id=name, show=False, priority=priority)


BINDINGS: list[BindingType] = [
    _bind("space", "toggle_run", "run or pause", "run"),
    _bind("full_stop", "next_token", "make one token", "next"),
    _bind("enter", "enter", "put the selected candidate there, or make one token", "enter"),
    _bind("b,backspace", "take_back", "take the last token back", "back"),
    _bind("f", "forward", "go forward again over a token that was taken back", "forward"),
    _bind("w", "type", "type words to put there", "type"),
    _bind("e", "edit_prompt", "another prompt, beside the old one", "prompt"),
    _bind("g", "branches", "the branches of the text: go to one, name it, compare", "branches"),
    _bind("p", "sampling", "all of the sampling, in a form", "sampling"),
    _bind("a", "touch", "ablate, amplify, steer or patch the model", "touch"),
    _bind("k", "watches", "breakpoints and watches: set, change and clear them", "watches"),
    _bind("left", "scrub(-1)", "look at the token before", "scrub_left"),
    _bind("right", "scrub(1)", "look at the token after", "scrub_right"),
    _bind("home", "scrub_to(0)", "look at the first token", "first"),
    _bind("end", "scrub_to(-1)", "look at the newest token and follow", "last"),
    _bind("up", "candidate(-1)", "candidate above", "candidate_up"),
    _bind("down", "candidate(1)", "candidate below", "candidate_down"),
    _bind("left_square_bracket", "layer(-1)", "layer below", "layer_down"),
    _bind("right_square_bracket", "layer(1)", "layer above", "layer_up"),
    _bind("left_curly_bracket", "head(-1)", "head to the left", "head_left"),
    _bind("right_curly_bracket", "head(1)", "head to the right", "head_right"),
    _bind("pageup", "scroll(-1)", "layers scrolled up", "scroll_up"),
    _bind("pagedown", "scroll(1)", "layers scrolled down", "scroll_down"),
    _bind("tab", "panel(1)", "next panel", "panel_next", priority=True),
    _bind("shift+tab", "panel(-1)", "panel before", "panel_previous", priority=True),
    _bind("v", "mode", "next kind of what this panel shows", "mode"),
    _bind("m", "maximise", "this panel alone, or all", "maximise"),
    *(_bind(str(at), f"layout({at - 1})", f"layout {name}", f"layout_{at}") for at, name in enumerate(LAYOUTS, 1)),
    _bind("x", "remove_panel", "remove this panel", "panel_remove"),
    _bind("less_than_sign", "move_panel(-1)", "this panel one place back", "panel_back"),
    _bind("greater_than_sign", "move_panel(1)", "this panel one place on", "panel_on"),
    _bind("ctrl+right", "resize_panel(1, 0)", "this panel wider", "panel_wider"),
    _bind("ctrl+left", "resize_panel(-1, 0)", "this panel narrower", "panel_narrower"),
    _bind("ctrl+up", "resize_panel(0, 1)", "this panel taller", "panel_taller"),
    _bind("ctrl+down", "resize_panel(0, -1)", "this panel lower", "panel_lower"),
    _bind("i", "attribute", "which tokens the shown one depends on; again: the next method", "attribute"),
    _bind("I", "attribute_minus", "why the shown token and not the selected candidate", "attribute_minus"),
    _bind("plus,equals_sign", "temperature(1)", "temperature up by 0.1, from the next token on", "temperature_up"),
    _bind("minus", "temperature(-1)", "temperature down by 0.1", "temperature_down"),
    _bind("question_mark,f1", "help", "how to read this panel, and all keys", "help"),
    _bind("s", "save", "save the screen as SVG", "save"),
    _bind("t", "theme", "next theme", "theme"),
    _bind("escape", "escape", "undo a selection", "escape"),
    _bind("q", "quit", "quit", "quit"),
    _bind("ctrl+c", "interrupt", "pause, then quit", "interrupt", priority=True),
    _bind("ctrl+z", "suspend_process", "back to the shell for a while", "suspend"),
]
