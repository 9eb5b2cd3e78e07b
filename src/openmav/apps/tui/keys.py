"""All keys of the app in one table. The bindings, the footer, the help, the command palette, the tour and the config file read it.

Nothing here imports Textual: the first paint draws the footer before it is imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from openmav.view.layouts import LAYOUTS


@dataclass(frozen=True)
class Key:
    """One row of the table: a key, its name and its action.

    `action` is a method of a controller, such as "navigation.layer(-1)", or an action of Textual's own App, such as "quit".
    """

    id: str  # its name in the config file
    keys: str  # as Textual names them, separated by commas
    description: str
    action: str
    hint: str = ""  # the word in the footer; neighbours in the table that have the same one share it
    rank: int = 0  # in the footer: where it is narrow, low ranks stay; of keys that share a hint, a click does that of the one with a rank
    needs: str = ""  # for the hint: a command that the source must take, "model" or "token" to show, "modes" of the panel, or "reading"
    priority: bool = False  # goes before the widget that has the focus
    aliases: tuple[str, ...] = ()  # older ids, still read from config files


KEYS: tuple[Key, ...] = (
    Key("run", "space", "run or pause", "run.toggle", "run", 3, "Resume"),
    Key("next", "full_stop", "generate one token", "run.next_token", "next", 4, "Advance"),
    Key("undo", "b,backspace", "undo the last token", "run.undo", "undo", 12, "Back", aliases=("back",)),
    Key("redo", "f", "redo a token that was undone", "run.redo", aliases=("forward",)),
    Key("slower", "left_parenthesis", "slower: raise the minimum seconds per token", "run.pace(1)"),
    Key("faster", "right_parenthesis", "faster: lower the minimum seconds per token", "run.pace(-1)"),
    Key("type", "w", "insert text", "text.insert"),
    Key("prompt", "e", "edit the prompt, on a new branch", "text.edit_prompt"),
    Key("branches", "g", "branches: switch, rename, compare", "branches.open"),
    Key("sampling", "p", "sampling parameters", "sampling.open"),
    Key("intervene", "a", "intervene: ablate, amplify, steer or patch", "interventions.open", aliases=("touch",)),
    Key("watches", "k", "breakpoints and watches", "watches.open"),
    Key("scrub_left", "left", "previous token", "navigation.token(-1)", "scrub", 6, "token"),
    Key("scrub_right", "right", "next token", "navigation.token(1)", "scrub", needs="token"),
    Key("first", "home", "first token", "navigation.first_token"),
    Key("last", "end", "newest token, and follow", "navigation.newest_token"),
    Key("search", "slash", "search the generated text", "reading.search", "search", 7, "reading"),
    Key("hit_next", "n", "next hit of the search, or next surprising token", "reading.go(1)", "peak", 8, "reading"),
    Key("hit_previous", "N", "previous hit of the search, or previous surprising token", "reading.go(-1)", "peak", needs="reading"),
    Key("candidate_up", "up", "candidate above", "navigation.candidate(-1)", "candidate", needs="token"),
    Key("candidate_down", "down", "candidate below", "navigation.candidate(1)", "candidate", 11, "token"),
    Key("enter", "enter", "force the selected candidate, or generate one token", "run.force_candidate", "force", 13, "Force"),
    Key("layer_down", "left_square_bracket", "layer below", "navigation.layer(-1)", "layer", 14, "model"),
    Key("layer_up", "right_square_bracket", "layer above", "navigation.layer(1)", "layer", needs="model"),
    Key("head_left", "left_curly_bracket", "previous head", "navigation.head(-1)"),
    Key("head_right", "right_curly_bracket", "next head", "navigation.head(1)"),
    Key("scroll_up", "pageup", "scroll the layers up", "navigation.scroll(-1)"),
    Key("scroll_down", "pagedown", "scroll the layers down", "navigation.scroll(1)"),
    Key("panel_next", "tab", "next panel", "panels.focus_next(1)", "panel", 5, priority=True),
    Key("panel_previous", "shift+tab", "previous panel", "panels.focus_next(-1)", priority=True),
    Key("mode", "v", "next view of this panel", "panels.next_mode", "view", 10, "modes"),
    Key("maximise", "m", "maximise this panel, or show all", "panels.maximise", "maximise", 9),
    *(Key(f"layout_{at}", str(at), f"layout {name}", f"layouts.show_number({at})") for at, name in enumerate(LAYOUTS, 1)),
    Key("layout_10", "0", "layout compare, of a comparison", "layouts.show_number(10)"),
    Key("panel_remove", "x", "remove this panel", "panels.remove"),
    Key("panel_back", "less_than_sign", "move this panel back", "panels.move(-1)"),
    Key("panel_forward", "greater_than_sign", "move this panel forward", "panels.move(1)", aliases=("panel_on",)),
    Key("panel_wider", "ctrl+right", "make this panel wider", "panels.resize(1, 0)"),
    Key("panel_narrower", "ctrl+left", "make this panel narrower", "panels.resize(-1, 0)"),
    Key("panel_taller", "ctrl+up", "make this panel taller", "panels.resize(0, 1)"),
    Key("panel_shorter", "ctrl+down", "make this panel shorter", "panels.resize(0, -1)", aliases=("panel_lower",)),
    Key("change_undo", "u", "undo the last change of panels or interventions", "changes.undo"),
    Key("attribute", "i", "input attribution of the shown token; again: next method", "attribution.of_shown"),
    Key("attribute_minus", "I", "input attribution against the selected candidate", "attribution.against_candidate"),
    Key("temperature_up", "plus,equals_sign", "raise the temperature by 0.1", "sampling.temperature(1)"),
    Key("temperature_down", "minus", "lower the temperature by 0.1", "sampling.temperature(-1)"),
    Key("pin", "d", "pin this token: show the difference from it; again: unpin", "baseline.pin_token"),
    Key("pin_run", "D", "pin the run: show the difference from it; again: unpin", "baseline.pin_run"),
    Key("help", "question_mark,f1", "help on this panel, and all keys", "display.help", "help", 2),
    Key("palette", "ctrl+p", "command palette", "command_palette", "palette", 15, priority=True),
    Key("copy", "y", "copy text, a token or its numbers", "copying.open"),
    Key("record", "r", "record the run into a file", "recording.start"),
    Key("save", "s", "save the screen as SVG", "display.save"),
    Key("theme", "t", "next theme", "display.next_theme"),
    Key("escape", "escape", "clear the selection", "navigation.escape"),
    Key("quit", "q", "quit", "quit", "quit", 1),
    Key("interrupt", "ctrl+c", "pause, then quit", "run.interrupt", priority=True),
    Key("suspend", "ctrl+z", "suspend to the shell", "suspend_process"),
)
TOUR_KEYS: tuple[Key, ...] = (  # that do nothing elsewhere; of a row, the first that the user has not assigned to something else
    Key("tour_next", "c,f8,ctrl+n", "next step of the tour", "tour(1)"),
    Key("tour_previous", "z,f7,ctrl+b", "previous step of the tour", "tour(-1)"),
)
NAMES = {  # display names of keys that differ from Textual's names
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
    "left_parenthesis": "(",
    "right_parenthesis": ")",
}


def key_name(key: str, short: bool = False) -> str:
    """The display name of a key: "." for full_stop. `short`: in few cells, "^p" for ctrl+p."""
    if short and key == "enter":
        return "⏎"
    *modifiers, name = [key] if len(key) == 1 else key.split("+")
    name = NAMES.get(name, name)
    if short and modifiers == ["ctrl"]:
        return f"^{name}"
    return "+".join([*modifiers, name])


def key_names(keys: str) -> str:
    """The display names of all keys of a binding."""
    return " or ".join(key_name(key) for key in keys.split(","))


def first_key(keys: str) -> str:
    """The display name of the first key of a binding."""
    return key_name(keys.split(",")[0])


def ids() -> dict[str, str]:
    """{name of a binding in a config file: its id}."""
    return {name: key.id for key in KEYS for name in (key.id, *key.aliases)}


def current_ids(own: Mapping[str, str]) -> dict[str, str]:
    """The user's own keys by the ids of the table; older names of ids are known too."""
    known = ids()
    return {known.get(name, name): keys for name, keys in own.items()}


