"""How a command-line option is declared.

A command's options are a table of flags and a frozen dataclass of the same names; `with_options` puts both on a command, which then
gets the dataclass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar

import click

Options = TypeVar("Options")


class Flag(click.Option):
    """An option that knows its section of the help, and a default that depends on other things (`otherwise`)."""

    def __init__(self, *args: Any, section: str, otherwise: str | None = None, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.section = section
        self.otherwise = otherwise

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        shown = self.otherwise
        if shown is None and not self.is_flag and isinstance(self.default, (str, int, float)):
            shown = f"{self.default:g}" if isinstance(self.default, float) else str(self.default)
        note = f" [default: {shown}]" if shown else ""
        return ", ".join(self.opts) + (f" {self.metavar}" if self.metavar else ""), f"{self.help}{note}"


@dataclass(frozen=True, eq=False)
class Spec:
    """A row of a table of flags: its name, and the arguments of its click option. `into`: the field, where it is not the flag's name."""

    name: str
    attributes: dict[str, Any]
    into: str = ""

    @property
    def field(self) -> str:
        return self.into or self.name.removeprefix("--").replace("-", "_")


def flag(section: str, name: str, help: str, *, into: str = "", **attributes: Any) -> Spec:
    return Spec(name, {"section": section, "help": help, **attributes}, into)


def with_options(flags: Iterable[Spec], kind: Callable[..., Options]) -> Callable[[Callable[[Options], int]], Callable[..., int]]:
    """Puts these flags on a command, which is called with a `kind` made of their values."""

    def decorate(function: Callable[[Options], int]) -> Callable[..., int]:
        @wraps(function)
        def call(**values: Any) -> int:
            return function(kind(**values))

        for spec in reversed(list(flags)):
            call = click.option(spec.name, spec.field, cls=Flag, **spec.attributes)(call)
        return call

    return decorate
