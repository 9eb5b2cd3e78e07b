"""Small forms over the screen: a few fields to fill in, or a list to choose from. Loaded when the first one is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.text import Text
from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from openmav.paint import Palette, ink, printable


@dataclass(frozen=True)
class Field:
    """One line of a form."""

    name: str
    label: str
    value: str = ""
    hint: str = ""


class FormScreen(ModalScreen[dict[str, str] | None]):
    """Fields and what is wrong with them, as one types. Enter takes them where nothing is wrong; escape changes nothing.

    `check` gives the line that says what is wrong with the values, "" for nothing.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", show=False, priority=True),
        Binding("down", "app.focus_next", show=False),
        Binding("up", "app.focus_previous", show=False),
    ]

    def __init__(
        self, title: str, fields: Sequence[Field], check: Callable[[Mapping[str, str]], str], palette: Palette, about: str = ""
    ) -> None:
        super().__init__()
        self._title, self._fields, self._check, self._palette, self._about = title, fields, check, palette, about

    def compose(self) -> ComposeResult:
        with Vertical(classes="form"):
            yield Static(Text(self._title, style=ink(self._palette, "accent", bold=True)))
            if self._about:
                yield Static(Text(self._about, style=ink(self._palette, "secondary")), classes="about")
            for field in self._fields:
                with Horizontal(classes="field"):
                    if field.label:
                        yield Static(Text(field.label, style=ink(self._palette, "text")), classes="label")
                    yield Input(
                        field.value, id=f"field-{field.name}", placeholder=field.hint, compact=True, select_on_focus=len(self._fields) > 1
                    )
            yield Static("", id="wrong")
            yield Static(Text("enter takes it · escape changes nothing", style=ink(self._palette, "secondary")))

    def _input(self, field: Field) -> Input:
        several = len(self._fields) > 1  # one text is gone on with, one of several numbers is written anew
        return Input(field.value, id=f"field-{field.name}", placeholder=field.hint, compact=True, select_on_focus=several)

    def on_mount(self) -> None:
        self.query(Input).first().focus()

    @property
    def values(self) -> dict[str, str]:
        return {field.name: self.query_one(f"#field-{field.name}", Input).value for field in self._fields}

    @on(Input.Changed)
    def say(self) -> None:
        """What is wrong, under the fields."""
        wrong = self._check(self.values) if len(self.query(Input)) == len(self._fields) else ""
        self.query_one("#wrong", Static).update(Text(printable(wrong), style=ink(self._palette, "warning")))

    @on(Input.Submitted)
    def take(self) -> None:
        if not self._check(self.values):
            self.dismiss(self.values)
        else:
            self.say()

    def action_leave(self) -> None:
        self.dismiss(None)


class ListScreen(ModalScreen[tuple[str, str] | None]):
    """Rows to choose from. The answer is (what to do, the row's name): enter is "choose", other keys are those of `keys`."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q", "leave", show=False, priority=True)]

    def __init__(
        self,
        title: str,
        rows: Sequence[tuple[str, str]],
        keys: Mapping[str, tuple[str, str]],
        palette: Palette,
        at: str | None = None,
        enter: str = "",
    ) -> None:
        """`rows`: (name, how it reads); `keys`: {key: (what to do, in words)}; `at`: the row to begin at; `enter`: what enter does."""
        super().__init__()
        self._title, self._rows, self._keys, self._palette = title, rows, keys, palette
        self._at, self._enter = at, enter

    def compose(self) -> ComposeResult:
        with Vertical(classes="form"):
            yield Static(Text(self._title, style=ink(self._palette, "accent", bold=True)))
            yield OptionList(*(Option(Text(printable(text), no_wrap=True, overflow="ellipsis")) for _, text in self._rows))
            said = [f"enter {self._enter}"] * bool(self._enter) + [f"{key} {words}" for key, (_, words) in self._keys.items()]
            yield Static(Text(" · ".join([*said, "escape closes"]), style=ink(self._palette, "secondary")))

    def on_mount(self) -> None:
        for rows in self.query(OptionList):
            names = [name for name, _ in self._rows]
            rows.highlighted = names.index(self._at) if self._at in names else 0
            rows.focus()

    @property
    def row(self) -> str:
        """The name of the row that is marked; "" where there is none."""
        at = next((rows.highlighted for rows in self.query(OptionList)), None)
        return self._rows[at][0] if at is not None else ""

    def on_key(self, event: events.Key) -> None:
        key = event.character or event.key
        if key in self._keys:
            event.stop()
            self.dismiss((self._keys[key][0], self.row))

    @on(OptionList.OptionSelected)
    def choose(self) -> None:
        self.dismiss(("choose", self.row))

    def action_leave(self) -> None:
        self.dismiss(None)