def keys_of(own: Mapping[str, str]) -> dict[str, str]:
    """{id: keys} of all bindings, with the user's own in place of mav's."""
    return {**{key.id: key.keys for key in KEYS}, **current_ids(own)}


def key_of(id: str, own: Mapping[str, str]) -> str:
    """The display name of a binding's first key, to be named in a message."""
    return first_key(keys_of(own)[id])


def key_lines(own: Mapping[str, str]) -> list[tuple[str, str]]:
    """(keys, what they do) of every binding, with the user's own keys."""
    keys = keys_of(own)
    return [(key_names(keys[key.id]), key.description) for key in KEYS]


def action_of(id: str) -> str:
    """The action of a row. Raises KeyError for an id that is in no row."""
    return {key.id: key.action for key in KEYS}[id]


GROUPS = {  # the controller of an action: the group that its keys stand in, in the help and in the command palette
    "run": "Run",
    "recording": "Run",
    "branches": "Run",
    "text": "Change",
    "sampling": "Change",
    "interventions": "Change",
    "changes": "Change",
    "watches": "View",
    "navigation": "View",
    "reading": "View",
    "baseline": "View",
    "attribution": "View",
    "display": "View",
    "copying": "View",
    "panels": "Panels",
    "layouts": "Layouts",
    "": "App",
}


def groups() -> dict[str, tuple[Key, ...]]:
    """{group: its keys}, in the order of GROUPS and of the table."""
    result: dict[str, tuple[Key, ...]] = dict.fromkeys(GROUPS.values(), ())
    for key in KEYS:
        controller, dot, _ = key.action.partition(".")
        result[GROUPS[controller if dot else ""]] += (key,)
    return result


@dataclass(frozen=True)
class Hint:
    """A word in the footer with its keys."""

    keys: str
    word: str
    id: str  # of the binding whose action a click runs
    rank: int
    needs: str


def hints(own: Mapping[str, str]) -> list[Hint]:
    """The footer's hints in the order of the table, with the user's own keys."""
    keys, shared = keys_of(own), dict[str, list[Key]]()
    for key in KEYS:
        if key.hint:
            shared.setdefault(key.hint, []).append(key)
    return [_hint(word, rows, keys) for word, rows in shared.items()]


def _hint(word: str, rows: list[Key], keys: Mapping[str, str]) -> Hint:
    clicked = next(row for row in rows if row.rank)
    names = " ".join(key_name(keys[row.id].split(",")[0], short=True) for row in rows)
    return Hint(names, word, clicked.id, clicked.rank, clicked.needs)
