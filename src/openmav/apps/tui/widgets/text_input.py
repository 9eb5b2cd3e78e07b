"""An input line that also takes line breaks, shown as ⏎."""

from __future__ import annotations

from typing import ClassVar

from rich.cells import cell_len, get_character_cell_size
from rich.text import Text
from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import Input

from openmav.system.terminal import has_power, picture

MOST = 100_000  # characters of a line; each key has all of them measured and drawn again


def visible(text: str) -> str:
    """The text with one symbol in place of each line break and of each character that has power over a terminal."""
    return "".join("⏎" if char == "\n" else picture(char) or ("\ufffd" if has_power(char) else char) for char in text)


class TextInput(Input):
    """An Input whose value may have line breaks: pasted, or made with ctrl+j. Where `lines` is False they become spaces."""

    class TooLong(Message):
        """A text was not put in: the line would have more than MOST characters, as `words` says."""

        def __init__(self, length: int) -> None:
            super().__init__()
            self.words = f"a line takes {MOST:,} characters, not {length:,}"

    BINDINGS: ClassVar[list[BindingType]] = [Binding("ctrl+j,shift+enter,alt+enter", "line_break", show=False)]

    def __init__(self, value: str, *, lines: bool, id: str, placeholder: str = "", select_on_focus: bool = True) -> None:
        super().__init__(value, id=id, placeholder=placeholder, compact=True, select_on_focus=select_on_focus)
        self._lines = lines

    def put(self, text: str) -> None:
        """Replaces the selection with the text, or inserts it at the cursor; does neither where the line would be too long."""
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        if not self._lines:
            text = " ".join(text.split("\n")).strip() if "\n" in text else text
        start, end = sorted(self.selection)
        length = len(self.value) - (end - start) + len(text)
        if length > MOST:
            self.post_message(self.TooLong(length))
        else:
            self.replace(text, start, end)

    def action_line_break(self) -> None:
        if self._lines:
            self.put("\n")

    def _on_paste(self, event: events.Paste) -> None:
        event.stop()
        event.prevent_default()
        self.put(event.text)

    # ---- what Textual draws and measures: the visible symbols ----

    @property
    def _value(self) -> Text:
        return Text(visible(self.value), no_wrap=True, overflow="ignore", end="")

    def _position_to_cell(self, position: int) -> int:
        return cell_len(visible(self.value[:position]))

    def _cell_offset_to_index(self, offset: int) -> int:
        left, offset = 0, offset + self.scroll_offset.x
        for index, character in enumerate(visible(self.value)):
            left += get_character_cell_size(character)
            if offset < left:
                return index
        return len(self.value)
