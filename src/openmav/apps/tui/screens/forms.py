"""Forms with a few fields, and lists to choose from. Imported when the first one is opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from rich.text import Text
from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from openmav.apps.tui.screens.modal import Field, Modal
from openmav.apps.tui.widgets.text_input import TextInput
from openmav.paint import Palette, cells, fit, ink, printable


class FormScreen(Modal[dict[str, str] | None]):
    """Fields, validated while the user types. Enter accepts them if they are valid; escape cancels.

    `check` returns what is wrong with the values in one line, "" if they are valid.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", show=False, priority=True),
        Binding("down", "app.focus_next", show=False),
        Binding("up", "app.focus_previous", show=False),
        Binding("enter", "accept", show=False),  # on what takes no enter itself
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
                    yield self._input(field)
                if field.choices:
                    longest = max(cells(value) for value, _ in field.choices)
                    rows = (f"{fit(printable(value), longest)}  {what}" for value, what in field.choices)
                    yield OptionList(*(Option(Text(row, no_wrap=True, overflow="ellipsis")) for row in rows), id=f"choices-{field.name}")
            yield from self.below()
            yield Static("", id="wrong")
            pick = "↓ picks · " if any(field.choices for field in self._fields) else ""
            yield Static(Text(f"{pick}enter accepts · escape cancels", style=ink(self._palette, "secondary")))

    def below(self) -> ComposeResult:
        """What stands between the fields and the line about errors."""
        yield from ()

    def _input(self, field: Field) -> TextInput:
        several = len(self._fields) > 1  # a single text is continued, one of several numbers is replaced
        return TextInput(field.value, lines=field.lines, id=f"field-{field.name}", placeholder=field.hint, select_on_focus=several)

    def on_mount(self) -> None:
        self.query(Input).first().focus()

    @property
    def values(self) -> dict[str, str]:
        return {field.name: self.query_one(f"#field-{field.name}", Input).value for field in self._fields}

    @on(Input.Changed)
    def validate_fields(self) -> None:
        """Shows what is wrong, under the fields."""
        if not self.is_active:
            return
        mounted = all(self.query(f"#field-{field.name}") for field in self._fields)
        self.show_wrong(self._check(self.values) if mounted else "")

    @on(TextInput.TooLong)
    def refuse_text(self, event: TextInput.TooLong) -> None:
        self.show_wrong(f"{event.words}; --prompt-file reads longer texts")

    def show_wrong(self, wrong: str) -> None:
        """A line under the fields; "" for none."""
        self.query_one("#wrong", Static).update(Text(printable(wrong), style=ink(self._palette, "warning")))

    @on(OptionList.OptionHighlighted)
    def pick(self, event: OptionList.OptionHighlighted) -> None:
        """Puts the row that the user has moved to into its field."""
        if self.is_active and event.option_list.has_focus:
            name = str(event.option_list.id).removeprefix("choices-")
            field = next(one for one in self._fields if one.name == name)
            self.query_one(f"#field-{name}", Input).value = field.choices[event.option_index][0]

    @on(OptionList.OptionSelected)
    @on(Input.Submitted)
    def accept(self) -> None:
        if not self.is_active:
            return
        values = self.values
        if not self._check(values):
            self.dismiss(values)
        else:
            self.validate_fields()

    def action_accept(self) -> None:
        self.accept()

    def action_leave(self) -> None:
        self.dismiss(None)


class ListScreen(Modal[tuple[str, str] | None]):
    """Rows to choose from. The result is (what to do, the row's name): enter is "choose", other keys are those of `keys`."""

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
        """`rows`: (name, text); `keys`: {key: (what to do, hint)}; `at`: the row to start at; `enter`: hint of the enter key."""
        super().__init__()
        self._title, self._rows, self._keys, self._palette = title, rows, keys, palette
        self._at, self._enter = at, enter

    def compose(self) -> ComposeResult:
        with Vertical(classes="form"):
            yield Static(Text(self._title, style=ink(self._palette, "accent", bold=True)))
            yield OptionList(*(Option(Text(printable(text), no_wrap=True, overflow="ellipsis")) for _, text in self._rows))
            hints = [f"enter {self._enter}"] * bool(self._enter) + [f"{key} {words}" for key, (_, words) in self._keys.items()]
            yield Static(Text(" · ".join([*hints, "escape closes"]), style=ink(self._palette, "secondary")))

    def on_mount(self) -> None:
        for rows in self.query(OptionList):
            names = [name for name, _ in self._rows]
            rows.highlighted = names.index(self._at) if self._at in names else 0
            rows.focus()

    @property
    def row(self) -> str:
        """The name of the highlighted row; "" if there is none."""
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
