"""The form of breakpoints and watches: an input, validated while the user types, and the list of those that are set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Protocol

from rich.text import Text
from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from openmav.apps.tui.screens.modal import Modal
from openmav.apps.tui.widgets.text_input import TextInput
from openmav.conditions import Completion, ConditionError, completions, parse
from openmav.paint import PALETTES, fit, ink, one_line
from openmav.panels.widgets.watched import Watched, watched
from openmav.view import View

EXAMPLES = 'entropy > 4   token ~ "Paris"   norm(mlp, 3)'
NAMES = 20  # cells of the names that are offered; what a longer one is begins further right
TICK = 1 / 6  # seconds between two updates of the values
ACTIONS = {"b": ("turn", "b break or watch"), "d": ("drop", "d delete"), "e": ("edit", "e edit"), "a": ("add", "a add")}


class Watches(Protocol):
    """The breakpoints and watches of the app; texts are {text: whether it pauses the run}."""

    @property
    def view(self) -> View: ...

    @property
    def can_break(self) -> bool:
        """Whether the source pauses at a breakpoint."""

    def with_watched(self, texts: Mapping[str, bool]) -> View:
        """The view with exactly these."""

    def set_watched(self, texts: Mapping[str, bool]) -> None:
        """Sets exactly these."""


class BreakpointsScreen(Modal[None]):
    """Every change takes effect at once. `texts` are those that are set: {text: whether it pauses the run}."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", show=False, priority=True),
        Binding("down", "below", show=False),
        Binding("up", "above", show=False),
        Binding("tab", "complete", show=False, priority=True),
    ]

    def __init__(self, watches: Watches) -> None:
        super().__init__()
        self.watches = watches
        self.texts = {one.text: one.stops for one in watched(watches.view)}
        self.editing: str | None = None  # the text that is being edited
        self._completions: list[Completion] = []  # of the word before the cursor
        self._chosen = False  # the user moved among them

    def compose(self) -> ComposeResult:
        palette = PALETTES[self.watches.view.theme]
        title = ("Breakpoints and watches", ink(palette, "accent", bold=True))
        with Vertical(classes="form"):
            yield Static(Text.assemble(title, (" · docs/conditions.md", ink(palette, "secondary"))))
            yield TextInput("", lines=False, id="text", placeholder=EXAMPLES, select_on_focus=False)
            yield Static("", id="spot")
            yield OptionList(id="names")
            yield OptionList(id="rows")
            yield Static(self._actions(), id="actions")

    def _actions(self) -> Text:
        quiet = ink(PALETTES[self.watches.view.theme], "secondary")
        hints = [Text(words, style=quiet).on(click=f"screen.{action}") for action, words in ACTIONS.values()]
        leave = Text("escape closes", style=quiet).on(click="screen.leave")
        return Text(" · ", style=quiet).join([Text("tab completes · enter accepts", style=quiet), *hints, leave])

    def on_mount(self) -> None:
        self.names.can_focus = False
        self._show()
        self._offer()
        self.query_one("#rows" if self.texts else "#text").focus()
        self.set_interval(TICK, self._show)

    # ---- what is set ----

    @property
    def rows(self) -> OptionList:
        return self.query_one("#rows", OptionList)

    @property
    def names(self) -> OptionList:
        return self.query_one("#names", OptionList)

    @property
    def row(self) -> str | None:
        """The text of the highlighted row."""
        at = self.rows.highlighted
        return list(self.texts)[at] if at is not None and at < len(self.texts) else None

    def _show(self) -> None:
        """Updates the rows and their values."""
        if not self.is_active:
            return
        rows = self.rows
        shown = [self._line(one) for one in self._watched()]
        rows.display = bool(shown)
        if rows.option_count == len(shown):
            for place, line in enumerate(shown):
                if str(rows.get_option_at_index(place).prompt) != line.plain:
                    rows.replace_option_prompt_at_index(place, line)
            return
        at = rows.highlighted
        rows.clear_options()
        rows.add_options(Option(line) for line in shown)
        rows.highlighted = min(at or 0, len(shown) - 1) if shown else None

    def _watched(self) -> list[Watched]:
        """Those that are set, in the order of the list."""
        result = {one.text: one for one in watched(self.watches.with_watched(self.texts))}
        return [result[text] for text in self.texts]

    def _line(self, one: Watched) -> Text:
        view, width = self.watches.view, max(20, min(84, self.app.size.width * 9 // 10) - 9)
        palette = PALETTES[view.theme]
        value = one.why if one.condition is None else one_line(one.shown(view, view.cursor)) if view.step is not None else "–"
        holds = view.step is not None and one.value(view, view.cursor) is True
        sign = ("◉" if holds else "○") if one.stops else ("●" if holds else "·")
        room = width - 10 - min(20, width // 3)
        line = Text(f"{sign} {'break' if one.stops else 'watch'} ", style=ink(palette, "accent" if holds else "secondary"))
        line.append(fit(one_line(one.text), room), style=ink(palette, "text"))
        line.append(fit(f" {value}", min(20, width // 3) + 2, ">"), style=ink(palette, "warning" if one.condition is None else "text"))
        line.no_wrap, line.overflow = True, "ellipsis"
        return line

    def _set(self) -> None:
        self.watches.set_watched(self.texts)
        self._show()

    # ---- the input ----

    @property
    def _input(self) -> Input:
        return self.query_one("#text", Input)

    def wrong(self) -> ConditionError | None:
        """What is wrong with the text of the input."""
        try:
            condition = parse(self._input.value)
            if self.watches.view.info is not None:
                condition.check(self.watches.view.info)
        except ConditionError as error:
            return error
        return None

    @on(Input.Changed)
    def show_error(self) -> None:
        """Marks the error under the text and says what it is, quietly if the text is only incomplete; else the value now."""
        if not self.is_active:
            return
        self._offer()
        error = self.wrong() if self._input.value else None
        spot = Text()
        named = bool(error and self._completions and error.column >= self._completions[0].start)  # the names below say more
        if error is not None and not named:
            style = ink(PALETTES[self.watches.view.theme], "secondary" if error.column >= len(self._input.value.rstrip()) else "warning")
            if len(self._input.value) < self._input.size.width:
                spot.append(f"{' ' * error.column}▲\n", style=style)
            spot.append(error.why, style=style)
        elif self._input.value.strip() and not named:
            spot.append(self._value(), style=ink(PALETTES[self.watches.view.theme], "text"))
        self.query_one("#spot", Static).update(spot)

    @on(TextInput.TooLong)
    def refuse_text(self, event: TextInput.TooLong) -> None:
        self._warn(event.words)

    def _warn(self, words: str) -> None:
        self.query_one("#spot", Static).update(Text(words, style=ink(PALETTES[self.watches.view.theme], "warning")))

    def _value(self) -> str:
        """What the text of the input is at the shown token."""
        view = self.watches.view
        if view.step is None:
            return ""
        (one,) = watched(replace(view, breakpoints=(), watches=(self._input.value.strip(),)))
        value = one.value(view, view.cursor)
        holds = f"{str(value).lower()}: " if isinstance(value, bool) else ""
        return f"at token {view.cursor}: {holds}{one_line(one.shown(view, view.cursor))}"

    def _offer(self) -> None:
        """Lists the names that the word before the cursor may become."""
        self._completions, self._chosen = completions(self._input.value, self._input.cursor_position), False
        names, quiet = self.names, ink(PALETTES[self.watches.view.theme], "secondary")
        names.display = bool(self._completions)
        names.clear_options()
        column = min(NAMES, max((len(one.name) for one in self._completions), default=0))
        rows = (Text.assemble(f"{one.name:<{column}}  ", (one_line(one.about), quiet)) for one in self._completions)
        names.add_options(Option(row) for row in rows)
        names.highlighted = 0 if self._completions else None

    def action_complete(self) -> None:
        """The highlighted name in place of the word; the next field where there is none."""
        at = self.names.highlighted
        if self.focused is not self._input or at is None:
            self.focus_next()
            return
        self._input.value, self._input.cursor_position = self._completions[at].put(self._input.value, self._input.cursor_position)

    @on(OptionList.OptionSelected, "#names")
    def take_name(self, event: OptionList.OptionSelected) -> None:
        self.names.highlighted = event.option_index
        self._input.focus()
        self.action_complete()

    @on(Input.Submitted)
    def accept(self) -> None:
        """Sets the text, in place of the one that was edited: a condition as a breakpoint, a value as a watch.

        Completes the word first, where the user has moved to a name, or where the text is none of both yet.
        """
        if not self.is_active:
            return
        if self._completions and (self._chosen or self.wrong() is not None):
            self.action_complete()
            return
        text = self._input.value.strip()
        if not text or self.wrong() is not None:
            self.show_error()
            return
        truth = parse(text).kind == "truth"
        stops = truth and self.watches.can_break and self.texts.get(self.editing or text, True)
        kept = {old: stop for old, stop in self.texts.items() if old != text or old == self.editing}
        self.texts = {text if old == self.editing else old: stops if old == self.editing else stop for old, stop in kept.items()}
        self.texts[text] = stops
        self.editing, self._input.value = None, ""
        self._set()

    # ---- keys ----

    def on_key(self, event: events.Key) -> None:
        if event.character in ACTIONS and self.focused is self.rows:
            event.stop()
            self.call_later(self.run_action, f"screen.{ACTIONS[event.character][0]}")

    def action_turn(self) -> None:
        """Turns a breakpoint into a watch, and a watch that is a condition into a breakpoint."""
        text = self.row
        if text is None:
            return
        if self.texts[text] or (self.watches.can_break and parse(text).kind == "truth"):
            self.texts[text] = not self.texts[text]
            self._set()
        else:
            compare = "this is a value: compare it with something to break on it"
            self._warn(compare if self.watches.can_break else "this source does not support breakpoints")

    def action_drop(self) -> None:
        text = self.row
        if text is not None:
            del self.texts[text]
            self._set()
            if not self.texts:
                self.action_add()

    @on(OptionList.OptionSelected, "#rows")
    def action_edit(self) -> None:
        """Puts the highlighted text into the input."""
        text = self.row
        if text is not None:
            self.editing, self._input.value = text, text
            self._input.focus()
            self._input.cursor_position = len(text)

    def action_add(self) -> None:
        self._input.focus()

    def action_below(self) -> None:
        """The next name while there are some, else the list of those that are set."""
        if self._completions:
            self._chosen = True
            self.names.action_cursor_down()
        elif self.texts:
            self.rows.focus()

    def action_above(self) -> None:
        if self._completions and self.focused is self._input:
            self._chosen = True
            self.names.action_cursor_up()
        else:
            self.action_add()

    def action_leave(self) -> None:
        self.dismiss(None)
