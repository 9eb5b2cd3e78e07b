"""The form of breakpoints and watches: a line to write one in, checked as one types, and the list of those that are set."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from openmav.conditions import ConditionError, parse
from openmav.paint import fit, ink, one_line
from openmav.panels._watched import Watched, watched

if TYPE_CHECKING:
    from openmav.apps.tui.app import MavApp

SUCH_AS = 'entropy > 4   token ~ "Paris"   norm(mlp, 3)'
TICK = 1 / 6  # seconds between two looks at the values
ACTIONS = {"b": ("turn", "b break or watch"), "d": ("drop", "d delete"), "e": ("edit", "e edit"), "a": ("add", "a add")}


class BreaksScreen(ModalScreen[None]):
    """Every change is in force at once. What one is going to change is taken from `texts`: {text: whether it stops the run}."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", show=False, priority=True),
        Binding("down", "to_list", show=False),
        Binding("up", "add", show=False),
    ]

    def __init__(self, mav: MavApp) -> None:
        super().__init__()
        self.mav = mav
        self.texts = {one.text: one.stops for one in watched(mav.view)}
        self.edited: str | None = None  # the text that is being written anew

    def compose(self) -> ComposeResult:
        palette = self.mav.view.palette
        quiet = ink(palette, "secondary")
        with Vertical(classes="form"):
            yield Static(Text.assemble(("Breakpoints and watches", ink(palette, "accent", bold=True)), (" · docs/conditions.md", quiet)))
            yield Input(placeholder=SUCH_AS, id="text", compact=True, select_on_focus=False)
            yield Static("", id="spot")
            yield OptionList(id="rows")
            yield Static(self._actions(), id="actions")

    def _actions(self) -> Text:
        quiet = ink(self.mav.view.palette, "secondary")
        said = [Text(words, style=quiet).on(click=f"screen.{action}") for action, words in ACTIONS.values()]
        leave = Text("escape closes", style=quiet).on(click="screen.leave")
        return Text(" · ", style=quiet).join([Text("enter takes it", style=quiet), *said, leave])

    def on_mount(self) -> None:
        self._show()
        self.query_one("#rows" if self.texts else "#text").focus()
        self.set_interval(TICK, self._show)

    # ---- what is set ----

    @property
    def rows(self) -> OptionList:
        return self.query_one("#rows", OptionList)

    @property
    def row(self) -> str | None:
        """The text of the marked row."""
        at = self.rows.highlighted
        return list(self.texts)[at] if at is not None and at < len(self.texts) else None

    def _show(self) -> None:
        """The rows with their values now."""
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
        """Those of this form, in its order."""
        found = {one.text: one for one in watched(self.mav.with_watched(self.texts))}
        return [found[text] for text in self.texts]

    def _line(self, one: Watched) -> Text:
        view, width = self.mav.view, max(20, min(84, self.mav.extent.width * 9 // 10) - 9)
        value = one.why if one.condition is None else one_line(one.shown(view, view.cursor)) if view.step is not None else "–"
        holds = view.step is not None and one.value(view, view.cursor) is True
        sign = ("◉" if holds else "○") if one.stops else ("●" if holds else "·")
        room = width - 10 - min(20, width // 3)
        line = Text(f"{sign} {'break' if one.stops else 'watch'} ", style=ink(view.palette, "accent" if holds else "secondary"))
        line.append(fit(one_line(one.text), room), style=ink(view.palette, "text"))
        line.append(fit(f" {value}", min(20, width // 3) + 2, ">"), style=ink(view.palette, "warning" if one.condition is None else "text"))
        line.no_wrap, line.overflow = True, "ellipsis"
        return line

    def _set(self) -> None:
        self.mav.set_watched(self.texts)
        self._show()

    # ---- writing one ----

    @property
    def _input(self) -> Input:
        return self.query_one("#text", Input)

    def wrong(self) -> ConditionError | None:
        """What is wrong with the text that is written."""
        try:
            condition = parse(self._input.value)
            if self.mav.view.info is not None:
                condition.check(self.mav.view.info)
        except ConditionError as error:
            return error
        return None

    @on(Input.Changed)
    def say(self) -> None:
        """The spot under the text, and why; quietly where there is only more to be written."""
        error = self.wrong() if self._input.value else None
        spot = Text()
        if error is not None:
            style = ink(self.mav.view.palette, "secondary" if error.column >= len(self._input.value.rstrip()) else "warning")
            if len(self._input.value) < self._input.size.width:
                spot.append(f"{' ' * error.column}▲\n", style=style)
            spot.append(error.why, style=style)
        self.query_one("#spot", Static).update(spot)

    @on(Input.Submitted)
    def take(self) -> None:
        """The text is set, in the place of the one that was edited; what holds or not stops the run, a value is watched."""
        text = self._input.value.strip()
        if not text or self.wrong() is not None:
            self.say()
            return
        truth = parse(text).kind == "truth"
        stops = truth and self.mav.can_break and self.texts.get(self.edited or text, True)
        kept = {old: stop for old, stop in self.texts.items() if old != text or old == self.edited}
        self.texts = {text if old == self.edited else old: stops if old == self.edited else stop for old, stop in kept.items()}
        self.texts[text] = stops
        self.edited, self._input.value = None, ""
        self._set()

    # ---- keys ----

    def on_key(self, event: events.Key) -> None:
        if event.character in ACTIONS and self.focused is self.rows:
            event.stop()
            self.call_later(self.run_action, f"screen.{ACTIONS[event.character][0]}")

    def action_turn(self) -> None:
        """A breakpoint becomes a watch, and the other way round where it is a condition."""
        text = self.row
        if text is None:
            return
        if not self.texts[text] and not (self.mav.can_break and parse(text).kind == "truth"):
            why = "this is a value: compare it with something to stop at it" if self.mav.can_break else "this source cannot be paused"
            self.query_one("#spot", Static).update(Text(why, style=ink(self.mav.view.palette, "warning")))
            return
        self.texts[text] = not self.texts[text]
        self._set()

    def action_drop(self) -> None:
        text = self.row
        if text is not None:
            del self.texts[text]
            self._set()
            if not self.texts:
                self.action_add()

    @on(OptionList.OptionSelected)
    def action_edit(self) -> None:
        """The marked text goes up to be written anew."""
        text = self.row
        if text is not None:
            self.edited, self._input.value = text, text
            self._input.focus()
            self._input.cursor_position = len(text)

    def action_add(self) -> None:
        self._input.focus()

    def action_to_list(self) -> None:
        if self.texts:
            self.rows.focus()

    def action_leave(self) -> None:
        self.dismiss(None)
